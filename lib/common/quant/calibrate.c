#include "quant/calibrate.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/block.h"
#include "quant/drift.h"

#define SLICE 2048 /* tokens of the activations at a time */

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
    struct qp_pass *pass;
    struct qp_block *block;
    struct qp_pass *full_pass; /* the same of the full-precision model; NULL without drift gain */
    struct qp_block *full;
    struct qp_block *later; /* not true-sequential: the block with its quantized layers, for its outputs; the others see block, which stays as it was */
    float *before;          /* ... and the residual stream that the block gets, [T, D] */
    float *delta; /* [T, widest inputs] differences of the two */
    struct qp_awq_run awq; /* with AWQ; folded NULL: without */
    struct qp_grid *grids;
};

static int64_t largest_linear(const struct qp_model *m)
{
    int64_t most = 0;
    for (size_t i = 0; i < qp_model_n_linears(m); i++) {
        const struct qp_weight *w = qp_model_linear(m, i)->weight;
        most = w->rows * w->cols > most ? w->rows * w->cols : most;
    }
    return most;
}

/* Reads and checks the weights, AWQ's scales in them; moves them against the drift. */
static int load_weights(struct run *u, const struct qp_linear *l, float *w, const struct qp_drift *drift)
{
    const struct qp_weight *from = l->weight;
    if (qp_weight_read_rows(from, 0, from->rows, w, u->err))
        return u->err->code;
    double sum = 0;
    for (int64_t i = 0; i < from->rows * from->cols; i++)
        sum += 0.0 * (double)w[i];
    if (sum != 0)
        return qp_err_set(u->err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", from->name);
    if (u->awq.folded)
        qp_folded_scale(u->awq.folded, l, w);
    return drift ? qp_drift_correct(w, from->rows, drift, u->ops, &u->ex, u->err) : 0;
}

/* Layers whose outputs attention multiplies with each other. */
static bool makes_scores(enum qp_role role)
{
    return role == QP_ROLE_Q || role == QP_ROLE_K || role == QP_ROLE_QKV;
}

/* On the integer grid by what the method and the activations allow, else as the format rounds. */
static int round_layer(struct run *u, const struct qp_linear *l, const struct qp_format *f, struct qp_qweight *q, const float *w, const struct qp_hessian *hess)
{
    struct qp_gptq_options o = u->o->gptq;
    struct qp_qlinear ints;
    bool gptq = u->o->method == QP_METHOD_GPTQ, clip = u->o->awq && u->o->awq->clip && !makes_scores(l->role);
    if (!hess || f->id != QP_FMT_INT || !(gptq || clip))
        return qp_qweight_quantize(q, f, w, l->weight->rows, l->weight->cols, &u->ex, u->err);
    o.grid = f->grid;
    int r = gptq ? qp_gptq_quantize(&ints, w, l->weight->rows, hess, &o, u->ops, &u->ex, u->err) : qp_awq_round(&ints, w, l->weight->rows, hess, o.grid, &u->ex, u->err);
    if (!r) {
        qp_qweight_take_ints(q, &ints);
        q->format.permuted = f->permuted; /* whatever this layer's order: what was declared */
    }
    return r;
}

/* What a report says of AWQ. */
static void note_awq(const struct run *u, const struct qp_linear *l, struct qp_layer_report *rep)
{
    const struct qp_folded *f = u->awq.folded;
    if (!f)
        return;
    const struct qp_linear *first = qp_model_linear(qp_folded_model(f), qp_model_first_linear(u->m, l->layer));
    rep->awq = &u->awq.notes[l - first];
    if (l == first)
        rep->changed = qp_folded_changed(f, &rep->n_changed);
}

/* One layer that `tokens` tokens passed: quantize w (overwritten with what was quantized), report. hess NULL: round to nearest. */
static int quantize_layer(struct run *u, const struct qp_linear *l, int64_t tokens, float *w, const struct qp_hessian *hess, const struct qp_drift *drift, const char *fallback)
{
    struct qp_qweight q;
    struct qp_layer_report rep = {.name = l->weight->name, .rows = l->weight->rows, .cols = l->weight->cols, .index = u->done++,
                                  .total = (int64_t)qp_model_n_linears(u->m), .tokens = tokens, .expert = l->expert, .fallback = fallback};
    const struct qp_hessian *known = fallback ? NULL : hess;
    int r = load_weights(u, l, w, drift);
    r = r ? r : round_layer(u, l, qp_quantize_format(u->o, (size_t)rep.index), &q, w, known);
    if (r)
        return r;
    note_awq(u, l, &rep);
    r = qp_quant_measure(&rep.error, &q, w, known, u->ops, &u->ex, u->err);
    if (hess) {
        rep.hessian_trace = hess->trace;
        rep.damp = fallback ? 0 : hess->damp;
        rep.dead = hess->dead;
    }
    if (!r)
        r = u->fn(u->ctx, &rep, &q);
    if (!r)
        qp_qweight_decode(&q, w);
    qp_qweight_release(&q);
    return r;
}

/* What is known of the drift at a stage: full_x, the same inputs of the full-precision model, or lack [T, D], what the residual stream lacks without
 * these layers' output; or neither. */
struct group {
    struct qp_stage stage;
    const float *full_x, *lack;
};

struct statistics {
    struct qp_hessian hess;
    struct qp_drift drift;
    float *moment, *w;
};

/* delta [T, n] = full - x */
static void difference(struct run *u, const float *full, const float *x, int64_t n)
{
    for (int64_t t = 0; t < u->T; t += SLICE) {
        int64_t at = t * n, some = (u->T - t < SLICE ? u->T - t : SLICE) * n;
        for (int64_t i = at; i < at + some; i++)
            u->delta[i] = full[i] - x[i];
        const float *done[] = {u->delta + at, full + at, x + at};
        for (int k = 0; k < 3; k++)
            qp_spool_passed(u->o->spool, done[k], (size_t)some * sizeof(float));
    }
}

static int gather_drift(struct run *u, const struct group *g, struct statistics *s)
{
    int64_t n = g->stage.width, rows = g->lack ? u->c->d_model : n;
    const float *d = g->lack;
    if (!(s->moment = qp_alloc_n((size_t)(rows * n), sizeof *s->moment, "drift", u->err)))
        return QP_E_RESOURCE;
    if (!d) {
        difference(u, g->full_x, g->stage.inputs, n);
        d = u->delta;
    }
    int r = qp_moment(s->moment, d, rows, g->stage.inputs, n, u->T, u->o->compute, u->ops, &u->ex, u->err);
    s->drift = (struct qp_drift){.inputs = g->lack ? NULL : s->moment, .outputs = g->lack ? s->moment : NULL, .gain = u->o->drift_gain, .h = &s->hess};
    return r;
}

/* The Hessian in the order that the method takes the inputs in. 1: it cannot be factored. */
static int factor(struct run *u, struct qp_hessian *h, int64_t group_size)
{
    if (u->o->method == QP_METHOD_RTN)
        return !(h->trace > 0);
    if (u->o->gptq.group_aware)
        return qp_hessian_factor_groups(h, u->o->damp, group_size, u->ops, &u->ex, u->err);
    return qp_hessian_factor(h, u->o->damp, u->o->act_order, u->ops, &u->ex, u->err);
}

static int quantize_linears(struct run *u, const struct group *g, struct statistics *s)
{
    int64_t group_size = qp_quantize_format(u->o, (size_t)u->done)->grid.group_size;
    int factored = factor(u, &s->hess, group_size);
    const char *fallback = factored == 1 ? s->hess.trace > 0 ? "the Hessian is not positive definite at any damping" : "the Hessian is zero" : NULL;
    bool drifts = (g->full_x || g->lack) && !fallback;
    int r = factored < 0 ? factored : 0;
    r = r || !drifts ? r : gather_drift(u, g, s);
    for (int i = 0; i < g->stage.count && !r; i++) {
        const struct qp_format *f = qp_quantize_format(u->o, (size_t)u->done);
        if (u->o->gptq.group_aware && !fallback && f->id == QP_FMT_INT && f->grid.group_size != group_size)
            r = factor(u, &s->hess, group_size = f->grid.group_size);
        if (r)
            break;
        r = quantize_layer(u, &g->stage.linears[i], g->stage.n, s->w, &s->hess, drifts ? &s->drift : NULL, fallback);
        r = r ? r : qp_block_set_linear(u->later ? u->later : u->block, &g->stage.linears[i], s->w, u->err);
    }
    return r;
}

/* With damping GPTQ does better than rounding on remarkably few tokens (README.md: 16 of them for 576 inputs); below a 32nd of the inputs nothing was measured. */
static bool too_few(const struct run *u, const struct qp_stage *s, char reason[160])
{
    int64_t least = u->o->min_expert_tokens > 0 ? u->o->min_expert_tokens : (s->width + 31) / 32;
    if (s->expert < 0 || s->n >= least)
        return false;
    snprintf(reason, 160, "%lld of %lld calibration tokens reached expert %lld, fewer than %lld", (long long)s->n, (long long)u->T, (long long)s->expert, (long long)least);
    return true;
}

static int round_linears(struct run *u, const struct qp_stage *s, float *w, const char *reason)
{
    int r = 0;
    for (int i = 0; i < s->count && !r; i++) {
        r = quantize_layer(u, &s->linears[i], s->n, w, NULL, NULL, reason);
        r = r ? r : qp_block_set_linear(u->later ? u->later : u->block, &s->linears[i], w, u->err);
    }
    return r;
}

/* Where all of a stage's layers stay in 16 bits, their inputs' statistics serve nothing but the drift. */
static bool all_kept(const struct run *u, const struct qp_stage *s)
{
    for (int i = 0; i < s->count; i++)
        if (!qp_format_keeps(qp_quantize_format(u->o, (size_t)(u->done + i))))
            return false;
    return !u->full;
}

static int quantize_group(struct run *u, const struct group *g)
{
    char reason[160];
    struct statistics s = {.w = qp_alloc_n((size_t)largest_linear(u->m), sizeof *s.w, "weights", u->err)};
    if (!s.w)
        return QP_E_RESOURCE;
    bool kept = all_kept(u, &g->stage);
    if (kept || too_few(u, &g->stage, reason)) {
        int rounded = round_linears(u, &g->stage, s.w, kept ? NULL : reason);
        qp_free(s.w);
        return rounded;
    }
    int r = qp_hessian_init(&s.hess, g->stage.inputs, g->stage.n, g->stage.width, u->o->compute, u->ops, &u->ex, u->err);
    if (r)
        qp_err_context(u->err, "layer '%s'", g->stage.linears[0].weight->name);
    r = r ? r : quantize_linears(u, g, &s);
    qp_hessian_release(&s.hess);
    qp_free(s.moment);
    qp_free(s.w);
    return r;
}

/* What the residual stream lacks before the next addition: the full-precision one has it already. */
static const float *lack(struct run *u)
{
    difference(u, qp_pass_stream(u->full_pass), qp_pass_stream(u->pass), u->c->d_model);
    return u->delta;
}

/* Quantizes a stage. The full-precision model goes ahead of it where its output to the residual stream is what counts; else it follows. */
static int run_stage(struct run *u, const struct qp_stage *s, struct qp_stage *full)
{
    struct group g = {.stage = *s};
    int r = 0;
    if (u->full && s->writes_stream) {
        r = qp_pass_next(u->full_pass, full, u->err);
        g.lack = r < 0 ? NULL : lack(u);
    } else if (u->full && s->expert < 0)
        g.full_x = full->inputs;
    r = r < 0 ? r : quantize_group(u, &g);
    if (u->full && !s->writes_stream && !r)
        r = qp_pass_next(u->full_pass, full, u->err);
    return r < 0 ? r : 0;
}

static int run_stages(struct run *u)
{
    struct qp_stage s, full;
    int r = u->full ? qp_pass_enter(u->full_pass, u->full, &full, u->err) : 0;
    r = r < 0 ? r : qp_pass_enter(u->pass, u->block, &s, u->err);
    while (r == 1) {
        r = run_stage(u, &s, &full);
        r = r ? r : qp_pass_next(u->pass, &s, u->err);
    }
    return r;
}

/* A block of the model that is quantized: the model's own, or with AWQ's scales in it. */
static int load_block(struct run *u, struct qp_block **b, int64_t l)
{
    struct qp_folded *f = u->awq.folded;
    int r = qp_block_load(b, f ? qp_folded_model(f) : u->m, l, u->ops, &u->ex, u->o->compute, u->err);
    float *w = f ? qp_alloc_n((size_t)largest_linear(u->m), sizeof *w, "weights", u->err) : NULL;
    if (f && !w)
        r = QP_E_RESOURCE;
    for (size_t i = qp_model_first_linear(u->m, l); f && i < qp_model_first_linear(u->m, l + 1) && !r; i++) {
        const struct qp_linear *k = qp_model_linear(u->m, i);
        if (!qp_folded_scales(f, k))
            continue;
        r = load_weights(u, k, w, NULL);
        r = r ? r : qp_block_set_linear(*b, k, w, u->err);
    }
    qp_free(w);
    return r;
}

static void copy_stream(struct run *u, float *a, const float *b)
{
    size_t step = SLICE * (size_t)u->c->d_model, n = (size_t)(u->T * u->c->d_model);
    for (size_t i = 0; i < n; i += step) {
        size_t bytes = (n - i < step ? n - i : step) * sizeof *a;
        memcpy(a + i, b + i, bytes);
        qp_spool_passed(u->o->spool, a + i, bytes);
        qp_spool_passed(u->o->spool, b + i, bytes);
    }
}

static int end_block(struct run *u, int64_t l)
{
    const struct qp_quantize_blocks *b = u->o->blocks;
    const float *streams[] = {u->pass ? qp_pass_stream(u->pass) : NULL, u->full_pass ? qp_pass_stream(u->full_pass) : NULL};
    return b ? b->done(b->ctx, l, streams, !!u->pass + !!u->full_pass, (size_t)(u->T * u->c->d_model), u->err) : 0;
}

/* The block once more, from its quantized layers. */
static int run_later(struct run *u)
{
    struct qp_stage s;
    copy_stream(u, qp_pass_stream(u->pass), u->before);
    int r = qp_pass_enter(u->pass, u->later, &s, u->err);
    while (r == 1)
        r = qp_pass_next(u->pass, &s, u->err);
    return r;
}

static int run_block(struct run *u, int64_t l)
{
    int r = 0;
    if (u->awq.folded) {
        copy_stream(u, qp_pass_stream(u->awq.probe), qp_pass_stream(u->pass));
        r = qp_awq_block(&u->awq, l, u->err);
    }
    r = r ? r : load_block(u, &u->block, l);
    if (u->full_pass && !r)
        r = load_block(u, &u->full, l);
    if (u->before && !r) {
        copy_stream(u, u->before, qp_pass_stream(u->pass));
        r = load_block(u, &u->later, l);
    }
    r = r ? r : run_stages(u);
    if (u->later && !r)
        r = run_later(u);
    qp_block_free(u->block);
    qp_block_free(u->full);
    qp_block_free(u->later);
    u->block = u->full = u->later = NULL;
    qp_model_drop_pages(u->m);
    return r ? r : end_block(u, l);
}

static int64_t widest_inputs(const struct qp_model *m)
{
    int64_t most = 0;
    for (size_t i = 0; i < qp_model_n_linears(m); i++)
        most = qp_model_linear(m, i)->weight->cols > most ? qp_model_linear(m, i)->weight->cols : most;
    return most;
}

static int begin_awq(struct run *u)
{
    size_t n = qp_model_n_linears(u->m);
    u->awq = (struct qp_awq_run){.m = u->m, .o = *u->o->awq, .compute = u->o->compute, .ops = u->ops, .ex = &u->ex};
    u->grids = qp_alloc_n(n + 1, sizeof *u->grids, "formats", u->err);
    u->awq.notes = qp_alloc_n(n + 1, sizeof *u->awq.notes, "formats", u->err);
    if (!u->grids || !u->awq.notes || qp_folded_new(&u->awq.folded, (struct qp_model *)(uintptr_t)u->m, u->err))
        return QP_E_RESOURCE;
    for (size_t i = 0; i < n; i++)
        u->grids[i] = qp_quantize_format(u->o, i)->id == QP_FMT_INT ? qp_quantize_format(u->o, i)->grid : (struct qp_grid){0};
    u->awq.grids = u->grids;
    return qp_pass_new_in(&u->awq.probe, u->m, u->cal->n_seq, u->cal->len, u->o->spool, u->err);
}

static void end_awq(struct run *u)
{
    qp_pass_free(u->awq.probe);
    qp_folded_free(u->awq.folded);
    qp_free(u->awq.notes);
    qp_free(u->grids);
}

/* The streams before the first block of this run. */
static int begin_streams(struct run *u)
{
    const struct qp_quantize_blocks *b = u->o->blocks;
    float *streams[] = {qp_pass_stream(u->pass), u->full_pass ? qp_pass_stream(u->full_pass) : NULL};
    if (b && b->first > 0)
        return b->load(b->ctx, streams, 1 + !!u->full_pass, (size_t)(u->T * u->c->d_model), u->err);
    int r = qp_embed(u->m, u->cal->ids, u->cal->n_seq, u->cal->len, streams[0], u->err);
    if (!r && streams[1])
        copy_stream(u, streams[1], streams[0]);
    return r;
}

static int64_t first_block(const struct run *u)
{
    return u->o->blocks ? u->o->blocks->first : 0;
}

static int run_calibrated(struct run *u)
{
    int r = qp_pass_new_in(&u->pass, u->m, u->cal->n_seq, u->cal->len, u->o->spool, u->err);
    u->T = u->cal->n_seq * u->cal->len;
    if (u->o->drift_gain > 0 && !r) {
        r = qp_pass_new_in(&u->full_pass, u->m, u->cal->n_seq, u->cal->len, u->o->spool, u->err);
        if (!r && !(u->delta = qp_spool_floats(u->o->spool, (size_t)(u->T * widest_inputs(u->m)), "activations", u->err)))
            r = QP_E_RESOURCE;
    }
    if (u->o->block_inputs && !r && !(u->before = qp_spool_floats(u->o->spool, (size_t)(u->T * u->c->d_model), "activations", u->err)))
        r = QP_E_RESOURCE;
    if (u->o->awq && !r)
        r = begin_awq(u);
    r = r ? r : begin_streams(u);
    for (int64_t l = first_block(u); l < u->c->n_layers && !r; l++)
        r = run_block(u, l);
    end_awq(u);
    qp_pass_free(u->pass);
    qp_pass_free(u->full_pass);
    qp_spool_free(u->o->spool, u->delta);
    qp_spool_free(u->o->spool, u->before);
    return r;
}

static int run_rtn(struct run *u)
{
    float *w = qp_alloc_n((size_t)largest_linear(u->m), sizeof *w, "weights", u->err);
    int r = w ? 0 : QP_E_RESOURCE;
    for (int64_t l = first_block(u); l < u->c->n_layers && !r; l++) {
        for (size_t i = qp_model_first_linear(u->m, l); i < qp_model_first_linear(u->m, l + 1) && !r; i++)
            r = quantize_layer(u, qp_model_linear(u->m, i), 0, w, NULL, NULL, NULL);
        qp_model_drop_pages(u->m);
        r = r ? r : end_block(u, l);
    }
    qp_free(w);
    return r;
}

int qp_quantize_model(const struct qp_model *m, const struct qp_calibration *cal, const struct qp_quantize_options *o, const struct qp_ops *ops, struct qp_pool *pool,
                      qp_layer_fn *fn, void *ctx, struct qp_err *err)
{
    struct qp_err local = {0};
    struct run u = {.m = m, .c = qp_model_config(m), .cal = cal, .o = o, .ops = ops, .ex = {.pool = pool, .spool = o->spool}, .fn = fn, .ctx = ctx, .err = err ? err : &local};
    int r;
    u.done = (int64_t)qp_model_first_linear(m, first_block(&u));
    if (o->method == QP_METHOD_RTN && !o->awq)
        r = run_rtn(&u);
    else if (!cal || cal->n_seq < 1 || cal->len < 1)
        r = qp_err_set(u.err, QP_E_INPUT, "%s needs calibration samples", o->awq ? "awq" : "gptq");
    else
        r = run_calibrated(&u);
    qp_exec_release(&u.ex);
    return r;
}
