#include "quant/measure.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/block.h"
#include "engine/engine.h"

struct run {
    struct qp_model *m;
    const struct qp_model_config *c;
    const struct qp_measure_options *o;
    const struct qp_ops *ops;
    struct qp_exec *ex;
    struct qp_engine *engine;
    struct qp_pass *pass;
    const int32_t *ids;
    int64_t n_seq, len, T, V, slice;
    float *start, *hidden;      /* [T, D] a block's inputs in the model as it is; final hidden states */
    float *logits, *other;      /* [T, V] of the model as it is, [slice, V] */
    double *lse, *lse_other, *kl; /* [T], [slice], [slice] */
    double *loss;               /* [T] of the model as it is; 0 where a sequence ends */
    struct qp_sensitivity *found; /* [linear layers of the block] */
    float *w, *q;               /* [greatest layer] */
    qp_sensitivity_fn *fn;
    void *ctx;
    struct qp_err *err;
};

/* ---- the model's output ---- */

static int run_from(struct run *u, int64_t layer)
{
    struct qp_stage s;
    int r = 0;
    for (int64_t l = layer; l < u->c->n_layers && r >= 0; l++)
        for (r = qp_pass_enter(u->pass, qp_engine_block(u->engine, l), &s, u->err); r == 1;)
            r = qp_pass_next(u->pass, &s, u->err);
    return r < 0 ? r : qp_final_norm(u->m, u->ops, u->ex, u->hidden, qp_pass_stream(u->pass), u->T, u->err);
}

/* Loss of token t's successor; the last token of a sequence has none. */
static double loss_of(const struct run *u, int64_t t, const float *logits, double lse)
{
    return (t + 1) % u->len ? lse - (double)logits[u->ids[t + 1]] : 0;
}

static int keep_output(struct run *u)
{
    int r = run_from(u, 0);
    r = r ? r : qp_engine_logits(u->engine, u->hidden, u->T, u->logits, u->err);
    if (r)
        return r;
    u->ops->log_sum_exp(u->ex, u->lse, NULL, u->logits, u->V, u->T, u->V);
    for (int64_t t = 0; t < u->T; t++)
        u->loss[t] = loss_of(u, t, u->logits + t * u->V, u->lse[t]);
    return 0;
}

static int compare_output(struct run *u, struct qp_sensitivity *s)
{
    double kl = 0, sum = 0, squares = 0, n = (double)(u->T - u->n_seq);
    for (int64_t at = 0; at < u->T; at += u->slice) {
        int64_t some = u->T - at < u->slice ? u->T - at : u->slice;
        if (qp_engine_logits(u->engine, u->hidden + at * u->c->d_model, some, u->other, u->err))
            return u->err->code;
        u->ops->log_sum_exp(u->ex, u->lse_other, NULL, u->other, u->V, some, u->V);
        u->ops->kl_div(u->ex, u->kl, u->logits + at * u->V, u->V, u->lse + at, u->other, u->V, u->lse_other, some, u->V);
        for (int64_t t = 0; t < some; t++) {
            double d = loss_of(u, at + t, u->other + t * u->V, u->lse_other[t]) - u->loss[at + t];
            kl += u->kl[t];
            sum += d;
            squares += d * d;
        }
    }
    s->tokens = u->T - u->n_seq;
    s->kl = kl > 0 ? kl / (double)u->T : 0;
    s->dloss = sum / n;
    s->dloss_stderr = n > 1 ? sqrt(fmax(squares / n - s->dloss * s->dloss, 0) / (n - 1)) : 0;
    return 0;
}

/* ---- one block ---- */

/* tr(A H Aᵀ); a [rows, n]; product: as much memory. */
static double energy(const struct run *u, const float *a, const struct qp_hessian *h, int64_t rows, float *product)
{
    double sum = 0;
    memset(product, 0, (size_t)(rows * h->n) * sizeof *product);
    u->ops->gemm_sub(u->ex, product, h->n, a, h->n, h->h, h->n, rows, h->n, h->n);
    for (int64_t i = 0; i < rows * h->n; i++)
        sum -= (double)product[i] * (double)a[i];
    return sum > 0 ? sum : 0;
}

static int round_to(struct run *u, const struct qp_format *f, const struct qp_weight *w)
{
    struct qp_qweight q;
    if (qp_qweight_quantize(&q, f, u->w, w->rows, w->cols, u->ex, u->err))
        return u->err->code;
    qp_qweight_decode(&q, u->q);
    qp_qweight_release(&q);
    return 0;
}

static int read_layer(struct run *u, const struct qp_weight *w)
{
    return qp_weight_read_rows(w, 0, w->rows, u->w, u->err) ? u->err->code : 0;
}

static int output_errors(struct run *u, const struct qp_linear *l, const struct qp_hessian *h, struct qp_sensitivity *s)
{
    const struct qp_weight *w = l->weight;
    float *product = qp_alloc_n((size_t)(w->rows * w->cols), sizeof *product, "error", u->err);
    int r = product ? read_layer(u, w) : QP_E_RESOURCE;
    if (!r)
        s->energy = energy(u, u->w, h, w->rows, product);
    for (int i = 0; i < u->o->n_formats && !r; i++) {
        r = round_to(u, &u->o->formats[i], w);
        for (int64_t k = 0; k < w->rows * w->cols && !r; k++)
            u->q[k] -= u->w[k];
        s->error[i] = r ? 0 : energy(u, u->q, h, w->rows, product);
    }
    s->run_error = s->error[0];
    qp_free(product);
    return r;
}

/* The block as it is: output errors of its layers; leaves its outputs in the stream. */
static int look_at_block(struct run *u, int64_t layer)
{
    struct qp_stage s;
    size_t first = qp_model_first_linear(u->m, layer);
    int r = qp_pass_enter(u->pass, qp_engine_block(u->engine, layer), &s, u->err);
    while (r == 1) {
        struct qp_hessian h = {0};
        r = s.n ? qp_hessian_init(&h, s.inputs, s.n, s.width, u->o->compute, u->ops, u->ex, u->err) : 0;
        if (r)
            qp_err_context(u->err, "layer '%s'", s.linears[0].weight->name);
        for (int i = 0; i < s.count && !r; i++) {
            size_t at = (size_t)(&s.linears[i] - qp_model_linear(u->m, 0));
            u->found[at - first] = (struct qp_sensitivity){.name = s.linears[i].weight->name, .rows = s.linears[i].weight->rows, .cols = s.linears[i].weight->cols,
                                                           .index = (int64_t)at, .total = (int64_t)qp_model_n_linears(u->m)};
            r = s.n ? output_errors(u, &s.linears[i], &h, &u->found[at - first]) : 0;
        }
        qp_hessian_release(&h);
        r = r ? r : qp_pass_next(u->pass, &s, u->err);
    }
    return r;
}

/* The model with one layer in the first format. */
static int run_without(struct run *u, int64_t layer, const struct qp_linear *l, struct qp_sensitivity *s)
{
    struct qp_block *b = qp_engine_block(u->engine, layer);
    int r = read_layer(u, l->weight);
    r = r ? r : round_to(u, &u->o->formats[0], l->weight);
    r = r ? r : qp_block_set_linear(b, l, u->q, u->err);
    if (!r)
        memcpy(qp_pass_stream(u->pass), u->start, (size_t)(u->T * u->c->d_model) * sizeof(float));
    r = r ? r : run_from(u, layer);
    r = r ? r : compare_output(u, s);
    r = r ? r : qp_block_set_linear(b, l, u->w, u->err);
    return r ? r : u->fn(u->ctx, s);
}

static int measure_block(struct run *u, int64_t layer)
{
    size_t first = qp_model_first_linear(u->m, layer), end = qp_model_first_linear(u->m, layer + 1), bytes = (size_t)(u->T * u->c->d_model) * sizeof(float);
    float *after = qp_alloc(bytes, "activations", u->err);
    if (!after)
        return QP_E_RESOURCE;
    memcpy(qp_pass_stream(u->pass), u->start, bytes);
    int r = look_at_block(u, layer);
    memcpy(after, qp_pass_stream(u->pass), bytes);
    for (size_t i = first; i < end && !r; i++)
        r = run_without(u, layer, qp_model_linear(u->m, i), &u->found[i - first]);
    memcpy(u->start, after, bytes);
    qp_free(after);
    return r;
}

/* ---- the whole ---- */

static int reserve(struct run *u)
{
    size_t T = (size_t)u->T, D = (size_t)u->c->d_model, V = (size_t)u->V, most = 0, linears = 0;
    for (size_t i = 0; i < qp_model_n_linears(u->m); i++) {
        const struct qp_weight *w = qp_model_linear(u->m, i)->weight;
        most = (size_t)(w->rows * w->cols) > most ? (size_t)(w->rows * w->cols) : most;
    }
    for (int64_t l = 0; l < u->c->n_layers; l++) {
        size_t n = qp_model_first_linear(u->m, l + 1) - qp_model_first_linear(u->m, l);
        linears = n > linears ? n : linears;
    }
    u->slice = qp_engine_logit_rows(u->engine) < u->T ? qp_engine_logit_rows(u->engine) : u->T;
    u->start = qp_alloc_n(T, D * sizeof(float), "activations", u->err);
    u->hidden = qp_alloc_n(T, D * sizeof(float), "activations", u->err);
    u->logits = qp_alloc_n(T, V * sizeof(float), "logits", u->err);
    u->other = qp_alloc_n((size_t)u->slice, V * sizeof(float), "logits", u->err);
    u->lse = qp_alloc_n(T, 4 * sizeof(double), "losses", u->err);
    u->found = qp_alloc_n(linears, sizeof *u->found, "sensitivities", u->err);
    u->w = qp_alloc_n(most, sizeof(float), "weights", u->err);
    u->q = qp_alloc_n(most, sizeof(float), "weights", u->err);
    if (!u->start || !u->hidden || !u->logits || !u->other || !u->lse || !u->found || !u->w || !u->q)
        return QP_E_RESOURCE;
    u->lse_other = u->lse + T;
    u->kl = u->lse_other + T;
    u->loss = u->kl + T;
    return 0;
}

static void release(struct run *u)
{
    float *floats[] = {u->start, u->hidden, u->logits, u->other, u->w, u->q};
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        qp_free(floats[i]);
    qp_free(u->lse);
    qp_free(u->found);
    qp_pass_free(u->pass);
    qp_engine_free(u->engine);
}

static int begin(struct run *u, struct qp_pool *pool)
{
    if (qp_engine_new_editable(&u->engine, u->m, u->ops, pool, u->o->compute, u->err) || qp_pass_new(&u->pass, u->m, u->n_seq, u->len, u->err) || reserve(u) ||
        qp_embed(u->m, u->ids, u->n_seq, u->len, u->start, u->err))
        return u->err->code;
    u->ex = qp_engine_exec(u->engine);
    memcpy(qp_pass_stream(u->pass), u->start, (size_t)(u->T * u->c->d_model) * sizeof(float));
    return keep_output(u);
}

int qp_measure_model(struct qp_model *m, const struct qp_calibration *cal, const struct qp_measure_options *o, const struct qp_ops *ops, struct qp_pool *pool,
                     qp_sensitivity_fn *fn, void *ctx, struct qp_err *err)
{
    if (!cal || cal->n_seq < 1 || cal->len < 2)
        return qp_err_set(err, QP_E_INPUT, "measuring needs calibration samples of two tokens or more");
    for (size_t i = 0; i < qp_model_n_linears(m); i++)
        if (qp_model_linear(m, i)->weight->storage != QP_STORE_DENSE)
            return qp_err_set(err, QP_E_INPUT, "'%s' is quantized already: sensitivities are those of a full-precision model", qp_model_linear(m, i)->weight->name);
    int64_t n_seq = o->tokens / cal->len < 1 ? 1 : o->tokens / cal->len < cal->n_seq ? o->tokens / cal->len : cal->n_seq;
    struct run u = {.m = m, .c = qp_model_config(m), .o = o, .ops = ops, .ids = cal->ids, .n_seq = n_seq, .len = cal->len, .T = n_seq * cal->len,
                    .V = qp_model_config(m)->vocab_size, .fn = fn, .ctx = ctx, .err = err};
    int r = begin(&u, pool);
    for (int64_t l = 0; l < u.c->n_layers && !r; l++)
        r = measure_block(&u, l);
    release(&u);
    return r;
}

double qp_sensitivity_of(const struct qp_sensitivity *s, int i)
{
    return s->run_error > 0 ? s->kl * s->error[i] / s->run_error : 0;
}
