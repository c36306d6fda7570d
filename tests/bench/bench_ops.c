/* bench_ops [WORD...]: every op and variant of ops.def at the shapes of SmolLM2-135M (D 576, F 1536, 9 heads of 64, 3 key-value heads, vocabulary
 * 49152), against what the machine can do (measured in the same run) and against OpenBLAS and oneDNN. Words filter by "op variant shape".
 *
 * Timed: the op alone, on all threads, best of several runs, operands warm in whatever cache they fit. A percentage above 100 of the read
 * bandwidth means that they did. The program ends with an error when ops.def has an op that is not timed here. */
#include "backend/ops.def"
#include "bench.h"
#include "peers.h"

static const struct row {
    const char *op, *variant;
} rows[] = {
#define ROW(op, variant, tol) {#op, #variant},
    QP_OPS_REF(ROW) QP_OPS_AVX2(ROW) QP_OPS_AVX512(ROW) QP_OPS_AVX512_VNNI(ROW) QP_OPS_AVX512_BF16(ROW)
#undef ROW
};

/* ---- linear ---- */

struct linear {
    bool bf16;
    float *x, *w, *y;
    void *packed;
    size_t left; /* bytes of packed */
    int64_t T, N, K;
};

static void run_linear(struct bench *b, void *arg)
{
    struct linear *l = arg;
    (l->bf16 ? b->ops.linear_bf16 : b->ops.linear_f32)(&b->ex, l->y, l->N, l->x, l->K, l->packed, l->T, l->N, l->K, false);
}

static void run_pack(struct bench *b, void *arg)
{
    struct linear *l = arg;
    (l->bf16 ? b->ops.linear_bf16_pack : b->ops.linear_f32_pack)(&b->ex, l->packed, l->w, l->K, 0, l->N, l->N, l->K);
}

/* With what goes before: a matrix is compacted once. */
static void run_compact(struct bench *b, void *arg)
{
    struct linear *l = arg;
    memset(l->packed, 0, b->ops.linear_bf16_bytes(l->N, l->K));
    run_pack(b, l);
    l->left = b->ops.linear_bf16_compact(&b->ex, l->packed, l->N, l->K);
}

static void linear_shape(struct bench *b, struct linear *l, bool pack)
{
    char shape[64];
    snprintf(shape, sizeof shape, "T=%d N=%d K=%d", (int)l->T, (int)l->N, (int)l->K);
    if (!wanted(b, shape))
        return;
    l->left = (l->bf16 ? b->ops.linear_bf16_bytes : b->ops.linear_f32_bytes)(l->N, l->K);
    l->x = filled((size_t)(l->T * l->K));
    l->w = filled((size_t)(l->N * l->K));
    l->y = filled((size_t)(l->T * l->N));
    l->packed = qp_zalloc(l->left, "bench", NULL);
    void (*prepare)(struct bench *, void *) = l->bf16 && strcmp(b->op, "linear_bf16_pack") ? run_compact : run_pack;
    prepare(b, l);
    double flops = 2.0 * (double)l->T * (double)l->N * (double)l->K;
    if (pack)
        print_line(b, shape, best_seconds(b, prepare, l), (double)l->N * (double)l->K * 4, QP_LIMIT_READ, 0);
    else if (l->T == 1 && l->N > 10000)
        print_line(b, shape, best_seconds(b, run_linear, l), (double)l->left, QP_LIMIT_READ, 0);
    else {
        double peer = b->slow || on_cpu_time() ? 0 : l->bf16 ? peer_linear_bf16(8, l->T, l->N, l->K) : peer_linear(8, l->y, l->x, l->w, l->T, l->N, l->K);
        print_line(b, shape, best_seconds(b, run_linear, l), flops, flops_limit(b, l->bf16), peer);
    }
    qp_free(l->x), qp_free(l->w), qp_free(l->y), qp_free(l->packed);
}

static void bench_linear(struct bench *b)
{
    const int64_t shapes[][3] = {{2048, 960, 576}, {2048, 576, 576}, {2048, 3072, 576}, {2048, 576, 1536}, {512, 3072, 576}, {512, 576, 1536},
                                 {341, 49152, 576}, {64, 3072, 576}, {8, 3072, 576},    {1, 3072, 576},    {1, 576, 1536},   {1, 49152, 576}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct linear l = {.bf16 = strstr(b->op, "bf16"), .T = shapes[i][0], .N = shapes[i][1], .K = shapes[i][2]};
        if (!b->slow || l.T * l.N * l.K <= 64 * 3072 * 576)
            linear_shape(b, &l, false);
    }
}

static void bench_pack(struct bench *b)
{
    struct linear l = {.bf16 = strstr(b->op, "bf16"), .T = 1, .N = 3072, .K = 576};
    linear_shape(b, &l, true);
}

/* ---- linear over codes ---- */

struct codes {
    struct qp_qmatrix q;
    float table[256], *x, *y, *scales, *zeros;
    uint8_t *codes;
    void *packed;
    int64_t T;
};

static void run_codes(struct bench *b, void *arg)
{
    struct codes *c = arg;
    (c->q.outlier > 0 ? b->ops.linear_i8 : c->q.round_x ? b->ops.linear_q8 : b->ops.linear_q)(&b->ex, c->y, c->q.N, c->x, c->q.K, c->packed, &c->q, c->T, false);
}

static void run_codes_pack(struct bench *b, void *arg)
{
    struct codes *c = arg;
    (c->q.outlier > 0 ? b->ops.linear_i8_pack : b->ops.linear_q_pack)(&b->ex, c->packed, &c->q, c->codes, c->scales, c->zeros, 0, c->q.N);
}

static void codes_shape(struct bench *b, struct codes *c, const char *kind, bool pack)
{
    char shape[64];
    struct qp_qmatrix *q = &c->q;
    snprintf(shape, sizeof shape, "%s T=%d N=%d K=%d", kind, (int)c->T, (int)q->N, (int)q->K);
    if (!wanted(b, shape))
        return;
    for (int i = 0; i < 1 << q->bits; i++)
        c->table[i] = (float)(i - (1 << (q->bits - 1)));
    q->table = c->table;
    size_t bytes = (q->outlier > 0 ? b->ops.linear_i8_bytes : b->ops.linear_q_bytes)(q), scales = (size_t)(q->N * q->n_groups);
    c->x = filled((size_t)(c->T * q->K));
    c->y = filled((size_t)(c->T * q->N));
    c->scales = filled(scales);
    c->zeros = filled(scales);
    c->codes = qp_zalloc((size_t)(q->N * q->K), "bench", NULL);
    c->packed = qp_zalloc(bytes, "bench", NULL);
    for (int64_t i = 0; i < q->N * q->K; i++)
        c->codes[i] = (uint8_t)((uint64_t)i * 2654435761u >> 9 & ((1u << q->bits) - 1));
    run_codes_pack(b, c);
    if (pack)
        print_line(b, shape, best_seconds(b, run_codes_pack, c), (double)(q->N * q->K), QP_LIMIT_READ, 0);
    else if (c->T == 1)
        print_line(b, shape, best_seconds(b, run_codes, c), (double)bytes, QP_LIMIT_READ, 0);
    else
        print_line(b, shape, best_seconds(b, run_codes, c), 2.0 * (double)c->T * (double)q->N * (double)q->K, flops_limit(b, true), 0);
    qp_free(c->x), qp_free(c->y), qp_free(c->scales), qp_free(c->zeros), qp_free(c->codes), qp_free(c->packed);
}

static void bench_codes(struct bench *b)
{
    const int64_t shapes[][3] = {{512, 3072, 576}, {512, 576, 1536}, {64, 3072, 576}, {24, 3072, 576}, {16, 3072, 576}, {12, 3072, 576}, {8, 3072, 576}, {6, 3072, 576}, {4, 3072, 576},
                                 {1, 3072, 576},   {1, 576, 1536},   {1, 49152, 1536}};
    const struct {
        const char *name;
        int bits;
        int64_t group;
        bool zeros;
    } kinds[] = {{"int4 g64", 4, 64, false}, {"int4 g64 zeros", 4, 64, true}, {"int4 g32", 4, 32, false}, {"int8 g32", 8, 32, false}, {"int8", 8, 0, false}};
    bool pack = strstr(b->op, "pack"), i8 = strstr(b->op, "i8"), q8 = !strcmp(b->op, "linear_q8");
    for (size_t k = i8 ? 4 : 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t i = pack ? 9 : 0; i < (pack ? 10 : sizeof shapes / sizeof *shapes); i++) {
            int64_t K = shapes[i][2], group = kinds[k].group ? kinds[k].group : K;
            struct codes c = {.T = shapes[i][0], .q = {.N = shapes[i][1], .K = K, .Kp = K, .group = group, .n_groups = K / group, .bits = kinds[k].bits, .half = true,
                                                       .zeros = kinds[k].zeros, .affine = true, .outlier = i8 ? 0.98f : 0, .round_x = q8}};
            if (!b->slow || c.T * c.q.N * K <= 16 * 3072 * 576)
                codes_shape(b, &c, kinds[k].name, pack);
        }
}

/* ---- rows ---- */

struct spans {
    float *x, *y, *w;
    int64_t T;
};

static void run_spans(struct bench *b, void *arg)
{
    struct spans *s = arg;
    if (!strcmp(b->op, "rms_norm"))
        b->ops.rms_norm(&b->ex, s->y, s->x, s->w, s->T, 576, 1e-5f);
    else if (!strcmp(b->op, "layer_norm"))
        b->ops.layer_norm(&b->ex, s->y, s->x, s->w, s->w + 576, s->T, 576, 1e-5f);
    else if (!strcmp(b->op, "gelu_mul"))
        b->ops.gelu_mul(&b->ex, s->y, 1536, s->x, s->x + 1536, 3072, s->T, 1536);
    else if (!strcmp(b->op, "gelu_erf"))
        b->ops.gelu_erf(&b->ex, s->y, 1536, s->x, 1536, s->T, 1536);
    else if (!strcmp(b->op, "soft_cap"))
        b->ops.soft_cap(&b->ex, s->x, s->T * 1536, 30.f);
    else if (!strcmp(b->op, "silu_mul"))
        b->ops.silu_mul(&b->ex, s->y, 1536, s->x, s->x + 1536, 3072, s->T, 1536);
    else if (!strcmp(b->op, "add"))
        b->ops.add(&b->ex, s->y, s->x, s->T * 576);
    else if (!strcmp(b->op, "add_bias"))
        b->ops.add_bias(&b->ex, s->y, 960, s->w, s->T, 960);
    else
        b->ops.rope(&b->ex, s->y, 960, s->x, s->T, 12, 64, false);
}

static void bench_spans(struct bench *b)
{
    const char *const ops[] = {"rms_norm", "layer_norm", "silu_mul", "gelu_mul", "gelu_erf", "soft_cap", "add", "add_bias", "rope"};
    const int64_t floats[] = {2 * 576, 2 * 576, 3 * 1536, 3 * 1536, 2 * 1536, 3 * 576, 2 * 960, 2 * 768 + 64}; /* read and written for each token */
    for (int64_t T = 2048; T; T = T > 1 ? 1 : 0) {
        struct spans s = {filled(2048 * 3072), filled(2048 * 1536), filled(3072), T};
        for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
            char shape[32];
            snprintf(shape, sizeof shape, "T=%d", (int)T);
            if (!strcmp(ops[i], b->op) && wanted(b, shape))
                print_line(b, shape, best_seconds(b, run_spans, &s), (double)(T * floats[i] * 4), QP_LIMIT_READ, 0);
        }
        qp_free(s.x), qp_free(s.y), qp_free(s.w);
    }
}

/* ---- attention ---- */

struct attention {
    struct qp_attn_shape s;
    enum qp_kv kv;
    float *qkv, *out;
    struct qp_attn_span spans[16];
    int n;
};

static const char *const kv_names[QP_KV_COUNT] = {"f32", "bf16", "f16", "int8"};

static void run_store(struct bench *b, void *arg)
{
    struct attention *a = arg;
    const __typeof__(b->ops.kv_f32_store) store[QP_KV_COUNT] = {b->ops.kv_f32_store, b->ops.kv_bf16_store, b->ops.kv_f16_store, b->ops.kv_int8_store};
    store[a->kv](&b->ex, &a->s, a->spans, a->n, a->qkv + 576, 960, a->qkv + 768, 960);
}

static void run_attention(struct bench *b, void *arg)
{
    struct attention *a = arg;
    const __typeof__(b->ops.attention_f32) run[QP_KV_COUNT] = {b->ops.attention_f32, b->ops.attention_bf16, b->ops.attention_f16, b->ops.attention_int8};
    run[a->kv](&b->ex, a->out, 576, a->qkv, 960, &a->s, a->spans, a->n);
}

static void attention_shape(struct bench *b, int n, int64_t pos0, int64_t T, bool store)
{
    const __typeof__(b->ops.kv_f32_bytes) bytes[QP_KV_COUNT] = {b->ops.kv_f32_bytes, b->ops.kv_bf16_bytes, b->ops.kv_f16_bytes, b->ops.kv_int8_bytes};
    struct attention a = {.s = {.n_heads = 9, .n_kv_heads = 3, .head_dim = 64, .scale = 0.125f}, .kv = QP_KV_F32, .n = n};
    const char *type = strchr(b->op, '_') + 1; /* kv_TYPE_store, attention_TYPE */
    char shape[64];
    while (strncmp(type, kv_names[a.kv], strlen(kv_names[a.kv])))
        a.kv++;
    snprintf(shape, sizeof shape, n > 1 ? "pos0=%d T=%d of %d" : "pos0=%d T=%d", (int)pos0, (int)T, n);
    if (!wanted(b, shape) || (b->slow && (T > 512 || n > 1)))
        return;
    a.qkv = filled((size_t)((pos0 + T) * 960));
    a.out = filled((size_t)(n * T * 576));
    for (int i = 0; i < n; i++)
        a.spans[i] = (struct qp_attn_span){qp_zalloc(bytes[a.kv](&a.s, pos0 + T), "bench", NULL), .capacity = pos0 + T, .T = pos0 + T};
    run_store(b, &a);
    for (int i = 0; i < n; i++)
        a.spans[i] = (struct qp_attn_span){a.spans[i].cache, pos0 + T, pos0, T, .out = i * T};
    double keys = (double)T * (double)pos0 + (double)T * (double)(T + 1) / 2;
    if (store)
        print_line(b, shape, best_seconds(b, run_store, &a), (double)(n * T * 384 * 4), QP_LIMIT_READ, 0);
    else
        print_line(b, shape, best_seconds(b, run_attention, &a), 4 * 64 * 9 * keys * n, flops_limit(b, a.kv == QP_KV_BF16), 0);
    for (int i = 0; i < n; i++)
        qp_free(a.spans[i].cache);
    qp_free(a.qkv), qp_free(a.out);
}

static void bench_attention(struct bench *b)
{
    const int64_t shapes[][3] = {{1, 0, 2048}, {16, 128, 1}, {1, 0, 512}, {1, 2047, 1}, {1, 511, 1}, {16, 512, 1}}; /* sequences, pos0, T */
    bool store = strstr(b->op, "store");
    for (int i = 0; i < (store ? 2 : 6); i++)
        attention_shape(b, (int)shapes[i][0], shapes[i][1], shapes[i][2], store);
}

/* ---- distribution ---- */

struct distribution {
    float *a, *b;
    double la[256], lb[256], kl[256];
    int32_t top[256];
    int64_t T;
};

enum { V = 49152 };

static void run_lse(struct bench *b, void *arg)
{
    struct distribution *d = arg;
    b->ops.log_sum_exp(&b->ex, d->la, d->top, d->a, V, d->T, V);
}

static void run_kl(struct bench *b, void *arg)
{
    struct distribution *d = arg;
    b->ops.kl_div(&b->ex, d->kl, d->a, V, d->la, d->b, V, d->lb, d->T, V);
}

static void bench_distribution(struct bench *b)
{
    bool kl = !strcmp(b->op, "kl_div");
    struct distribution d = {.T = b->slow ? 4 : 256};
    char shape[32];
    snprintf(shape, sizeof shape, "T=%d V=49152", (int)d.T);
    if (!wanted(b, shape))
        return;
    d.a = filled((size_t)(d.T * V));
    d.b = filled((size_t)(d.T * V));
    run_lse(b, &d);
    memcpy(d.lb, d.la, sizeof d.lb);
    print_line(b, shape, best_seconds(b, kl ? run_kl : run_lse, &d), (double)(d.T * V * 4 * (kl ? 2 : 1)), QP_LIMIT_READ, 0);
    qp_free(d.a), qp_free(d.b);
}

/* ---- for the quantizers ---- */

struct product {
    float *a, *b, *c;
    int64_t M, N, K;
};

static void run_syrk(struct bench *b, void *arg)
{
    struct product *p = arg;
    b->ops.syrk(&b->ex, p->c, p->K, p->a, p->K, p->M, p->K);
}

static void run_sub(struct bench *b, void *arg)
{
    struct product *p = arg;
    b->ops.gemm_sub(&b->ex, p->c, p->N, p->a, p->K, p->b, p->N, p->M, p->N, p->K);
}

static void bench_syrk(struct bench *b)
{
    for (int64_t K = 576; K <= 1536; K += 960) {
        struct product p = {.M = b->slow ? 256 : 16384, .K = K};
        char shape[64];
        snprintf(shape, sizeof shape, "T=%d K=%d", (int)p.M, (int)K);
        if (!wanted(b, shape))
            continue;
        p.a = filled((size_t)(p.M * K));
        p.c = qp_zalloc((size_t)(K * K) * sizeof(float), "bench", NULL);
        double flops = (double)p.M * (double)K * (double)(K + 1), peer = b->slow || on_cpu_time() ? 0 : peer_syrk(3, p.c, p.a, p.M, K);
        print_line(b, shape, best_seconds(b, run_syrk, &p), flops, flops_limit(b, false), peer);
        qp_free(p.a), qp_free(p.c);
    }
}

static void bench_gemm_sub(struct bench *b)
{
    const int64_t shapes[][3] = {{1536, 448, 128}, {576, 1408, 128}, {192, 128, 128}};
    for (int i = 0; i < 3; i++) {
        struct product p = {.M = shapes[i][0], .N = shapes[i][1], .K = shapes[i][2]};
        char shape[64];
        snprintf(shape, sizeof shape, "M=%d N=%d K=%d", (int)p.M, (int)p.N, (int)p.K);
        if (!wanted(b, shape))
            continue;
        p.a = filled((size_t)(p.M * p.K));
        p.b = filled((size_t)(p.K * p.N));
        p.c = filled((size_t)(p.M * p.N));
        double flops = 2.0 * (double)p.M * (double)p.N * (double)p.K, peer = b->slow || on_cpu_time() ? 0 : peer_gemm_sub(8, p.c, p.a, p.b, p.M, p.N, p.K);
        print_line(b, shape, best_seconds(b, run_sub, &p), flops, flops_limit(b, false), peer);
        qp_free(p.a), qp_free(p.b), qp_free(p.c);
    }
}

/* ---- all ---- */

static const struct {
    const char *op;
    void (*run)(struct bench *b); /* NULL: a size, nothing to time */
} benches[] = {
    {"linear_f32_bytes", NULL},          {"linear_f32_pack", bench_pack},      {"linear_f32", bench_linear},
    {"linear_bf16_bytes", NULL},         {"linear_bf16_pack", bench_pack},     {"linear_bf16", bench_linear},
    {"linear_bf16_compact", bench_pack},
    {"linear_q_bytes", NULL},            {"linear_q_pack", bench_codes},       {"linear_q", bench_codes},
    {"linear_q8", bench_codes},
    {"linear_i8_bytes", NULL},           {"linear_i8_pack", bench_codes},      {"linear_i8", bench_codes},
    {"rms_norm", bench_spans},           {"silu_mul", bench_spans},            {"add", bench_spans},
    {"layer_norm", bench_spans},         {"gelu_mul", bench_spans},            {"gelu_erf", bench_spans}, {"soft_cap", bench_spans},
    {"add_bias", bench_spans},           {"rope", bench_spans},                {"kv_f32_bytes", NULL},
    {"kv_f32_store", bench_attention},   {"attention_f32", bench_attention},   {"kv_bf16_bytes", NULL},
    {"kv_bf16_store", bench_attention},  {"attention_bf16", bench_attention},  {"kv_f16_bytes", NULL},
    {"kv_f16_store", bench_attention},   {"attention_f16", bench_attention},   {"kv_int8_bytes", NULL},
    {"kv_int8_store", bench_attention},  {"attention_int8", bench_attention},  {"log_sum_exp", bench_distribution},
    {"kl_div", bench_distribution},      {"syrk", bench_syrk},                 {"gemm_sub", bench_gemm_sub},
};
enum { N_BENCHES = sizeof benches / sizeof *benches, N_ROWS = sizeof rows / sizeof *rows };

static int covered(void)
{
    int missing = 0;
    for (int r = 0; r < N_ROWS; r++) {
        bool found = false;
        for (int i = 0; i < N_BENCHES; i++)
            found = found || !strcmp(benches[i].op, rows[r].op);
        if (!found) {
            fprintf(stderr, "bench_ops: no bench for %s\n", rows[r].op);
            missing++;
        }
    }
    return missing;
}

static void run_op(struct bench *b, int i)
{
    struct qp_pool *pool = b->ex.pool;
    for (int r = 0; r < N_ROWS; r++) {
        if (strcmp(rows[r].op, benches[i].op) || qp_backend_cpu_init(&b->ops, rows[r].variant, NULL))
            continue;
        b->op = rows[r].op;
        b->variant = rows[r].variant;
        b->slow = !strcmp(b->variant, "ref");
        b->ex = (struct qp_exec){.pool = pool};
        benches[i].run(b);
        qp_exec_release(&b->ex);
    }
}

int main(int argc, char **argv)
{
    struct bench b = {.words = argv + 1, .n_words = argc - 1};
    struct qp_err err = {0};
    if (covered())
        return 5;
    if (qp_pool_new(&b.ex.pool, on_cpu_time(), &err)) {
        fprintf(stderr, "bench_ops: %s\n", err.text);
        return 4;
    }
    qp_limits_measure(b.limits, b.ex.pool, bench_clock());
    printf("limits on %d threads: float32 %.0f (avx2), %.0f (avx512), bf16 %.0f, int8 %.0f GFLOP/s; memory read %.1f GB/s\n", qp_pool_threads(b.ex.pool),
           b.limits[QP_LIMIT_F32_AVX2], b.limits[QP_LIMIT_F32_AVX512], b.limits[QP_LIMIT_BF16], b.limits[QP_LIMIT_INT8], b.limits[QP_LIMIT_READ]);
    printf("columns: op, variant, shape, time, rate, share of the limit, times as fast as OpenBLAS (float32) or oneDNN (bf16)\n\n");
    for (int i = 0; i < N_BENCHES; i++)
        if (benches[i].run)
            run_op(&b, i);
    qp_pool_free(b.ex.pool);
    return 0;
}
