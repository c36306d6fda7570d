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

/* ops.def as data: the limit of each variant, and whether a test has asked for it. */
static struct row {
    const char *op, *variant;
    double tolerance;
    bool tested;
} rows[] = {
#define ROW(op, variant, tol) {#op, #variant, tol, false},
    QP_OPS_REF(ROW) QP_OPS_AVX2(ROW) QP_OPS_AVX512(ROW) QP_OPS_AVX512_BF16(ROW)
#undef ROW
};
enum { N_ROWS = sizeof rows / sizeof *rows };

/* The limit of the variant that a table for `isa` uses: the last row at or below it that names the op. */
static double tolerance(const char *isa, const char *op)
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

struct attn {
    size_t (*bytes)(const struct qp_attn_shape *);
    void (*store)(struct qp_exec *, void *, const struct qp_attn_shape *, const float *, int64_t, const float *, int64_t, int64_t, int64_t);
    void (*run)(struct qp_exec *, float *, int64_t, const float *, int64_t, const void *, const struct qp_attn_shape *, int64_t, int64_t);
};

static struct attn pick_attn(const struct qp_ops *o, enum qp_kv kv)
{
    switch (kv) {
    case QP_KV_BF16: return (struct attn){o->kv_bf16_bytes, o->kv_bf16_store, o->attention_bf16};
    case QP_KV_F16: return (struct attn){o->kv_f16_bytes, o->kv_f16_store, o->attention_f16};
    case QP_KV_INT8: return (struct attn){o->kv_int8_bytes, o->kv_int8_store, o->attention_int8};
    default: return (struct attn){o->kv_f32_bytes, o->kv_f32_store, o->attention_f32};
    }
}

static const char *const attention_names[QP_KV_COUNT] = {"attention_f32", "attention_bf16", "attention_f16", "attention_int8"};

/* Fills the cache in two steps, then runs the queries [from, T) in batches of `step`. */
static void run_attention(const struct qp_ops *ops, struct qp_exec *ex, enum qp_kv kv, const struct qp_attn_shape *s, float *out, const float *q,
                          const float *k, const float *v, int64_t T, int64_t from, int64_t step)
{
    struct attn a = pick_attn(ops, kv);
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
        {1, 0, 1, 1, 2, 0}, {9, 0, 2, 1, 7, 0}, {5, 0, 3, 1, 64, 0}, {130, 0, 9, 3, 64, 0}, {300, 150, 4, 2, 80, 0}, {257, 0, 2, 2, 128, 70}, {140, 139, 6, 2, 96, 33}, {30, 7, 2, 1, 256, 0},
    };
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            int64_t T = shapes[i][0], from = shapes[i][1];
            struct qp_attn_shape s = {.n_heads = shapes[i][2], .n_kv_heads = shapes[i][3], .head_dim = shapes[i][4], .capacity = T + 3, .window = shapes[i][5]};
            s.scale = 1.f / sqrtf((float)s.head_dim);
            int64_t ldq = s.n_heads * s.head_dim, ldk = s.n_kv_heads * s.head_dim;
            float *q = values(T * ldq, 3), *k = values(T * ldk, 3), *v = values(T * ldk, 1), *y = values(T * ldq, 0), *r = values(T * ldq, 0);
            run_attention(ref, ex, kv, &s, r, q, k, v, T, from, T);
            run_attention(ops, ex, kv, &s, y, q, k, v, T, from, T);
            CHECK_DIFF(y, r, (T - from) * ldq, attention_names[kv], "case %d", (int)i);
            run_attention(ops, ex, kv, &s, r, q, k, v, T, from, 7);
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

/* Outputs of every other op for a given number of threads, one after the other. */
static void run_all(const struct qp_ops *ops, struct qp_exec *ex, float *out, const float *x)
{
    enum { T = 67, K = 150, V = 3000 };
    struct qp_attn_shape s = {.n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .capacity = T, .scale = 0.125f};
    double lse[T], kl[T];
    int32_t top[T];
    ops->rms_norm(ex, out, x, x, T, K, 1e-5f), out += T * K;
    ops->silu_mul(ex, out, K, x, x + K, 2 * K, T, K), out += T * K;
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++, out += T * 384)
        run_attention(ops, ex, kv, &s, out, x, x + 50, x + 99, T, 0, T);
    memset(out, 0, K * K * sizeof *out);
    ops->syrk(ex, out, K, x, K, T, K), out += K * K;
    memset(out, 0, T * K * sizeof *out);
    ops->gemm_sub(ex, out, K, x, K, x + 7, K, T, K, K), out += T * K;
    ops->log_sum_exp(ex, lse, top, x, V, 8, V);
    ops->kl_div(ex, kl, x, V, lse, x, V, lse, 8, V);
    memcpy(out, lse, 8 * sizeof *lse);
    memcpy(out + 16, kl, 8 * sizeof *kl);
}

static void threads_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { SIZE = 200000 };
    (void)ref;
    float *x = values(SIZE, 1), *y = qp_zalloc(SIZE * sizeof *y, "test", NULL), *z = qp_zalloc(SIZE * sizeof *z, "test", NULL);
    run_all(ops, ex, y, x);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct qp_exec other = {0};
        assert_int_equal(qp_pool_new(&other.pool, threads, NULL), 0);
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

/* A cache filled token by token, in odd pieces, or at once holds the same bytes: words that two positions share are not torn. */
static void store_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { T = 301 };
    (void)ref;
    const int64_t dims[] = {2, 7, 32, 64, 80, 100};
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++)
        for (int i = 0; i < 6; i++) {
            struct qp_attn_shape s = {.n_heads = 4, .n_kv_heads = 2, .head_dim = dims[i], .capacity = T, .scale = 1};
            struct attn a = pick_attn(ops, kv);
            int64_t ld = 2 * s.head_dim;
            size_t bytes = a.bytes(&s);
            float *k = values(T * ld, 1), *v = values(T * ld, 1);
            char *whole = qp_zalloc(bytes, "test", NULL), *parts = qp_zalloc(bytes, "test", NULL);
            a.store(ex, whole, &s, k, ld, v, ld, 0, T);
            for (int64_t t = 0, n; t < T; t += n) {
                n = t % 3 ? 1 : t % 2 ? 5 : 131;
                n = n < T - t ? n : T - t;
                a.store(ex, parts, &s, k + t * ld, ld, v + t * ld, ld, t, n);
            }
            assert_memory_equal(whole, parts, bytes);
            qp_free(k), qp_free(v), qp_free(whole), qp_free(parts);
        }
}

static void test_store(void **s)
{
    (void)s;
    for_each_isa(store_case);
}

/* Equal scores, scores far apart, scores that rise along the keys (each block tops the maximum before it), and a NaN that must stay in its row. */
static void hard_attention_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { T = 290, HD = 64 };
    struct qp_attn_shape s = {.n_heads = 1, .n_kv_heads = 1, .head_dim = HD, .capacity = T, .scale = 0.125f};
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++)
        for (int mode = 0; mode < 4; mode++) {
            float *q = values(T * HD, 1), *k = values(T * HD, 1), *v = values(T * HD, 1), *y = values(T * HD, 0), *r = values(T * HD, 0);
            for (int64_t i = 0; i < T * HD; i++) {
                k[i] = mode == 0 ? 0 : mode == 1 ? 40 * k[i] : mode == 2 ? (kv == QP_KV_BF16 ? 0.02f : 0.002f) * (float)(i / HD) : k[i];
                q[i] = mode == 2 ? 1 : mode == 3 && i / HD == 40 ? NAN : q[i];
            }
            run_attention(ref, ex, kv, &s, r, q, k, v, T, 0, T);
            run_attention(ops, ex, kv, &s, y, q, k, v, T, 0, T);
            CHECK_DIFF(y, r, T * HD, attention_names[kv], "hard scores, mode %d", mode);
            assert_int_equal(isnan(y[40 * HD]), mode == 3);
            qp_free(q), qp_free(k), qp_free(v), qp_free(y), qp_free(r);
        }
}

static void test_hard_attention(void **s)
{
    (void)s;
    for_each_isa(hard_attention_case);
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

static void test_exponential(void **s)
{
    (void)s;
    for_each_isa(exponential_case);
}

/* Last: what has a tolerance in ops.def, on this machine, has been held against it. */
static void test_covered(void **s)
{
    (void)s;
    const char *const moves[] = {"_bytes", "_pack", "_store"};
    for (int r = 0; r < N_ROWS; r++) {
        struct qp_ops ops;
        bool computes = strcmp(rows[r].variant, "ref") && !qp_backend_cpu_init(&ops, rows[r].variant, NULL);
        for (int i = 0; i < 3; i++)
            computes = computes && !strstr(rows[r].op, moves[i]);
        if (computes && !rows[r].tested)
            fail_msg("%s %s: no test", rows[r].op, rows[r].variant);
    }
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
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_quantizer),   cmocka_unit_test(test_threads),
        cmocka_unit_test(test_store),       cmocka_unit_test(test_hard_attention), cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
