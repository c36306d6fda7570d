#include <math.h>

#include "backend/cpu/variants.h"

void qp_ref_log_sum_exp(struct qp_exec *ex, double *lse, int32_t *argmax, const float *x, int64_t ldx, int64_t T, int64_t V)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++) {
        const float *row = x + t * ldx;
        int64_t best = 0;
        for (int64_t j = 1; j < V; j++)
            if (row[j] > row[best])
                best = j;
        double sum = 0;
        for (int64_t j = 0; j < V; j++)
            sum += exp((double)row[j] - (double)row[best]);
        lse[t] = (double)row[best] + log(sum);
        if (argmax)
            argmax[t] = (int32_t)best;
    }
}

void qp_ref_kl_div(struct qp_exec *ex, double *kl, const float *a, int64_t lda, const double *lse_a, const float *b, int64_t ldb,
                   const double *lse_b, int64_t T, int64_t V)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++) {
        double sum = 0;
        for (int64_t j = 0; j < V; j++) {
            double la = (double)a[t * lda + j] - lse_a[t], lb = (double)b[t * ldb + j] - lse_b[t];
            sum += exp(la) * (la - lb);
        }
        kl[t] = sum;
    }
}
