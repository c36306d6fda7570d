/* Vectors of bytes without VNNI: what simd/linear_q8.inc.h needs on AVX2 and on AVX-512. */
#ifndef QP_BACKEND_CPU_SIMD_Q8BYTES_H
#define QP_BACKEND_CPU_SIMD_Q8BYTES_H

#include "backend/cpu/simd/vec.h"

#ifndef LINEAR_Q8
#define LINEAR_Q8 QP_V(linear_q8)
#endif

#if defined(__AVX512F__)

typedef __m512i q8_i;
INLINE q8_i q8_load(const uint8_t *at) { return _mm512_loadu_si512(at); }
INLINE q8_i q8_and(q8_i a, q8_i b) { return _mm512_and_si512(a, b); }
INLINE q8_i q8_srl4(q8_i a) { return _mm512_srli_epi32(a, 4); }
INLINE q8_i q8_set1(int32_t i) { return _mm512_set1_epi32(i); }
INLINE vf q8_float(q8_i a) { return _mm512_cvtepi32_ps(a); }
INLINE q8_i q8_add(q8_i a, q8_i b) { return _mm512_add_epi32(a, b); }
INLINE q8_i q8_pairs(q8_i codes, q8_i x) { return _mm512_maddubs_epi16(codes, x); }
INLINE q8_i q8_fours(q8_i pairs, int times) { return _mm512_madd_epi16(pairs, _mm512_set1_epi16((short)times)); }

#else

typedef __m256i q8_i;
INLINE q8_i q8_load(const uint8_t *at) { return _mm256_loadu_si256((const __m256i *)at); }
INLINE q8_i q8_and(q8_i a, q8_i b) { return _mm256_and_si256(a, b); }
INLINE q8_i q8_srl4(q8_i a) { return _mm256_srli_epi32(a, 4); }
INLINE q8_i q8_set1(int32_t i) { return _mm256_set1_epi32(i); }
INLINE vf q8_float(q8_i a) { return _mm256_cvtepi32_ps(a); }
INLINE q8_i q8_add(q8_i a, q8_i b) { return _mm256_add_epi32(a, b); }
INLINE q8_i q8_pairs(q8_i codes, q8_i x) { return _mm256_maddubs_epi16(codes, x); }
INLINE q8_i q8_fours(q8_i pairs, int times) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16((short)times)); }

#endif

/* Sums of two products must fit into 16 bits: codes of 8 bits are taken as two digits of 4. */
INLINE q8_i q8_dot(q8_i acc, int bits, q8_i codes, int32_t four)
{
#ifdef __AVX512VNNI__
    (void)bits;
    return _mm512_dpbusd_epi32(acc, codes, _mm512_set1_epi32(four));
#else
    const q8_i low = q8_set1(0x0f0f0f0f), x = q8_set1(four);
    if (bits == 4)
        return q8_add(acc, q8_fours(q8_pairs(codes, x), 1));
    acc = q8_add(acc, q8_fours(q8_pairs(q8_and(codes, low), x), 1));
    return q8_add(acc, q8_fours(q8_pairs(q8_and(q8_srl4(codes), low), x), 16));
#endif
}

#endif
