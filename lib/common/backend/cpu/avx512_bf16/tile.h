/* The bf16 register tile: y[mr, 64] (+)= x[mr, 2*K2] * panel [K2][64] pairs, by vdpbf16ps (two products and their sum into float32).
 * x is given as pairs (uint32: low half the even k). Sums run over k in order, so a row does not depend on mr. */
#ifndef QP_BACKEND_CPU_AVX512_BF16_TILE_H
#define QP_BACKEND_CPU_AVX512_BF16_TILE_H

#include "backend/cpu/simd/ahead.h"

/* A step as pairs: 64 rows. */
INLINE void load_step(__m512i b[NV], const void *at)
{
    UNROLL for (int j = 0; j < NV; j++)
        b[j] = _mm512_loadu_si512((const uint32_t *)at + j * VL);
}

/* The sums of mr rows and a step, given each row's pair of it. */
INLINE void step_products(vf acc[MR][NV], int mr, const uint32_t *x, int64_t ldx, const __m512i b[NV])
{
    UNROLL for (int i = 0; i < mr; i++) {
        __m512i a = _mm512_set1_epi32((int)x[i * ldx]);
        UNROLL for (int j = 0; j < NV; j++)
            acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)a, (__m512bh)b[j]);
    }
}

INLINE void tile_pairs_of(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const uint32_t *x, int64_t ldx, const uint32_t *panel, int64_t K2, struct ahead *ahead)
{
    vf acc[MR][NV];
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    for (int64_t k = 0; k < K2; k++) {
        __m512i b[NV];
        load_step(b, panel + k * NR);
        if (ahead)
            ahead_bring(ahead, NV);
        step_products(acc, mr, x + k, ldx, b);
    }
    tile_store(acc, mr, y, ldy, n);
}

INLINE void tile_pairs_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const uint32_t *x, int64_t ldx, const uint32_t *panel, int64_t K2)
{
    tile_pairs_of(mr, y, ldy, n, accumulate, x, ldx, panel, K2, NULL);
}
DEFINE_TILE(tile_pairs, uint32_t, uint32_t)

/* 32 floats to 32 bf16, nearest even, in order. */
INLINE __m512i to_bf16(__m512 low, __m512 high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

#endif
