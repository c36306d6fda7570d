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
    if (g->blocks)
        return (double)g->bits + (g->sym ? 16.0 : 32.0) / QP_GRID_BLOCK;
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

/* Within what float16 holds; so is the minimum of the greatest zero point. */
float qp_grid_scale(const struct qp_grid *g, float s, int zero)
{
    bool minimum = g->blocks && !g->sym;
    float most = minimum ? 4352.f : 65504.f; /* 4352 * 15 < 65504 */
    s = s > most ? most : s < 0x1p-24f ? 0x1p-24f : s;
    if (minimum && zero) { /* a product of a and b digits has a + b: the scale leaves room for the zero point's odd part in float16's 11 */
        int odd = zero >> __builtin_ctz((unsigned)zero), digits = odd == 1 ? 11 : 11 - (32 - __builtin_clz((unsigned)odd)), e;
        frexpf(s, &e);
        float unit = ldexpf(1, e - digits < -24 ? -24 : e - digits);
        s = roundf(s / unit) * unit;
    }
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
        *zero = (max + 1) / 2;
        *scale = qp_grid_scale(g, 2 * most / (float)max, *zero);
        return;
    }
    float s = qp_grid_scale(g, (hi - lo) / (float)max, 0), z = roundf(-lo / s);
    *zero = z < 0 ? 0 : z > (float)max ? max : (int)z;
    *scale = qp_grid_scale(g, s, *zero);
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
