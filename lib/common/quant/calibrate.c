#include "quant/calibrate.h"

#include <string.h>

#include "base/mem.h"
#include "engine/block.h"

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

/* One layer: quantize w (overwritten with what was quantized), report. hess NULL: round to nearest. */
static int quantize_layer(struct run *u, int64_t layer, enum qp_linear_slot slot, float *w, const struct qp_hessian *hess, const char *fallback)
{
    char name[128];
    struct qp_qlinear q;
    struct qp_layer_report rep = {.name = name, .index = u->done++, .total = u->c->n_layers * QP_LIN_COUNT, .fallback = fallback};
    qp_block_linear_name(name, layer, slot);
    qp_block_linear_shape(u->c, slot, &rep.rows, &rep.cols);
    const struct qp_weight *weight = qp_model_weight(u->m, name);
    if (qp_weight_read_rows(weight, 0, rep.rows, w, u->err))
        return u->err->code;
    double sum = 0;
    for (int64_t i = 0; i < rep.rows * rep.cols; i++)
        sum += 0.0 * (double)w[i];
    if (sum != 0)
        return qp_err_set(u->err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", name);
    int r;
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

/* The layers that share the inputs x [T, n]. */
static int quantize_group(struct run *u, int64_t layer, const enum qp_linear_slot *slots, int count, const float *x, int64_t n)
{
    struct qp_hessian hess;
    float *w = qp_alloc_n((size_t)largest_linear(u->c), sizeof *w, "weights", u->err);
    if (!w)
        return QP_E_RESOURCE;
    int r = qp_hessian_init(&hess, x, u->T, n, u->ops, &u->ex, u->err);
    if (r) {
        char name[128];
        qp_block_linear_name(name, layer, slots[0]);
        qp_free(w);
        return qp_err_context(u->err, "layer '%s'", name);
    }
    int factored = qp_hessian_factor(&hess, u->o->damp, u->o->act_order, u->ops, &u->ex, u->err);
    const char *fallback = factored == 1 ? hess.trace > 0 ? "the Hessian is not positive definite at any damping" : "the Hessian is zero" : NULL;
    r = factored < 0 ? factored : 0;
    for (int i = 0; i < count && !r; i++) {
        r = quantize_layer(u, layer, slots[i], w, &hess, fallback);
        r = r ? r : qp_block_set_linear(u->block, slots[i], w, u->err);
    }
    qp_hessian_release(&hess);
    qp_free(w);
    return r;
}

static int run_block(struct run *u, int64_t l)
{
    static const enum qp_linear_slot qkv[] = {QP_LIN_Q, QP_LIN_K, QP_LIN_V}, o[] = {QP_LIN_O}, mlp[] = {QP_LIN_GATE, QP_LIN_UP}, down[] = {QP_LIN_DOWN};
    int64_t D = u->c->d_model, Q = u->c->n_heads * u->c->head_dim;
    int r = qp_block_load(&u->block, u->m, l, u->ops, &u->ex, u->o->compute, u->err);
    r = r ? r : qp_block_attn_in(u->block, u->x, u->T, u->h, u->err);
    r = r ? r : quantize_group(u, l, qkv, 3, u->h, D);
    r = r ? r : qp_block_attn(u->block, u->h, u->cal->n_seq, u->cal->len, u->wide, u->err);
    r = r ? r : quantize_group(u, l, o, 1, u->wide, Q);
    r = r ? r : qp_block_attn_out(u->block, u->wide, u->T, u->x, u->err);
    r = r ? r : qp_block_mlp_in(u->block, u->x, u->T, u->h, u->err);
    r = r ? r : quantize_group(u, l, mlp, 2, u->h, D);
    r = r ? r : qp_block_mlp(u->block, u->h, u->T, u->wide, u->err);
    r = r ? r : quantize_group(u, l, down, 1, u->wide, u->c->d_ff);
    r = r ? r : qp_block_mlp_out(u->block, u->wide, u->T, u->x, u->err);
    qp_block_free(u->block);
    u->block = NULL;
    return r;
}

static int run_gptq(struct run *u)
{
    int64_t D = u->c->d_model, Q = u->c->n_heads * u->c->head_dim, W = Q > u->c->d_ff ? Q : u->c->d_ff;
    u->T = u->cal->n_seq * u->cal->len;
    u->x = qp_alloc_n((size_t)(u->T * D), sizeof *u->x, "activations", u->err);
    u->h = qp_alloc_n((size_t)(u->T * D), sizeof *u->h, "activations", u->err);
    u->wide = qp_alloc_n((size_t)(u->T * W), sizeof *u->wide, "activations", u->err);
    int r = u->x && u->h && u->wide ? qp_embed(u->m, u->cal->ids, u->T, u->x, u->err) : QP_E_RESOURCE;
    for (int64_t l = 0; l < u->c->n_layers && !r; l++)
        r = run_block(u, l);
    qp_free(u->x);
    qp_free(u->h);
    qp_free(u->wide);
    return r;
}

static int run_rtn(struct run *u)
{
    float *w = qp_alloc_n((size_t)largest_linear(u->c), sizeof *w, "weights", u->err);
    int r = w ? 0 : QP_E_RESOURCE;
    for (int64_t l = 0; l < u->c->n_layers && !r; l++)
        for (int s = 0; s < QP_LIN_COUNT && !r; s++)
            r = quantize_layer(u, l, (enum qp_linear_slot)s, w, NULL, NULL);
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
