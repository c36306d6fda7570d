/* AWQ (Lin et al. 2023): inputs that matter are multiplied before rounding, so that their weights lose less, and what comes before divides by as much.
 *
 * A stage's linear layers share inputs x; with s > 0 for each input, W·x = (W·diag(s))·(x/s). The search looks for the s that loses least when W·diag(s) is
 * rounded to nearest: s = a^r, or a^r / m^(1-r) (duo scaling), over a grid of r; a: mean |x|, m: mean of |w| over the greatest |w| of its group.
 * The loss is that of the layers' outputs, tr(E H Eᵀ) with E = Q(W·diag(s))/s - W: one product a point, where peers run the model. */
#ifndef QP_QUANT_AWQ_H
#define QP_QUANT_AWQ_H

#include "quant/hessian.h"
#include "quant/qlinear.h"

enum qp_awq_duo { QP_AWQ_DUO_ON, QP_AWQ_DUO_OFF, QP_AWQ_DUO_BOTH };

struct qp_awq_options {
    enum qp_awq_duo duo;
    int points; /* of the grid: r = 0, 1/points, ... */
    bool clip;  /* search each group's clipping; but for layers that q and k come from, whose errors attention multiplies */
};

/* The linear layers that share inputs, and those inputs. */
struct qp_awq_inputs {
    const float *const *w; /* [count] matrices [rows[i], n] */
    const int64_t *rows;
    int count;
    int64_t n;
    const float *h;        /* [n, n] mean of x·xᵀ */
    const float *activity; /* [n] mean of |x| */
    const int32_t *tie;    /* [n] inputs with the same number, below n, get the same s; NULL: each its own */
};

struct qp_awq_found {
    double ratio;         /* r; 0 without duo scaling: nothing is scaled */
    bool duo;
    double loss, unscaled; /* at s, and at s = 1 */
};

/* activity[i] = mean over T of |x[t,i]|. */
void qp_awq_activity(float *activity, const float *x, int64_t T, int64_t n);
/* s [n]: finite and positive; 1 for inputs that are always zero. Ties are averaged. The best point is taken only if it beats s = 1. The products of
 * the loss round E and H to bfloat16 when compute is bf16. */
int qp_awq_search(float *s, struct qp_awq_found *found, const struct qp_awq_inputs *in, const struct qp_grid *grid, const struct qp_awq_options *o, enum qp_compute compute,
                  const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* Rounds w [rows, h->n] to nearest, each group within the range, of ten from the whole down to a bit over half, that loses least of its part of the outputs. */
int qp_awq_round(struct qp_qlinear *q, const float *w, int64_t rows, const struct qp_hessian *h, struct qp_grid grid, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;

#endif
