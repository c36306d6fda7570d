#!/usr/bin/env python3
"""Golden codes for the GPTQ tests: Frantar et al. 2022 (algorithm 1) written down directly, in double precision, with numpy.

    make_gptq.py > gptq.json

Optimal Brain Surgeon by definition: after each column the inverse Hessian of the columns left is updated by one elimination
step. No Cholesky factor, no blocks, no lazy updates. Scales are float16. Weights and inputs come from a generator that the test repeats.
"""
import json
import numpy as np

state = 0


def seed(n):
    global state
    state = n


def uniform():
    global state
    state = (state * 1664525 + 1013904223) % 2**32
    return ((state >> 9) & 0x7FFF) / 16384 - 1


def data(rows, cols, tokens):
    w = np.array([[uniform() for _ in range(cols)] for _ in range(rows)])
    x = np.zeros((tokens, cols))
    for t in range(tokens):
        common = [uniform() for _ in range((cols + 7) // 8)]
        for i in range(cols):
            x[t, i] = (uniform() + 2 * common[i // 8]) * (1 + i % 5)
    return w, x


def grid(w, bits, sym):
    top = 2**bits - 1
    lo, hi = min(w.min(), 0), max(w.max(), 0)
    if sym:
        return float(np.float16(2 * max(-lo, hi) / top)), 2 ** (bits - 1)
    scale = float(np.float16((hi - lo) / top))
    return scale, int(np.clip(np.floor(-lo / scale + 0.5), 0, top))


def gptq(w, x, bits, size, sym, act_order, static, group_aware=False):
    w, top = w.copy(), 2**bits - 1
    rows, cols = w.shape
    size = size or cols
    h = x.T @ x / len(x)
    order = sorted(range(cols), key=lambda i: (-h[i, i], i)) if act_order else list(range(cols))
    if group_aware:  # whole groups, by their greatest diagonal; within by the diagonal
        order = sorted(range(cols), key=lambda i: (-max(h[k, k] for k in range(i // size * size, min(cols, (i // size + 1) * size))), i // size, -h[i, i], i))
    h = h + 0.01 * np.trace(h) / cols * np.eye(cols)
    inverse = np.linalg.inv(h)
    codes, grids, margin = np.zeros((rows, cols), int), {}, 1
    if static:
        for g in range((cols + size - 1) // size):
            for r in range(rows):
                grids[r, g] = grid(w[r, g * size:(g + 1) * size], bits, sym)
    for k, i in enumerate(order):
        g = (i if static or group_aware else k) // size
        if not static and (k == 0 or g != last):
            members = [j for j in order[k:] if j // size == g] if group_aware else order[k:k + size]
            for r in range(rows):
                grids[r, g] = grid(w[r, members], bits, sym)
        last = g
        for r in range(rows):
            scale, zero = grids[r, g]
            exact = w[r, i] / scale + zero
            codes[r, i] = np.clip(np.floor(exact + 0.5), 0, top)
            if 0 < exact < top:
                margin = min(margin, abs(exact + 0.5 - round(exact + 0.5)))
            error = (w[r, i] - scale * (codes[r, i] - zero)) / inverse[i, i]
            w[r] -= error * inverse[i]
        inverse = inverse - np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    groups = (cols + size - 1) // size
    return {"codes": ["".join("%x" % c for c in row) if bits <= 4 else " ".join(map(str, row)) for row in codes.tolist()],
            "scales": [[grids[r, g][0] for g in range(groups)] for r in range(rows)],
            "zeros": [[grids[r, g][1] for g in range(groups)] for r in range(rows)], "margin": margin}


def main():
    cases = []
    for number, rows, cols, tokens, bits, size, sym, act_order, static, group_aware in [
            (11, 6, 64, 200, 4, 32, False, False, False, False), (12, 5, 80, 200, 4, 32, True, False, False, False),
            (13, 4, 160, 300, 3, 0, True, True, False, False), (14, 4, 160, 300, 2, 64, False, True, True, False),
            (15, 4, 160, 300, 4, 64, False, True, False, False), (16, 4, 160, 300, 4, 64, False, True, False, True)]:
        seed(number)
        w, x = data(rows, cols, tokens)
        case = {"seed": number, "rows": rows, "cols": cols, "tokens": tokens, "bits": bits, "group_size": size, "sym": sym,
                "act_order": act_order, "static": static, "group_aware": group_aware}
        cases.append(case | gptq(w, x, bits, size, sym, act_order, static, group_aware))
    print(json.dumps({"made_by": "make_gptq.py, numpy " + np.__version__, "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
