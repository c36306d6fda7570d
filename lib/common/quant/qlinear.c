#include "quant/qlinear.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"

#define SHRINKS 32      /* steps of the range search */
#define SHRINK_MIN 0.60f

int64_t qp_grid_groups(const struct qp_grid *g, int64_t cols)
{
    return g->group_size ? (cols + g->group_size - 1) / g->group_size : 1;
}

double qp_grid_bpw(const struct qp_grid *g, int64_t cols)
{
    return (double)g->bits + (double)qp_grid_groups(g, cols) * (16 + g->bits) / (double)cols;
}

int qp_qlinear_init(struct qp_qlinear *q, int64_t rows, int64_t cols, struct qp_grid grid, struct qp_err *err)
{
    *q = (struct qp_qlinear){.rows = rows, .cols = cols, .n_groups = qp_grid_groups(&grid, cols), .grid = grid};
    size_t groups = (size_t)(rows * q->n_groups);
    q->codes = qp_alloc((size_t)(rows * cols), "codes", err);
    q->scales = qp_alloc_n(groups, sizeof *q->scales, "scales", err);
    q->zeros = qp_alloc(groups, "zero points", err);
    q->g_idx = qp_alloc_n((size_t)cols, sizeof *q->g_idx, "group index", err);
    if (!q->codes || !q->scales || !q->zeros || !q->g_idx) {
        qp_qlinear_release(q);
        return QP_E_RESOURCE;
    }
    for (int64_t i = 0; i < cols; i++)
        q->g_idx[i] = grid.group_size ? (int32_t)(i / grid.group_size) : 0;
    return 0;
}

void qp_qlinear_release(struct qp_qlinear *q)
{
    qp_free(q->codes);
    qp_free(q->scales);
    qp_free(q->zeros);
    qp_free(q->g_idx);
    *q = (struct qp_qlinear){0};
}

/* The greatest float16 not above what overflows, the least normal one at the other end. */
static float f16_scale(float s)
{
    s = s > 65504.f ? 65504.f : s < 0x1p-24f ? 0x1p-24f : s;
    return qp_f16_to_f32(qp_f32_to_f16(s));
}

void qp_grid_of_range(const struct qp_grid *g, float lo, float hi, float *scale, int *zero)
{
    int max = (1 << g->bits) - 1;
    if (!(hi - lo > 0)) { /* all zero */
        *scale = 1;
        *zero = (max + 1) / 2;
        return;
    }
    if (g->sym) {
        float most = -lo > hi ? -lo : hi;
        *scale = f16_scale(2 * most / (float)max);
        *zero = (max + 1) / 2;
        return;
    }
    *scale = f16_scale((hi - lo) / (float)max);
    float z = roundf(-lo / *scale);
    *zero = z < 0 ? 0 : z > (float)max ? max : (int)z;
}

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
static float weighted_error(const float *w, const float *h, int64_t n, float scale, float zero, float max)
{
    float inv = 1.f / scale, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float c = w[i] * inv + zero;
        c = c < 0 ? 0 : c;
        c = c > max ? max : c;
        c = (float)(int)(c + 0.5f);
        float d = (c - zero) * scale - w[i];
        sum += h[i] * d * d;
    }
    return sum;
}

void qp_grid_fit(const struct qp_grid *g, const float *w, const float *h, int64_t n, float *scale, uint8_t *zero)
{
    float lo = 0, hi = 0, ones[256];
    int max = (1 << g->bits) - 1, z;
    for (int64_t i = 0; i < n; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    qp_grid_of_range(g, lo, hi, scale, &z);
    *zero = (uint8_t)z;
    if (!g->search || !(hi - lo > 0))
        return;
    for (int64_t i = 0; i < (n < 256 ? n : 256) && !h; i++)
        ones[i] = 1;
    float best = INFINITY;
    for (int step = 0; step <= SHRINKS; step++) {
        float p = 1 - (1 - SHRINK_MIN) * (float)step / SHRINKS, s, error = 0;
        qp_grid_of_range(g, lo * p, hi * p, &s, &z);
        for (int64_t i = 0; i < n; i += 256) {
            int64_t m = n - i < 256 ? n - i : 256;
            error += weighted_error(w + i, h ? h + i : ones, m, s, (float)z, (float)max);
        }
        if (error < best) {
            best = error;
            *scale = s;
            *zero = (uint8_t)z;
        }
    }
}

void qp_qlinear_decode(const struct qp_qlinear *q, float *w)
{
    for (int64_t o = 0; o < q->rows; o++)
        for (int64_t i = 0; i < q->cols; i++) {
            int64_t g = o * q->n_groups + q->g_idx[i];
            w[o * q->cols + i] = q->scales[g] * (float)((int)q->codes[o * q->cols + i] - (int)q->zeros[g]);
        }
}
