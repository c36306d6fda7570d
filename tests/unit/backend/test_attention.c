/* Attention and its caches. */
#include "ops_test.h"

struct attn {
    __typeof__(((struct qp_ops *)0)->kv_f32_bytes) bytes;
    __typeof__(((struct qp_ops *)0)->kv_f32_store) store;
    __typeof__(((struct qp_ops *)0)->attention_f32) run;
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
    int64_t ldq = s->n_heads * s->head_dim, ldk = s->n_kv_heads * s->head_dim, cut = T / 2, capacity = T + 3;
    void *cache = qp_zalloc(a.bytes(s, capacity), "test", NULL);
    struct qp_attn_span p = {.cache = cache, .capacity = capacity, .T = cut};
    a.store(ex, s, &p, 1, k, ldk, v, ldk);
    p.pos0 = p.row = cut, p.T = T - cut;
    a.store(ex, s, &p, 1, k, ldk, v, ldk);
    for (int64_t t = from; t < T; t += step) {
        p.pos0 = p.row = t, p.out = t - from, p.T = t + step < T ? step : T - t;
        a.run(ex, out, ldq, q, ldq, s, &p, 1);
    }
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
            struct qp_attn_shape s = {.n_heads = shapes[i][2], .n_kv_heads = shapes[i][3], .head_dim = shapes[i][4], .window = shapes[i][5], .soft_cap = (float)shapes[i][6]};
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
            struct qp_attn_shape s = {.n_heads = 4, .n_kv_heads = 2, .head_dim = dims[i], .scale = 1};
            struct attn a = pick_attn(ops, kv);
            int64_t ld = 2 * s.head_dim;
            size_t bytes = a.bytes(&s, T);
            float *k = values(T * ld, 1), *v = values(T * ld, 1);
            char *whole = qp_zalloc(bytes, "test", NULL), *parts = qp_zalloc(bytes, "test", NULL);
            a.store(ex, &s, &(struct qp_attn_span){.cache = whole, .capacity = T, .T = T}, 1, k, ld, v, ld);
            for (int64_t t = 0, n; t < T; t += n) {
                n = t % 3 ? 1 : t % 2 ? 5 : 131;
                n = n < T - t ? n : T - t;
                a.store(ex, &s, &(struct qp_attn_span){.cache = parts, .capacity = T, .pos0 = t, .T = n, .row = t}, 1, k, ld, v, ld);
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
    struct qp_attn_shape s = {.n_heads = 1, .n_kv_heads = 1, .head_dim = HD, .scale = 0.125f};
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
    struct qp_attn_shape s = {.n_heads = 6, .n_kv_heads = 2, .head_dim = 64, .scale = 0.125f};
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

/* ---- several spans in one call ---- */

/* Batches: what one call stores and attends to. Spans of one sequence stand side by side where its number does. */
static const struct batch {
    int n;
    struct {
        int seq;
        int64_t pos0, T;
    } p[8];
} batches[] = {
    {0, {{0}}},
    {2, {{0, 0, 0}, {1, 5, 0}}},
    {5, {{0, 0, 70}, {1, 0, 1}, {2, 0, 131}, {3, 0, 0}, {4, 0, 9}}},
    {6, {{0, 70, 1}, {1, 1, 1}, {2, 131, 1}, {3, 0, 1}, {3, 1, 0}, {4, 9, 1}}},
    {7, {{1, 2, 2}, {0, 71, 27}, {1, 4, 1}, {2, 132, 0}, {2, 132, 1}, {2, 133, 30}, {4, 10, 3}}},
};
enum { N_BATCHES = sizeof batches / sizeof *batches, N_SEQS = 5, BATCH_ROWS = 220 };
static const int64_t capacities[N_SEQS] = {100, 5, 300, 1, 131};

/* Outputs of all batches one after the other; together: each batch is one call of store and one of attention. */
static void run_batches(const struct attn *a, struct qp_exec *ex, const struct qp_attn_shape *s, void *const *caches, const float *x, float *out, bool together)
{
    int64_t q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim, ld = q + 2 * kv;
    for (int b = 0; b < N_BATCHES; b++, out += BATCH_ROWS * q) {
        struct qp_attn_span spans[8];
        int n = batches[b].n, step = together ? n + !n : 1;
        int64_t at = 0;
        for (int i = 0; i < n; i++) { /* rows of k and v with a gap between spans, those of out without */
            int seq = batches[b].p[i].seq;
            spans[i] = (struct qp_attn_span){caches[seq], capacities[seq], batches[b].p[i].pos0, batches[b].p[i].T, .row = at + i, .out = at};
            at += spans[i].T;
        }
        assert_true(at + n <= BATCH_ROWS);
        if (!n && together)
            a->store(ex, s, spans, 0, x, ld, x, ld), a->run(ex, out, q, x, ld, s, spans, 0);
        for (int i = 0; i < n; i += step)
            a->store(ex, s, spans + i, step, x + q, ld, x + q + kv, ld);
        for (int i = 0; i < n; i += step)
            a->run(ex, out, q, x, ld, s, spans + i, step);
    }
}

static void check_batches(const struct qp_ops *ops, enum qp_kv kv, const struct qp_attn_shape *s, int threads)
{
    struct attn a = pick_attn(ops, kv);
    struct qp_exec ex = {0};
    int64_t q = s->n_heads * s->head_dim, floats = N_BATCHES * BATCH_ROWS * q;
    float *x = values(BATCH_ROWS * (q + 2 * s->n_kv_heads * s->head_dim), 2), *out[2];
    void *caches[2][N_SEQS];
    assert_int_equal(qp_pool_new(&ex.pool, threads, NULL), 0);
    for (int together = 0; together < 2; together++) {
        out[together] = qp_zalloc((size_t)floats * sizeof(float), "test", NULL);
        for (int i = 0; i < N_SEQS; i++)
            caches[together][i] = qp_zalloc(a.bytes(s, capacities[i]), "test", NULL);
        run_batches(&a, &ex, s, caches[together], x, out[together], together);
    }
    assert_memory_equal(out[0], out[1], (size_t)floats * sizeof(float));
    for (int i = 0; i < N_SEQS; i++) {
        assert_memory_equal(caches[0][i], caches[1][i], a.bytes(s, capacities[i]));
        qp_free(caches[0][i]), qp_free(caches[1][i]);
    }
    qp_free(x), qp_free(out[0]), qp_free(out[1]);
    qp_pool_free(ex.pool);
    qp_exec_release(&ex);
}

static void spans_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const struct qp_attn_shape shapes[] = {
        {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .scale = 0.125f},
        {.n_heads = 2, .n_kv_heads = 2, .head_dim = 7, .scale = 0.3f, .window = 65},
        {.n_heads = 30, .n_kv_heads = 1, .head_dim = 80, .scale = 0.1f, .window = 3, .soft_cap = 2},
    };
    (void)ref, (void)ex;
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++)
        for (int i = 0; i < 3; i++)
            for (int threads = 1; threads <= 3; threads += 2)
                check_batches(ops, kv, &shapes[i], threads);
}

/* Several spans in one call have the bits of one call each: different lengths, positions and capacities, none, empty ones, two of one sequence. */
static void test_spans(void **s)
{
    struct qp_ops ref;
    (void)s;
    assert_int_equal(qp_backend_cpu_init(&ref, "ref", NULL), 0);
    spans_case(&ref, &ref, NULL);
    for_each_isa(spans_case);
}

/* As many spans as a call may have. */
static void many_spans_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    enum { N = QP_ATTN_SPANS, HD = 16 };
    const struct qp_attn_shape s = {.n_heads = 2, .n_kv_heads = 1, .head_dim = HD, .scale = 0.25f};
    float *x = values(N * 4 * HD, 1), *out = values(N * 2 * HD, 0);
    (void)ref;
    for (enum qp_kv kv = 0; kv < QP_KV_COUNT; kv++) {
        struct attn a = pick_attn(ops, kv);
        struct qp_attn_span spans[N];
        size_t bytes = (a.bytes(&s, 1) + 63) / 64 * 64;
        char *caches = qp_zalloc(N * bytes, "test", NULL);
        for (int i = 0; i < N; i++)
            spans[i] = (struct qp_attn_span){.cache = caches + (size_t)i * bytes, .capacity = 1, .T = 1, .row = i, .out = N - 1 - i};
        a.store(ex, &s, spans, N, x + 2 * HD, 4 * HD, x + 3 * HD, 4 * HD);
        a.run(ex, out, 2 * HD, x, 4 * HD, &s, spans, N);
        for (int i = 0; i < N; i++) /* of one key, attention gives its value */
            for (int d = 0; d < 2 * HD; d++)
                assert_true(fabsf(out[(N - 1 - i) * 2 * HD + d] - x[i * 4 * HD + 3 * HD + d % HD]) < 0.02f);
        qp_free(caches);
    }
    qp_free(x), qp_free(out);
}

static void test_many_spans(void **s)
{
    (void)s;
    for_each_isa(many_spans_case);
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
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_many_spans),
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
