/* The second-order statistics of a layer's inputs, H = XᵀX / T, and what GPTQ needs of them.
 * Frantar et al. 2022 (GPTQ), section 3: with Hinv = Uᵀ·U (U upper triangular), rounding column j moves the columns behind it by err/U[j,j] · U[j,:]. */
#ifndef QP_QUANT_HESSIAN_H
#define QP_QUANT_HESSIAN_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/ops.h"
#include "base/err.h"

struct qp_hessian {
    int64_t n;       /* inputs */
    float *h;        /* [n, n], symmetric, mean over tokens */
    double trace;
    int64_t dead;    /* inputs that were always zero: their diagonal was set to the mean */
    int32_t *order;  /* [n] order[k] = input in place k (act-order), or NULL: as they are */
    float *factor;   /* [n, n] U in the order above, upper triangular */
    double damp;     /* share of the mean diagonal that was added so that the factorization succeeded */
};

/* H of x [T, n], whose trace and one more quadratic form are compared with sums in double straight over the tokens (QP_E_INTERNAL when they differ); bf16: of the rounded values, which are what the products of that forward pass see. Non-finite activations are QP_E_INPUT. */
int qp_hessian_init(struct qp_hessian *h, const float *x, int64_t T, int64_t n, enum qp_compute compute, const struct qp_ops *ops, struct qp_exec *ex,
                    struct qp_err *err) QP_MUST_USE;
/* The comparison: of h before the diagonal of dead inputs is filled. */
int qp_hessian_check(const struct qp_hessian *h, const float *x, int64_t T, enum qp_compute compute, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* Fills factor, replacing one that is there (and order when act_order: descending diagonal). Damping starts at `damp` (in [0, 1]) and grows tenfold at each failure up to 1. Returns 1 when
 * the matrix cannot be factored at all (all zero): the caller falls back to rounding and says so. */
int qp_hessian_factor(struct qp_hessian *h, double damp, bool act_order, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* The same in an order that keeps blocks of `group` neighbouring inputs together (group-aware reordering): blocks by their most active input, inputs by activation
 * within. */
int qp_hessian_factor_groups(struct qp_hessian *h, double damp, int64_t group, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
void qp_hessian_release(struct qp_hessian *h);

/* Building blocks, for tests. a [n, n] row-major. */
/* Lower triangle L with L·Lᵀ = A in place of A's lower triangle. 1: not positive definite. */
int qp_cholesky(float *a, int64_t n, float *scratch, const struct qp_ops *ops, struct qp_exec *ex);
/* scratch of qp_cholesky, floats */
int64_t qp_cholesky_scratch(int64_t n);
/* u [n, n] = inverse of the upper triangular v [n, n]; below the diagonal zero. */
void qp_upper_inverse(float *u, const float *v, int64_t n, const struct qp_ops *ops, struct qp_exec *ex);

#endif
