#include "backend/cpu/variants.h"

void qp_ref_syrk(struct qp_exec *ex, float *h, int64_t ldh, const float *x, int64_t ldx, int64_t T, int64_t K)
{
    (void)ex;
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t t = 0; t < T; t++)
                sum += (double)x[t * ldx + i] * (double)x[t * ldx + j];
            h[i * ldh + j] += (float)sum;
        }
}

void qp_ref_gemm_sub(struct qp_exec *ex, float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb,
                     int64_t M, int64_t N, int64_t K)
{
    (void)ex;
    for (int64_t m = 0; m < M; m++)
        for (int64_t n = 0; n < N; n++) {
            double sum = 0;
            for (int64_t k = 0; k < K; k++)
                sum += (double)a[m * lda + k] * (double)b[k * ldb + n];
            c[m * ldc + n] = (float)((double)c[m * ldc + n] - sum);
        }
}
