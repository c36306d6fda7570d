/* LLM.int8(), Dettmers et al. 2022: codes [N, K] as bytes around 128, then scales [N]; sums in double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/variants.h"
#include "base/half.h"

size_t qp_ref_linear_i8_bytes(const struct qp_qmatrix *q)
{
    return (size_t)q->N * ((size_t)q->K + sizeof(float));
}

void qp_ref_linear_i8_pack(struct qp_exec *ex, void *packed, const struct qp_qmatrix *q, const uint8_t *codes, const float *scales, const float *zeros, int64_t row0,
                           int64_t rows)
{
    (void)ex, (void)zeros;
    memcpy((float *)packed + row0, scales, (size_t)rows * sizeof *scales);
    memcpy((uint8_t *)((float *)packed + q->N) + row0 * q->K, codes, (size_t)(rows * q->K));
}

struct job {
    float *y;
    const float *x;
    const void *packed;
    const struct qp_qmatrix *q;
    int64_t ldy, ldx;
    bool accumulate;
};

static void rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    const struct qp_qmatrix *q = j->q;
    const float *scales = j->packed;
    const uint8_t *codes = (const uint8_t *)(scales + q->N);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->ldx;
        float top = 0;
        for (int64_t k = 0; k < q->K; k++)
            top = fabsf(x[k]) < q->outlier && fabsf(x[k]) > top ? fabsf(x[k]) : top;
        float by = top > 0 ? 127.f / top : 0, scale = top / 127.f;
        for (int64_t n = 0; n < q->N; n++) {
            double whole = 0, wide = 0;
            for (int64_t k = 0; k < q->K; k++)
                if (fabsf(x[k]) < q->outlier)
                    whole += (double)rintf(x[k] * by) * (codes[n * q->K + k] - 128);
                else
                    wide += (double)qp_bf16_to_f32(qp_f32_to_bf16(x[k])) * (codes[n * q->K + k] - 128);
            double sum = (double)scales[n] * (whole * (double)scale + wide);
            float *y = j->y + t * j->ldy + n;
            *y = (float)(j->accumulate ? (double)*y + sum : sum);
        }
    }
}

void qp_ref_linear_i8(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                      bool accumulate)
{
    struct job j = {y, x, packed, q, ldy, ldx, accumulate};
    qp_pool_for(ex->pool, T, 1, rows, &j);
}
