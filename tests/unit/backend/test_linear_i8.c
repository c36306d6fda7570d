/* LLM.int8(). */
#include "ops_test.h"

struct matrix {
    struct qp_qmatrix q;
    float table[256], *scales;
    uint8_t *codes;
};

static struct matrix *matrix_new(int64_t N, int64_t K, float outlier)
{
    struct matrix *m = qp_zalloc(sizeof *m, "test", NULL);
    m->q = (struct qp_qmatrix){.N = N, .K = K, .Kp = K, .group = K, .n_groups = 1, .bits = 8, .affine = true, .outlier = outlier, .table = m->table};
    for (int c = 0; c < 256; c++)
        m->table[c] = (float)(c - 128);
    m->codes = qp_alloc((size_t)(N * K), "test", NULL);
    m->scales = values(N, 0.01);
    for (int64_t i = 0; i < N * K; i++)
        m->codes[i] = (uint8_t)(128 + (int)(uniform() * 127.99f));
    return m;
}

static void matrix_free(struct matrix *m)
{
    qp_free(m->codes), qp_free(m->scales), qp_free(m);
}

static void run(const struct qp_ops *ops, struct qp_exec *ex, const struct matrix *m, float *y, int64_t ldy, const float *x, int64_t ldx, int64_t T, bool accumulate)
{
    const struct qp_qmatrix *q = &m->q;
    void *packed = qp_zalloc(ops->linear_i8_bytes(q), "test", NULL);
    int64_t cut = q->N / 3;
    ops->linear_i8_pack(ex, packed, q, m->codes, m->scales, NULL, 0, cut);
    ops->linear_i8_pack(ex, packed, q, m->codes + cut * q->K, m->scales + cut, NULL, cut, q->N - cut);
    ops->linear_i8(ex, y, ldy, x, ldx, packed, q, T, accumulate);
    qp_free(packed);
}

static const int64_t shapes[][3] = {{1, 1, 8}, {1, 64, 8}, {5, 63, 24}, {6, 65, 64}, {7, 130, 96}, {13, 17, 104}, {97, 192, 576}, {3, 576, 1536}, {600, 40, 72}, {0, 8, 8}};

static void linear_i8_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const float outliers[] = {2, 0.9f, 1e-3f}; /* none, some, nearly all */
    if (!ops->has_int8)
        return;
    for (int o = 0; o < 3; o++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            int64_t T = shapes[i][0], N = shapes[i][1], K = shapes[i][2], ldx = K + 3, ldy = N + 5;
            struct matrix *m = matrix_new(N, K, outliers[o]);
            float *x = values(T * ldx, 1), *y = values(T * ldy, 1), *r = values(T * ldy, 1);
            memcpy(r, y, (size_t)(T * ldy) * sizeof *r);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                run(ref, ex, m, r, ldy, x, ldx, T, accumulate);
                run(ops, ex, m, y, ldy, x, ldx, T, accumulate);
                CHECK_DIFF(y, r, T * ldy, "linear_i8", "T=%d N=%d K=%d outliers from %g accumulate=%d", (int)T, (int)N, (int)K, (double)outliers[o], accumulate);
            }
            qp_free(x), qp_free(y), qp_free(r), matrix_free(m);
        }
}

static void test_linear_i8(void **s)
{
    (void)s;
    for_each_isa(linear_i8_case);
}

/* With all x as outliers it is linear_q; with none it differs by the rounding of x to 127 steps. */
static void test_definition(void **s)
{
    (void)s;
    struct qp_ops ref;
    struct qp_exec ex = {0};
    int64_t T = 9, N = 50, K = 256;
    float *x = values(T * K, 1), *y = values(T * N, 0), *z = values(T * N, 0);
    assert_int_equal(qp_backend_cpu_init(&ref, "ref", NULL), 0);
    struct matrix *m = matrix_new(N, K, 1e-30f);
    void *packed = qp_zalloc(ref.linear_q_bytes(&m->q), "test", NULL);
    ref.linear_q_pack(&ex, packed, &m->q, m->codes, m->scales, NULL, 0, N);
    ref.linear_q(&ex, z, N, x, K, packed, &m->q, T, false);
    run(&ref, &ex, m, y, N, x, K, T, false);
    assert_true(difference(y, z, T * N) < 1e-6);
    m->q.outlier = 6;
    run(&ref, &ex, m, y, N, x, K, T, false);
    assert_true(difference(y, z, T * N) < 0.01);
    assert_true(difference(y, z, T * N) > 1e-4);
    qp_free(packed), qp_free(x), qp_free(y), qp_free(z), matrix_free(m);
    qp_exec_release(&ex);
}

/* The same bits for any thread count, and for a row alone or in a batch. */
static void invariance_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    int64_t T = 203, N = 200, K = 136;
    if (!ops->has_int8)
        return;
    float *x = values(T * K, 1), *y = values(T * N, 0), *z = values(T * N, 0);
    struct matrix *m = matrix_new(N, K, 0.95f);
    struct qp_exec alone = {0};
    (void)ref;
    run(ops, ex, m, y, N, x, K, T, false);
    run(ops, &alone, m, z, N, x, K, T, false);
    assert_memory_equal(y, z, (size_t)(T * N) * sizeof *y);
    for (int64_t n = 1; n <= 14; n++) {
        run(ops, ex, m, z, N, x + 41 * K, K, n, false);
        assert_memory_equal(y + 41 * N, z, (size_t)(n * N) * sizeof *y);
    }
    qp_exec_release(&alone);
    qp_free(x), qp_free(y), qp_free(z), matrix_free(m);
}

static void test_invariance(void **s)
{
    (void)s;
    for_each_isa(invariance_case);
}

/* Values that break kernels stay in their row; a row of zeros is zero. */
static void special_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const float special[] = {0.f, -0.f, 1e30f, -1e30f, 1e-40f, NAN, INFINITY};
    int64_t T = 15, N = 70, K = 64;
    if (!ops->has_int8)
        return;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        struct matrix *m = matrix_new(N, K, 6);
        float *x = values(T * K, 1), *y = values(T * N, 0), *r = values(T * N, 0);
        x[3 * K + 7] = special[i];
        memset(x + 5 * K, 0, (size_t)K * sizeof *x);
        run(ref, ex, m, r, N, x, K, T, false);
        run(ops, ex, m, y, N, x, K, T, false);
        for (int64_t t = 0; t < T; t++)
            for (int64_t n = 0; n < N; n++) {
                assert_int_equal(isfinite(y[t * N + n]), t != 3 || isfinite(special[i]));
                assert_true(t != 5 || y[t * N + n] == 0);
            }
        if (isfinite(special[i]))
            CHECK_DIFF(y, r, T * N, "linear_i8", "with %g", (double)special[i]);
        qp_free(x), qp_free(y), qp_free(r), matrix_free(m);
    }
}

static void test_special(void **s)
{
    (void)s;
    for_each_isa(special_case);
}

static void test_covered(void **s)
{
    (void)s;
    check_covered("linear_i8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_i8), cmocka_unit_test(test_definition), cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_special),   cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
