/* Every variant of ops.def against the reference: shapes around the tiles, thread counts, batch sizes, values that break kernels. */
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

static const char *const isas[] = {"avx2", "avx512", "avx512_bf16"};
enum { N_ISAS = 3 };

static uint64_t state = 1;

static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 11) * 0x1p-53 * 2 - 1);
}

static float *values(int64_t n, double scale)
{
    float *p = qp_alloc((size_t)(n > 0 ? n : 1) * sizeof *p, "test", NULL);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (float)(scale * (double)uniform());
    return p;
}

/* Relative Frobenius difference; NaN and infinities must agree in class. */
static double difference(const float *a, const float *ref, int64_t n)
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

#define CHECK_DIFF(got, ref, n, limit, ...)                                            \
    do {                                                                               \
        double d_ = difference(got, ref, n);                                           \
        if (!(d_ <= (limit))) {                                                        \
            print_message("%s: difference %g, limit %g: ", ops->isa, d_, (double)(limit)); \
            print_message(__VA_ARGS__);                                                \
            print_message("\n");                                                       \
            fail();                                                                    \
        }                                                                              \
    } while (0)

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

static void for_each_isa(void (*test)(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex))
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
                CHECK_DIFF(y, r, T * ldy, 2e-6, "linear bf16=%d T=%d N=%d K=%d accumulate=%d", bf16, (int)T, (int)N, (int)K, accumulate);
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
        CHECK_DIFF(y, r, T * N, 2e-6, "linear with %g", (double)special[i]);
        ref->rms_norm(ex, r, x, w, T, K, 1e-5f);
        ops->rms_norm(ex, y, x, w, T, K, 1e-5f);
        if (isfinite(special[i]) && fabsf(special[i]) < 1e18f) /* the square of 1e30 leaves float32, not double */
            CHECK_DIFF(y, r, T * K, 1e-6, "rms_norm with %g", (double)special[i]);
        qp_free(x);
    }
    float in[7], ones[7], out[7], want[7];
    for (int i = 0; i < 7; i++) {
        in[i] = special[i];
        ones[i] = 1;
    }
    ref->silu_mul(ex, want, 7, in, ones, 7, 1, 6);
    ops->silu_mul(ex, out, 7, in, ones, 7, 1, 6);
    CHECK_DIFF(out, want, 6, 1e-6, "silu of special values");
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
        CHECK_DIFF(y, r, T * D, 1e-6, "rms_norm D=%d", (int)D);
        ref->silu_mul(ex, r, D, x, x + D, ld, T, D);
        ops->silu_mul(ex, y, D, x, x + D, ld, T, D);
        CHECK_DIFF(y, r, T * D, 1e-6, "silu_mul F=%d", (int)D);
        ref->add(ex, r, x, T * D);
        ops->add(ex, y, x, T * D);
        CHECK_DIFF(y, r, T * D, 1e-6, "add n=%d", (int)(T * D));
        ref->add_bias(ex, r, D, w, T, D);
        ops->add_bias(ex, y, D, w, T, D);
        CHECK_DIFF(y, r, T * D, 1e-6, "add_bias N=%d", (int)D);
        qp_free(x), qp_free(w), qp_free(y), qp_free(r);
    }
    for (int pairs = 0; pairs < 2; pairs++)
        for (int64_t hd = 2; hd <= 128; hd *= 4) {
            int64_t T = 5, heads = 3, ld = heads * hd + 1;
            float *cs = values(T * hd, 1), *y = values(T * ld, 1), *r = values(T * ld, 1);
            memcpy(r, y, (size_t)(T * ld) * sizeof *r);
            ref->rope(ex, r, ld, cs, T, heads, hd, pairs);
            ops->rope(ex, y, ld, cs, T, heads, hd, pairs);
            CHECK_DIFF(y, r, T * ld, 1e-6, "rope hd=%d", (int)hd);
            qp_free(cs), qp_free(y), qp_free(r);
        }
}

static void test_elementwise(void **s)
{
    (void)s;
    for_each_isa(elementwise_case);
}

struct attn {
    size_t (*bytes)(const struct qp_attn_shape *);
    void (*store)(struct qp_exec *, void *, const struct qp_attn_shape *, const float *, int64_t, const float *, int64_t, int64_t, int64_t);
    void (*run)(struct qp_exec *, float *, int64_t, const float *, int64_t, const void *, const struct qp_attn_shape *, int64_t, int64_t);
};

static struct attn pick_attn(const struct qp_ops *o, bool bf16)
{
    if (bf16)
        return (struct attn){o->kv_bf16_bytes, o->kv_bf16_store, o->attention_bf16};
    return (struct attn){o->kv_f32_bytes, o->kv_f32_store, o->attention_f32};
}

/* Fills the cache in two steps, then runs the queries [from, T) in batches of `step`. */
static void run_attention(const struct qp_ops *ops, struct qp_exec *ex, bool bf16, const struct qp_attn_shape *s, float *out, const float *q,
                          const float *k, const float *v, int64_t T, int64_t from, int64_t step)
{
    struct attn a = pick_attn(ops, bf16);
    int64_t ldq = s->n_heads * s->head_dim, ldk = s->n_kv_heads * s->head_dim, cut = T / 2;
    void *cache = qp_zalloc(a.bytes(s), "test", NULL);
    a.store(ex, cache, s, k, ldk, v, ldk, 0, cut);
    a.store(ex, cache, s, k + cut * ldk, ldk, v + cut * ldk, ldk, cut, T - cut);
    for (int64_t t = from; t < T; t += step)
        a.run(ex, out + (t - from) * ldq, ldq, q + t * ldq, ldq, cache, s, t, t + step < T ? step : T - t);
    qp_free(cache);
}

static void attention_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const int64_t shapes[][6] = { /* T, from, heads, kv heads, hd, window */
        {1, 0, 1, 1, 2, 0}, {5, 0, 3, 1, 64, 0}, {130, 0, 9, 3, 64, 0}, {300, 150, 4, 2, 80, 0}, {257, 0, 2, 2, 128, 70}, {140, 139, 6, 2, 96, 33}, {30, 7, 2, 1, 256, 0},
    };
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            int64_t T = shapes[i][0], from = shapes[i][1];
            struct qp_attn_shape s = {.n_heads = shapes[i][2], .n_kv_heads = shapes[i][3], .head_dim = shapes[i][4], .capacity = T + 3, .window = shapes[i][5]};
            s.scale = 1.f / sqrtf((float)s.head_dim);
            int64_t ldq = s.n_heads * s.head_dim, ldk = s.n_kv_heads * s.head_dim;
            float *q = values(T * ldq, 3), *k = values(T * ldk, 3), *v = values(T * ldk, 1), *y = values(T * ldq, 0), *r = values(T * ldq, 0);
            run_attention(ref, ex, bf16, &s, r, q, k, v, T, from, T);
            run_attention(ops, ex, bf16, &s, y, q, k, v, T, from, T);
            CHECK_DIFF(y, r, (T - from) * ldq, bf16 ? 6e-3 : 2e-6, "attention bf16=%d case %d", bf16, (int)i);
            run_attention(ops, ex, bf16, &s, r, q, k, v, T, from, 7);
            assert_memory_equal(y, r, (size_t)((T - from) * ldq) * sizeof *y);
            qp_free(q), qp_free(k), qp_free(v), qp_free(y), qp_free(r);
        }
}

static void test_attention(void **s)
{
    (void)s;
    for_each_isa(attention_case);
}

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
            assert_true(fabs(la[t] - ra[t]) <= 1e-6);
            assert_true(fabs(kl[t] - rkl[t]) <= 1e-6 + 1e-5 * rkl[t]);
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
        CHECK_DIFF(h, r, K * K, 2e-6, "syrk T=%d K=%d", (int)T, (int)K);
        float *a = values(T * K, 1), *b = values(K * 77, 1), *c = values(T * 77, 1), *want = values(T * 77, 1);
        memcpy(want, c, (size_t)(T * 77) * sizeof *c);
        ref->gemm_sub(ex, want, 77, a, K, b, 77, T, 77, K);
        ops->gemm_sub(ex, c, 77, a, K, b, 77, T, 77, K);
        CHECK_DIFF(c, want, T * 77, 2e-6, "gemm_sub M=%d K=%d", (int)T, (int)K);
        qp_free(x), qp_free(h), qp_free(r), qp_free(a), qp_free(b), qp_free(c), qp_free(want);
    }
}

static void test_quantizer(void **s)
{
    (void)s;
    for_each_isa(quantizer_case);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       cmocka_unit_test(test_linear),       cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_special),     cmocka_unit_test(test_elementwise),  cmocka_unit_test(test_attention),
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_quantizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
