/* Folding the scales of a stage's inputs into what computes them, so that the model stays the same function: W·x = (W·diag(s))·(x/s).
 *
 * q, k, v and the MLP's first matrices read a norm, whose weight (and bias) is divided; o reads values, so rows of v; down reads act(gate)·up, so rows of up.
 * Where heads share their values, inputs of o share a scale. Not folded, with the reason: a down behind an activation without gate, and the inputs of experts,
 * which their router reads too. */
#ifndef QP_QUANT_FOLD_H
#define QP_QUANT_FOLD_H

#include "engine/block.h"
#include "model/model.h"

/* What computes a stage's inputs. */
struct qp_fold {
    const struct qp_weight *norm;    /* either this */
    const struct qp_linear *before;  /* or this, whose rows are scaled */
    const struct qp_weight *bias;    /* of it; NULL: none */
    int32_t *row;                    /* [width] element or row that input i comes from; owned */
    const char *none;                /* NULL, or why there is nothing */
};

/* The scales of one block's linear layers, and its norms and biases as they have become. */
struct qp_folded;

int qp_fold_find(struct qp_fold *f, const struct qp_model *m, const struct qp_stage *stage, struct qp_err *err) QP_MUST_USE;
void qp_fold_release(struct qp_fold *f);

int qp_folded_new(struct qp_folded **out, struct qp_model *m, struct qp_err *err) QP_MUST_USE;
void qp_folded_free(struct qp_folded *f);
/* Begins a block: scales are 1 again. */
void qp_folded_begin(struct qp_folded *f, int64_t layer);
/* Divides what f is about by s [width], multiplies the stage's linear layers by it. New norm weights are float16 values, and the linear layers are multiplied by
 * exactly what the norms were divided by. */
int qp_folded_add(struct qp_folded *f, const struct qp_fold *fold, const struct qp_stage *stage, const float *s, struct qp_err *err) QP_MUST_USE;
/* The model with the new norms and biases; its linear layers are still the old ones. */
const struct qp_model *qp_folded_model(const struct qp_folded *f);
/* Norms and biases of the current block that have changed. */
const struct qp_weight *const *qp_folded_changed(const struct qp_folded *f, int *count);
/* w [rows, cols], the weights of linear layer l of the current block, becomes the new ones. */
void qp_folded_scale(const struct qp_folded *f, const struct qp_linear *l, float *w);
bool qp_folded_scales(const struct qp_folded *f, const struct qp_linear *l);

#endif
