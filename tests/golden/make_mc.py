"""Totals of multiple-choice items by lm-evaluation-harness: standard errors of accuracies, subjects pooled into groups; and CPython's random draws.
   python tests/golden/make_mc.py > tests/golden/mc.json          (lm-evaluation-harness 0.4.13, Python 3.11)"""
import json
import random
import sys

from lm_eval.api.metrics import aggregate_subtask_metrics, mean_stderr, pooled_sample_stderr

rng = random.Random(5)
totals = []
for sizes in ([8, 8, 8, 8, 8], [100, 135, 126, 151, 1534], [2, 3], [40]):
    right = [[float(rng.random() < 0.3 + 0.1 * g) for _ in range(n)] for g, n in enumerate(sizes)]
    errors = [mean_stderr(x) for x in right]
    totals.append({"sizes": sizes, "right": [int(sum(x)) for x in right], "stderr": errors,
                   "mean": aggregate_subtask_metrics([sum(x) / len(x) for x in right], sizes, True),
                   "pooled": pooled_sample_stderr(errors, sizes), "plain": mean_stderr([v for x in right for v in x])})
draws = []
for n, k in ((1119, 25), (1000, 11), (1267, 6), (5, 5), (21, 5), (22, 5), (85, 6), (86, 6), (30, 7), (1 << 20, 3), (1, 1)):
    r = random.Random(1234)
    draws.append({"n": n, "k": k, "draws": [r.sample(range(n), k) for _ in range(4)]})
seeds = [{"seed": s, "draws": random.Random(s).sample(range(1000), 8)} for s in (0, 1, 42, 2**31, 2**40 + 7)]
json.dump({"totals": totals, "draws": draws, "seeds": seeds}, sys.stdout, indent=None)
print()
