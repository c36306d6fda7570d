/* Attention and its caches. */
#include "ops_test.h"

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
    const int64_t shapes[][7] = { /* T, from, heads, kv heads, hd, window, soft cap */
        {1, 0, 1, 1, 2, 0}, {9, 0, 2, 1, 7, 0}, {5, 0, 3, 1, 64, 0}, {130, 0, 9, 3, 64, 0}, {300, 150, 4, 2, 80, 0}, {257, 0, 2, 2, 128, 70}, {140, 139, 6, 2, 96, 33}, {30, 7, 2, 1, 256, 0}, {260, 0, 4, 2, 64, 65, 2}, {70, 3, 2, 1, 32, 0, 50},
    };
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            int64_t T = shapes[i][0], from = shapes[i][1];
            struct qp_attn_shape s = {.n_heads = shapes[i][2], .n_kv_heads = shapes[i][3], .head_dim = shapes[i][4], .capacity = T + 3, .window = shapes[i][5], .soft_cap = (float)shapes[i][6]};
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

/* All kinds of cache one after the other. */
static void run_all(const struct qp_ops *ops, struct qp_exec *ex, float *out, const float *x)
{
    enum { T = 67 };
    struct qp_attn_shape s = {.n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .capacity = T, .scale = 0.125f};
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++, out += T * 384)
        run_attention(ops, ex, kv, &s, out, x, x + 50, x + 99, T, 0, T);
}

/* The same bits for any number of threads. */
static void threads_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { SIZE = 110000 };
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
    check_covered("attention");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_store),
        cmocka_unit_test(test_hard_attention),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
