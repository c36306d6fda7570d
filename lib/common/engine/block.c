#include "engine/block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

#define STEP_ROWS 2048 /* rows that the wide intermediate products hold at a time */

/* Where a slot's rows lie among the packed matrices. */
static struct qp_packed *packed_of(struct qp_block *b, enum qp_linear_slot slot, int64_t *row0)
{
    const struct qp_model_config *c = &b->config;
    *row0 = 0;
    switch (slot) {
    case QP_LIN_Q: return &b->qkv;
    case QP_LIN_K: *row0 = c->n_heads * c->head_dim; return &b->qkv;
    case QP_LIN_V: *row0 = (c->n_heads + c->n_kv_heads) * c->head_dim; return &b->qkv;
    case QP_LIN_O: return &b->o;
    case QP_LIN_GATE: return &b->gate_up;
    case QP_LIN_UP: *row0 = c->d_ff; return &b->gate_up;
    default: return &b->down;
    }
}

static const char *const slot_names[QP_LIN_COUNT] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                                     "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj"};

void qp_block_linear_name(char out[128], int64_t layer, enum qp_linear_slot slot)
{
    snprintf(out, 128, "model.layers.%lld.%s.weight", (long long)layer, slot_names[slot]);
}

void qp_block_linear_shape(const struct qp_model_config *c, enum qp_linear_slot slot, int64_t *rows, int64_t *cols)
{
    int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    switch (slot) {
    case QP_LIN_Q: *rows = q, *cols = c->d_model; break;
    case QP_LIN_K:
    case QP_LIN_V: *rows = kv, *cols = c->d_model; break;
    case QP_LIN_O: *rows = c->d_model, *cols = q; break;
    case QP_LIN_GATE:
    case QP_LIN_UP: *rows = c->d_ff, *cols = c->d_model; break;
    default: *rows = c->d_model, *cols = c->d_ff; break;
    }
}

static int load_vector(float **out, const struct qp_model *m, int64_t layer, const char *name, int64_t n, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_weightf(m, "model.layers.%lld.%s", (long long)layer, name);
    *out = NULL;
    if (!w)
        return 0;
    *out = qp_alloc_n((size_t)n, sizeof **out, name, err);
    if (!*out || qp_weight_read_rows(w, 0, 1, *out, err))
        return err->code;
    if (!qp_all_finite(*out, n))
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", w->name);
    return 0;
}

static int load_bias(struct qp_block *b, const struct qp_model *m, enum qp_linear_slot slot, struct qp_err *err)
{
    char name[128];
    int64_t row0;
    struct qp_packed *p = packed_of(b, slot, &row0);
    snprintf(name, sizeof name, "%s.bias", slot_names[slot]);
    const struct qp_weight *w = qp_model_weightf(m, "model.layers.%lld.%s", (long long)b->layer, name);
    if (!w)
        return 0;
    if (!p->bias && !(p->bias = qp_zalloc((size_t)p->N * sizeof *p->bias, name, err)))
        return QP_E_RESOURCE;
    if (qp_weight_read_rows(w, 0, 1, p->bias + row0, err))
        return err->code;
    return qp_all_finite(p->bias + row0, w->rows * w->cols) ? 0 : qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", w->name);
}

static int load_linears(struct qp_block *b, const struct qp_model *m, struct qp_err *err)
{
    const struct qp_model_config *c = &b->config;
    int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    if (qp_packed_new(&b->qkv, q + 2 * kv, c->d_model, b->lin, err) || qp_packed_new(&b->o, c->d_model, q, b->lin, err) ||
        qp_packed_new(&b->gate_up, 2 * c->d_ff, c->d_model, b->lin, err) || qp_packed_new(&b->down, c->d_model, c->d_ff, b->lin, err))
        return err->code;
    for (int slot = 0; slot < QP_LIN_COUNT; slot++) {
        char name[128];
        int64_t row0;
        struct qp_packed *p = packed_of(b, (enum qp_linear_slot)slot, &row0);
        qp_block_linear_name(name, b->layer, (enum qp_linear_slot)slot);
        const struct qp_weight *w = qp_model_weight(m, name);
        if (!w)
            return qp_err_set(err, QP_E_INTERNAL, "the model has no weight '%s'", name);
        if (qp_pack_weight(p, row0, w, b->lin, b->ex, err) || load_bias(b, m, (enum qp_linear_slot)slot, err))
            return err->code;
    }
    return 0;
}

int qp_block_load(struct qp_block **out, const struct qp_model *m, int64_t layer, const struct qp_ops *ops, struct qp_exec *ex, enum qp_compute compute,
                  struct qp_err *err)
{
    *out = NULL;
    struct qp_block *b = qp_zalloc(sizeof *b, "block", err);
    if (!b)
        return QP_E_RESOURCE;
    b->ops = ops;
    b->ex = ex;
    b->lin = qp_linear_ops_of(ops, compute);
    b->attn = qp_attn_ops_of(ops, qp_kv_default(compute));
    b->config = *qp_model_config(m);
    b->layer = layer;
    qp_rope_init(&b->rope, &b->config);
    int64_t D = b->config.d_model, hd = b->config.head_dim;
    if (load_vector(&b->norm1, m, layer, "input_layernorm.weight", D, err) || load_vector(&b->norm2, m, layer, "post_attention_layernorm.weight", D, err) ||
        load_vector(&b->q_norm, m, layer, "self_attn.q_norm.weight", hd, err) || load_vector(&b->k_norm, m, layer, "self_attn.k_norm.weight", hd, err) ||
        load_linears(b, m, err)) {
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
    qp_packed_release(&b->qkv);
    qp_packed_release(&b->o);
    qp_packed_release(&b->gate_up);
    qp_packed_release(&b->down);
    qp_rope_release(&b->rope);
    qp_free(b->norm1);
    qp_free(b->norm2);
    qp_free(b->q_norm);
    qp_free(b->k_norm);
    qp_free(b->buf);
    qp_free(b->kv);
    qp_free(b);
}

int qp_block_set_linear(struct qp_block *b, enum qp_linear_slot slot, const float *w, struct qp_err *err)
{
    int64_t rows, cols, row0;
    struct qp_packed *p = packed_of(b, slot, &row0);
    qp_block_linear_shape(&b->config, slot, &rows, &cols);
    if (!qp_all_finite(w, rows * cols))
        return qp_err_set(err, QP_E_INTERNAL, "layer %lld: %s: new weights are not finite", (long long)b->layer, slot_names[slot]);
    b->lin.pack(b->ex, p->data, w, cols, row0, rows, p->N, p->K);
    return 0;
}

/* ---- steps ---- */

struct qp_attn_shape qp_attn_shape_of(const struct qp_model_config *c, int64_t capacity)
{
    return (struct qp_attn_shape){.n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim, .capacity = capacity,
                                  .window = c->sliding_window, .scale = 1.f / sqrtf((float)c->head_dim)};
}

static void norm_heads(const struct qp_block *b, float *x, int64_t ldx, const float *w, int64_t T, int64_t heads)
{
    int64_t hd = b->config.head_dim;
    for (int64_t t = 0; t < T; t++)
        b->ops->rms_norm(b->ex, x + t * ldx, x + t * ldx, w, heads, hd, (float)b->config.norm_eps);
}

void qp_block_rotate(const struct qp_block *b, float *qkv, const float *cs, int64_t T)
{
    const struct qp_model_config *c = &b->config;
    int64_t ld = b->qkv.N;
    float *k = qkv + c->n_heads * c->head_dim;
    if (b->q_norm)
        norm_heads(b, qkv, ld, b->q_norm, T, c->n_heads);
    if (b->k_norm)
        norm_heads(b, k, ld, b->k_norm, T, c->n_kv_heads);
    /* q and k lie side by side: one rotation serves both */
    b->ops->rope(b->ex, qkv, ld, cs, T, c->n_heads + c->n_kv_heads, c->head_dim, c->rope_interleaved);
}

void qp_block_mlp_rows(const struct qp_block *b, const float *h, int64_t T, float *gu, float *m)
{
    int64_t F = b->config.d_ff;
    qp_packed_run(&b->gate_up, b->lin, b->ops, b->ex, gu, h, b->config.d_model, T, false);
    b->ops->silu_mul(b->ex, m, F, gu, gu + F, 2 * F, T, F);
}

static int reserve(struct qp_block *b, size_t floats, struct qp_err *err)
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

static int done(struct qp_block *b, struct qp_err *err)
{
    return b->ex->failed ? qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the matrix products") : 0;
}

int qp_block_attn_in(struct qp_block *b, const float *x, int64_t T, float *h, struct qp_err *err)
{
    b->ops->rms_norm(b->ex, h, x, b->norm1, T, b->config.d_model, (float)b->config.norm_eps);
    return done(b, err);
}

int qp_block_attn(struct qp_block *b, const float *h, int64_t n_seq, int64_t len, float *a, struct qp_err *err)
{
    const struct qp_model_config *c = &b->config;
    int64_t N = b->qkv.N, q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    struct qp_attn_shape s = qp_attn_shape_of(c, len);
    int64_t group = len >= STEP_ROWS ? 1 : STEP_ROWS / len;
    if (reserve(b, (size_t)(group * len * N), err) || qp_rope_reserve(&b->rope, len, err))
        return err->code;
    if (b->kv_len != len) {
        qp_free(b->kv);
        b->kv_len = 0;
        if (!(b->kv = qp_zalloc(b->attn.bytes(&s), "attention", err)))
            return QP_E_RESOURCE;
        b->kv_len = len;
    }
    for (int64_t i = 0; i < n_seq; i += group) {
        int64_t n = n_seq - i < group ? n_seq - i : group;
        qp_packed_run(&b->qkv, b->lin, b->ops, b->ex, b->buf, h + i * len * c->d_model, c->d_model, n * len, false);
        for (int64_t k = 0; k < n; k++) {
            float *qkv = b->buf + k * len * N;
            qp_block_rotate(b, qkv, b->rope.table, len);
            b->attn.store(b->ex, b->kv, &s, qkv + q, N, qkv + q + kv, N, 0, len);
            b->attn.run(b->ex, a + (i + k) * len * q, q, qkv, N, b->kv, &s, 0, len);
        }
    }
    return done(b, err);
}

int qp_block_attn_out(struct qp_block *b, const float *a, int64_t T, float *x, struct qp_err *err)
{
    qp_packed_run(&b->o, b->lin, b->ops, b->ex, x, a, b->o.K, T, true);
    return done(b, err);
}

int qp_block_mlp_in(struct qp_block *b, const float *x, int64_t T, float *h, struct qp_err *err)
{
    b->ops->rms_norm(b->ex, h, x, b->norm2, T, b->config.d_model, (float)b->config.norm_eps);
    return done(b, err);
}

int qp_block_mlp(struct qp_block *b, const float *h, int64_t T, float *m, struct qp_err *err)
{
    int64_t D = b->config.d_model, F = b->config.d_ff;
    if (reserve(b, (size_t)((T < STEP_ROWS ? T : STEP_ROWS) * 2 * F), err))
        return err->code;
    for (int64_t t = 0; t < T; t += STEP_ROWS)
        qp_block_mlp_rows(b, h + t * D, T - t < STEP_ROWS ? T - t : STEP_ROWS, b->buf, m + t * F);
    return done(b, err);
}

int qp_block_mlp_out(struct qp_block *b, const float *m, int64_t T, float *x, struct qp_err *err)
{
    qp_packed_run(&b->down, b->lin, b->ops, b->ex, x, m, b->down.K, T, true);
    return done(b, err);
}

int qp_embed(const struct qp_model *m, const int32_t *ids, int64_t n, float *x, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_weight(m, "model.embed_tokens.weight");
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= w->rows)
            return qp_err_set(err, QP_E_INPUT, "token id %d is outside of the vocabulary of %lld", ids[i], (long long)w->rows);
        if (qp_weight_read_rows(w, ids[i], 1, x + i * w->cols, err))
            return err->code;
    }
    if (!qp_all_finite(x, n * w->cols))
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", w->name);
    return 0;
}
