/* Decoded weights as vectors of floats, one column a step: what simd/linear_q.inc.h needs on AVX2 and on AVX-512 without bf16. */
#ifndef QP_BACKEND_CPU_SIMD_QCODES_H
#define QP_BACKEND_CPU_SIMD_QCODES_H

#include "backend/cpu/simd/qpanel.h"

typedef float q_x;
typedef vf q_w;
#define Q_STEP 1
#define Q_FEW(bits) 6
#define LINEAR_Q QP_V(linear_q)

struct q_tables {
    vf low, high; /* 16 values, on AVX2 in two vectors */
    const float *table;
    bool affine;
};

INLINE struct q_tables q_tables_load(const struct qp_qmatrix *q)
{
    return (struct q_tables){v_load(q->table), v_load(q->table + (q->bits == 4 ? 16 - VL : 0)), q->table, q->affine};
}

INLINE void q_prefetch(const uint8_t *at)
{
    _mm_prefetch((const char *)at + 1024, _MM_HINT_T0);
}

#if defined(__AVX512F__)

typedef __m512i q_codes;

INLINE q_codes q_load(const uint8_t *at)
{
    return _mm512_loadu_si512(at);
}

INLINE vf q_decode(const struct q_tables *t, int bits, q_codes c, int k)
{
    if (bits == 4) /* the permutation looks at 4 bits alone */
        return _mm512_permutexvar_ps(_mm512_srli_epi32(c, 4 * (k / 2 + 4 * (k & 1))), t->low);
    __m512i i = _mm512_and_si512(_mm512_srli_epi32(c, 8 * k), _mm512_set1_epi32(255));
    return t->affine ? v_add(_mm512_cvtepi32_ps(i), v_set1(t->table[0])) : _mm512_i32gather_ps(i, t->table, 4);
}

#else

typedef __m256i q_codes;

INLINE q_codes q_load(const uint8_t *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE vf q_decode(const struct q_tables *t, int bits, q_codes c, int k)
{
    if (bits == 4) { /* the permutations look at 3 bits, the blend at the fourth */
        const int bit = 4 * (k / 2 + 4 * (k & 1));
        __m256i i = _mm256_srli_epi32(c, bit);
        vf high = _mm256_castsi256_ps(_mm256_slli_epi32(c, 28 - bit));
        return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t->low, i), _mm256_permutevar8x32_ps(t->high, i), high);
    }
    __m256i i = _mm256_and_si256(_mm256_srli_epi32(c, 8 * k), _mm256_set1_epi32(255));
    return t->affine ? v_add(_mm256_cvtepi32_ps(i), v_set1(t->table[0])) : _mm256_i32gather_ps(t->table, i, 4);
}

#endif

INLINE vf q_mac(vf acc, float x, vf w)
{
    return v_fma(v_set1(x), w, acc);
}

INLINE vf q_x_sum(const float *x)
{
    return v_load(x);
}

INLINE float q_x_one(float x)
{
    return x;
}

INLINE void q_round(float *dst, const float *x, const struct qp_qmatrix *q)
{
    for (int64_t k = 0; k < q->Kp; k++) {
        int64_t from = q->perm ? q->perm[k] : k;
        dst[k] = from < 0 ? 0 : qp_bf16_to_f32(qp_f32_to_bf16(x[from]));
    }
}

#endif
