"""Golden values of lib/common/stats/paired from scipy and statsmodels: python tests/golden/make_stats.py > tests/golden/stats.json

The bootstrap is scipy's own; only its source of random numbers is replaced by the project's generator (PCG32, O'Neill 2014), written again here.
"""
import json

import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
import xxhash
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

M64 = (1 << 64) - 1


class Pcg32(np.random.Generator):
    def __init__(self, seed):
        super().__init__(np.random.PCG64(0))
        self.state = 0
        self.step()
        self.state = (self.state + seed) & M64
        self.step()

    def step(self):
        old = self.state
        self.state = (old * 6364136223846793005 + 1442695040888963407) & M64
        x, rot = (((old >> 18) ^ old) >> 27) & 0xFFFFFFFF, old >> 59
        return (x >> rot | x << ((32 - rot) & 31)) & 0xFFFFFFFF

    def below(self, n):
        limit = (1 << 32) % n
        while (x := self.step()) < limit:
            pass
        return x % n

    def integers(self, low, high=None, size=None, dtype=np.int64, endpoint=False):
        low, high = (0, low) if high is None else (low, high)
        return np.array([low + self.below(high - low + endpoint) for _ in range(int(np.prod(size)))], dtype=dtype).reshape(size)


def bootstrap(num, den, seed, resamples):
    ratio = lambda a, b, axis=-1: np.sum(a, axis=axis) / np.sum(b, axis=axis)
    r = stats.bootstrap((num, den), ratio, paired=True, vectorized=True, n_resamples=resamples, method="percentile", rng=Pcg32(seed))
    return {"num": list(num), "den": list(den), "seed": seed, "resamples": resamples, "interval": list(r.confidence_interval), "stderr": r.standard_error}


def cluster(values, groups):
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": np.array(groups)})
    k = sorted(set(groups))
    return {"sums": [float(sum(v for v, g in zip(values, groups) if g == x)) for x in k], "counts": [groups.count(x) for x in k], "stderr": float(fit.bse[0])}


def comparison(task, base, quant, groups, seed, resamples):
    """What eval/paired makes of one task; groups None: items are resampled."""
    k = sorted(set(groups)) if groups else None
    fold = lambda v: np.array([float(sum(x for x, g in zip(v, groups) if g == c)) for c in k]) if groups else np.array(v, float)
    q, b, n = fold(quant), fold(base), fold([1] * len(base))
    draw = lambda num, den: stats.bootstrap((num, den), lambda x, y, axis=-1: np.sum(x, axis=axis) / np.sum(y, axis=axis), paired=True, vectorized=True,
                                            n_resamples=resamples, method="percentile", rng=Pcg32(seed ^ xxhash.xxh64_intdigest(task.encode())))
    d, r = draw(q - b, n), draw(q, b)
    cov = {"cov_type": "cluster", "cov_kwds": {"groups": np.array(groups)}} if groups else {}
    bse = lambda v, **c: float(sm.OLS(v, np.ones(len(v))).fit(**c).bse[0])
    base, quant = np.array(base, float), np.array(quant, float)
    ratio = quant.mean() / base.mean()
    se = [max(bse(v), bse(v, **cov)) for v in (quant - base, (quant - ratio * base) / base.mean())]
    lost, won = int(((base == 1) & (quant == 0)).sum()), int(((base == 0) & (quant == 1)).sum())
    out = {"task": task, "base": base.astype(int).tolist(), "quant": quant.astype(int).tolist(), "groups": groups, "seed": seed, "resamples": resamples, "lost": lost, "gained": won,
           "p": float(mcnemar([[0, lost], [won, 0]], exact=True).pvalue), "diff": [float((quant - base).mean()), se[0], *map(float, d.confidence_interval)],
           "retained": [100 * x for x in (float(ratio), se[1], *map(float, r.confidence_interval))]}
    return out, r.bootstrap_distribution


def comparisons(rng):
    tasks, draws = [], []
    for task, n, clusters, p, q in [("subjects", 260, 13, 0.6, 0.5), ("rows", 80, 0, 0.5, 0.3), ("few", 40, 4, 0.7, 0.7)]:
        skill = rng.normal(0, 0.2, max(clusters, 1))
        groups = sorted(int(g) for g in rng.integers(0, clusters, n)) if clusters else None
        u = rng.random(n)
        base = [int(u[i] < p + (skill[groups[i]] if groups else 0)) for i in range(n)]
        quant = [int(b and rng.random() > p - q + 0.05 or not b and rng.random() < 0.1) for b in base]
        names = [f"s{g:02d}" for g in groups] if groups else None
        out, draw = comparison(task, base, quant, names, 42, 2000)
        if 0 < clusters < 10:
            alone, items = comparison(task, base, quant, None, 42, 2000)
            if out["diff"][3] - out["diff"][2] <= alone["diff"][3] - alone["diff"][2]:
                out["diff"][2:], out["retained"][2:], draw = alone["diff"][2:], alone["retained"][2:], items
        tasks.append(out)
        draws.append(draw)
    for out, p in zip(tasks, multipletests([t["p"] for t in tasks], method="holm")[1]):
        out["p_holm"] = float(p)
    ratios = [t["retained"][0] / 100 for t in tasks]
    quality = [float(np.mean(ratios)), float(np.sqrt(sum((t["retained"][1] / 100) ** 2 for t in tasks)) / len(tasks)),
               *[float(v) for v in np.quantile(np.mean(draws, axis=0), [0.025, 0.975])]]
    return tasks, quality


rng = np.random.default_rng(5)
tasks, quality = comparisons(np.random.default_rng(8))
pairs = [(0, 0), (1, 0), (0, 6), (3, 12), (12, 3), (10, 10), (10, 11), (120, 163), (700, 900), (0, 1000), (5000, 5000), (5000, 5200)]
families = [[0.04, 0.01, 0.03], [0.5], [0.01, 0.01, 0.02, 0.9, 0.9], [1.0, 1.0], [0.0, 1e-9, 0.2, 0.049, 0.0125]]
sizes = rng.integers(5, 40, 20)
lost, won = rng.binomial(sizes, 0.12), rng.binomial(sizes, 0.05)
base = np.maximum(rng.binomial(sizes, 0.6), 1)
item_groups = [int(g) for g in rng.integers(0, 6, 80)]
out = {
    "made_by": f"tests/golden/make_stats.py, scipy {scipy.__version__}, statsmodels {statsmodels.__version__}, numpy {np.__version__}",
    "mcnemar": [{"b": b, "c": c, "p": float(mcnemar([[0, b], [c, 0]], exact=True).pvalue) if b + c else 1.0,
                 "binomtest": float(stats.binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0} for b, c in pairs],
    "wilson": [{"x": x, "n": n, "confidence": c, "interval": [float(v) for v in proportion_confint(x, n, 1 - c, "wilson")]}
               for x, n, c in [(0, 10, .95), (10, 10, .95), (1, 1, .9), (7, 40, .95), (311, 500, .99), (7021, 14042, .95)]],
    "holm": [{"p": f, "adjusted": list(multipletests(f, method="holm")[1])} for f in families],
    "cluster": [cluster(rng.choice([-1.0, 0, 0, 1], 80), item_groups), cluster(rng.normal(size=30), list(range(30)))],
    "bootstrap": [bootstrap([float(v) for v in won - lost], [float(v) for v in sizes], 42, 2000),
                  bootstrap([float(v) for v in base + won - lost], [float(v) for v in base], 7, 1500),
                  bootstrap([float(v) for v in rng.choice([-1, 0, 0, 0, 1], 60)], [1.0] * 60, 1, 1000)],
    "paired": tasks,
    "quality": quality,
}
section = lambda v: json.dumps(v) if isinstance(v, str) else "[\n  " + ",\n  ".join(json.dumps(r) for r in v) + "\n]"
print("{\n" + ",\n".join(f"{json.dumps(k)}: {section(v)}" for k, v in out.items()) + "\n}")
