/* Which format for which layer: one choice for each, so that the summed loss is least and the summed cost is within a budget (the multiple-choice knapsack).
 *
 * Solved exactly by dynamic programming over the budget in units of the costs' greatest common divisor. Where that makes more than 2^17 units, costs are rounded up
 * to 2^17 parts of the budget, and `bound` (the Lagrangian relaxation's, below which no allocation gets) says how far from the best the answer may be. */
#ifndef QP_QUANT_ALLOCATE_H
#define QP_QUANT_ALLOCATE_H

#include <stdint.h>

#include "base/err.h"

struct qp_choice {
    int64_t cost; /* bits, above 0 */
    double loss;
};

struct qp_allocation {
    int64_t cost;
    double loss, bound;
};

/* c [n, k]; chosen [n], an index below k each. A budget below the cheapest allocation is QP_E_USAGE and says both. */
int qp_allocate(int *chosen, struct qp_allocation *a, const struct qp_choice *c, int64_t n, int k, int64_t budget, struct qp_err *err) QP_MUST_USE;

#endif
