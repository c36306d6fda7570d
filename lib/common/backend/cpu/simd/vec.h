/* One vector of floats, for kernels that are written once and compiled for each instruction set (cpu/avx2, cpu/avx512).
 * QP_V(name) gives a function its variant's name; NV x VL columns are a panel, MR rows a register tile. */
#ifndef QP_BACKEND_CPU_SIMD_VEC_H
#define QP_BACKEND_CPU_SIMD_VEC_H

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define MR 6

#if defined(__AVX512F__)

#define QP_V(name) qp_avx512_##name
#define VL 16
#define NV 4
typedef __m512 vf;
INLINE vf v_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
INLINE vf v_set1(float f) { return _mm512_set1_ps(f); }
INLINE vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE bool v_any_gt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
INLINE bool v_any_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ) != 0; }
INLINE vf v_load_n(const float *p, int64_t n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void v_store_n(float *p, vf v, int64_t n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
INLINE float v_hsum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float v_hmax(vf a) { return _mm512_reduce_max_ps(a); }
/* p * 2^n for whole n; exponentials below e^EXP_LOW come out as (nearly) 0 */
#define EXP_LOW (-104.f)
INLINE vf v_scale2(vf p, vf n) { return _mm512_scalef_ps(p, n); }
INLINE vf v_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vf v_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void v_store_f16(uint16_t *p, vf v) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
INLINE vf v_load_i8(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE double v_hsum_f64(vf a)
{
    __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a)), hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    return _mm512_reduce_add_pd(_mm512_add_pd(lo, hi));
}

#else

#define QP_V(name) qp_avx2_##name
#define VL 8
#define NV 2
typedef __m256 vf;
INLINE vf v_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
INLINE vf v_set1(float f) { return _mm256_set1_ps(f); }
INLINE vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE bool v_any_gt(vf a, vf b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }
INLINE bool v_any_eq(vf a, vf b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)) != 0; }
INLINE __m256i v_mask_n(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vf v_load_n(const float *p, int64_t n) { return _mm256_maskload_ps(p, v_mask_n(n)); }
INLINE void v_store_n(float *p, vf v, int64_t n) { _mm256_maskstore_ps(p, v_mask_n(n), v); }
INLINE float v_hsum(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
INLINE float v_hmax(vf a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
#define EXP_LOW (-88.f) /* its exponent field is 0: the factor is 0 */
INLINE vf v_scale2(vf p, vf n)
{
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(e));
}
INLINE vf v_load_bf16(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE vf v_load_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE void v_store_f16(uint16_t *p, vf v) { _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
INLINE vf v_load_i8(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
INLINE double v_hsum_f64(vf a)
{
    __m256d s = _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
    __m128d t = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1));
    return _mm_cvtsd_f64(_mm_add_sd(t, _mm_unpackhi_pd(t, t)));
}

#endif

#define NR (NV * VL)
#define LINE 64

INLINE size_t lines_up(size_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

/* e^x, relative error below 2e-7; at most 2^-126 below -87.3; NaN stays: max and min give their second operand when one is NaN.
 * Cody-Waite reduction, then a minimax polynomial (3e-9) on |r| <= ln2/2. */
INLINE vf v_exp(vf x)
{
    const vf magic = v_set1(12582912.f);
    vf c = v_min(v_set1(88.3f), v_max(v_set1(EXP_LOW), x));
    vf n = v_sub(v_fma(c, v_set1(1.44269504f), magic), magic);
    vf r = v_fnma(n, v_set1(-2.12194440e-4f), v_fnma(n, v_set1(0.693359375f), c));
    vf p = v_set1(1.38145391e-3f);
    p = v_fma(p, r, v_set1(8.36874535e-3f));
    p = v_fma(p, r, v_set1(4.16683908e-2f));
    p = v_fma(p, r, v_set1(1.66665204e-1f));
    p = v_fma(p, r, v_set1(4.99999934e-1f));
    p = v_fma(p, r, v_set1(1.f));
    p = v_fma(p, r, v_set1(1.f));
    return v_scale2(p, n);
}

/* The loops over a tile must be unrolled before the compiler decides what lives in registers. */
#define UNROLL _Pragma("GCC unroll 8")

/* The register tile: y[mr, NV*VL] (+)= x[mr, K] * panel [K, NR]. Sums run over k in order, so a row does not depend on mr. */
#define TILE_BODY(mr, K, BROADCAST, LOAD)                                                                                   \
    for (int64_t k = 0; k < (K); k++) {                                                                                     \
        vf b[NV];                                                                                                           \
        UNROLL for (int j = 0; j < NV; j++)                                                                                 \
            b[j] = LOAD(k, j);                                                                                              \
        UNROLL for (int i = 0; i < (mr); i++) {                                                                             \
            vf a = BROADCAST(i, k);                                                                                         \
            UNROLL for (int j = 0; j < NV; j++)                                                                             \
                acc[i][j] = v_fma(a, b[j], acc[i][j]);                                                                      \
        }                                                                                                                   \
    }

/* y NULL: zeros. n: columns that exist; a panel's ragged edge goes through memory, so that whole panels see full vectors only. */
INLINE void tile_load(vf acc[MR][NV], int mr, const float *y, int64_t ldy, int64_t n)
{
    float edge[MR * NR];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < NV; j++)
            acc[i][j] = v_set1(0);
    if (!y)
        return;
    if (n < NR) {
        memset(edge, 0, sizeof edge);
        for (int i = 0; i < mr; i++)
            memcpy(edge + i * NR, y + i * ldy, (size_t)n * sizeof *y);
        y = edge;
        ldy = NR;
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < NV; j++)
            acc[i][j] = v_load(y + i * ldy + j * VL);
}

INLINE void tile_store(vf acc[MR][NV], int mr, float *y, int64_t ldy, int64_t n)
{
    float edge[MR * NR];
    float *to = n < NR ? edge : y;
    int64_t ld = n < NR ? NR : ldy;
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < NV; j++)
            v_store(to + i * ld + j * VL, acc[i][j]);
    if (n < NR)
        for (int i = 0; i < mr; i++)
            memcpy(y + i * ldy, edge + i * NR, (size_t)n * sizeof *y);
}

/* Defines tile(mr, y, ldy, n, accumulate, x, ldx, panel, K): the tile's body once for each row count, as functions of their own, so that
 * register allocation sees nothing but the loop. */
#define TILE_ROWS(tile, xtype, ptype, mr)                                                                                   \
    static __attribute__((noinline)) void tile##_##mr(float *y, int64_t ldy, int64_t n, bool accumulate, const xtype *x, int64_t ldx, \
                                                      const ptype *panel, int64_t K)                                        \
    {                                                                                                                       \
        tile##_body(mr, y, ldy, n, accumulate, x, ldx, panel, K);                                                           \
    }
#define DEFINE_TILE(tile, xtype, ptype)                                                                                     \
    TILE_ROWS(tile, xtype, ptype, 1)                                                                                        \
    TILE_ROWS(tile, xtype, ptype, 2)                                                                                        \
    TILE_ROWS(tile, xtype, ptype, 3)                                                                                        \
    TILE_ROWS(tile, xtype, ptype, 4)                                                                                        \
    TILE_ROWS(tile, xtype, ptype, 5)                                                                                        \
    TILE_ROWS(tile, xtype, ptype, 6)                                                                                        \
    static inline void tile(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const xtype *x, int64_t ldx, const ptype *panel, int64_t K) \
    {                                                                                                                       \
        switch (mr) {                                                                                                       \
        case 6: tile##_6(y, ldy, n, accumulate, x, ldx, panel, K); break;                                                   \
        case 5: tile##_5(y, ldy, n, accumulate, x, ldx, panel, K); break;                                                   \
        case 4: tile##_4(y, ldy, n, accumulate, x, ldx, panel, K); break;                                                   \
        case 3: tile##_3(y, ldy, n, accumulate, x, ldx, panel, K); break;                                                   \
        case 2: tile##_2(y, ldy, n, accumulate, x, ldx, panel, K); break;                                                   \
        default: tile##_1(y, ldy, n, accumulate, x, ldx, panel, K); break;                                                  \
        }                                                                                                                   \
    }

#define ROW(i, k) v_set1(x[(i) * ldx + (k)])
#define COL_F32(k, j) v_load(panel + (k) * NR + (j) * VL)
#define COL_BF16(k, j) v_load_bf16(panel + (k) * NR + (j) * VL)

/* panel [K][NR] of float32, or of bf16 that is widened as it is read */
INLINE void tile_f32_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const float *panel, int64_t K)
{
    vf acc[MR][NV];
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    TILE_BODY(mr, K, ROW, COL_F32)
    tile_store(acc, mr, y, ldy, n);
}

INLINE void tile_bf16_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const uint16_t *panel, int64_t K)
{
    vf acc[MR][NV];
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    TILE_BODY(mr, K, ROW, COL_BF16)
    tile_store(acc, mr, y, ldy, n);
}

#endif
