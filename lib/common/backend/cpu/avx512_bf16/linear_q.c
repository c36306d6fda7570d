/* Linear layers over codes on vdpbf16ps: a step is a pair of columns; codes of 4 bits become pairs by one permutation of a table of bf16. */
#include "backend/cpu/avx512_bf16/tile.h"
#include "backend/cpu/simd/qpanel.h"

typedef uint32_t q_x;
typedef __m512i q_w, q_codes;
#define Q_STEP 2
#define Q_FEW(bits) ((bits) == 4 ? INT64_MAX : 12) /* a shift and a permutation hide behind the products of 6 rows */
#define LINEAR_Q qp_avx512_bf16_linear_q

struct q_tables {
    __m512i pairs; /* 16 values, twice: the permutation looks at 5 bits */
    const float *table;
    bool affine;
};

INLINE struct q_tables q_tables_load(const struct qp_qmatrix *q)
{
    __m512 t = v_load(q->table);
    return (struct q_tables){to_bf16(t, t), q->table, q->affine};
}

INLINE __m512i q_load(const uint8_t *at)
{
    return _mm512_loadu_si512(at);
}

INLINE void q_prefetch(const uint8_t *at)
{
    _mm_prefetch((const char *)at + 1024, _MM_HINT_T0);
}

/* Column k of the unit as float32: exact in its upper half. */
INLINE __m512i decode_byte(const struct q_tables *t, __m512i c, int k)
{
    __m512i i = _mm512_and_si512(_mm512_srli_epi32(c, 8 * k), _mm512_set1_epi32(255));
    return _mm512_castps_si512(t->affine ? v_add(_mm512_cvtepi32_ps(i), v_set1(t->table[0])) : _mm512_i32gather_ps(i, t->table, 4));
}

INLINE __m512i q_decode(const struct q_tables *t, int bits, __m512i c, int s)
{
    if (bits == 4)
        return _mm512_permutexvar_epi16(_mm512_srli_epi16(c, 4 * s), t->pairs);
    return _mm512_or_si512(_mm512_srli_epi32(decode_byte(t, c, 2 * s), 16), decode_byte(t, c, 2 * s + 1));
}

INLINE vf q_mac(vf acc, uint32_t x, __m512i w)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_set1_epi32((int)x), (__m512bh)w);
}

/* The sum of VL pairs, spread over a vector. */
INLINE vf q_x_sum(const uint32_t *x)
{
    __m512i v = _mm512_loadu_si512(x);
    return v_add(_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)), _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000))));
}

INLINE float q_x_one(uint32_t x)
{
    return qp_bf16_to_f32((uint16_t)x) + qp_bf16_to_f32((uint16_t)(x >> 16));
}

INLINE __m512 gather_x(const float *x, const int32_t *perm)
{
    __m512i from = _mm512_loadu_si512(perm);
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), _mm512_cmpge_epi32_mask(from, _mm512_setzero_si512()), from, x, 4);
}

INLINE void q_round(uint32_t *dst, const float *x, const struct qp_qmatrix *q)
{
    int64_t k = 0;
    for (; k + 2 * VL <= q->Kp; k += 2 * VL)
        _mm512_storeu_si512(dst + k / 2, q->perm ? to_bf16(gather_x(x, q->perm + k), gather_x(x, q->perm + k + VL)) : to_bf16(v_load(x + k), v_load(x + k + VL)));
    for (; k < q->Kp; k++) {
        int64_t from = q->perm ? q->perm[k] : k;
        ((uint16_t *)(void *)dst)[k] = from < 0 ? 0 : qp_f32_to_bf16(x[from]);
    }
}

#include "backend/cpu/simd/linear_q.inc.h"
