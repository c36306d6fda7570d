/* A packed matrix of bf16: where its panels of 64 rows lie, and panels in 12 bits a weight.
 *
 * uint32 where[panels + 1], filled up to 64 bytes, then the panels: [K/2][64] pairs along k, one after the other, as long as where is zero. Compacting
 * (compact.c) moves them together: where[p] is the 64-byte line at which panel p begins, counted from the first panel, times 2, plus 1 where it is compact.
 *
 * A compact panel loses nothing: weights of a panel have nearly all one of 15 neighbouring exponents, or 0. It is uint16 exponents[16] (code c stands for
 * exponents[c], in place), uint32 whole[] (which steps of k are kept as they are, ascending, K/2 behind the last), filled up to 64 bytes, and the steps:
 * 256 bytes of pairs where whole, else 128 bytes of signs and mantissas and 64 of codes. The pairs a, b, c, d of a step (vectors of 16 rows) are
 *     signs and mantissas of a | those of b, rotated right by 8;    the same of c and d;    in each 16 bits the codes of a, b, c, d, 4 bits each. */
#ifndef QP_BACKEND_CPU_AVX512_BF16_PACKED_H
#define QP_BACKEND_CPU_AVX512_BF16_PACKED_H

#include "backend/cpu/avx512_bf16/tile.h"

#define WHOLE_STEP (NV * LINE)
#define COMPACT_STEP (3 * LINE)
#define KEEP 0x807f807f /* of a pair: signs and mantissas */

INLINE int64_t panels_of(int64_t N)
{
    return (N + NR - 1) / NR;
}

INLINE int64_t pairs_of(int64_t K)
{
    return (K + 1) / 2;
}

INLINE size_t where_bytes(int64_t panels)
{
    return lines_up((size_t)(panels + 1) * sizeof(uint32_t));
}

struct packed_panel {
    const uint8_t *at;
    size_t bytes;
    bool compact;
};

INLINE struct packed_panel packed_panel(const void *packed, int64_t p, int64_t panels, int64_t k2)
{
    const uint32_t *where = packed;
    const uint8_t *first = (const uint8_t *)packed + where_bytes(panels);
    size_t plain = (size_t)k2 * WHOLE_STEP;
    if (!where[panels])
        return (struct packed_panel){first + (size_t)p * plain, plain, false};
    size_t at = where[p] / 2, end = where[p + 1] / 2;
    return (struct packed_panel){first + at * LINE, (end - at) * LINE, where[p] & 1};
}

/* Where reading of a compact panel stands. */
struct compact {
    __m512i exponents;
    const uint32_t *whole; /* the next whole step */
    const uint8_t *at;
};

INLINE size_t compact_head(int64_t n_whole)
{
    return lines_up(16 * sizeof(uint16_t) + (size_t)(n_whole + 1) * sizeof(uint32_t));
}

INLINE struct compact compact_open(const uint8_t *panel, int64_t k2)
{
    const uint32_t *whole = (const uint32_t *)(const void *)(panel + 16 * sizeof(uint16_t)), *end = whole;
    while (*end < k2)
        end++;
    return (struct compact){_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)panel)), whole, panel + compact_head(end - whole)};
}

/* (m & KEEP) | e */
INLINE __m512i with_exponents(__m512i m, __m512i e)
{
    return _mm512_ternarylogic_epi32(m, _mm512_set1_epi32((int)KEEP), e, 0xEA);
}

INLINE void compact_step(__m512i b[NV], const uint8_t *at, __m512i exponents)
{
    __m512i ab = _mm512_loadu_si512(at), cd = _mm512_loadu_si512(at + LINE), codes = _mm512_loadu_si512(at + 2 * LINE);
    b[0] = with_exponents(ab, _mm512_permutexvar_epi16(codes, exponents));
    b[1] = with_exponents(_mm512_rol_epi32(ab, 8), _mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4), exponents));
    b[2] = with_exponents(cd, _mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 8), exponents));
    b[3] = with_exponents(_mm512_rol_epi32(cd, 8), _mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 12), exponents));
}

/* Steps [from, to) as pairs. */
static inline void compact_expand(struct compact *c, uint32_t *pairs, int64_t from, int64_t to)
{
    for (int64_t k = from; k < to; k++, pairs += NR) {
        __m512i b[NV];
        bool whole = *c->whole == k;
        if (whole)
            load_step(b, c->at);
        else
            compact_step(b, c->at, c->exponents);
        c->whole += whole;
        c->at += whole ? WHOLE_STEP : COMPACT_STEP;
        UNROLL for (int j = 0; j < NV; j++)
            _mm512_storeu_si512(pairs + j * VL, b[j]);
    }
}

#endif
