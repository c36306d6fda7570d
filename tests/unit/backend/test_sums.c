/* The output distribution, and the quantizers' products. */
#include "ops_test.h"

static void distribution_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const int64_t widths[] = {1, 5, 16, 1023, 1025, 49152};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        enum { T = 3 };
        int64_t V = widths[i];
        float *a = values(T * V, 12), *b = values(T * V, 12);
        double la[T], lb[T], ra[T], rb[T], kl[T], rkl[T];
        int32_t ma[T], mr[T];
        for (int64_t j = 0; j < T * V; j++)
            b[j] = a[j] + 0.1f * b[j];
        ref->log_sum_exp(ex, ra, mr, a, V, T, V);
        ref->log_sum_exp(ex, rb, NULL, b, V, T, V);
        ops->log_sum_exp(ex, la, ma, a, V, T, V);
        ops->log_sum_exp(ex, lb, NULL, b, V, T, V);
        ref->kl_div(ex, rkl, a, V, ra, b, V, rb, T, V);
        ops->kl_div(ex, kl, a, V, la, b, V, lb, T, V);
        for (int t = 0; t < T; t++) {
            assert_int_equal(ma[t], mr[t]);
            assert_true(fabs(la[t] - ra[t]) <= tolerance(ops->isa, "log_sum_exp") * fmax(1, fabs(ra[t])));
            assert_true(fabs(kl[t] - rkl[t]) <= 1e-6 + tolerance(ops->isa, "kl_div") * rkl[t]);
        }
        qp_free(a), qp_free(b);
    }
}

static void test_distribution(void **s)
{
    (void)s;
    for_each_isa(distribution_case);
}

static void quantizer_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const int64_t shapes[][2] = {{1, 1}, {5, 63}, {129, 64}, {700, 65}, {64, 200}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t T = shapes[i][0], K = shapes[i][1];
        float *x = values(T * K, 1), *h = values(K * K, 1), *r = values(K * K, 1);
        memcpy(r, h, (size_t)(K * K) * sizeof *r);
        ref->syrk(ex, r, K, x, K, T, K);
        ops->syrk(ex, h, K, x, K, T, K);
        for (int64_t a = 0; a < K; a++)
            for (int64_t b = a + 1; b < K; b++) /* above the diagonal nothing is promised */
                h[a * K + b] = r[a * K + b];
        CHECK_DIFF(h, r, K * K, "syrk", "T=%d K=%d", (int)T, (int)K);
        float *a = values(T * K, 1), *b = values(K * 77, 1), *c = values(T * 77, 1), *want = values(T * 77, 1);
        memcpy(want, c, (size_t)(T * 77) * sizeof *c);
        ref->gemm_sub(ex, want, 77, a, K, b, 77, T, 77, K);
        ops->gemm_sub(ex, c, 77, a, K, b, 77, T, 77, K);
        CHECK_DIFF(c, want, T * 77, "gemm_sub", "M=%d K=%d", (int)T, (int)K);
        qp_free(x), qp_free(h), qp_free(r), qp_free(a), qp_free(b), qp_free(c), qp_free(want);
    }
}

static void test_quantizer(void **s)
{
    (void)s;
    for_each_isa(quantizer_case);
}

/* Every op one after the other. */
static void run_all(const struct qp_ops *ops, struct qp_exec *ex, float *out, const float *x)
{
    enum { T = 67, K = 150, V = 3000, ROWS = 8 };
    double lse[ROWS], kl[ROWS];
    int32_t top[ROWS];
    ops->syrk(ex, out, K, x, K, T, K), out += K * K;
    ops->gemm_sub(ex, out, K, x, K, x + 7, K, T, K, K), out += T * K;
    ops->log_sum_exp(ex, lse, top, x, V, ROWS, V);
    ops->kl_div(ex, kl, x, V, lse, x, V, lse, ROWS, V);
    memcpy(out, lse, sizeof lse);
    memcpy(out + 16, kl, sizeof kl);
}

/* The same bits for any number of threads. */
static void threads_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { SIZE = 60000 };
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
    check_covered("sums");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_quantizer),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
