/* Weights that a thread will read after those of a tile, brought into the second-level cache while the tile's products run: the hardware sees neither past a
 * page nor which panel comes next. Bits do not depend on it. */
#ifndef QP_BACKEND_CPU_SIMD_AHEAD_H
#define QP_BACKEND_CPU_SIMD_AHEAD_H

#include "backend/cpu/simd/vec.h"

struct ahead {
    const char *at;
    int64_t step; /* bytes for each vector that the tile itself loads */
};

/* The part of next[0..bytes) for pass number `pass` of `passes` over the tile, in each of which it loads so many vectors. A line for each at most: the end is left
 * out before any line in between. */
INLINE struct ahead ahead_part(const void *next, size_t bytes, int64_t vectors, int64_t pass, int64_t passes)
{
    int64_t step = ((int64_t)bytes + vectors * passes - 1) / (vectors * passes);
    step = step < 64 ? step : 64;
    return (struct ahead){(const char *)next + pass * vectors * step, step};
}

INLINE void ahead_bring(struct ahead *a, int vectors)
{
    UNROLL for (int v = 0; v < vectors; v++)
        _mm_prefetch(a->at + v * a->step, _MM_HINT_T1);
    a->at += vectors * a->step;
}

#endif
