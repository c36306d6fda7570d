/* GPTQ (Frantar et al. 2022): columns are rounded one after the other, each error is carried to the columns behind it through the inverse Hessian.
 * Then, optionally, sweeps of coordinate descent on the layer's true objective tr((W-Q) (H + damping) (W-Q)ᵀ): scales are refitted by least squares and codes
 * moved one at a time, the rest held fixed; the objective never grows. */
#ifndef QP_QUANT_GPTQ_H
#define QP_QUANT_GPTQ_H

#include "quant/formats.h"
#include "quant/hessian.h"
#include "quant/qlinear.h"

struct qp_gptq_options {
    struct qp_grid grid;
    bool static_groups; /* with an act-order: groups stay blocks of neighbouring inputs, their grids come from the weights before any error is carried */
    bool group_aware;   /* groups stay blocks of neighbouring inputs and come one after the other (qp_hessian_factor_groups): their grids are fitted on the way */
    int sweeps;         /* of coordinate descent afterwards; 0: plain GPTQ */
};

/* How well a layer was quantized. */
struct qp_quant_error {
    double mse;       /* mean squared weight error */
    double rel_error; /* tr(E H Eᵀ) / tr(W H Wᵀ); without H: |E|² / |W|² */
    double snr_db;    /* -10 log10 of rel_error */
};

/* w [rows, h->n] float32. h must be factored. q is initialized here; release it with qp_qlinear_release. */
int qp_gptq_quantize(struct qp_qlinear *q, const float *w, int64_t rows, const struct qp_hessian *h, const struct qp_gptq_options *o, const struct qp_ops *ops,
                     struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* Round to nearest on each group's own grid. */
int qp_rtn_quantize(struct qp_qlinear *q, const float *w, int64_t rows, int64_t cols, struct qp_grid grid, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* Coordinate descent on q in place (qp_gptq_quantize calls it). */
int qp_gptq_refine(struct qp_qlinear *q, const float *w, const struct qp_hessian *h, int sweeps, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* h NULL: unweighted. */
int qp_quant_measure(struct qp_quant_error *e, const struct qp_qweight *q, const float *w, const struct qp_hessian *h, const struct qp_ops *ops, struct qp_exec *ex,
                     struct qp_err *err) QP_MUST_USE;

#endif
