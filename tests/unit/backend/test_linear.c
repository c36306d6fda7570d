/* Linear layers of float32 and bfloat16 weights. */
#include "ops_test.h"

struct linear {
    size_t (*bytes)(int64_t, int64_t);
    void (*pack)(struct qp_exec *, void *, const float *, int64_t, int64_t, int64_t, int64_t, int64_t);
    void (*run)(struct qp_exec *, float *, int64_t, const float *, int64_t, const void *, int64_t, int64_t, int64_t, bool);
};

static struct linear pick(const struct qp_ops *o, bool bf16)
{
    if (bf16)
        return (struct linear){o->linear_bf16_bytes, o->linear_bf16_pack, o->linear_bf16};
    return (struct linear){o->linear_f32_bytes, o->linear_f32_pack, o->linear_f32};
}

static void run_linear(const struct qp_ops *ops, struct qp_exec *ex, bool bf16, float *y, int64_t ldy, const float *x, int64_t ldx, const float *w,
                       int64_t T, int64_t N, int64_t K, bool accumulate)
{
    struct linear l = pick(ops, bf16);
    void *packed = qp_zalloc(l.bytes(N, K), "test", NULL);
    int64_t cut = N / 3; /* two pieces: packing several matrices into one */
    l.pack(ex, packed, w, K, 0, cut, N, K);
    l.pack(ex, packed, w + cut * K, K, cut, N - cut, N, K);
    l.run(ex, y, ldy, x, ldx, packed, T, N, K, accumulate);
    qp_free(packed);
}

static const int64_t linear_shapes[][3] = { /* T, N, K */
    {1, 1, 1}, {1, 64, 2}, {5, 63, 7}, {6, 64, 64}, {7, 65, 33}, {13, 17, 101}, {97, 130, 96}, {200, 192, 576}, {3, 576, 1536}, {0, 8, 8},
};

static void linear_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t i = 0; i < sizeof linear_shapes / sizeof *linear_shapes; i++) {
            int64_t T = linear_shapes[i][0], N = linear_shapes[i][1], K = linear_shapes[i][2], ldx = K + 3, ldy = N + 5;
            float *x = values(T * ldx, 1), *w = values(N * K, 0.1), *y = values(T * ldy, 1), *r = values(T * ldy, 1);
            memcpy(r, y, (size_t)(T * ldy) * sizeof *r);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                run_linear(ref, ex, bf16, r, ldy, x, ldx, w, T, N, K, accumulate);
                run_linear(ops, ex, bf16, y, ldy, x, ldx, w, T, N, K, accumulate);
                CHECK_DIFF(y, r, T * ldy, bf16 ? "linear_bf16" : "linear_f32", "T=%d N=%d K=%d accumulate=%d", (int)T, (int)N, (int)K, accumulate);
            }
            qp_free(x), qp_free(w), qp_free(y), qp_free(r);
        }
}

static void test_linear(void **s)
{
    (void)s;
    for_each_isa(linear_case);
}

/* The same bits for any thread count, and for a row alone or among others. */
static void invariance_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    (void)ref;
    int64_t T = 203, N = 200, K = 130;
    float *x = values(T * K, 1), *w = values(N * K, 1), *y = values(T * N, 0), *z = values(T * N, 0);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        run_linear(ops, ex, bf16, y, N, x, K, w, T, N, K, false);
        struct qp_exec other = {0};
        for (int threads = 1; threads <= 3; threads += 2) {
            assert_int_equal(qp_pool_new(&other.pool, threads, NULL), 0);
            run_linear(ops, &other, bf16, z, N, x, K, w, T, N, K, false);
            assert_memory_equal(y, z, (size_t)(T * N) * sizeof *y);
            qp_pool_free(other.pool);
        }
        qp_exec_release(&other);
        for (int64_t t = 0; t < T; t += 41) {
            run_linear(ops, ex, bf16, z, N, x + t * K, K, w, 1, N, K, false);
            assert_memory_equal(y + t * N, z, (size_t)N * sizeof *y);
        }
    }
    qp_free(x), qp_free(w), qp_free(y), qp_free(z);
}

static void test_invariance(void **s)
{
    (void)s;
    for_each_isa(invariance_case);
}

enum weights { LIKE, TINY, WIDE, N_WEIGHTS }; /* of like exponents, as a model's; some far smaller, zeros and denormals among them; of any exponent */

static float weight(enum weights kind, int64_t i)
{
    static const float odd[] = {0, -0.f, 1e-40f, -1e-20f, 3e-7f, 1e30f};
    if (kind == WIDE)
        return ldexpf(uniform(), (int)(uniform() * 60));
    return kind == TINY && i % 397 == 0 ? odd[i / 397 % 6] : uniform() * 0.1f + (uniform() < 0 ? -0.01f : 0.01f);
}

/* The compact matrix y, in a block that ends where it does, has the same bits as the plain one. */
static void compact_shape(const struct qp_ops *ops, struct qp_exec *ex, enum weights kind, int64_t N, int64_t K)
{
    const int64_t T[] = {1, 3, 6, 13, 36, 37, 230};
    size_t bytes = ops->linear_bf16_bytes(N, K);
    void *plain = qp_zalloc(bytes, "test", NULL), *work = qp_zalloc(bytes, "test", NULL);
    float *x = values(230 * K, 1), *w = values(N * K, 1), *y = values(230 * N, 0), *r = values(230 * N, 0);
    for (int64_t i = 0; i < N * K; i++)
        w[i] = weight(kind, i);
    ops->linear_bf16_pack(ex, plain, w, K, 0, N, N, K);
    ops->linear_bf16_pack(ex, work, w, K, 0, N, N, K);
    size_t left = ops->linear_bf16_compact(ex, work, N, K);
    assert_true(left <= bytes);
#ifdef QP_ISA_avx512_bf16
    if (ops->linear_bf16_compact == qp_avx512_bf16_linear_bf16_compact && K > 256)
        assert_true(kind == WIDE ? left == bytes : (double)left < 0.8 * (double)bytes);
#endif
    void *compact = qp_shrink(work, left);
    for (size_t i = 0; i < sizeof T / sizeof *T; i++) {
        ops->linear_bf16(ex, r, N, x, K, plain, T[i], N, K, false);
        ops->linear_bf16(ex, y, N, x, K, compact, T[i], N, K, false);
        CHECK_DIFF(y, r, T[i] * N, "linear_bf16_compact", "kind %d, T=%d N=%d K=%d", kind, (int)T[i], (int)N, (int)K);
        assert_memory_equal(y, r, (size_t)(T[i] * N) * sizeof *y);
    }
    qp_free(plain), qp_free(compact), qp_free(x), qp_free(w), qp_free(y), qp_free(r);
}

static void compact_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    (void)ref;
    for (enum weights kind = 0; kind < N_WEIGHTS; kind++) {
        compact_shape(ops, ex, kind, 1, 1);
        compact_shape(ops, ex, kind, 65, 33);
        compact_shape(ops, ex, kind, 200, 577);
        compact_shape(ops, ex, kind, 70, 2300);
    }
}

static void test_compact(void **s)
{
    (void)s;
    for_each_isa(compact_case);
}

static void special_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const float special[] = {0.f, -0.f, 1e30f, -1e30f, 1e-40f, NAN, INFINITY};
    int64_t T = 8, N = 70, K = 40;
    float *w = values(N * K, 1), *y = values(T * N, 0), *r = values(T * N, 0);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        float *x = values(T * K, 1);
        x[3 * K + 7] = special[i];
        run_linear(ref, ex, false, r, N, x, K, w, T, N, K, false);
        run_linear(ops, ex, false, y, N, x, K, w, T, N, K, false);
        CHECK_DIFF(y, r, T * N, "linear_f32", "with %g", (double)special[i]);
        qp_free(x);
    }
    qp_free(w), qp_free(y), qp_free(r);
}

static void test_special(void **s)
{
    (void)s;
    for_each_isa(special_case);
}

static void test_names(void **s)
{
    (void)s;
    struct qp_ops ops;
    struct qp_err err = {0};
    assert_int_equal(qp_backend_cpu_init(&ops, "sse9", &err), QP_E_USAGE);
    assert_non_null(strstr(err.text, "avx512_bf16"));
    assert_int_equal(qp_backend_cpu_init(&ops, NULL, NULL), 0);
    assert_non_null(ops.gemm_sub);
}

static void test_covered(void **s)
{
    (void)s;
    check_covered("linear");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_compact),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
