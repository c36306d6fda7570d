#include "engine/engine.h"

#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"
#include "text/tokenizer.h"

#define LOGIT_BYTES ((size_t)64 << 20)
#define MLP_ROWS 256 /* rows whose wide products stay in the last-level cache between the steps of the MLP */

struct qp_engine {
    struct qp_model *model;
    const struct qp_ops *ops;
    struct qp_exec ex;
    struct qp_model_config config;
    enum qp_compute compute;
    enum qp_kv kv; /* of sequences made from now on */
    struct qp_block **blocks;
    struct qp_packed head;
    struct qp_norm final_norm;
    struct qp_rope rope, local_rope; /* local: of Gemma's sliding layers */
    float *act; /* activations of one group of tokens */
    size_t act_floats;
    struct qp_routing routing; /* where the tokens of the group go */
};

struct qp_seq {
    struct qp_engine *e;
    int64_t length, capacity;
    struct qp_attn_ops attn;
    void **kv; /* [n_layers] */
};

/* ---- life ---- */

static int load(struct qp_engine *e, bool final, struct qp_err *err)
{
    const struct qp_model_config *c = &e->config;
    e->blocks = qp_zalloc((size_t)c->n_layers * sizeof *e->blocks, "blocks", err);
    if (!e->blocks)
        return QP_E_RESOURCE;
    for (int64_t l = 0; l < c->n_layers; l++) {
        if (qp_block_open(&e->blocks[l], e->model, l, e->ops, &e->ex, e->compute, final, err))
            return err->code;
        qp_model_drop_pages(e->model);
    }
    const struct qp_weight *head = qp_model_part(e->model, -1, c->tied_embeddings ? QP_ROLE_EMBED : QP_ROLE_HEAD, -1, false);
    struct qp_linear_ops lin = qp_linear_ops_of(e->ops, e->compute);
    if (qp_norm_load(&e->final_norm, e->model, -1, QP_ROLE_FINAL_NORM, c->d_model, err))
        return err->code;
    int r = qp_packed_load_head(&e->head, head, qp_codes_use_of(e->compute), lin, e->ops, &e->ex, err);
    r = r ? r : qp_vector_load(&e->head.bias, qp_model_part(e->model, -1, QP_ROLE_HEAD, -1, true), c->vocab_size, err);
    qp_model_drop_pages(e->model);
    return r;
}

static int new_engine(struct qp_engine **out, struct qp_model *m, const struct qp_ops *ops, struct qp_pool *pool, enum qp_compute compute, bool final, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = NULL;
    struct qp_engine *e = qp_zalloc(sizeof *e, "engine", err);
    if (!e)
        return QP_E_RESOURCE;
    e->model = qp_model_ref(m);
    e->ops = ops;
    e->ex.pool = pool;
    e->config = *qp_model_config(m);
    e->compute = compute;
    e->kv = qp_kv_default(compute);
    qp_rope_init(&e->rope, &e->config, false);
    qp_rope_init(&e->local_rope, &e->config, e->config.rope_theta_local > 0);
    if (load(e, final, err)) {
        qp_engine_free(e);
        return err->code;
    }
    *out = e;
    return 0;
}

int qp_engine_new(struct qp_engine **out, struct qp_model *m, const struct qp_ops *ops, struct qp_pool *pool, enum qp_compute compute, struct qp_err *err)
{
    return new_engine(out, m, ops, pool, compute, true, err);
}

int qp_engine_new_editable(struct qp_engine **out, struct qp_model *m, const struct qp_ops *ops, struct qp_pool *pool, enum qp_compute compute, struct qp_err *err)
{
    return new_engine(out, m, ops, pool, compute, false, err);
}

void qp_engine_free(struct qp_engine *e)
{
    if (!e)
        return;
    for (int64_t l = 0; e->blocks && l < e->config.n_layers; l++)
        qp_block_free(e->blocks[l]);
    qp_free(e->blocks);
    qp_packed_release(&e->head);
    qp_norm_release(&e->final_norm);
    qp_rope_release(&e->rope);
    qp_rope_release(&e->local_rope);
    qp_free(e->act);
    qp_routing_release(&e->routing);
    qp_exec_release(&e->ex);
    qp_model_free(e->model);
    qp_free(e);
}

const struct qp_model_config *qp_engine_config(const struct qp_engine *e)
{
    return &e->config;
}

struct qp_exec *qp_engine_exec(struct qp_engine *e)
{
    return &e->ex;
}

const struct qp_ops *qp_engine_ops(const struct qp_engine *e)
{
    return e->ops;
}

struct qp_block *qp_engine_block(struct qp_engine *e, int64_t layer)
{
    return e->blocks[layer];
}

size_t qp_engine_weight_bytes(const struct qp_engine *e)
{
    size_t bytes = qp_packed_bytes(&e->head);
    for (int64_t l = 0; l < e->config.n_layers; l++)
        bytes += qp_block_weight_bytes(e->blocks[l]);
    return bytes;
}

size_t qp_engine_scratch_bytes(const struct qp_engine *e)
{
    return e->ex.scratch_bytes + e->act_floats * sizeof *e->act + (size_t)((e->rope.n + e->local_rope.n) * e->config.head_dim) * sizeof(float);
}

void qp_engine_set_kv(struct qp_engine *e, enum qp_kv kv)
{
    e->kv = kv;
}

enum qp_kv qp_engine_kv(const struct qp_engine *e)
{
    return e->kv;
}

size_t qp_kv_cache_bytes(const struct qp_model_config *c, const struct qp_ops *ops, enum qp_kv kv, int64_t capacity)
{
    struct qp_attn_shape s = qp_attn_shape_of(c, 0);
    size_t bytes;
    return qp_mul(qp_attn_ops_of(ops, kv).bytes(&s, capacity), (size_t)c->n_layers, &bytes) ? bytes : SIZE_MAX;
}

int qp_seq_new(struct qp_seq **out, struct qp_engine *e, int64_t capacity, struct qp_err *err)
{
    *out = NULL;
    if (capacity < 1)
        return qp_err_set(err, QP_E_USAGE, "a sequence of %lld tokens", (long long)capacity);
    struct qp_seq *s = qp_zalloc(sizeof *s, "sequence", err);
    if (!s)
        return QP_E_RESOURCE;
    s->e = e;
    s->capacity = capacity;
    s->kv = qp_zalloc((size_t)e->config.n_layers * sizeof *s->kv, "KV cache", err);
    s->attn = qp_attn_ops_of(e->ops, e->kv);
    for (int64_t l = 0; s->kv && l < e->config.n_layers; l++) {
        struct qp_attn_shape shape = qp_attn_shape_of(&e->config, l);
        if (!(s->kv[l] = qp_zalloc(s->attn.bytes(&shape, capacity), "KV cache", err))) {
            qp_seq_free(s);
            return QP_E_RESOURCE;
        }
    }
    if (!s->kv) {
        qp_seq_free(s);
        return QP_E_RESOURCE;
    }
    *out = s;
    return 0;
}

void qp_seq_free(struct qp_seq *s)
{
    if (!s)
        return;
    for (int64_t l = 0; s->kv && l < s->e->config.n_layers; l++)
        qp_free(s->kv[l]);
    qp_free(s->kv);
    qp_free(s);
}

int64_t qp_seq_length(const struct qp_seq *s)
{
    return s->length;
}

void qp_seq_truncate(struct qp_seq *s, int64_t n)
{
    if (n >= 0 && n < s->length)
        s->length = n;
}

int qp_seq_copy(struct qp_seq *to, const struct qp_seq *from, struct qp_err *err)
{
    if (to->e != from->e || to->capacity != from->capacity || to->attn.run != from->attn.run)
        return qp_err_set(err, QP_E_INTERNAL, "a sequence is copied to one of another kind");
    for (int64_t l = 0; l < to->e->config.n_layers; l++) {
        struct qp_attn_shape shape = qp_attn_shape_of(&to->e->config, l);
        memcpy(to->kv[l], from->kv[l], to->attn.bytes(&shape, to->capacity));
    }
    to->length = from->length;
    return 0;
}

/* ---- forward ---- */

/* Pieces of segments that go through the layers together, at most QP_ENGINE_BLOCK tokens. */
struct piece {
    struct qp_seq *seq;
    const int32_t *ids;
    int64_t n, want_from, pos0;
};

struct group {
    struct piece p[QP_ATTN_SPANS];
    int n;
    int64_t tokens, wanted;
};

struct act {
    float *x, *h, *qkv, *a, *gu, *m, *y, *rows, *cs, *local_cs;
};

static int layout(struct qp_engine *e, int64_t T, struct act *act, struct qp_err *err)
{
    const struct qp_model_config *c = &e->config;
    int64_t q = c->n_heads * c->head_dim, N = q + 2 * c->n_kv_heads * c->head_dim;
    int64_t wide = T < MLP_ROWS ? T : MLP_ROWS, widest = qp_block_widest(c);
    const int64_t counts[] = {T * c->d_model, T * c->d_model, T * N, T * q, wide * widest, wide * widest / 2, wide * c->d_model, c->n_experts ? wide * c->d_model : 0,
                              T * c->head_dim, c->rope_theta_local > 0 ? T * c->head_dim : 0};
    float **const slots[] = {&act->x, &act->h, &act->qkv, &act->a, &act->gu, &act->m, &act->y, &act->rows, &act->cs, &act->local_cs};
    enum { N_SLOTS = sizeof slots / sizeof *slots };
    size_t total = 0, at = 0;
    for (int i = 0; i < N_SLOTS; i++)
        total += ((size_t)counts[i] + 15) / 16 * 16;
    if (total > e->act_floats) {
        qp_free(e->act);
        e->act_floats = 0;
        if (!(e->act = qp_alloc_n(total, sizeof *e->act, "activations", err)))
            return QP_E_RESOURCE;
        e->act_floats = total;
    }
    for (int i = 0; i < N_SLOTS; i++) {
        *slots[i] = e->act + at;
        at += ((size_t)counts[i] + 15) / 16 * 16;
    }
    return 0;
}

static int embed_group(struct qp_engine *e, struct group *g, struct act *act, struct qp_err *err)
{
    int64_t at = 0, half2 = e->config.head_dim;
    for (int i = 0; i < g->n; i++) {
        struct piece *p = &g->p[i];
        if (qp_rope_reserve(&e->rope, p->pos0 + p->n, err) || qp_embed_at(e->model, p->ids, p->n, p->pos0, act->x + at * e->config.d_model, err))
            return err->code;
        memcpy(act->cs + at * half2, e->rope.table + p->pos0 * half2, (size_t)(p->n * half2) * sizeof(float));
        if (e->config.rope_theta_local > 0) {
            if (qp_rope_reserve(&e->local_rope, p->pos0 + p->n, err))
                return err->code;
            memcpy(act->local_cs + at * half2, e->local_rope.table + p->pos0 * half2, (size_t)(p->n * half2) * sizeof(float));
        }
        at += p->n;
    }
    return 0;
}

/* The pieces as spans of q, k and v, whole or from want_from on; their rows of a are packed together. */
static void spans_of(const struct group *g, struct qp_attn_span *spans, int64_t layer, bool wanted_only)
{
    int64_t row = 0, out = 0;
    for (int i = 0; i < g->n; i++) {
        const struct piece *p = &g->p[i];
        int64_t skip = wanted_only ? p->want_from : 0;
        spans[i] = (struct qp_attn_span){.cache = p->seq->kv[layer], .capacity = p->seq->capacity, .pos0 = p->pos0 + skip, .T = p->n - skip, .row = row + skip, .out = out};
        row += p->n;
        out += p->n - skip;
    }
}

/* Pieces from i on whose caches are of one kind. */
static int of_one_kind(const struct group *g, int i)
{
    int n = 1;
    while (i + n < g->n && g->p[i + n].seq->attn.run == g->p[i].seq->attn.run)
        n++;
    return n;
}

/* Attention of each piece over its own sequence, for its wanted tokens or all. All are stored before any is run, so a piece may go on where another one ends. */
static void attend(struct qp_engine *e, struct qp_block *b, const struct group *g, struct act *act, int64_t layer, bool wanted_only)
{
    const struct qp_model_config *c = &e->config;
    int64_t N = b->qkv.N, q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const struct qp_attn_shape shape = qp_attn_shape_of(c, layer);
    struct qp_attn_span spans[QP_ATTN_SPANS];
    spans_of(g, spans, layer, false);
    for (int i = 0, n; i < g->n; i += n) {
        n = of_one_kind(g, i);
        g->p[i].seq->attn.store(&e->ex, &shape, spans + i, n, act->qkv + q, N, act->qkv + q + kv, N);
    }
    spans_of(g, spans, layer, wanted_only);
    for (int i = 0, n; i < g->n; i += n) {
        n = of_one_kind(g, i);
        g->p[i].seq->attn.run(&e->ex, act->a, q, act->qkv, N, &shape, spans + i, n);
    }
}

/* Moves the wanted rows of x together; returns how many there are. */
static int64_t gather_wanted(struct group *g, float *x, int64_t D)
{
    int64_t at = 0, out = 0;
    for (int i = 0; i < g->n; i++) {
        int64_t n = g->p[i].n - g->p[i].want_from;
        memmove(x + out * D, x + (at + g->p[i].want_from) * D, (size_t)(n * D) * sizeof(float));
        at += g->p[i].n;
        out += n;
    }
    return out;
}

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

static void add_mlp(struct qp_block *b, struct act *act, int64_t T)
{
    int64_t D = b->config.d_model;
    for (int64_t t = 0; t < T; t += MLP_ROWS) {
        int64_t n = at_most(T - t, MLP_ROWS);
        qp_mlp_rows(b, &b->mlp, act->h + t * D, n, act->gu, act->m);
        qp_block_add(b, &b->mlp.down, &b->post_mlp, act->x + t * D, act->m, n, act->y);
    }
}

/* x += weight * expert(h) for n tokens; tokens NULL: they stand side by side. */
static void add_expert(struct qp_block *b, const struct qp_mlp *mlp, struct act *act, const float *h, float *x, const int32_t *tokens, const float *weights, int64_t n)
{
    int64_t D = b->config.d_model;
    for (int64_t t = 0; t < n; t += MLP_ROWS) {
        int64_t some = at_most(n - t, MLP_ROWS);
        if (tokens)
            qp_moe_gather(act->rows, h, tokens + t, some, D);
        qp_mlp_rows(b, mlp, tokens ? act->rows : h + t * D, some, act->gu, act->m);
        qp_packed_run(&mlp->down, b->lin, b->ops, b->ex, act->y, act->m, mlp->F, some, false);
        qp_moe_scatter(tokens ? x : x + t * D, act->y, tokens ? tokens + t : NULL, weights + t, some, D);
    }
}

static int add_experts(struct qp_engine *e, struct qp_block *b, struct act *act, int64_t T, struct qp_err *err)
{
    struct qp_routing *r = &e->routing;
    if (qp_moe_route(r, b, act->h, T, err))
        return err->code;
    for (int64_t i = 0; i < e->config.n_experts; i++)
        add_expert(b, &b->moe.experts[i], act, act->h, act->x, r->token + r->first[i], r->weight + r->first[i], r->first[i + 1] - r->first[i]);
    if (b->moe.shared.F)
        add_expert(b, &b->moe.shared, act, act->h, act->x, NULL, r->shared, T);
    return 0;
}

static int run_layer(struct qp_engine *e, struct group *g, struct act *act, int64_t layer, struct qp_err *err)
{
    struct qp_block *b = e->blocks[layer];
    const struct qp_model_config *c = &e->config;
    bool last = layer == c->n_layers - 1;
    int64_t T = g->tokens, D = c->d_model;
    qp_norm_run(&b->norm1, c, e->ops, &e->ex, act->h, act->x, T, D);
    qp_packed_run(&b->qkv, b->lin, e->ops, &e->ex, act->qkv, act->h, D, T, false);
    qp_block_rotate(b, act->qkv, qp_block_is_local(c, layer) ? act->local_cs : act->cs, T);
    attend(e, b, g, act, layer, last);
    if (last && !(T = gather_wanted(g, act->x, D)))
        return 0;
    if (c->parallel_residual)
        qp_norm_run(qp_block_norm2(b), c, e->ops, &e->ex, act->h, act->x, T, D);
    if (b->post_attn.w)
        for (int64_t t = 0; t < T; t += MLP_ROWS)
            qp_block_add(b, &b->o, &b->post_attn, act->x + t * D, act->a + t * b->o.K, at_most(T - t, MLP_ROWS), act->y);
    else
        qp_block_add(b, &b->o, &b->post_attn, act->x, act->a, T, NULL);
    if (!c->parallel_residual)
        qp_norm_run(qp_block_norm2(b), c, e->ops, &e->ex, act->h, act->x, T, D);
    if (qp_config_has_experts(c, layer))
        return add_experts(e, b, act, T, err);
    add_mlp(b, act, T);
    return 0;
}

static int run_group(struct qp_engine *e, struct group *g, float **hidden, struct qp_err *err)
{
    struct act act;
    if (!g->tokens)
        return 0;
    if (layout(e, g->tokens, &act, err) || embed_group(e, g, &act, err))
        return err->code;
    for (int64_t l = 0; l < e->config.n_layers; l++)
        if (run_layer(e, g, &act, l, err))
            return err->code;
    if (g->wanted) {
        qp_norm_run(&e->final_norm, &e->config, e->ops, &e->ex, *hidden, act.x, g->wanted, e->config.d_model);
        *hidden += g->wanted * e->config.d_model;
    }
    for (int i = 0; i < g->n; i++)
        g->p[i].seq->length = g->p[i].pos0 + g->p[i].n;
    g->n = 0;
    g->tokens = g->wanted = 0;
    return e->ex.failed ? qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the matrix products") : 0;
}

static int add_piece(struct qp_engine *e, struct group *g, const struct qp_segment *s, int64_t at, int64_t *n, float **hidden, struct qp_err *err)
{
    if (g->n == QP_ATTN_SPANS || g->tokens == QP_ENGINE_BLOCK)
        if (run_group(e, g, hidden, err))
            return err->code;
    int64_t room = QP_ENGINE_BLOCK - g->tokens;
    *n = s->n - at < room ? s->n - at : room;
    int64_t want = s->want_from - at;
    want = want < 0 ? 0 : want > *n ? *n : want;
    /* a long segment comes in several pieces: the earlier ones have run, or stand in this group just before */
    int64_t pos0 = s->seq->length;
    for (int i = 0; i < g->n; i++)
        if (g->p[i].seq == s->seq)
            pos0 = g->p[i].pos0 + g->p[i].n;
    g->p[g->n++] = (struct piece){s->seq, s->ids + at, *n, want, pos0};
    g->tokens += *n;
    g->wanted += *n - want;
    return 0;
}

int qp_engine_forward(struct qp_engine *e, const struct qp_segment *seg, int64_t n_seg, float *hidden, struct qp_err *err)
{
    struct qp_err local = {0};
    struct group g = {.n = 0};
    err = err ? err : &local;
    for (int64_t i = 0; i < n_seg; i++) {
        if (seg[i].n < 0 || seg[i].want_from < 0 || seg[i].want_from > seg[i].n)
            return qp_err_set(err, QP_E_INTERNAL, "a segment of %lld tokens, wanted from %lld", (long long)seg[i].n, (long long)seg[i].want_from);
        if (seg[i].seq->length + seg[i].n > seg[i].seq->capacity)
            return qp_err_set(err, QP_E_USAGE, "%lld tokens do not fit behind the %lld of %lld that the KV cache holds", (long long)seg[i].n,
                              (long long)seg[i].seq->length, (long long)seg[i].seq->capacity);
        for (int64_t at = 0, n = 0; at < seg[i].n; at += n)
            if (add_piece(e, &g, &seg[i], at, &n, &hidden, err))
                return err->code;
    }
    return run_group(e, &g, &hidden, err);
}

int qp_engine_logits(struct qp_engine *e, const float *hidden, int64_t n, float *logits, struct qp_err *err)
{
    qp_packed_run(&e->head, qp_linear_ops_of(e->ops, e->compute), e->ops, &e->ex, logits, hidden, e->config.d_model, n, false);
    if (e->config.logit_cap > 0)
        e->ops->soft_cap(&e->ex, logits, n * e->head.N, (float)e->config.logit_cap);
    return e->ex.failed ? qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the matrix products") : 0;
}

int64_t qp_engine_logit_rows(const struct qp_engine *e)
{
    int64_t rows = (int64_t)(LOGIT_BYTES / ((size_t)e->head.N * sizeof(float)));
    return rows > 0 ? rows : 1;
}

/* ---- greedy decoding ---- */

int qp_engine_greedy(struct qp_engine *e, struct qp_seq *s, const int32_t *prompt, int64_t n, int64_t max_new, int32_t eos, struct qp_ids *out, struct qp_err *err)
{
    float *hidden = qp_alloc((size_t)e->config.d_model * sizeof *hidden, "hidden state", err);
    float *logits = qp_alloc((size_t)e->head.N * sizeof *logits, "logits", err);
    int r = hidden && logits ? 0 : QP_E_RESOURCE;
    int32_t next = 0;
    double lse;
    for (int64_t i = 0; !r && i < max_new; i++) {
        struct qp_segment seg = {.seq = s, .ids = i ? &next : prompt, .n = i ? 1 : n};
        seg.want_from = seg.n - 1;
        r = qp_engine_forward(e, &seg, 1, hidden, err);
        r = r ? r : qp_engine_logits(e, hidden, 1, logits, err);
        if (r)
            break;
        e->ops->log_sum_exp(&e->ex, &lse, &next, logits, e->head.N, 1, e->head.N);
        if (eos >= 0 && next == eos)
            break;
        r = qp_ids_add(out, next, err);
    }
    qp_free(hidden);
    qp_free(logits);
    return r;
}
