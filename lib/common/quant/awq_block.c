#include "quant/awq_block.h"

#include "base/mem.h"

#define MAX_COUNT 8 /* linear layers that share inputs */

/* The stage's layers that will be rounded, decoded. block: their memory. */
static int read_weights(const struct qp_awq_run *u, const struct qp_stage *s, struct qp_awq_inputs *in, const float *w[MAX_COUNT], int64_t rows[MAX_COUNT], const struct qp_grid **grid,
                        float **block, struct qp_err *err)
{
    const struct qp_linear *first = qp_model_linear(u->m, 0);
    int64_t total = 0, at = 0;
    *grid = NULL;
    for (int i = 0; i < s->count; i++)
        total += s->linears[i].weight->rows * s->width;
    if (!(*block = qp_alloc_n((size_t)total, sizeof **block, "weights", err)))
        return QP_E_RESOURCE;
    for (int i = 0; i < s->count && i < MAX_COUNT; i++) {
        const struct qp_grid *g = &u->grids[&s->linears[i] - first];
        if (!g->bits)
            continue;
        if (qp_weight_read_rows(s->linears[i].weight, 0, s->linears[i].weight->rows, *block + at, err))
            return err->code;
        *grid = *grid ? *grid : g;
        w[in->count] = *block + at;
        rows[in->count++] = s->linears[i].weight->rows;
        at += s->linears[i].weight->rows * s->width;
    }
    return 0;
}

static int search_stage(struct qp_awq_run *u, const struct qp_stage *s, const struct qp_fold *fold, struct qp_awq_note *note, struct qp_err *err)
{
    const float *w[MAX_COUNT];
    int64_t rows[MAX_COUNT];
    float *block = NULL, *vectors = qp_alloc_n((size_t)(2 * s->width), sizeof *vectors, "scales", err), *scales = vectors, *activity = vectors + s->width;
    const struct qp_grid *grid;
    struct qp_hessian h = {0};
    struct qp_awq_inputs in = {.w = w, .rows = rows, .n = s->width, .activity = activity, .tie = fold->norm ? NULL : fold->row};
    int r = vectors ? read_weights(u, s, &in, w, rows, &grid, &block, err) : QP_E_RESOURCE;
    if (!r && !in.count)
        note->none = "its layers are not rounded";
    if (!r && in.count) {
        r = qp_hessian_init(&h, s->inputs, s->n, s->width, u->compute, u->ops, u->ex, err);
        in.h = h.h;
        qp_awq_activity(activity, s->inputs, s->n, s->width);
        qp_spool_passed(u->ex->spool, s->inputs, (size_t)(s->n * s->width) * sizeof(float));
        r = r ? r : qp_awq_search(scales, &note->found, &in, grid, &u->o, u->compute, u->ops, u->ex, err);
        r = r ? r : qp_folded_add(u->folded, fold, s, scales, err);
    }
    qp_hessian_release(&h);
    qp_free(block);
    qp_free(vectors);
    return r;
}

static int run_stage(struct qp_awq_run *u, const struct qp_stage *s, size_t first, struct qp_err *err)
{
    struct qp_fold fold;
    struct qp_awq_note note = {0};
    int r = qp_fold_find(&fold, u->m, s, err);
    if (!r) {
        note.none = fold.none ? fold.none : s->n ? NULL : "calibration sent it no tokens";
        r = note.none ? 0 : search_stage(u, s, &fold, &note, err);
    }
    if (r)
        qp_err_context(err, "layer '%s'", s->linears[0].weight->name);
    for (int i = 0; i < s->count; i++)
        u->notes[(size_t)(&s->linears[i] - qp_model_linear(u->m, 0)) - first] = note;
    qp_fold_release(&fold);
    return r;
}

int qp_awq_block(struct qp_awq_run *u, int64_t layer, struct qp_err *err)
{
    struct qp_block *b;
    struct qp_stage s;
    int r = qp_block_load(&b, u->m, layer, u->ops, u->ex, u->compute, err);
    qp_folded_begin(u->folded, layer);
    for (r = r ? r : qp_pass_enter(u->probe, b, &s, err); r == 1;) {
        r = run_stage(u, &s, qp_model_first_linear(u->m, layer), err);
        r = r ? r : qp_pass_next(u->probe, &s, err);
    }
    qp_block_free(b);
    return r;
}
