#include "backend/limits.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "base/mem.h"

#define CHUNKS 64
#define ROUNDS 40000
#define BYTES ((size_t)512 << 20)

#ifdef __x86_64__

/* Enough sums to hide the latency of two units (24 for vdpbf16ps, whose latency is 6 cycles on Zen 5). Named variables, so that no compiler
 * keeps them in memory. */
#define TWELVE(X) X(s0) X(s1) X(s2) X(s3) X(s4) X(s5) X(s6) X(s7) X(s8) X(s9) X(sa) X(sb)
#define TWELVE_MORE(X) X(t0) X(t1) X(t2) X(t3) X(t4) X(t5) X(t6) X(t7) X(t8) X(t9) X(ta) X(tb)
#define DECLARE(s) , s = z
#define SUM(s) total += s;
#define LOOP(name, isa, type, zero, SUMS, STEP)                                                \
    __attribute__((target(isa))) static void name(void *arg, int64_t begin, int64_t end, int thread) \
    {                                                                                                \
        const type z = zero;                                                                         \
        type total = z SUMS(DECLARE);                                                          \
        for (int64_t n = 0; n < (end - begin) * ROUNDS; n++) {                                 \
            SUMS(STEP)                                                                               \
        }                                                                                            \
        SUMS(SUM)                                                                              \
        ((volatile float *)arg)[thread] = (float)total[0];                                                \
    }
#define TWENTY_FOUR(X) TWELVE(X) TWELVE_MORE(X)

/* The empty assembly makes every step needed: the compiler cannot know what it leaves in s. */
#define FMA256(s) s = _mm256_fmadd_ps(z, z, s); __asm__ volatile("" : "+x"(s));
#define FMA512(s) s = _mm512_fmadd_ps(z, z, s); __asm__ volatile("" : "+v"(s));
LOOP(limit_avx2, "avx2,fma", __m256, _mm256_setzero_ps(), TWELVE, FMA256)
LOOP(limit_avx512, "avx512f", __m512, _mm512_setzero_ps(), TWENTY_FOUR, FMA512)
#ifdef QP_ISA_avx512_bf16
#define DOT512(s) s = _mm512_dpbf16_ps(s, (__m512bh)z, (__m512bh)z); __asm__ volatile("" : "+v"(s));
LOOP(limit_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), TWENTY_FOUR, DOT512)
#endif
#ifdef QP_ISA_avx512_vnni
#define BYTES512(s) s = _mm512_dpbusd_epi32(s, z, z); __asm__ volatile("" : "+v"(s));
LOOP(limit_int8, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), TWENTY_FOUR, BYTES512)
#endif
#endif

typedef uint64_t limit_words __attribute__((vector_size(64)));

struct limit_read {
    const limit_words *data;
    uint64_t sums[256];
};

static void limit_read(void *arg, int64_t begin, int64_t end, int thread)
{
    struct limit_read *r = arg;
    limit_words a = {0}, b = {0}, c = {0}, d = {0};
    const int64_t lines = (int64_t)(BYTES / sizeof a / CHUNKS), quarter = lines / 4;
    for (int64_t chunk = begin; chunk < end; chunk++)
        for (int64_t i = chunk * lines; i < chunk * lines + quarter; i++) { /* four streams keep more reads under way than one */
            a += r->data[i];
            b += r->data[i + quarter];
            c += r->data[i + 2 * quarter];
            d += r->data[i + 3 * quarter];
        }
    a += b + c + d;
    r->sums[thread] += a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double best_rate(struct qp_pool *pool, clockid_t clock, qp_pool_fn *fn, void *arg, double work)
{
    double best = 1e30;
    for (int rep = 0; rep < 25; rep++) {
        double t = seconds(clock);
        qp_pool_for(pool, CHUNKS, 1, fn, arg);
        t = seconds(clock) - t;
        best = t < best ? t : best;
    }
    return work / best / 1e9;
}

void qp_limits_measure(double out[QP_LIMIT_COUNT], struct qp_pool *pool, clockid_t clock)
{
    memset(out, 0, QP_LIMIT_COUNT * sizeof *out);
#ifdef __x86_64__
    float sink[256];
    const double steps = 12.0 * ROUNDS * CHUNKS;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[QP_LIMIT_F32_AVX2] = best_rate(pool, clock, limit_avx2, sink, steps * 16);
    if (__builtin_cpu_supports("avx512f"))
        out[QP_LIMIT_F32_AVX512] = best_rate(pool, clock, limit_avx512, sink, 2 * steps * 32);
#ifdef QP_ISA_avx512_bf16
    if (__builtin_cpu_supports("avx512bf16"))
        out[QP_LIMIT_BF16] = best_rate(pool, clock, limit_bf16, sink, 2 * steps * 64);
#endif
#ifdef QP_ISA_avx512_vnni
    if (__builtin_cpu_supports("avx512vnni"))
        out[QP_LIMIT_INT8] = best_rate(pool, clock, limit_int8, sink, 2 * steps * 128);
#endif
#endif
    struct limit_read r = {.data = qp_zalloc(BYTES, "read bandwidth", NULL)};
    if (r.data) {
        memset((void *)r.data, 1, BYTES);
        out[QP_LIMIT_READ] = best_rate(pool, clock, limit_read, &r, (double)BYTES);
    }
    qp_free((void *)r.data);
}
