#include <math.h>

#include "backend/cpu/variants.h"

void qp_ref_rms_norm(struct qp_exec *ex, float *y, const float *x, const float *w, int64_t T, int64_t D, float eps)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++) {
        double sum = 0;
        for (int64_t d = 0; d < D; d++)
            sum += (double)x[t * D + d] * (double)x[t * D + d];
        double scale = 1.0 / sqrt(sum / (double)D + (double)eps);
        for (int64_t d = 0; d < D; d++)
            y[t * D + d] = (float)((double)x[t * D + d] * scale * (double)w[d]);
    }
}

void qp_ref_layer_norm(struct qp_exec *ex, float *y, const float *x, const float *w, const float *b, int64_t T, int64_t D, float eps)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++) {
        double mean = 0, var = 0;
        for (int64_t d = 0; d < D; d++)
            mean += (double)x[t * D + d] / (double)D;
        for (int64_t d = 0; d < D; d++)
            var += ((double)x[t * D + d] - mean) * ((double)x[t * D + d] - mean);
        double scale = 1.0 / sqrt(var / (double)D + (double)eps);
        for (int64_t d = 0; d < D; d++)
            y[t * D + d] = (float)(((double)x[t * D + d] - mean) * scale * (double)w[d] + (double)b[d]);
    }
}

void qp_ref_gelu_mul(struct qp_exec *ex, float *y, int64_t ldy, const float *gate, const float *up, int64_t ldx, int64_t T, int64_t F)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++)
        for (int64_t f = 0; f < F; f++) {
            double g = (double)gate[t * ldx + f], u = up ? (double)up[t * ldx + f] : 1.0;
            y[t * ldy + f] = (float)(0.5 * g * (1.0 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g))) * u);
        }
}

void qp_ref_gelu_erf(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, int64_t T, int64_t F)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++)
        for (int64_t f = 0; f < F; f++) {
            double g = (double)x[t * ldx + f];
            y[t * ldy + f] = (float)(0.5 * g * erfc(-g * 0.70710678118654752440));
        }
}

void qp_ref_silu_mul(struct qp_exec *ex, float *y, int64_t ldy, const float *gate, const float *up, int64_t ldx, int64_t T, int64_t F)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++)
        for (int64_t f = 0; f < F; f++) {
            double g = (double)gate[t * ldx + f];
            y[t * ldy + f] = (float)(g / (1.0 + exp(-g)) * (double)up[t * ldx + f]);
        }
}

void qp_ref_soft_cap(struct qp_exec *ex, float *x, int64_t n, float cap)
{
    (void)ex;
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((double)cap * tanh((double)x[i] / (double)cap));
}

void qp_ref_add(struct qp_exec *ex, float *y, const float *x, int64_t n)
{
    (void)ex;
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

void qp_ref_add_bias(struct qp_exec *ex, float *y, int64_t ldy, const float *b, int64_t T, int64_t N)
{
    (void)ex;
    for (int64_t t = 0; t < T; t++)
        for (int64_t n = 0; n < N; n++)
            y[t * ldy + n] += b[n];
}

void qp_ref_rope(struct qp_exec *ex, float *x, int64_t ldx, const float *cs, int64_t T, int64_t heads, int64_t hd, bool interleaved)
{
    (void)ex;
    int64_t half = hd / 2;
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < half; i++) {
                float *p = x + t * ldx + h * hd;
                int64_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;
                double c = (double)cs[(t * half + i) * 2], s = (double)cs[(t * half + i) * 2 + 1];
                double u = (double)p[a], v = (double)p[b];
                p[a] = (float)(u * c - v * s);
                p[b] = (float)(v * c + u * s);
            }
}
