/* The reference: W as it is, one dot product an output, summed in double. */
#include <string.h>

#include "backend/cpu/variants.h"
#include "base/half.h"

size_t qp_ref_linear_f32_bytes(int64_t N, int64_t K)
{
    return (size_t)N * (size_t)K * sizeof(float);
}

void qp_ref_linear_f32_pack(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows,
                            int64_t N, int64_t K)
{
    (void)ex;
    (void)N;
    for (int64_t r = 0; r < rows; r++)
        memcpy((float *)packed + (row0 + r) * K, w + r * ldw, (size_t)K * sizeof(float));
}

struct job {
    float *y;
    const float *x, *w;
    const uint16_t *wb;
    int64_t ldy, ldx, N, K;
    bool accumulate;
};

static void rows_f32(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t n = 0; n < j->N; n++) {
            double sum = 0;
            for (int64_t k = 0; k < j->K; k++)
                sum += (double)j->x[t * j->ldx + k] * (double)j->w[n * j->K + k];
            j->y[t * j->ldy + n] = (float)(j->accumulate ? (double)j->y[t * j->ldy + n] + sum : sum);
        }
}

void qp_ref_linear_f32(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T,
                       int64_t N, int64_t K, bool accumulate)
{
    struct job j = {.y = y, .x = x, .w = packed, .ldy = ldy, .ldx = ldx, .N = N, .K = K, .accumulate = accumulate};
    qp_pool_for(ex->pool, T, 1, rows_f32, &j);
}

size_t qp_ref_linear_bf16_bytes(int64_t N, int64_t K)
{
    return (size_t)N * (size_t)K * sizeof(uint16_t);
}

void qp_ref_linear_bf16_pack(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows,
                             int64_t N, int64_t K)
{
    (void)ex;
    (void)N;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < K; k++)
            ((uint16_t *)packed)[(row0 + r) * K + k] = qp_f32_to_bf16(w[r * ldw + k]);
}

size_t qp_ref_linear_bf16_compact(struct qp_exec *ex, void *packed, int64_t N, int64_t K)
{
    (void)ex;
    (void)packed;
    return qp_ref_linear_bf16_bytes(N, K);
}

static void rows_bf16(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t n = 0; n < j->N; n++) {
            double sum = 0;
            for (int64_t k = 0; k < j->K; k++)
                sum += (double)qp_bf16_to_f32(qp_f32_to_bf16(j->x[t * j->ldx + k])) * (double)qp_bf16_to_f32(j->wb[n * j->K + k]);
            j->y[t * j->ldy + n] = (float)(j->accumulate ? (double)j->y[t * j->ldy + n] + sum : sum);
        }
}

void qp_ref_linear_bf16(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T,
                        int64_t N, int64_t K, bool accumulate)
{
    struct job j = {.y = y, .x = x, .wb = packed, .ldy = ldy, .ldx = ldx, .N = N, .K = K, .accumulate = accumulate};
    qp_pool_for(ex->pool, T, 1, rows_bf16, &j);
}
