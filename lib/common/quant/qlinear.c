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

/* Puts a b-bit field i into a stream of fields that runs along p[0], p[step], ... */
static void put_field(int32_t *p, int64_t step, int64_t i, int bits, uint32_t v)
{
    int64_t bit = i * bits, word = bit / 32;
    int at = (int)(bit % 32);
    p[word * step] = (int32_t)((uint32_t)p[word * step] | v << at);
    if (at + bits > 32)
        p[(word + 1) * step] = (int32_t)((uint32_t)p[(word + 1) * step] | v >> (32 - at));
}

int qp_qlinear_pack(const struct qp_qlinear *q, bool v1, struct qp_gptq_tensors *t, struct qp_err *err)
{
    int bits = q->grid.bits;
    int64_t words = q->cols * bits / 32, zero_words = q->rows * bits / 32;
    if (q->cols * bits % 32 || q->rows * bits % 32)
        return qp_err_set(err, QP_E_INPUT, "a layer of %lld x %lld weights does not pack into words of 32 bits at %d bits", (long long)q->rows, (long long)q->cols, bits);
    size_t qw = (size_t)(words * q->rows) * 4, qz = (size_t)(q->n_groups * zero_words) * 4, gi = (size_t)q->cols * 4, sc = (size_t)(q->n_groups * q->rows) * 2;
    char *block = qp_zalloc(qw + qz + gi + sc, "packed weights", err);
    if (!block)
        return QP_E_RESOURCE;
    int32_t *qweight = (int32_t *)(void *)block, *qzeros = (int32_t *)(void *)(block + qw), *g_idx = (int32_t *)(void *)(block + qw + qz);
    uint16_t *scales = (uint16_t *)(void *)(block + qw + qz + gi);
    for (int64_t o = 0; o < q->rows; o++) {
        for (int64_t i = 0; i < q->cols; i++)
            put_field(qweight + o, q->rows, i, bits, q->codes[o * q->cols + i]);
        for (int64_t g = 0; g < q->n_groups; g++) {
            scales[g * q->rows + o] = qp_f32_to_f16(q->scales[o * q->n_groups + g]);
            uint32_t zero = (uint32_t)q->zeros[o * q->n_groups + g] - (v1 ? 1u : 0u);
            put_field(qzeros + g * zero_words, 1, o, bits, zero & ((1u << bits) - 1));
        }
    }
    memcpy(g_idx, q->g_idx, gi);
    *t = (struct qp_gptq_tensors){.rows = q->rows, .cols = q->cols, .bits = bits, .group_size = q->grid.group_size ? q->grid.group_size : q->cols, .zero_minus_one = v1,
                                  .qweight = qweight, .qzeros = qzeros, .g_idx = g_idx, .scales = scales, .n_groups = q->n_groups};
    return 0;
}
