/* What the layers before have done wrong, put right by the next one.
 *
 * A layer after quantized ones gets inputs x that are off from the x' of the full-precision model. Keeping W and minimizing |W x - Q x|² reproduces the
 * layer's answer to wrong inputs. Instead W is moved to the least-squares answer to what it should give: W* = W + gain · E[d xᵀ] (E[x xᵀ] + damping)^-1,
 * where d is what its output lacks; then W* is quantized. Li et al. 2025 (GPTAQ) call it asymmetric calibration for d = W (x' - x). For the two layers that
 * write the residual stream, d also holds all that the stream itself has drifted: d = (stream' - stream) behind the layer.
 * The regression is over few tokens: a gain below 1 and damping keep it from fitting noise. */
#ifndef QP_QUANT_DRIFT_H
#define QP_QUANT_DRIFT_H

#include "quant/hessian.h"

/* m [na, nb] = mean over the T tokens of a[t,i] * b[t,j]. bf16: products of rounded values, summed in float32, as the forward pass has it. */
int qp_moment(float *m, const float *a, int64_t na, const float *b, int64_t nb, int64_t T, enum qp_compute compute, const struct qp_ops *ops, struct qp_exec *ex,
              struct qp_err *err) QP_MUST_USE;

/* What is known about the drift at one layer's inputs or outputs; exactly one is set. */
struct qp_drift {
    const float *inputs;  /* [n, n] E[(x' - x) xᵀ] */
    const float *outputs; /* [rows, n] E[(stream' - stream before the layer's output is added) xᵀ] */
    double gain;
    const struct qp_hessian *h; /* of the same inputs, factored */
};

/* w [rows, n] becomes W*. */
int qp_drift_correct(float *w, int64_t rows, const struct qp_drift *d, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;

#endif
