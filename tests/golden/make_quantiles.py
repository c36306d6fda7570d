"""Golden values of lib/common/stats/quantiles from scipy: python tests/golden/make_quantiles.py > tests/golden/quantiles.json"""
import json

import numpy as np
import scipy
from scipy import stats


def ranks(n, q, confidence):
    ci = stats.quantile_test(np.arange(1, n + 1), p=q).confidence_interval(confidence)
    return None if np.isnan(ci.low) or np.isnan(ci.high) else [int(ci.low), int(ci.high)]


def least(q, confidence):
    far = max(q, 1 - q)
    return next(n for n in range(2, 10**6) if stats.binom.cdf(n - 2, n, far) >= confidence)


def interval(x, q, confidence=0.95):
    ci = stats.quantile_test(x, p=q).confidence_interval(confidence)
    return [float(np.quantile(x, q)), float(ci.low), float(ci.high)]


def clustered(x, q, confidence=0.95):
    """Woodruff 1952: the share below the quantile, its error over clusters, turned back into quantiles; never narrower than the exact interval."""
    value, lo, hi = interval(x.ravel(), q, confidence)
    g, size = x.shape
    below = (x <= value).sum(1)
    se = np.sqrt(((below - below.mean()) ** 2).sum() * g / (g - 1)) / x.size
    z = stats.norm.ppf(0.5 + confidence / 2)
    return [value, min(lo, float(np.quantile(x, q - z * se))), max(hi, float(np.quantile(x, q + z * se)))]


rng = np.random.default_rng(6)
draw = lambda *size, by=1: np.round(rng.lognormal(size=size) * by, 4)
sample, pairs, alike, apart = draw(120), [draw(60), draw(60)], draw(20, 15), draw(20, 15, by=rng.lognormal(sigma=0.7, size=(20, 1)))
out = {
    "made_by": f"tests/golden/make_quantiles.py, scipy {scipy.__version__}, numpy {np.__version__}",
    "cdf": [{"k": k, "n": n, "p": p, "cdf": float(stats.binom.cdf(k, n, p))}
            for n, p in [(1, .5), (8, .5), (46, .9), (473, .99), (6350, .5), (100000, .95)] for k in sorted({0, n // 3, int(n * p) - 1, int(n * p), int(n * p) + 5, n}) if 0 <= k <= n],
    "ranks": [{"n": n, "q": q, "confidence": c, "ranks": ranks(n, q, c)}
              for c in (.9, .95, .99) for q in (.05, .5, .9, .95, .99) for n in (1, 5, 6, 8, 20, 35, 36, 46, 50, 93, 100, 367, 368, 473, 1000, 6350)],
    "least": [{"q": q, "confidence": c, "n": least(q, c)} for c in (.9, .95, .99) for q in (.01, .05, .1, .25, .5, .9, .95, .99)],
    "sample": [{"x": sample.tolist(), "q": [.05, .5, .9, .95], "intervals": sum((interval(sample, q) for q in (.05, .5, .9, .95)), [])}],
    "clustered": [{"x": x.ravel().tolist(), "clusters": 20, "size": 15, "q": [.5, .8], "intervals": clustered(x, .5) + clustered(x, .8)} for x in (alike, apart)],
    "ratio": [{"a": pairs[0].tolist(), "b": pairs[1].tolist(), "interval": interval(pairs[0] / pairs[1], .5)}],
}
section = lambda v: json.dumps(v) if isinstance(v, str) else "[\n  " + ",\n  ".join(json.dumps(r) for r in v) + "\n]"
print("{\n" + ",\n".join(f"{json.dumps(k)}: {section(v)}" for k, v in out.items()) + "\n}")
