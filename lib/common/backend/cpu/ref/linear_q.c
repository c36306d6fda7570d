/* Codes as bytes in the kernels' order, then scales, then zeros, all float32; sums in double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/variants.h"
#include "base/half.h"

size_t qp_ref_linear_q_bytes(const struct qp_qmatrix *q)
{
    return (size_t)q->N * ((size_t)q->Kp + 2 * (size_t)q->n_groups * sizeof(float)) + 64;
}

static float *scales_of(const void *packed, const struct qp_qmatrix *q)
{
    size_t codes = ((size_t)q->N * (size_t)q->Kp + 63) / 64 * 64;
    return (float *)((uintptr_t)packed + codes);
}

void qp_ref_linear_q_pack(struct qp_exec *ex, void *packed, const struct qp_qmatrix *q, const uint8_t *codes, const float *scales, const float *zeros,
                          int64_t row0, int64_t rows)
{
    float *s = scales_of(packed, q) + row0 * q->n_groups, *z = s + q->N * q->n_groups;
    (void)ex;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < q->Kp; k++) {
            int64_t from = q->perm ? q->perm[k] : k;
            ((uint8_t *)packed)[(row0 + r) * q->Kp + k] = from < 0 ? 0 : codes[r * q->K + from];
        }
    memcpy(s, scales, (size_t)(rows * q->n_groups) * sizeof *s);
    if (q->zeros)
        memcpy(z, zeros, (size_t)(rows * q->n_groups) * sizeof *z);
}

/* sum_g of one row of x and one of W */
typedef double dot_fn(const struct qp_qmatrix *q, const float *x, const uint8_t *codes, const float *scales, const float *zeros);

struct job {
    dot_fn *dot;
    float *y;
    const float *x;
    const void *packed;
    const struct qp_qmatrix *q;
    int64_t ldy, ldx;
    bool accumulate;
};

static double dot(const struct qp_qmatrix *q, const float *x, const uint8_t *codes, const float *scales, const float *zeros)
{
    double sum = 0;
    for (int64_t g = 0; g < q->n_groups; g++) {
        double part = 0, xs = 0;
        for (int64_t k = g * q->group; k < (g + 1) * q->group && k < q->Kp; k++) {
            int64_t from = q->perm ? q->perm[k] : k;
            double v = from < 0 ? 0 : (double)qp_bf16_to_f32(qp_f32_to_bf16(x[from]));
            part += v * (double)q->table[codes[k]];
            xs += v;
        }
        sum += (double)scales[g] * (q->zeros ? part - (double)zeros[g] * xs : part);
    }
    return sum;
}

/* The largest |x| of group g; NaN when one is NaN or infinite. */
static float most_of(const struct qp_qmatrix *q, const float *x, int64_t g)
{
    float most = 0, broken = 0;
    for (int64_t k = g * q->group; k < (g + 1) * q->group && k < q->Kp; k++) {
        int64_t from = q->perm ? q->perm[k] : k;
        float v = from < 0 ? 0 : x[from];
        most = fabsf(v) > most ? fabsf(v) : most;
        broken += 0.f * v;
    }
    return most + broken;
}

static double dot_rounded(const struct qp_qmatrix *q, const float *x, const uint8_t *codes, const float *scales, const float *zeros)
{
    double sum = 0;
    for (int64_t g = 0; g < q->n_groups; g++) {
        float most = most_of(q, x, g), by = 127.f / most;
        double part = 0;
        if (most < QP_Q8_LEAST)
            continue;
        for (int64_t k = g * q->group; k < (g + 1) * q->group && k < q->Kp; k++) {
            int64_t from = q->perm ? q->perm[k] : k;
            double c = from < 0 ? 0 : (double)nearbyintf(x[from] * by);
            part += c * ((double)q->table[codes[k]] - (q->zeros ? (double)zeros[g] : 0));
        }
        sum += (double)scales[g] * part * (double)(most / 127.f);
    }
    return sum;
}

static void rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    const struct qp_qmatrix *q = j->q;
    const float *s = scales_of(j->packed, q), *z = s + q->N * q->n_groups;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t n = 0; n < q->N; n++) {
            double sum = j->dot(q, j->x + t * j->ldx, (const uint8_t *)j->packed + n * q->Kp, s + n * q->n_groups, z + n * q->n_groups);
            float *y = j->y + t * j->ldy + n;
            *y = (float)(j->accumulate ? (double)*y + sum : sum);
        }
}

void qp_ref_linear_q(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                     bool accumulate)
{
    struct job j = {dot, y, x, packed, q, ldy, ldx, accumulate};
    qp_pool_for(ex->pool, T, 1, rows, &j);
}

void qp_ref_linear_q8(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                      bool accumulate)
{
    struct job j = {dot_rounded, y, x, packed, q, ldy, ldx, accumulate};
    qp_pool_for(ex->pool, T, 1, rows, &j);
}
