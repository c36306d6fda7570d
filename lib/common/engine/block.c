#include "engine/block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

#define STEP_ROWS 2048 /* rows that the wide intermediate products hold at a time */

/* Where a linear layer's rows lie among the packed matrices. */
static struct qp_packed *packed_of(struct qp_block *b, const struct qp_linear *l, int64_t *row0)
{
    const struct qp_model_config *c = &b->config;
    struct qp_mlp *mlp = l->expert >= 0 ? &b->moe.experts[l->expert] : l->role >= QP_ROLE_SHARED_GATE ? &b->moe.shared : &b->mlp;
    *row0 = 0;
    switch (l->role) {
    case QP_ROLE_Q:
    case QP_ROLE_QKV: return &b->qkv;
    case QP_ROLE_K: *row0 = c->n_heads * c->head_dim; return &b->qkv;
    case QP_ROLE_V: *row0 = (c->n_heads + c->n_kv_heads) * c->head_dim; return &b->qkv;
    case QP_ROLE_O: return &b->o;
    case QP_ROLE_UP:
    case QP_ROLE_SHARED_UP: *row0 = c->gated ? mlp->F : 0; return &mlp->in;
    case QP_ROLE_DOWN:
    case QP_ROLE_SHARED_DOWN: return &mlp->down;
    default: return &mlp->in;
    }
}

static int load_bias(struct qp_block *b, const struct qp_model *m, const struct qp_linear *l, struct qp_packed *p, int64_t row0, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_part(m, b->layer, l->role, l->expert, true);
    if (!w)
        return 0;
    if (!p->bias && !(p->bias = qp_zalloc((size_t)p->N * sizeof *p->bias, w->name, err)))
        return QP_E_RESOURCE;
    if (qp_weight_read_rows(w, 0, 1, p->bias + row0, err))
        return err->code;
    return qp_all_finite(p->bias + row0, w->cols) ? 0 : qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", w->name);
}

/* Linear layers that lie in one packed matrix stand side by side in the list. */
static int load_linears(struct qp_block *b, const struct qp_model *m, enum qp_codes_use use, struct qp_err *err)
{
    b->mlp.F = b->config.d_ff;
    if (qp_config_has_experts(&b->config, b->layer) && qp_moe_load(b, m, err))
        return err->code;
    for (int i = 0, count; i < b->n_linears; i += count) {
        const struct qp_weight *w[QP_PACKED_PARTS] = {0};
        int64_t row0;
        struct qp_packed *p = packed_of(b, &b->linears[i], &row0);
        for (count = 0; count < QP_PACKED_PARTS && i + count < b->n_linears && packed_of(b, &b->linears[i + count], &row0) == p; count++)
            w[count] = b->linears[i + count].weight;
        if (qp_packed_load(p, w, count, use, b->lin, b->ops, b->ex, err))
            return err->code;
        for (int k = i; k < i + count; k++) {
            packed_of(b, &b->linears[k], &row0);
            if (load_bias(b, m, &b->linears[k], p, row0, err))
                return err->code;
        }
    }
    return 0;
}

static int load_norms(struct qp_block *b, const struct qp_model *m, struct qp_err *err)
{
    const struct qp_model_config *c = &b->config;
    int64_t D = c->d_model, q = c->head_dim * (c->qk_norm_wide ? c->n_heads : 1), k = c->head_dim * (c->qk_norm_wide ? c->n_kv_heads : 1);
    const struct {
        struct qp_norm *n;
        enum qp_role role;
        int64_t width;
    } norms[] = {{&b->norm1, QP_ROLE_NORM1, D},  {&b->post_attn, QP_ROLE_POST_ATTENTION_NORM, D}, {&b->norm2, QP_ROLE_NORM2, D}, {&b->post_mlp, QP_ROLE_POST_MLP_NORM, D},
                 {&b->q_norm, QP_ROLE_Q_NORM, q}, {&b->k_norm, QP_ROLE_K_NORM, k}};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (qp_norm_load(norms[i].n, m, b->layer, norms[i].role, norms[i].width, err))
            return err->code;
    return 0;
}

int qp_block_load(struct qp_block **out, const struct qp_model *m, int64_t layer, const struct qp_ops *ops, struct qp_exec *ex, enum qp_compute compute,
                  struct qp_err *err)
{
    return qp_block_open(out, m, layer, ops, ex, compute, false, err);
}

int qp_block_open(struct qp_block **out, const struct qp_model *m, int64_t layer, const struct qp_ops *ops, struct qp_exec *ex, enum qp_compute compute,
                  bool final, struct qp_err *err)
{
    *out = NULL;
    struct qp_block *b = qp_zalloc(sizeof *b, "block", err);
    if (!b)
        return QP_E_RESOURCE;
    b->ops = ops;
    b->ex = ex;
    b->lin = qp_linear_ops_of(ops, compute);
    b->lin.compact = final ? b->lin.compact : NULL;
    b->attn = qp_attn_ops_of(ops, qp_kv_default(compute));
    b->config = *qp_model_config(m);
    b->layer = layer;
    b->linears = qp_model_linear(m, qp_model_first_linear(m, layer));
    b->n_linears = (int)(qp_model_first_linear(m, layer + 1) - qp_model_first_linear(m, layer));
    qp_rope_init(&b->rope, &b->config, qp_block_is_local(&b->config, layer));
    if (load_norms(b, m, err) || load_linears(b, m, final ? qp_codes_use_of(compute) : QP_CODES_DECODE, err)) {
        qp_block_free(b);
        return err->code;
    }
    *out = b;
    return 0;
}

void qp_block_free(struct qp_block *b)
{
    if (!b)
        return;
    struct qp_norm *norms[] = {&b->norm1, &b->norm2, &b->post_attn, &b->post_mlp, &b->q_norm, &b->k_norm};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        qp_norm_release(norms[i]);
    qp_packed_release(&b->qkv);
    qp_packed_release(&b->o);
    qp_packed_release(&b->mlp.in);
    qp_packed_release(&b->mlp.down);
    qp_moe_release(&b->moe, &b->config);
    qp_rope_release(&b->rope);
    qp_free(b->buf);
    qp_free(b->kv);
    qp_free(b);
}

int64_t qp_block_widest(const struct qp_model_config *c)
{
    int64_t F = c->d_ff > c->d_ff_expert ? c->d_ff : c->d_ff_expert;
    return 2 * (F > c->d_ff_shared ? F : c->d_ff_shared);
}

size_t qp_block_weight_bytes(const struct qp_block *b)
{
    size_t bytes = qp_packed_bytes(&b->moe.router);
    const struct qp_packed *const packed[] = {&b->qkv, &b->o, &b->mlp.in, &b->mlp.down, &b->moe.shared.in, &b->moe.shared.down};
    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++)
        bytes += qp_packed_bytes(packed[i]);
    for (int64_t e = 0; b->moe.experts && e < b->config.n_experts; e++)
        bytes += qp_packed_bytes(&b->moe.experts[e].in) + qp_packed_bytes(&b->moe.experts[e].down);
    return bytes;
}

int qp_block_set_linear(struct qp_block *b, const struct qp_linear *l, const float *w, struct qp_err *err)
{
    int64_t rows = l->weight->rows, cols = l->weight->cols, row0;
    struct qp_packed *p = packed_of(b, l, &row0);
    if (!qp_all_finite(w, rows * cols))
        return qp_err_set(err, QP_E_INTERNAL, "'%s': new weights are not finite", l->weight->name);
    b->lin.pack(b->ex, p->part[0].data, w, cols, row0, rows, p->N, p->K);
    return 0;
}

/* ---- steps ---- */

struct qp_attn_shape qp_attn_shape_of(const struct qp_model_config *c, int64_t layer)
{
    return (struct qp_attn_shape){.n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim,
                                  .window = qp_config_window(c, layer), .soft_cap = (float)c->attention_cap, .scale = c->attention_scale > 0 ? (float)c->attention_scale : 1.f / sqrtf((float)c->head_dim)};
}

static void norm_heads(const struct qp_block *b, float *x, int64_t ldx, const struct qp_norm *n, int64_t T, int64_t heads)
{
    int64_t rows = b->config.qk_norm_wide ? 1 : heads, width = heads / rows * b->config.head_dim;
    for (int64_t t = 0; n->w && t < T; t++)
        qp_norm_run(n, &b->config, b->ops, b->ex, x + t * ldx, x + t * ldx, rows, width);
}

const struct qp_norm *qp_block_norm2(const struct qp_block *b)
{
    return b->config.parallel_residual && !b->norm2.w ? &b->norm1 : &b->norm2;
}

bool qp_block_is_local(const struct qp_model_config *c, int64_t layer)
{
    return c->rope_theta_local > 0 && qp_config_window(c, layer) > 0;
}

/* A head's dimensions so that those which rotate lie in pairs (i, i + hd/2), as the op turns them: the others go behind each half. */
static void order_head(float *to, const float *from, int64_t hd, int64_t rotating)
{
    int64_t half = hd / 2, r = rotating / 2, rest = half - r;
    memcpy(to, from, (size_t)r * sizeof *to);
    memcpy(to + r, from + rotating, (size_t)rest * sizeof *to);
    memcpy(to + half, from + r, (size_t)r * sizeof *to);
    memcpy(to + half + r, from + rotating + rest, (size_t)rest * sizeof *to);
}

/* One row of the product becomes q, k, v. */
static void order_row(const struct qp_model_config *c, float *row, float *copy, int64_t N)
{
    int64_t hd = c->head_dim, rotating = c->rope_dims ? c->rope_dims : hd, heads = c->n_heads, kv = c->n_kv_heads;
    memcpy(copy, row, (size_t)N * sizeof *row);
    for (int64_t h = 0; h < heads + 2 * kv; h++) {
        int64_t part = h < heads ? 0 : h < heads + kv ? 1 : 2, head = part == 0 ? h : part == 1 ? h - heads : h - heads - kv;
        const float *from = copy + (c->qkv_by_head ? 3 * head + part : h) * hd;
        if (part < 2)
            order_head(row + h * hd, from, hd, rotating);
        else
            memcpy(row + h * hd, from, (size_t)hd * sizeof *row);
    }
}

static void order_rows(const struct qp_block *b, float *qkv, int64_t T)
{
    float *copy = qp_exec_scratch(b->ex, (size_t)b->qkv.N * sizeof *copy);
    for (int64_t t = 0; copy && t < T; t++)
        order_row(&b->config, qkv + t * b->qkv.N, copy, b->qkv.N);
}

void qp_block_rotate(const struct qp_block *b, float *qkv, const float *cs, int64_t T)
{
    const struct qp_model_config *c = &b->config;
    int64_t ld = b->qkv.N;
    float *k = qkv + c->n_heads * c->head_dim;
    if (c->qkv_by_head || c->rope_dims)
        order_rows(b, qkv, T);
    norm_heads(b, qkv, ld, &b->q_norm, T, c->n_heads);
    norm_heads(b, k, ld, &b->k_norm, T, c->n_kv_heads);
    /* q and k lie side by side: one rotation serves both */
    if (!c->learned_positions)
        b->ops->rope(b->ex, qkv, ld, cs, T, c->n_heads + c->n_kv_heads, c->head_dim, c->rope_interleaved);
}

void qp_mlp_rows(const struct qp_block *b, const struct qp_mlp *mlp, const float *h, int64_t T, float *gu, float *m)
{
    int64_t F = mlp->F;
    qp_packed_run(&mlp->in, b->lin, b->ops, b->ex, gu, h, b->config.d_model, T, false);
    int64_t ld = mlp->in.N;
    const float *up = b->config.gated ? gu + F : NULL;
    switch (b->config.activation) {
    case QP_ACT_SILU: b->ops->silu_mul(b->ex, m, F, gu, up, ld, T, F); break;
    case QP_ACT_GELU_TANH: b->ops->gelu_mul(b->ex, m, F, gu, up, ld, T, F); break;
    case QP_ACT_GELU_ERF: b->ops->gelu_erf(b->ex, m, F, gu, ld, T, F); break;
    }
}

void qp_block_add(const struct qp_block *b, const struct qp_packed *p, const struct qp_norm *norm, float *x, const float *in, int64_t T, float *y)
{
    if (!norm->w) {
        qp_packed_run(p, b->lin, b->ops, b->ex, x, in, p->K, T, true);
        return;
    }
    qp_packed_run(p, b->lin, b->ops, b->ex, y, in, p->K, T, false);
    qp_norm_run(norm, &b->config, b->ops, b->ex, y, y, T, p->N);
    b->ops->add(b->ex, x, y, T * p->N);
}

int qp_block_reserve(struct qp_block *b, size_t floats, struct qp_err *err)
{
    if (floats <= b->buf_floats)
        return 0;
    qp_free(b->buf);
    b->buf_floats = 0;
    if (!(b->buf = qp_alloc_n(floats, sizeof *b->buf, "activations", err)))
        return QP_E_RESOURCE;
    b->buf_floats = floats;
    return 0;
}

int qp_block_check(const struct qp_block *b, struct qp_err *err)
{
    return b->ex->failed ? qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the matrix products") : 0;
}

/* Caches for sequences of len tokens, at most as many as take the memory of one of STEP_ROWS tokens. */
static int reserve_caches(struct qp_block *b, const struct qp_attn_shape *s, int64_t len, struct qp_err *err)
{
    if (b->kv_len == len)
        return 0;
    size_t bytes = (b->attn.bytes(s, len) + 63) / 64 * 64, room = b->attn.bytes(s, STEP_ROWS) / bytes;
    room = room < 1 ? 1 : room > QP_ATTN_SPANS ? QP_ATTN_SPANS : room;
    qp_free(b->kv);
    b->kv_len = 0;
    if (!(b->kv = qp_zalloc(room * bytes, "attention", err)))
        return QP_E_RESOURCE;
    b->kv_len = len;
    b->kv_room = (int64_t)room;
    b->kv_bytes = bytes;
    return 0;
}

/* a = attention of the n sequences in qkv, as many at a time as there are caches. */
static void attend(struct qp_block *b, const struct qp_attn_shape *s, const float *qkv, int64_t n, float *a)
{
    int64_t N = b->qkv.N, q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim, len = b->kv_len;
    struct qp_attn_span spans[QP_ATTN_SPANS];
    for (int64_t i = 0; i < n; i += b->kv_room) {
        int some = (int)(n - i < b->kv_room ? n - i : b->kv_room);
        for (int k = 0; k < some; k++)
            spans[k] = (struct qp_attn_span){.cache = (char *)b->kv + (size_t)k * b->kv_bytes, .capacity = len, .T = len, .row = (i + k) * len, .out = (i + k) * len};
        b->attn.store(b->ex, s, spans, some, qkv + q, N, qkv + q + kv, N);
        b->attn.run(b->ex, a, q, qkv, N, s, spans, some);
    }
}

int qp_block_attn(struct qp_block *b, const float *h, int64_t n_seq, int64_t len, float *a, struct qp_err *err)
{
    const struct qp_model_config *c = &b->config;
    int64_t N = b->qkv.N, q = c->n_heads * c->head_dim;
    const struct qp_attn_shape s = qp_attn_shape_of(c, b->layer);
    int64_t group = len >= STEP_ROWS ? 1 : STEP_ROWS / len;
    if (qp_block_reserve(b, (size_t)(group * len * N), err) || qp_rope_reserve(&b->rope, len, err) || reserve_caches(b, &s, len, err))
        return err->code;
    for (int64_t i = 0; i < n_seq; i += group) {
        int64_t n = n_seq - i < group ? n_seq - i : group;
        qp_packed_run(&b->qkv, b->lin, b->ops, b->ex, b->buf, h + i * len * c->d_model, c->d_model, n * len, false);
        for (int64_t k = 0; k < n; k++)
            qp_block_rotate(b, b->buf + k * len * N, b->rope.table, len);
        attend(b, &s, b->buf, n, a + i * len * q);
    }
    return qp_block_check(b, err);
}

int qp_mlp_all(struct qp_block *b, const struct qp_mlp *mlp, const float *h, int64_t T, float *m, struct qp_err *err)
{
    int64_t D = b->config.d_model, F = mlp->F;
    if (qp_block_reserve(b, (size_t)((T < STEP_ROWS ? T : STEP_ROWS) * mlp->in.N), err))
        return err->code;
    for (int64_t t = 0; t < T; t += STEP_ROWS)
        qp_mlp_rows(b, mlp, h + t * D, T - t < STEP_ROWS ? T - t : STEP_ROWS, b->buf, m + t * F);
    return qp_block_check(b, err);
}
