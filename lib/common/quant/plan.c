#include "quant/plan.h"

#include <math.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/block.h"
#include "quant/drift.h"

#define SMALL 512  /* inputs of the matrices that are timed */
#define LARGE 2048
#define ROWS 128
#define TOKENS 1024
#define TRIES 3    /* the fastest counts: others may be at work */
#define SLICE 2048 /* tokens whose wide products exist at a time */

/* Seconds. forward: a token times a weight; moment: a token times two inputs; factor: inputs cubed; of rounding and AWQ's search: a weight, and a weight times
 * the inputs of its row. */
struct rates {
    double forward, moment, factor, round[2], search[2];
};

struct trial {
    const struct qp_plan_options *o;
    const struct qp_ops *ops;
    struct qp_exec ex;
    int64_t n;
    float *x, *w, *y; /* [TOKENS, n], [ROWS, n], [TOKENS, ROWS] */
    void *packed;
    struct qp_hessian h;
    struct qp_err *err;
};

static bool is_bf16(const struct trial *t)
{
    return t->o->quantize->compute == QP_COMPUTE_BF16;
}

static int run_forward(struct trial *t)
{
    (is_bf16(t) ? t->ops->linear_bf16 : t->ops->linear_f32)(&t->ex, t->y, ROWS, t->x, t->n, t->packed, TOKENS, ROWS, t->n, false);
    return 0;
}

static int run_moment(struct trial *t)
{
    qp_hessian_release(&t->h);
    return qp_hessian_init(&t->h, t->x, TOKENS, t->n, t->o->quantize->compute, t->ops, &t->ex, t->err);
}

static int run_factor(struct trial *t)
{
    qp_free(t->h.factor);
    qp_free(t->h.order);
    t->h.factor = NULL;
    t->h.order = NULL;
    int r = qp_hessian_factor(&t->h, 0.1, t->o->quantize->act_order, t->ops, &t->ex, t->err);
    return r > 0 ? qp_err_set(t->err, QP_E_INTERNAL, "a random Hessian that cannot be factored") : r;
}

static int run_search(struct trial *t)
{
    float scales[LARGE], activity[LARGE];
    int64_t rows = ROWS;
    const float *w = t->w;
    const struct qp_quantize_options *q = t->o->quantize;
    struct qp_awq_found found;
    struct qp_awq_inputs in = {.w = &w, .rows = &rows, .count = 1, .n = t->n, .h = t->h.h, .activity = activity};
    qp_awq_activity(activity, t->x, TOKENS, t->n);
    return qp_awq_search(scales, &found, &in, &q->gptq.grid, q->awq, q->compute, t->ops, &t->ex, t->err);
}

static int run_rounding(struct trial *t)
{
    const struct qp_quantize_options *q = t->o->quantize;
    struct qp_qweight done = {0};
    struct qp_qlinear ints = {0};
    int r;
    if (q->method == QP_METHOD_GPTQ)
        r = qp_gptq_quantize(&ints, t->w, ROWS, &t->h, &q->gptq, t->ops, &t->ex, t->err);
    else if (q->awq)
        r = qp_awq_round(&ints, t->w, ROWS, &t->h, q->gptq.grid, &t->ex, t->err);
    else
        r = qp_qweight_quantize(&done, &q->format, t->w, ROWS, t->n, &t->ex, t->err);
    qp_qlinear_release(&ints);
    qp_qweight_release(&done);
    return r;
}

static int seconds(double *out, int (*run)(struct trial *t), struct trial *t)
{
    *out = INFINITY;
    for (int i = 0; i < TRIES; i++) {
        double start = qp_now();
        if (run(t))
            return t->err->code;
        *out = fmin(*out, qp_now() - start);
    }
    return 0;
}

static int begin_trial(struct trial *t, int64_t n)
{
    struct qp_rng rng = qp_rng_seed(1);
    size_t packed = is_bf16(t) ? t->ops->linear_bf16_bytes(ROWS, n) : t->ops->linear_f32_bytes(ROWS, n);
    t->n = n;
    t->x = qp_alloc_n((size_t)(TOKENS * n), sizeof *t->x, "plan", t->err);
    t->w = qp_alloc_n((size_t)(ROWS * n), sizeof *t->w, "plan", t->err);
    t->y = qp_alloc_n(TOKENS * ROWS, sizeof *t->y, "plan", t->err);
    t->packed = qp_zalloc(packed, "plan", t->err);
    if (!t->x || !t->w || !t->y || !t->packed)
        return QP_E_RESOURCE;
    for (int64_t i = 0; i < TOKENS * n; i++)
        t->x[i] = (float)((double)(qp_rng_next(&rng) >> 8) * 0x1p-23 - 1);
    for (int64_t i = 0; i < ROWS * n; i++)
        t->w[i] = (float)((double)(qp_rng_next(&rng) >> 8) * 0x1p-23 - 1);
    (is_bf16(t) ? t->ops->linear_bf16_pack : t->ops->linear_f32_pack)(&t->ex, t->packed, t->w, n, 0, ROWS, ROWS, n);
    return 0;
}

static void end_trial(struct trial *t)
{
    qp_hessian_release(&t->h);
    qp_free(t->x);
    qp_free(t->w);
    qp_free(t->y);
    qp_free(t->packed);
    t->x = t->w = t->y = NULL;
    t->packed = NULL;
}

static int time_one(struct trial *t, int64_t n, double *forward, double *moment, double *factor, double *round, double *search)
{
    int r = begin_trial(t, n);
    if (t->o->n_seq && !r) {
        r = seconds(forward, run_forward, t);
        r = r ? r : seconds(moment, run_moment, t);
        r = r ? r : seconds(factor, run_factor, t);
        if (t->o->quantize->awq)
            r = r ? r : seconds(search, run_search, t);
    }
    if (!t->o->dense)
        r = r ? r : seconds(round, run_rounding, t);
    end_trial(t);
    return r;
}

/* Seconds s at two widths as a part for each weight and one for each weight and input. */
static void fit(double rate[2], const double s[2])
{
    double small = s[0] / (ROWS * (double)SMALL), large = s[1] / (ROWS * (double)LARGE);
    rate[1] = fmax((large - small) / (LARGE - SMALL), 0);
    rate[0] = fmax(large - rate[1] * LARGE, 0);
}

static int measure(struct rates *k, const struct qp_plan_options *o, const struct qp_ops *ops, struct qp_pool *pool, struct qp_err *err)
{
    struct trial t = {.o = o, .ops = ops, .ex = {.pool = pool}, .err = err};
    double forward = 0, moment = 0, factor = 0, round[2] = {0}, search[2] = {0};
    int r = time_one(&t, SMALL, &forward, &moment, &factor, &round[0], &search[0]);
    r = r ? r : time_one(&t, LARGE, &forward, &moment, &factor, &round[1], &search[1]);
    qp_exec_release(&t.ex);
    k->forward = forward / ((double)TOKENS * ROWS * LARGE);
    k->moment = moment / ((double)TOKENS * LARGE * LARGE);
    k->factor = factor / ((double)LARGE * LARGE * LARGE);
    fit(k->round, round);
    fit(k->search, search);
    return r;
}

/* ---- adding up ---- */

/* Whether layer i begins a stage; and whether calibrate.c gathers statistics there, which it does where a layer is rounded, or moved against the drift. */
static bool begins_stage(const struct qp_model *m, size_t i)
{
    return i == 0 || !qp_same_stage(qp_model_linear(m, i - 1), qp_model_linear(m, i));
}

static bool has_statistics(const struct qp_plan_options *o, const struct qp_model *m, size_t i)
{
    size_t n = qp_model_n_linears(m);
    if (!o->n_seq || o->quantize->drift_gain > 0)
        return o->n_seq > 0;
    while (!begins_stage(m, i))
        i--;
    for (bool first = true; i < n && (first || !begins_stage(m, i)); i++, first = false)
        if (!qp_format_keeps(qp_quantize_format(o->quantize, i)))
            return true;
    return false;
}

/* Whether the method that was timed rounds the layer; the other formats of a calibrated run are rounded at once. */
static bool takes_method(const struct qp_plan_options *o, size_t i)
{
    const struct qp_format *f = qp_quantize_format(o->quantize, i);
    return o->n_seq ? f->id == QP_FMT_INT : !qp_format_keeps(f);
}

/* A layer's own rounding and products; the statistics belong to its stage. Experts see their share of the tokens. */
static double layer_seconds(const struct rates *k, const struct qp_plan_options *o, const struct qp_model *m, size_t i)
{
    const struct qp_model_config *c = qp_model_config(m);
    const struct qp_linear *l = qp_model_linear(m, i);
    double rows = (double)l->weight->rows, n = (double)l->weight->cols, T = (double)(o->n_seq * o->len), passes = 1 + (o->quantize->drift_gain > 0) + (o->quantize->awq != NULL);
    if (l->expert >= 0)
        T *= (double)c->n_experts_used / (double)c->n_experts;
    double s = k->forward * T * rows * n * (passes + o->quantize->block_inputs);
    if (takes_method(o, i))
        s += rows * n * (k->round[0] + k->search[0] + n * (k->round[1] + k->search[1]));
    if (begins_stage(m, i) && has_statistics(o, m, i))
        s += k->moment * T * n * n * passes + k->factor * n * n * n;
    return s;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What is held while one layer is worked on, beside the block. */
static size_t layer_bytes(const struct qp_plan_options *o, const struct qp_model *m, size_t i)
{
    const struct qp_weight *w = qp_model_linear(m, i)->weight;
    size_t n = (size_t)w->cols, matrix = (size_t)w->rows * n * sizeof(float), square = n * n * sizeof(float);
    bool bf16 = o->quantize->compute == QP_COMPUTE_BF16, drift = o->quantize->drift_gain > 0;
    if (!has_statistics(o, m, i))
        return 2 * matrix + matrix / 2; /* the weights and their codes; decoded, to be compared with what the file says */
    size_t gather = square + SLICE * n * (sizeof(float) + (bf16 ? 2 : 0)), factor = 3 * square;
    size_t round = 2 * square + (takes_method(o, i) ? 4 * matrix + matrix / 4 : matrix) + (drift ? square + 2 * matrix : 0); /* weights, errors, residuals and differences; codes */
    return most(most(gather, factor), round) + matrix;
}

static size_t block_bytes(const struct qp_plan_options *o, const struct qp_model *m, int64_t l)
{
    size_t weights = 0, widest = 0, passes = 1 + (o->quantize->drift_gain > 0) + o->quantize->block_inputs;
    for (size_t i = qp_model_first_linear(m, l); i < qp_model_first_linear(m, l + 1); i++) {
        const struct qp_weight *w = qp_model_linear(m, i)->weight;
        weights += (size_t)(w->rows * w->cols);
        widest = most(widest, (size_t)w->rows);
    }
    /* packed weights, and the products of one slice (gate beside up, q beside k and v) */
    return o->n_seq ? passes * (weights * (o->quantize->compute == QP_COMPUTE_BF16 ? 2 : 4) + 2 * widest * SLICE * sizeof(float)) : 0;
}

static void activations(struct qp_plan *p, const struct qp_plan_options *o, const struct qp_model *m)
{
    const struct qp_quantize_options *q = o->quantize;
    size_t T = (size_t)(o->n_seq * o->len), widest = 0, passes = 1 + (q->drift_gain > 0) + (q->awq != NULL), D = (size_t)qp_model_config(m)->d_model;
    for (size_t i = 0; i < qp_model_n_linears(m); i++)
        widest = most(widest, (size_t)qp_model_linear(m, i)->weight->cols);
    p->activation_bytes = (passes * qp_pass_floats(m, o->n_seq, o->len) + (q->drift_gain > 0 ? T * widest : 0) + (q->block_inputs ? T * D : 0)) * sizeof(float);
    p->spooled_bytes = p->activation_bytes > o->memory ? p->activation_bytes - o->memory : 0;
    p->state_bytes = o->resumable ? 2 * (1 + (q->drift_gain > 0)) * T * D * sizeof(float) : 0;
}

static void check_layer(struct qp_plan *p, const struct qp_plan_options *o, const struct qp_model *m, size_t i, qp_plan_problem_fn *fn, void *ctx)
{
    struct qp_parts parts;
    struct qp_err why = {0};
    const struct qp_format *f = qp_quantize_format(o->quantize, i);
    const struct qp_weight *w = qp_model_linear(m, i)->weight;
    if (o->layout ? qp_layout_declare(o->layout, &o->held, m, i, &parts, &why) : qp_pack(qp_stream_packing(f), f, w->rows, w->cols, NULL, &parts, &why)) {
        p->problems++;
        fn(ctx, w->name, why.text);
        return;
    }
    for (size_t k = 0; k < parts.n; k++)
        p->result_bytes += parts.v[k].bytes;
    qp_parts_release(&parts);
}

int qp_plan_make(struct qp_plan *p, const struct qp_model *m, const struct qp_plan_options *o, const struct qp_ops *ops, struct qp_pool *pool, qp_plan_problem_fn *fn, void *ctx,
                 struct qp_err *err)
{
    struct rates rates;
    size_t layer = 0, block = 0;
    *p = (struct qp_plan){.layers = qp_model_n_linears(m), .result_bytes = o->dense_bytes};
    if (measure(&rates, o, ops, pool, err))
        return err->code;
    for (size_t i = 0; i < p->layers && !o->dense; i++) {
        check_layer(p, o, m, i, fn, ctx);
        p->seconds += layer_seconds(&rates, o, m, i);
        layer = most(layer, layer_bytes(o, m, i));
    }
    for (int64_t l = 0; l < qp_model_config(m)->n_layers && !o->dense; l++)
        block = most(block, block_bytes(o, m, l));
    activations(p, o, m);
    p->peak_bytes = layer + block + p->activation_bytes - p->spooled_bytes;
    p->peak_bytes += p->peak_bytes / 5 + ((size_t)32 << 20); /* scratch of the ops, what the allocator keeps, the program itself */
    return 0;
}
