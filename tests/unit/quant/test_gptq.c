/* GPTQ against its definition in double precision (tests/golden/make_gptq.py), its factorizations, damping, dead inputs, refinement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/drift.h"
#include "quant/gptq.h"

static uint32_t state;

static float uniform(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)((state >> 9) & 0x7fffu) / 16384 - 1;
}

static float *floats(int64_t n)
{
    float *p = qp_alloc_n((size_t)n, sizeof *p, "test", NULL);
    assert_non_null(p);
    return p;
}

/* The generator of make_gptq.py: inputs that share a part by eights, on five scales. */
static void make_data(uint32_t seed, float *w, int64_t rows, float *x, int64_t tokens, int64_t cols)
{
    state = seed;
    for (int64_t i = 0; i < rows * cols; i++)
        w[i] = uniform();
    for (int64_t t = 0; t < tokens; t++) {
        float common[64];
        for (int64_t i = 0; i < (cols + 7) / 8; i++)
            common[i] = uniform();
        for (int64_t i = 0; i < cols; i++)
            x[t * cols + i] = (uniform() + 2 * common[i / 8]) * (float)(1 + i % 5);
    }
}

struct fixture {
    struct qp_ops ops;
    struct qp_exec ex;
};

static int set_up(void **out)
{
    static struct fixture f;
    struct qp_err err = {0};
    f = (struct fixture){0};
    if (qp_backend_cpu_init(&f.ops, "auto", &err) || qp_pool_new(&f.ex.pool, 2, &err))
        return -1;
    *out = &f;
    return 0;
}

static int tear_down(void **in)
{
    struct fixture *f = *in;
    qp_pool_free(f->ex.pool);
    qp_exec_release(&f->ex);
    return 0;
}

static int64_t number(const json_t *c, const char *key)
{
    return json_integer_value(json_object_get(c, key));
}

static void check_case(struct fixture *f, const json_t *c)
{
    int64_t rows = number(c, "rows"), cols = number(c, "cols"), tokens = number(c, "tokens");
    bool act_order = json_is_true(json_object_get(c, "act_order"));
    struct qp_gptq_options o = {.grid = {.bits = (int)number(c, "bits"), .group_size = number(c, "group_size"), .sym = json_is_true(json_object_get(c, "sym"))},
                                .static_groups = json_is_true(json_object_get(c, "static"))};
    float *w = floats(rows * cols), *x = floats(tokens * cols);
    struct qp_hessian h;
    struct qp_qlinear q;
    struct qp_err err = {0};
    make_data((uint32_t)number(c, "seed"), w, rows, x, tokens, cols);
    assert_int_equal(qp_hessian_init(&h, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    o.group_aware = json_is_true(json_object_get(c, "group_aware"));
    if (o.group_aware)
        assert_int_equal(qp_hessian_factor_groups(&h, 0.01, o.grid.group_size, &f->ops, &f->ex, &err), 0);
    else
        assert_int_equal(qp_hessian_factor(&h, 0.01, act_order, &f->ops, &f->ex, &err), 0);
    assert_int_equal(qp_gptq_quantize(&q, w, rows, &h, &o, &f->ops, &f->ex, &err), 0);
    assert_int_equal(h.dead, 0);
    assert_true(fabs(h.damp - 0.01) < 1e-12);
    for (int64_t r = 0; r < rows; r++) {
        const char *want = json_string_value(json_array_get(json_object_get(c, "codes"), (size_t)r));
        const json_t *scales = json_array_get(json_object_get(c, "scales"), (size_t)r), *zeros = json_array_get(json_object_get(c, "zeros"), (size_t)r);
        assert_int_equal(json_array_size(scales), q.n_groups);
        for (int64_t g = 0; g < q.n_groups; g++) {
            assert_true((double)q.scales[r * q.n_groups + g] == json_number_value(json_array_get(scales, (size_t)g)));
            assert_int_equal(q.zeros[r * q.n_groups + g], json_integer_value(json_array_get(zeros, (size_t)g)));
        }
        for (int64_t i = 0; i < cols; i++)
            assert_int_equal("0123456789abcdef"[q.codes[r * cols + i]], want[i]);
    }
    qp_qlinear_release(&q);
    qp_hessian_release(&h);
    qp_free(w);
    qp_free(x);
}

static void test_against_the_definition(void **in)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/gptq.json", getenv("QP_ROOT") ? getenv("QP_ROOT") : ".");
    json_error_t e;
    json_t *root = json_load_file(path, 0, &e), *c;
    assert_non_null(root);
    size_t i;
    assert_int_equal(json_array_size(json_object_get(root, "cases")), 6);
    json_array_foreach(json_object_get(root, "cases"), i, c)
        check_case(*in, c);
    json_decref(root);
}

/* Sums that lost a token, or an entry off the diagonal, are noticed; those of both compute types pass. */
static void test_checked_sums(void **in)
{
    struct fixture *f = *in;
    enum { N = 96, T = 300 };
    float *w = floats(N), *x = floats(T * N);
    struct qp_hessian h;
    struct qp_err err = {0};
    make_data(3, w, 1, x, T, N);
    for (int compute = QP_COMPUTE_F32; compute <= QP_COMPUTE_BF16; compute++) {
        assert_int_equal(qp_hessian_init(&h, x, T, N, (enum qp_compute)compute, &f->ops, &f->ex, &err), 0);
        assert_int_equal(qp_hessian_check(&h, x, T, (enum qp_compute)compute, &f->ex, &err), 0);
        assert_int_equal(qp_hessian_check(&h, x, T - 60, (enum qp_compute)compute, &f->ex, &err), QP_E_INTERNAL);
        h.h[5] += 20 * h.h[0];
        h.h[5 * N] = h.h[5];
        err = (struct qp_err){0};
        assert_int_equal(qp_hessian_check(&h, x, T, (enum qp_compute)compute, &f->ex, &err), QP_E_INTERNAL);
        err = (struct qp_err){0};
        qp_hessian_release(&h);
    }
    qp_free(w);
    qp_free(x);
}

/* H = VVᵀ and U = V^-1, so U·V = 1 and Hinv = Uᵀ·U: checked as (Uᵀ·U)·H = 1 over sizes around the block of 64. */
static void test_factor_inverts(void **in)
{
    struct fixture *f = *in;
    const int64_t sizes[] = {1, 7, 63, 64, 65, 130, 200};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int act_order = 0; act_order < 2; act_order++) {
            int64_t n = sizes[s], tokens = 4 * n + 8;
            float *w = floats(n), *x = floats(tokens * n);
            struct qp_hessian h;
            struct qp_err err = {0};
            make_data(5 + (uint32_t)s, w, 1, x, tokens, n);
            assert_int_equal(qp_hessian_init(&h, x, tokens, n, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
            assert_int_equal(qp_hessian_factor(&h, 0.01, act_order, &f->ops, &f->ex, &err), 0);
            double mean = h.trace / (double)n, *inverse = calloc((size_t)(n * n), sizeof *inverse);
            assert_non_null(inverse);
            for (int64_t k = 0; k < n; k++)
                for (int64_t i = k; i < n; i++)
                    for (int64_t j = k; j < n; j++)
                        inverse[i * n + j] += (double)h.factor[k * n + i] * (double)h.factor[k * n + j];
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < n; j++) {
                    double sum = 0;
                    for (int64_t k = 0; k < n; k++) {
                        int64_t p = h.order ? h.order[k] : k, q = h.order ? h.order[j] : j;
                        sum += inverse[i * n + k] * ((double)h.h[p * n + q] + (p == q ? h.damp * mean : 0));
                    }
                    assert_true(fabs(sum - (i == j)) < 2e-3);
                }
            for (int64_t k = 1; act_order && k < n; k++)
                assert_true(h.h[(int64_t)h.order[k - 1] * n + h.order[k - 1]] >= h.h[(int64_t)h.order[k] * n + h.order[k]]);
            free(inverse);
            qp_hessian_release(&h);
            qp_free(w);
            qp_free(x);
        }
}

static double run_error(struct fixture *f, const float *w, int64_t rows, const struct qp_hessian *h, const struct qp_gptq_options *o, bool rtn)
{
    struct qp_qlinear q;
    struct qp_quant_error e;
    struct qp_err err = {0};
    if (rtn)
        assert_int_equal(qp_rtn_quantize(&q, w, rows, h->n, o->grid, &f->ex, &err), 0);
    else
        assert_int_equal(qp_gptq_quantize(&q, w, rows, h, o, &f->ops, &f->ex, &err), 0);
    struct qp_qweight any;
    qp_qweight_take_ints(&any, &q);
    assert_int_equal(qp_quant_measure(&e, &any, w, h, &f->ops, &f->ex, &err), 0);
    assert_true(e.mse > 0 && fabs(e.snr_db + 10 * log10(e.rel_error)) < 1e-9);
    qp_qweight_release(&any);
    return e.rel_error;
}

/* On correlated inputs: rounding loses to GPTQ, and sweeps never lose to what they start from. */
static void test_order_of_methods(void **in)
{
    struct fixture *f = *in;
    int64_t rows = 24, cols = 200, tokens = 500;
    float *w = floats(rows * cols), *x = floats(tokens * cols);
    struct qp_err err = {0};
    make_data(77, w, rows, x, tokens, cols);
    const int bits[] = {2, 3, 4, 8};
    for (int b = 0; b < 4; b++)
        for (int act_order = 0; act_order < 3; act_order++)
            for (int sym = 0; sym < 2; sym++) {
                struct qp_hessian h;
                assert_int_equal(qp_hessian_init(&h, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
                assert_int_equal(qp_hessian_factor(&h, 0.01, act_order > 0, &f->ops, &f->ex, &err), 0);
                struct qp_gptq_options o = {.grid = {.bits = bits[b], .group_size = 64, .sym = sym, .search = true}, .static_groups = act_order == 2};
                double rtn = run_error(f, w, rows, &h, &o, true), gptq = run_error(f, w, rows, &h, &o, false), last = gptq;
                assert_true(gptq < 0.8 * rtn);
                for (o.sweeps = 1; o.sweeps <= 3; o.sweeps++) {
                    double swept = run_error(f, w, rows, &h, &o, false);
                    assert_true(swept <= last * (1 + 1e-4));
                    last = swept;
                }
                qp_hessian_release(&h);
            }
    qp_free(w);
    qp_free(x);
}

/* The measure itself: the mean squared output error over the tokens that made H, by definition. */
static void test_measure_is_the_output_error(void **in)
{
    struct fixture *f = *in;
    int64_t rows = 5, cols = 96, tokens = 150;
    float *w = floats(rows * cols), *x = floats(tokens * cols), *d = floats(rows * cols);
    struct qp_hessian h;
    struct qp_qweight q;
    const struct qp_format format = {.id = QP_FMT_INT, .grid = {.bits = 3, .group_size = 32}};
    struct qp_quant_error e, plain;
    struct qp_err err = {0};
    make_data(3, w, rows, x, tokens, cols);
    assert_int_equal(qp_hessian_init(&h, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    assert_int_equal(qp_qweight_quantize(&q, &format, w, rows, cols, &f->ex, &err), 0);
    assert_int_equal(qp_quant_measure(&e, &q, w, &h, &f->ops, &f->ex, &err), 0);
    assert_int_equal(qp_quant_measure(&plain, &q, w, NULL, &f->ops, &f->ex, &err), 0);
    qp_qweight_decode(&q, d);
    double num = 0, den = 0, squares = 0, weight = 0;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t r = 0; r < rows; r++) {
            double y = 0, dy = 0;
            for (int64_t i = 0; i < cols; i++) {
                y += (double)w[r * cols + i] * (double)x[t * cols + i];
                dy += ((double)w[r * cols + i] - (double)d[r * cols + i]) * (double)x[t * cols + i];
            }
            num += dy * dy;
            den += y * y;
        }
    for (int64_t i = 0; i < rows * cols; i++) {
        squares += ((double)w[i] - (double)d[i]) * ((double)w[i] - (double)d[i]);
        weight += (double)w[i] * (double)w[i];
    }
    assert_true(fabs(e.rel_error / (num / den) - 1) < 1e-3);
    assert_true(fabs(e.mse / (squares / (double)(rows * cols)) - 1) < 1e-6 && e.mse == plain.mse);
    assert_true(fabs(plain.rel_error / (squares / weight) - 1) < 1e-6);
    qp_qweight_release(&q);
    qp_hessian_release(&h);
    qp_free(w);
    qp_free(x);
    qp_free(d);
}

/* Fewer tokens than inputs: without damping the Hessian has no inverse; the retry finds one and says which. */
static void test_damping_is_raised(void **in)
{
    struct fixture *f = *in;
    int64_t cols = 96, tokens = 8;
    float *w = floats(cols), *x = floats(tokens * cols);
    struct qp_hessian h;
    struct qp_err err = {0};
    make_data(9, w, 1, x, tokens, cols);
    assert_int_equal(qp_hessian_init(&h, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    for (int zero = 0; zero < 2; zero++) {
        assert_int_equal(qp_hessian_factor(&h, zero ? 0 : 1e-12, false, &f->ops, &f->ex, &err), 0);
        assert_true(h.damp > 1e-11 && h.damp < 1e-3);
        for (int64_t i = 0; i < cols * cols; i++)
            assert_true(isfinite(h.factor[i]));
        qp_free(h.factor);
        h.factor = NULL;
    }
    qp_hessian_release(&h);
    qp_free(w);
    qp_free(x);
}

static void test_dead_inputs(void **in)
{
    struct fixture *f = *in;
    int64_t rows = 4, cols = 64, tokens = 128;
    float *w = floats(rows * cols), *x = floats(tokens * cols);
    struct qp_err err = {0};
    make_data(21, w, rows, x, tokens, cols);
    for (int64_t t = 0; t < tokens; t++)
        x[t * cols + 5] = x[t * cols + 40] = 0;
    for (int act_order = 0; act_order < 2; act_order++) {
        struct qp_hessian h;
        struct qp_qlinear q;
        struct qp_gptq_options o = {.grid = {.bits = 4, .group_size = 32}, .sweeps = 1};
        assert_int_equal(qp_hessian_init(&h, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
        assert_int_equal(h.dead, 2);
        assert_int_equal(qp_hessian_factor(&h, 0.01, act_order, &f->ops, &f->ex, &err), 0);
        assert_int_equal(qp_gptq_quantize(&q, w, rows, &h, &o, &f->ops, &f->ex, &err), 0);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 5; i <= 40; i += 35) { /* nothing is known about it: the weight is rounded and stays what it was */
                int64_t at = r * q.n_groups + q.g_idx[i];
                float v = q.scales[at] * (float)(q.codes[r * cols + i] - q.zeros[at]);
                assert_true(fabsf(v - w[r * cols + i]) <= 0.75f * q.scales[at]);
            }
        qp_qlinear_release(&q);
        qp_hessian_release(&h);
    }
    memset(x, 0, (size_t)(tokens * cols) * sizeof *x);
    struct qp_hessian zero;
    assert_int_equal(qp_hessian_init(&zero, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    assert_int_equal(qp_hessian_factor(&zero, 0.01, true, &f->ops, &f->ex, &err), 1);
    qp_hessian_release(&zero);
    x[3] = NAN;
    assert_int_equal(qp_hessian_init(&zero, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "not finite"));
    err = (struct qp_err){0};
    x[3] = INFINITY;
    assert_int_equal(qp_hessian_init(&zero, x, tokens, cols, QP_COMPUTE_F32, &f->ops, &f->ex, &err), QP_E_INPUT);
    qp_free(w);
    qp_free(x);
}

/* bf16 statistics: the same matrix within the rounding of bf16, by blocks of tokens and a rest. */
static void test_moments(void **in)
{
    struct fixture *f = *in;
    int64_t n = 200, m = 40, tokens = 2048 + 77;
    float *x = floats(tokens * n), *y = floats(tokens * m), *w = floats(n), *got = floats(m * n);
    struct qp_err err = {0};
    make_data(41, w, 1, x, tokens, n);
    make_data(42, w, 1, y, tokens, m);
    for (int compute = QP_COMPUTE_F32; compute <= QP_COMPUTE_BF16; compute++) {
        double limit = compute == QP_COMPUTE_F32 ? 1e-4 : 3e-2;
        struct qp_hessian h;
        assert_int_equal(qp_moment(got, y, m, x, n, tokens, (enum qp_compute)compute, &f->ops, &f->ex, &err), 0);
        assert_int_equal(qp_hessian_init(&h, x, tokens, n, (enum qp_compute)compute, &f->ops, &f->ex, &err), 0);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                double hij = 0, mij = 0;
                for (int64_t t = 0; t < tokens; t++) {
                    hij += (double)x[t * n + i] * (double)x[t * n + j];
                    mij += i < m ? (double)y[t * m + i] * (double)x[t * n + j] : 0;
                }
                assert_true(fabs((double)h.h[i * n + j] - hij / (double)tokens) < limit && h.h[i * n + j] == h.h[j * n + i]);
                assert_true(i >= m || fabs((double)got[i * n + j] - mij / (double)tokens) < limit);
            }
        qp_hessian_release(&h);
    }
    qp_free(x);
    qp_free(y);
    qp_free(w);
    qp_free(got);
}

/* Inputs that went through a known linear map A are put right: with x' = x Aᵀ the full answer is W A, and gain 1 without damping finds it; so it does from
 * what the residual stream lacks. Half the gain goes half the way. */
static void test_drift_is_put_right(void **in)
{
    struct fixture *f = *in;
    int64_t rows = 6, n = 48, tokens = 400;
    float *w = floats(rows * n), *x = floats(tokens * n), *d = floats(tokens * n), *lack = floats(tokens * rows), *got = floats(rows * n);
    float *inputs = floats(n * n), *outputs = floats(rows * n);
    struct qp_err err = {0};
    struct qp_hessian h;
    make_data(51, w, rows, x, tokens, n);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < n; i++) /* A: each input gets a quarter of its neighbour */
            d[t * n + i] = 0.25f * x[t * n + (i + 1) % n];
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += (double)w[r * n + i] * ((double)x[t * n + i] + (double)d[t * n + i]);
            lack[t * rows + r] = (float)sum;
        }
    assert_int_equal(qp_hessian_init(&h, x, tokens, n, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    assert_int_equal(qp_moment(inputs, d, n, x, n, tokens, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    assert_int_equal(qp_moment(outputs, lack, rows, x, n, tokens, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
    for (int way = 0; way < 8; way++) {
        double gain = way & 1 ? 0.5 : 1;
        struct qp_drift drift = {.inputs = way & 2 ? inputs : NULL, .outputs = way & 2 ? NULL : outputs, .gain = gain, .h = &h};
        if (way % 4 == 0) /* as they are, then in the order of activation */
            assert_int_equal(qp_hessian_factor(&h, 1e-7, way == 4, &f->ops, &f->ex, &err), 0);
        memcpy(got, w, (size_t)(rows * n) * sizeof *w);
        assert_int_equal(qp_drift_correct(got, rows, &drift, &f->ops, &f->ex, &err), 0);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < n; i++) {
                double want = (double)w[r * n + i] + gain * 0.25 * (double)w[r * n + (i + n - 1) % n];
                assert_true(fabs((double)got[r * n + i] - want) < 2e-3);
            }
    }
    float *all[] = {w, x, d, lack, got, inputs, outputs};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        qp_free(all[i]);
    qp_hessian_release(&h);
}

/* The same bits for any number of threads. */
static void test_threads(void **in)
{
    struct fixture *f = *in, one = {.ops = f->ops};
    int64_t rows = 40, cols = 192, tokens = 300;
    float *w = floats(rows * cols), *x = floats(tokens * cols);
    struct qp_qlinear q[2];
    make_data(31, w, rows, x, tokens, cols);
    for (int i = 0; i < 2; i++) {
        struct qp_exec *ex = i ? &one.ex : &f->ex;
        struct qp_hessian h;
        struct qp_err err = {0};
        struct qp_gptq_options o = {.grid = {.bits = 4, .group_size = 64, .search = true}, .static_groups = true, .sweeps = 2};
        assert_int_equal(qp_hessian_init(&h, x, tokens, cols, QP_COMPUTE_F32, &f->ops, ex, &err), 0);
        assert_int_equal(qp_hessian_factor(&h, 0.01, true, &f->ops, ex, &err), 0);
        assert_int_equal(qp_gptq_quantize(&q[i], w, rows, &h, &o, &f->ops, ex, &err), 0);
        qp_hessian_release(&h);
    }
    assert_memory_equal(q[0].codes, q[1].codes, (size_t)(rows * cols));
    assert_memory_equal(q[0].scales, q[1].scales, (size_t)(rows * q[0].n_groups) * sizeof(float));
    assert_memory_equal(q[0].zeros, q[1].zeros, (size_t)(rows * q[0].n_groups));
    qp_qlinear_release(&q[0]);
    qp_qlinear_release(&q[1]);
    qp_exec_release(&one.ex);
    qp_free(w);
    qp_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_the_definition), cmocka_unit_test(test_checked_sums), cmocka_unit_test(test_factor_inverts),    cmocka_unit_test(test_order_of_methods),
        cmocka_unit_test(test_measure_is_the_output_error), cmocka_unit_test(test_damping_is_raised), cmocka_unit_test(test_dead_inputs),
        cmocka_unit_test(test_moments), cmocka_unit_test(test_drift_is_put_right), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("quant/gptq", tests, set_up, tear_down);
}
