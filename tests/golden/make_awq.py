#!/usr/bin/env python3
"""Golden values for the AWQ tests: the scale search and the clip search of Lin et al. 2023 written down directly, in double precision, with numpy.

    make_awq.py > awq.json

The loss is the squared error of the outputs themselves, layer by layer, on the tokens; no Hessian. Scales of groups are float16, ranges include zero.
Weights and inputs come from the generator of make_gptq.py, which the test repeats; inputs `dead` are set to zero, groups of weights `zero` too.
"""
import json
import numpy as np
from make_gptq import data, seed


def rounded(w, bits, size, sym, lo=None, hi=None):
    """w [rows, cols] to nearest on each group's grid; lo, hi [rows, groups]: ranges, else the weights' own."""
    top, out, codes, scales, zeros = 2**bits - 1, np.empty_like(w), np.zeros(w.shape, int), [], []
    for r in range(len(w)):
        for g in range(0, w.shape[1], size):
            v = w[r, g:g + size]
            a = min(v.min(), 0) if lo is None else lo[r, g // size]
            b = max(v.max(), 0) if hi is None else hi[r, g // size]
            if a == b:
                scale, zero = 1.0, 2 ** (bits - 1)
            elif sym:
                scale, zero = float(np.float16(2 * max(-a, b) / top)), 2 ** (bits - 1)
            else:
                scale = float(np.float16((b - a) / top))
                zero = int(np.clip(np.floor(-a / scale + 0.5), 0, top))
            c = np.clip(np.floor(v / scale + zero + 0.5), 0, top)
            codes[r, g:g + size] = c
            out[r, g:g + size] = (c - zero) * scale
            scales.append(scale)
            zeros.append(zero)
    return out, codes, np.array(scales).reshape(len(w), -1), np.array(zeros).reshape(len(w), -1)


def search(ws, x, bits, size, sym, duo):
    a = np.abs(x).mean(0)
    m = np.zeros(x.shape[1])
    for w in ws:
        for g in range(0, w.shape[1], size):
            most = np.abs(w[:, g:g + size]).max(1, keepdims=True)
            m[g:g + size] += np.where(most > 0, np.abs(w[:, g:g + size]) / np.where(most > 0, most, 1), 0).sum(0)
    m /= sum(len(w) for w in ws)

    def loss(s):
        return sum((((rounded(w * s, bits, size, sym)[0] / s - w) @ x.T) ** 2).sum() for w in ws) / len(x)

    best = (loss(np.ones_like(a)), 0, False, np.ones_like(a))
    unscaled, runner_up = best[0], np.inf
    for with_duo in {"on": [True], "off": [False], "both": [False, True]}[duo]:
        for i in range(0 if with_duo else 1, 20):
            r = i / 20
            s = np.power(a, r) / (np.power(m, 1 - r) + 1e-4 if with_duo else 1)
            s = np.maximum(s, 1e-4)
            alive = a > 0
            s = np.where(alive, s / np.sqrt(s[alive].min() * s[alive].max()), 1)
            found = (loss(s), r, with_duo, s)
            if found[0] < best[0]:
                runner_up, best = best[0], found
            else:
                runner_up = min(runner_up, found[0])
    return {"loss": best[0], "unscaled": unscaled, "ratio": best[1], "found_duo": best[2], "s": best[3].tolist(), "margin": runner_up / best[0] - 1}


def clipped(w, x, bits, size, sym):
    groups = (w.shape[1] + size - 1) // size
    best, lo, hi = np.full((len(w), groups), np.inf), np.zeros((len(w), groups)), np.zeros((len(w), groups))
    own_lo = np.array([[min(v[g:g + size].min(), 0) for g in range(0, w.shape[1], size)] for v in w])
    own_hi = np.array([[max(v[g:g + size].max(), 0) for g in range(0, w.shape[1], size)] for v in w])
    margin = np.inf
    for i in range(10):
        bound = np.maximum(-own_lo, own_hi) * (1 - 0.05 * i)
        a, b = np.maximum(own_lo, -bound), np.minimum(own_hi, bound)
        e = rounded(w, bits, size, sym, a, b)[0] - w
        loss = np.stack([((e[:, g:g + size] @ x[:, g:g + size].T) ** 2).mean(1) for g in range(0, w.shape[1], size)], 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            margin = min(margin, np.nanmin(np.abs(loss / best - 1)))
        better = loss < best
        best, lo, hi = np.where(better, loss, best), np.where(better, a, lo), np.where(better, b, hi)
    _, codes, scales, zeros = rounded(w, bits, size, sym, lo, hi)
    return {"codes": ["".join("%x" % c for c in row) for row in codes], "scales": scales.tolist(), "zeros": zeros.tolist(), "clip_margin": margin}


cases = []
for number, rows, cols, tokens, bits, size, sym, duo, dead, zero in [
        (21, [6], 64, 100, 4, 32, False, "on", [], []), (42, [5, 3], 96, 120, 4, 32, True, "off", [], []),
        (33, [7, 2, 2], 64, 100, 3, 64, False, "both", [3, 40], [[0, 0]]), (24, [4], 80, 100, 4, 32, False, "on", [], [[1, 2], [3, 0]])]:
    seed(number)
    w, x = data(sum(rows), cols, tokens)
    x[:, dead] = 0
    for r, g in zero:
        w[r, g * size:(g + 1) * size] = 0
    w, x = w.astype(np.float32).astype(float), x.astype(np.float32).astype(float)
    ws = np.split(w, np.cumsum(rows)[:-1])
    cases.append({"seed": number, "rows": rows, "cols": cols, "tokens": tokens, "bits": bits, "group_size": size, "sym": sym, "duo": duo, "dead": dead, "zero": zero}
                 | search(ws, x, bits, size, sym, duo) | clipped(w, x, bits, size, sym))
print(json.dumps({"made_by": "make_awq.py, numpy " + np.__version__, "cases": cases}, indent=1))
