#include "quant/calibrate.h"

#include <string.h>

#include "base/mem.h"
#include "engine/block.h"
#include "quant/drift.h"

struct run {
    const struct qp_model *m;
    const struct qp_model_config *c;
    const struct qp_calibration *cal;
    const struct qp_quantize_options *o;
    const struct qp_ops *ops;
    struct qp_exec ex;
    qp_layer_fn *fn;
    void *ctx;
    struct qp_err *err;
    int64_t T, done;
    float *x, *h, *wide; /* [T, D] residual, [T, D] normed, [T, max(Q, F)] */
    struct qp_block *block;
    float *full_x, *full_h, *full_wide, *delta; /* the same of the full-precision model, and [T, D] differences; NULL without drift gain */
    struct qp_block *full;
};

static int64_t largest_linear(const struct qp_model_config *c)
{
    int64_t most = 0;
    for (int s = 0; s < QP_LIN_COUNT; s++) {
        int64_t rows, cols;
        qp_block_linear_shape(c, (enum qp_linear_slot)s, &rows, &cols);
        most = rows * cols > most ? rows * cols : most;
    }
    return most;
}

/* Reads and checks the weights; moves them against the drift. */
static int load_weights(struct run *u, const char *name, int64_t rows, int64_t cols, float *w, const struct qp_drift *drift)
{
    if (qp_weight_read_rows(qp_model_weight(u->m, name), 0, rows, w, u->err))
        return u->err->code;
    double sum = 0;
    for (int64_t i = 0; i < rows * cols; i++)
        sum += 0.0 * (double)w[i];
    if (sum != 0)
        return qp_err_set(u->err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", name);
    return drift ? qp_drift_correct(w, rows, drift, u->ops, &u->ex, u->err) : 0;
}

/* One layer: quantize w (overwritten with what was quantized), report. hess NULL: round to nearest. */
static int quantize_layer(struct run *u, int64_t layer, enum qp_linear_slot slot, float *w, const struct qp_hessian *hess, const struct qp_drift *drift, const char *fallback)
{
    char name[128];
    struct qp_qlinear q;
    struct qp_layer_report rep = {.name = name, .index = u->done++, .total = u->c->n_layers * QP_LIN_COUNT, .fallback = fallback};
    qp_block_linear_name(name, layer, slot);
    qp_block_linear_shape(u->c, slot, &rep.rows, &rep.cols);
    int r = load_weights(u, name, rep.rows, rep.cols, w, drift);
    if (r)
        return r;
    if (hess && !fallback)
        r = qp_gptq_quantize(&q, w, rep.rows, hess, &u->o->gptq, u->ops, &u->ex, u->err);
    else
        r = qp_rtn_quantize(&q, w, rep.rows, rep.cols, u->o->gptq.grid, &u->ex, u->err);
    if (r)
        return r;
    r = qp_quant_measure(&rep.error, &q, w, hess && !fallback ? hess : NULL, u->ops, &u->ex, u->err);
    if (hess) {
        rep.hessian_trace = hess->trace;
        rep.damp = fallback ? 0 : hess->damp;
        rep.dead = hess->dead;
    }
    if (!r)
        r = u->fn(u->ctx, &rep, &q);
    if (!r)
        qp_qlinear_decode(&q, w);
    qp_qlinear_release(&q);
    return r;
}

/* The layers that share the inputs x [T, n]; what drift is known: full_x, the same inputs of the full-precision model, or lack [T, D], what the
 * residual stream lacks without these layers' output; or neither. */
struct group {
    const enum qp_linear_slot *slots;
    int count;
    const float *x;
    int64_t n;
    const float *full_x, *lack;
};

struct statistics {
    struct qp_hessian hess;
    struct qp_drift drift;
    float *moment, *w;
};

static int gather_drift(struct run *u, const struct group *g, struct statistics *s)
{
    int64_t D = u->c->d_model, rows = g->lack ? D : g->n;
    const float *d = g->lack;
    if (!(s->moment = qp_alloc_n((size_t)(rows * g->n), sizeof *s->moment, "drift", u->err)))
        return QP_E_RESOURCE;
    if (!d) {
        for (int64_t i = 0; i < u->T * g->n; i++)
            u->delta[i] = g->full_x[i] - g->x[i];
        d = u->delta;
    }
    int r = qp_moment(s->moment, d, rows, g->x, g->n, u->T, u->o->compute, u->ops, &u->ex, u->err);
    s->drift = (struct qp_drift){.inputs = g->lack ? NULL : s->moment, .outputs = g->lack ? s->moment : NULL, .gain = u->o->drift_gain, .h = &s->hess};
    return r;
}

static int quantize_slots(struct run *u, int64_t layer, const struct group *g, struct statistics *s)
{
    int factored = qp_hessian_factor(&s->hess, u->o->damp, u->o->act_order, u->ops, &u->ex, u->err);
    const char *fallback = factored == 1 ? s->hess.trace > 0 ? "the Hessian is not positive definite at any damping" : "the Hessian is zero" : NULL;
    bool drifts = (g->full_x || g->lack) && !fallback;
    int r = factored < 0 ? factored : 0;
    r = r || !drifts ? r : gather_drift(u, g, s);
    for (int i = 0; i < g->count && !r; i++) {
        r = quantize_layer(u, layer, g->slots[i], s->w, &s->hess, drifts ? &s->drift : NULL, fallback);
        r = r ? r : qp_block_set_linear(u->block, g->slots[i], s->w, u->err);
    }
    return r;
}

static int quantize_group(struct run *u, int64_t layer, struct group g)
{
    struct statistics s = {.w = qp_alloc_n((size_t)largest_linear(u->c), sizeof *s.w, "weights", u->err)};
    if (!s.w)
        return QP_E_RESOURCE;
    int r = qp_hessian_init(&s.hess, g.x, u->T, g.n, u->o->compute, u->ops, &u->ex, u->err);
    if (r) {
        char name[128];
        qp_block_linear_name(name, layer, g.slots[0]);
        qp_err_context(u->err, "layer '%s'", name);
    }
    r = r ? r : quantize_slots(u, layer, &g, &s);
    qp_hessian_release(&s.hess);
    qp_free(s.moment);
    qp_free(s.w);
    return r;
}

/* What the residual stream lacks before the next addition: full_x has it already. */
static const float *lack(struct run *u)
{
    for (int64_t i = 0; u->full_x && i < u->T * u->c->d_model; i++)
        u->delta[i] = u->full_x[i] - u->x[i];
    return u->full_x ? u->delta : NULL;
}

static int run_attention(struct run *u, int64_t l)
{
    static const enum qp_linear_slot qkv[] = {QP_LIN_Q, QP_LIN_K, QP_LIN_V}, o[] = {QP_LIN_O};
    int64_t D = u->c->d_model, Q = u->c->n_heads * u->c->head_dim, n_seq = u->cal->n_seq, len = u->cal->len;
    int r = qp_block_attn_in(u->block, u->x, u->T, u->h, u->err);
    if (u->full && !r)
        r = qp_block_attn_in(u->full, u->full_x, u->T, u->full_h, u->err);
    r = r ? r : quantize_group(u, l, (struct group){qkv, 3, u->h, D, u->full_h, NULL});
    r = r ? r : qp_block_attn(u->block, u->h, n_seq, len, u->wide, u->err);
    if (u->full && !r) {
        r = qp_block_attn(u->full, u->full_h, n_seq, len, u->full_wide, u->err);
        r = r ? r : qp_block_attn_out(u->full, u->full_wide, u->T, u->full_x, u->err);
    }
    r = r ? r : quantize_group(u, l, (struct group){o, 1, u->wide, Q, NULL, lack(u)});
    return r ? r : qp_block_attn_out(u->block, u->wide, u->T, u->x, u->err);
}

static int run_mlp(struct run *u, int64_t l)
{
    static const enum qp_linear_slot mlp[] = {QP_LIN_GATE, QP_LIN_UP}, down[] = {QP_LIN_DOWN};
    int r = qp_block_mlp_in(u->block, u->x, u->T, u->h, u->err);
    if (u->full && !r)
        r = qp_block_mlp_in(u->full, u->full_x, u->T, u->full_h, u->err);
    r = r ? r : quantize_group(u, l, (struct group){mlp, 2, u->h, u->c->d_model, u->full_h, NULL});
    r = r ? r : qp_block_mlp(u->block, u->h, u->T, u->wide, u->err);
    if (u->full && !r) {
        r = qp_block_mlp(u->full, u->full_h, u->T, u->full_wide, u->err);
        r = r ? r : qp_block_mlp_out(u->full, u->full_wide, u->T, u->full_x, u->err);
    }
    r = r ? r : quantize_group(u, l, (struct group){down, 1, u->wide, u->c->d_ff, NULL, lack(u)});
    return r ? r : qp_block_mlp_out(u->block, u->wide, u->T, u->x, u->err);
}

static int run_block(struct run *u, int64_t l)
{
    int r = qp_block_load(&u->block, u->m, l, u->ops, &u->ex, u->o->compute, u->err);
    if (u->full_x && !r)
        r = qp_block_load(&u->full, u->m, l, u->ops, &u->ex, u->o->compute, u->err);
    r = r ? r : run_attention(u, l);
    r = r ? r : run_mlp(u, l);
    qp_block_free(u->block);
    qp_block_free(u->full);
    u->block = u->full = NULL;
    return r;
}

static float *activations(struct run *u, int64_t width)
{
    return qp_alloc_n((size_t)(u->T * width), sizeof(float), "activations", u->err);
}

static int run_gptq(struct run *u)
{
    int64_t D = u->c->d_model, Q = u->c->n_heads * u->c->head_dim, W = Q > u->c->d_ff ? Q : u->c->d_ff;
    u->T = u->cal->n_seq * u->cal->len;
    u->x = activations(u, D);
    u->h = activations(u, D);
    u->wide = activations(u, W);
    int r = u->x && u->h && u->wide ? qp_embed(u->m, u->cal->ids, u->T, u->x, u->err) : QP_E_RESOURCE;
    if (u->o->drift_gain > 0 && !r) {
        u->full_x = activations(u, D);
        u->full_h = activations(u, D);
        u->full_wide = activations(u, W);
        u->delta = activations(u, D);
        r = u->full_x && u->full_h && u->full_wide && u->delta ? 0 : QP_E_RESOURCE;
        if (!r)
            memcpy(u->full_x, u->x, (size_t)(u->T * D) * sizeof *u->x);
    }
    for (int64_t l = 0; l < u->c->n_layers && !r; l++)
        r = run_block(u, l);
    float *all[] = {u->x, u->h, u->wide, u->full_x, u->full_h, u->full_wide, u->delta};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        qp_free(all[i]);
    return r;
}

static int run_rtn(struct run *u)
{
    float *w = qp_alloc_n((size_t)largest_linear(u->c), sizeof *w, "weights", u->err);
    int r = w ? 0 : QP_E_RESOURCE;
    for (int64_t l = 0; l < u->c->n_layers && !r; l++)
        for (int s = 0; s < QP_LIN_COUNT && !r; s++)
            r = quantize_layer(u, l, (enum qp_linear_slot)s, w, NULL, NULL, NULL);
    qp_free(w);
    return r;
}

int qp_quantize_model(const struct qp_model *m, const struct qp_calibration *cal, const struct qp_quantize_options *o, const struct qp_ops *ops, struct qp_pool *pool,
                      qp_layer_fn *fn, void *ctx, struct qp_err *err)
{
    struct qp_err local = {0};
    struct run u = {.m = m, .c = qp_model_config(m), .cal = cal, .o = o, .ops = ops, .ex = {.pool = pool}, .fn = fn, .ctx = ctx, .err = err ? err : &local};
    int r;
    if (o->method == QP_METHOD_RTN)
        r = run_rtn(&u);
    else if (!cal || cal->n_seq < 1 || cal->len < 1)
        r = qp_err_set(u.err, QP_E_INPUT, "gptq needs calibration samples");
    else
        r = run_gptq(&u);
    qp_exec_release(&u.ex);
    return r;
}
