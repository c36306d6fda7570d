/* What the families of bench_ops share: one op and variant at a time, timed and printed against a limit of this machine. */
#ifndef QP_TESTS_BENCH_BENCH_H
#define QP_TESTS_BENCH_BENCH_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "backend/ops.h"
#include "limits.h"

struct bench {
    struct qp_ops ops;
    struct qp_exec ex;
    const char *op, *variant, *last; /* last: op of the line before */
    double limits[QP_LIMIT_COUNT];
    char **words;
    int n_words;
    bool slow; /* the reference: small shapes, one run */
};

typedef void run_fn(struct bench *b, void *arg);

static bool wanted(const struct bench *b, const char *shape)
{
    char line[160];
    snprintf(line, sizeof line, "%s %s %s", b->op, b->variant, shape);
    for (int i = 0; i < b->n_words; i++)
        if (!strstr(line, b->words[i]))
            return false;
    return true;
}

static double best_seconds(struct bench *b, run_fn *run, void *arg)
{
    double best = 1e30, start = now();
    int reps = 0;
    if (!b->slow)
        run(b, arg);
    do {
        double t = now();
        run(b, arg);
        t = now() - t;
        best = t < best ? t : best;
    } while (!b->slow && (++reps < 5 || now() - start < 0.15) && reps < 2000);
    return best;
}

/* work: floating-point operations, or bytes when the limit is QP_LIMIT_READ. */
static void print_line(struct bench *b, const char *shape, double seconds, double work, int limit, double peer)
{
    double rate = work / seconds / 1e9;
    if (b->last && strcmp(b->last, b->op))
        printf("\n");
    b->last = b->op;
    printf("%-15s %-12s %-34s %10.1f us %8.1f %-7s", b->op, b->variant, shape, seconds * 1e6, rate, limit == QP_LIMIT_READ ? "GB/s" : "GFLOP/s");
    if (limit && b->limits[limit] > 0)
        printf(" %5.1f%%", 100 * rate / b->limits[limit]);
    else
        printf("      -");
    if (peer > 0)
        printf("  %5.2fx", peer / seconds);
    printf("\n");
    fflush(stdout);
}

static float *filled(size_t n)
{
    float *p = qp_alloc(n * sizeof *p, "bench", NULL);
    if (!p) {
        fprintf(stderr, "bench_ops: no memory\n");
        exit(4);
    }
    for (size_t i = 0; i < n; i++)
        p[i] = (float)((i * 2654435761u >> 7) % 2003) * 1e-3f - 1.f;
    return p;
}

static int flops_limit(const struct bench *b, bool bf16)
{
    if (!strcmp(b->variant, "avx2"))
        return QP_LIMIT_F32_AVX2;
    if (!strcmp(b->variant, "avx512"))
        return QP_LIMIT_F32_AVX512;
    if (!strcmp(b->variant, "avx512_bf16"))
        return bf16 ? QP_LIMIT_BF16 : QP_LIMIT_F32_AVX512;
    return !strcmp(b->variant, "avx512_vnni") ? QP_LIMIT_INT8 : QP_LIMIT_NONE;
}

#endif
