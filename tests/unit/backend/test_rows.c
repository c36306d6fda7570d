/* Norms, activations, sums, rotation. */
#include "ops_test.h"

static void special_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const float special[] = {0.f, -0.f, 1e30f, -1e30f, 1e-40f, NAN, INFINITY};
    int64_t T = 8, K = 40;
    float *w = values(K, 1), *y = values(T * K, 0), *r = values(T * K, 0);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        float *x = values(T * K, 1);
        x[3 * K + 7] = special[i];
        ref->rms_norm(ex, r, x, w, T, K, 1e-5f);
        ops->rms_norm(ex, y, x, w, T, K, 1e-5f);
        if (isfinite(special[i]) && fabsf(special[i]) < 1e18f) /* the square of 1e30 leaves float32, not double */
            CHECK_DIFF(y, r, T * K, "rms_norm", "with %g", (double)special[i]);
        qp_free(x);
    }
    float in[7], ones[7], out[7], want[7];
    for (int i = 0; i < 7; i++) {
        in[i] = special[i];
        ones[i] = 1;
    }
    ref->silu_mul(ex, want, 7, in, ones, 7, 1, 6);
    ops->silu_mul(ex, out, 7, in, ones, 7, 1, 6);
    CHECK_DIFF(out, want, 6, "silu_mul", "special values");
    ref->gelu_mul(ex, want, 7, in, ones, 7, 1, 7);
    ops->gelu_mul(ex, out, 7, in, ones, 7, 1, 7);
    CHECK_DIFF(out, want, 7, "gelu_mul", "special values");
    ref->gelu_erf(ex, want, 7, in, 7, 1, 7);
    ops->gelu_erf(ex, out, 7, in, 7, 1, 7);
    CHECK_DIFF(out, want, 7, "gelu_erf", "special values");
    memcpy(want, in, sizeof in);
    memcpy(out, in, sizeof in);
    ref->soft_cap(ex, want, 7, 30.f);
    ops->soft_cap(ex, out, 7, 30.f);
    CHECK_DIFF(out, want, 7, "soft_cap", "special values");
    qp_free(w), qp_free(y), qp_free(r);
}

static void test_special(void **s)
{
    (void)s;
    for_each_isa(special_case);
}

static void elementwise_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const int64_t widths[] = {1, 7, 16, 17, 64, 100, 576, 1536};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        int64_t T = 19, D = widths[i], ld = 2 * D + 3;
        float *x = values(T * ld, 4), *w = values(D, 1), *y = values(T * ld, 1), *r = values(T * ld, 1);
        ref->rms_norm(ex, r, x, w, T, D, 1e-5f);
        ops->rms_norm(ex, y, x, w, T, D, 1e-5f);
        CHECK_DIFF(y, r, T * D, "rms_norm", "D=%d", (int)D);
        ref->layer_norm(ex, r, x, w, x + D, T, D, 1e-5f);
        ops->layer_norm(ex, y, x, w, x + D, T, D, 1e-5f);
        CHECK_DIFF(y, r, T * D, "layer_norm", "D=%d", (int)D);
        for (int gated = 0; gated < 2; gated++) {
            ref->gelu_mul(ex, r, D, x, gated ? x + D : NULL, ld, T, D);
            ops->gelu_mul(ex, y, D, x, gated ? x + D : NULL, ld, T, D);
            CHECK_DIFF(y, r, T * D, "gelu_mul", "F=%d gated %d", (int)D, gated);
        }
        ref->gelu_erf(ex, r, D, x, ld, T, D);
        ops->gelu_erf(ex, y, D, x, ld, T, D);
        CHECK_DIFF(y, r, T * D, "gelu_erf", "F=%d", (int)D);
        memcpy(r, x, (size_t)(T * D) * sizeof *r);
        memcpy(y, x, (size_t)(T * D) * sizeof *y);
        ref->soft_cap(ex, r, T * D, 2.5f);
        ops->soft_cap(ex, y, T * D, 2.5f);
        CHECK_DIFF(y, r, T * D, "soft_cap", "n=%d", (int)(T * D));
        ref->silu_mul(ex, r, D, x, x + D, ld, T, D);
        ops->silu_mul(ex, y, D, x, x + D, ld, T, D);
        CHECK_DIFF(y, r, T * D, "silu_mul", "F=%d", (int)D);
        memcpy(y, r, (size_t)(T * D) * sizeof *y); /* the next two are exact */
        ref->add(ex, r, x, T * D);
        ops->add(ex, y, x, T * D);
        CHECK_DIFF(y, r, T * D, "add", "n=%d", (int)(T * D));
        ref->add_bias(ex, r, D, w, T, D);
        ops->add_bias(ex, y, D, w, T, D);
        CHECK_DIFF(y, r, T * D, "add_bias", "N=%d", (int)D);
        qp_free(x), qp_free(w), qp_free(y), qp_free(r);
    }
    for (int pairs = 0; pairs < 2; pairs++)
        for (int64_t hd = 2; hd <= 128; hd *= 4) {
            int64_t T = 5, heads = 3, ld = heads * hd + 1;
            float *cs = values(T * hd, 1), *y = values(T * ld, 1), *r = values(T * ld, 1);
            memcpy(r, y, (size_t)(T * ld) * sizeof *r);
            ref->rope(ex, r, ld, cs, T, heads, hd, pairs);
            ops->rope(ex, y, ld, cs, T, heads, hd, pairs);
            CHECK_DIFF(y, r, T * ld, "rope", "hd=%d", (int)hd);
            qp_free(cs), qp_free(y), qp_free(r);
        }
}

static void test_elementwise(void **s)
{
    (void)s;
    for_each_isa(elementwise_case);
}

/* The vector exponential over its whole range, through silu(g) = g / (1 + e^-g): each value, not only their norm. */
static void exponential_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { N = 40000 };
    (void)ref;
    float *g = values(N, 0), *one = values(N, 0), *y = values(N, 0);
    for (int i = 0; i < N; i++) {
        g[i] = -86.f + (float)i * (172.f / N);
        one[i] = 1;
    }
    ops->silu_mul(ex, y, N, g, one, N, 1, N);
    for (int i = 0; i < N; i++) {
        double want = (double)g[i] / (1 + exp(-(double)g[i]));
        assert_true(fabs((double)y[i] - want) <= 4e-7 * fabs(want));
    }
    qp_free(g), qp_free(one), qp_free(y);
}

/* GELU value by value against double precision; layer_norm by hand: (1, 2, 3, 6) has mean 3 and variance 3.5. */
static void gelu_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { N = 20000 };
    float *g = values(N, 0), *y = values(N, 0), x[] = {1, 2, 3, 6}, w[] = {1, 1, 2, 1}, b[] = {0, 0, 5, 0};
    for (int i = 0; i < N; i++)
        g[i] = -8.f + (float)i * (16.f / N);
    ops->gelu_mul(ex, y, N, g, NULL, N, 1, N);
    for (int i = 0; i < N; i++) {
        double v = (double)g[i];
        assert_true(fabs((double)y[i] - 0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)))) <= 5e-7 * fmax(1, fabs(v)));
    }
    ops->gelu_erf(ex, y, N, g, N, 1, N);
    for (int i = 0; i < N; i++)
        assert_true(fabs((double)y[i] - 0.5 * (double)g[i] * (1 + erf((double)g[i] / sqrt(2)))) <= 5e-7 * fmax(1, fabs((double)g[i])));
    for (int k = 0; k < 2; k++) {
        (k ? ref : ops)->layer_norm(ex, y, x, w, b, 1, 4, 0.5f);
        for (int i = 0; i < 4; i++)
            assert_true(fabsf(y[i] - ((x[i] - 3) / 2 * w[i] + b[i])) <= 1e-6f);
    }
    qp_free(g), qp_free(y);
}

static void test_gelu(void **s)
{
    (void)s;
    for_each_isa(gelu_case);
}

static void test_exponential(void **s)
{
    (void)s;
    for_each_isa(exponential_case);
}

/* Every op one after the other. */
static void run_all(const struct qp_ops *ops, struct qp_exec *ex, float *out, const float *x)
{
    enum { T = 67, K = 150 };
    ops->rms_norm(ex, out, x, x, T, K, 1e-5f), out += T * K;
    ops->layer_norm(ex, out, x, x, x + 7, T, K, 1e-5f), out += T * K;
    ops->silu_mul(ex, out, K, x, x + K, 2 * K, T, K), out += T * K;
    ops->gelu_mul(ex, out, K, x, x + K, 2 * K, T, K), out += T * K;
    ops->gelu_erf(ex, out, K, x, 2 * K, T, K), out += T * K;
    ops->add(ex, out, x, T * K), ops->add_bias(ex, out, K, x, T, K), out += T * K;
    ops->rope(ex, out, K, x, T, 1, K, false);
}

/* The same bits for any number of threads. */
static void threads_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { SIZE = 90000 };
    (void)ref;
    float *x = values(SIZE, 1), *y = qp_zalloc(SIZE * sizeof *y, "test", NULL), *z = qp_zalloc(SIZE * sizeof *z, "test", NULL);
    run_all(ops, ex, y, x);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct qp_exec other = {0};
        assert_int_equal(qp_pool_new(&other.pool, threads, NULL), 0);
        memset(z, 0, SIZE * sizeof *z);
        run_all(ops, &other, z, x);
        assert_memory_equal(y, z, SIZE * sizeof *y);
        qp_pool_free(other.pool);
        qp_exec_release(&other);
    }
    qp_free(x), qp_free(y), qp_free(z);
}

static void test_threads(void **s)
{
    (void)s;
    for_each_isa(threads_case);
}

static void test_covered(void **s)
{
    (void)s;
    check_covered("rows");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
