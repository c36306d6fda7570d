/* What the tests of the ops share: every variant of ops.def against the reference, on shapes around the tiles, several thread counts and batch sizes, and
 * values that break kernels. Each file tests one family of ops and ends with test_covered, so that no op is forgotten. */
#ifndef QP_TESTS_OPS_TEST_H
#define QP_TESTS_OPS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/variants.h"
#include "base/half.h"
#include "base/mem.h"

static const char *const isas[] = {"avx2", "avx512", "avx512_vnni", "avx512_bf16", "auto"}; /* auto: what this processor is given, which may mix them */
enum { N_ISAS = 5 };

/* ops.def as data: the limit of each variant, and whether a test has asked for it. */
static struct row {
    const char *op, *variant;
    double tolerance;
    bool tested;
} rows[] = {
#define ROW(op, variant, tol) {#op, #variant, tol, false},
    QP_OPS_REF(ROW) QP_OPS_AVX2(ROW) QP_OPS_AVX512(ROW) QP_OPS_AVX512_VNNI(ROW) QP_OPS_AVX512_BF16(ROW)
#undef ROW
};
enum { N_ROWS = sizeof rows / sizeof *rows };

/* The limit of the variant that a table for `isa` uses: the last row at or below it that names the op. */
static inline double tolerance(const char *isa, const char *op)
{
    struct row *found = NULL;
    int top = 0;
    while (strcmp(isas[top], isa))
        top++;
    for (int r = 0; r < N_ROWS; r++)
        for (int i = 0; i <= top; i++)
            if (!strcmp(rows[r].op, op) && !strcmp(rows[r].variant, isas[i]))
                found = &rows[r];
    assert_non_null(found);
    found->tested = true;
    return found->tolerance;
}

static uint64_t state = 1;

static inline float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 11) * 0x1p-53 * 2 - 1);
}

static inline float *values(int64_t n, double scale)
{
    float *p = qp_alloc((size_t)(n > 0 ? n : 1) * sizeof *p, "test", NULL);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)(scale * (double)uniform());
    return p;
}

/* Relative Frobenius difference; NaN and infinities must agree in class. */
static inline double difference(const float *a, const float *ref, int64_t n)
{
    double num = 0, den = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(ref[i]) || !isfinite(a[i])) {
            if (isnan(ref[i]) != isnan(a[i]) || (isinf(ref[i]) && a[i] != ref[i]))
                return INFINITY;
            continue;
        }
        num += ((double)a[i] - (double)ref[i]) * ((double)a[i] - (double)ref[i]);
        den += (double)ref[i] * (double)ref[i];
    }
    return den > 0 ? sqrt(num / den) : sqrt(num);
}

#define CHECK_DIFF(got, ref, n, op, ...)                                               \
    do {                                                                               \
        double d_ = difference(got, ref, n), limit_ = tolerance(ops->isa, op);         \
        if (!(d_ <= limit_)) {                                                         \
            print_message("%s: %s: difference %g, limit %g: ", ops->isa, op, d_, limit_); \
            print_message(__VA_ARGS__);                                                \
            print_message("\n");                                                       \
            fail();                                                                    \
        }                                                                              \
    } while (0)

static inline void for_each_isa(void (*test)(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex))
{
    struct qp_ops ref;
    assert_int_equal(qp_backend_cpu_init(&ref, "ref", NULL), 0);
    for (int i = 0; i < N_ISAS; i++) {
        struct qp_ops ops;
        struct qp_err err = {0};
        if (qp_backend_cpu_init(&ops, isas[i], &err)) {
            print_message("# skip %s: %s\n", isas[i], err.text);
            continue;
        }
        struct qp_exec ex = {0};
        assert_int_equal(qp_pool_new(&ex.pool, 2, NULL), 0);
        test(&ops, &ref, &ex);
        assert_false(ex.failed);
        qp_pool_free(ex.pool);
        qp_exec_release(&ex);
    }
}

/* Which file tests an op: by how its name begins. */
static const struct {
    const char *prefix, *file;
} families[] = {
    {"linear_q", "linear_q"}, {"linear_i8", "linear_i8"}, {"linear_", "linear"},  {"rms_norm", "rows"},        {"silu_mul", "rows"}, {"layer_norm", "rows"}, {"gelu_", "rows"},  {"soft_cap", "rows"}, {"add", "rows"},      {"rope", "rows"},      {"kv_", "attention"},
    {"attention_", "attention"}, {"log_sum_exp", "sums"}, {"kl_div", "sums"}, {"syrk", "sums"}, {"gemm_sub", "sums"},
};

static inline const char *family_of(const char *op)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strncmp(op, families[i].prefix, strlen(families[i].prefix)))
            return families[i].file;
    fail_msg("%s: no file tests it", op);
    return NULL;
}

/* Last in each file: what has a tolerance in ops.def, belongs to the file and runs on this machine has been held against the reference. */
static inline void check_covered(const char *file)
{
    const char *const moves[] = {"_bytes", "_pack", "_store"};
    for (int r = 0; r < N_ROWS; r++) {
        struct qp_ops ops;
        bool computes = !strcmp(family_of(rows[r].op), file) && strcmp(rows[r].variant, "ref") && !qp_backend_cpu_init(&ops, rows[r].variant, NULL);
        for (int i = 0; i < 3; i++)
            computes = computes && !strstr(rows[r].op, moves[i]);
        if (computes && !rows[r].tested)
            fail_msg("%s %s: no test", rows[r].op, rows[r].variant);
    }
}

#endif
