#include "quant/blockwise.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/codebook.h"

/* Codes in ascending order of their values. Of FP4's two zeros, 0 is below 8: small positive weights get 8. */
static const uint8_t nf4_order[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static const uint8_t fp4_order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

static const float *table_of(const struct qp_format *f)
{
    return f->id == QP_FMT_NF4 ? qp_nf4 : qp_fp4;
}

static int64_t n_blocks(const struct qp_format *f, int64_t n)
{
    return (n + f->block_size - 1) / f->block_size;
}

/* ---- one block ---- */

static float greatest(const float *w, int64_t n)
{
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabsf(w[i]) > most ? fabsf(w[i]) : most;
    return most;
}

/* Index of the nearest value: how many of the midpoints between neighbours lie below. A weight on a midpoint goes to the lower value. */
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
static void nearest(uint8_t *index, const float *v, int64_t n, const float *bounds)
{
    for (int64_t i = 0; i < n; i++) {
        int at = 0;
        for (int b = 0; b < 15; b++)
            at += v[i] > bounds[b];
        index[i] = (uint8_t)at;
    }
}

/* Whole blocks are multiplied by the reciprocal, the shorter last one is divided: as bitsandbytes does it. */
static void round_block(uint8_t *codes, const float *w, int64_t n, bool whole, float absmax, const float *bounds, const uint8_t *order)
{
    float scaled[64], floor = absmax > 1e-38f ? absmax : 1e-38f, inverse = 1.f / floor;
    for (int64_t at = 0; at < n; at += 64) {
        int64_t some = n - at < 64 ? n - at : 64;
        for (int64_t i = 0; i < some; i++) {
            float v = whole ? w[at + i] * inverse : w[at + i] / floor;
            scaled[i] = v < -1 ? -1 : v > 1 ? 1 : v;
        }
        nearest(codes + at, scaled, some, bounds);
        for (int64_t i = 0; i < some; i++)
            codes[at + i] = order[codes[at + i]];
    }
}

/* ---- the mean of torch.mean ---- */

#define LANES 8
#define SUMS 4
#define LEVELS 4

/* acc[0] over rows of SUMS vectors; every 2^power rows the sums move up a level, so that errors grow with the logarithm of the length. */
static void cascade(float acc[LEVELS][SUMS * LANES], const float *x, int64_t rows)
{
    int power = 0;
    while ((int64_t)1 << power < rows)
        power++;
    power = power / LEVELS > 4 ? power / LEVELS : 4;
    memset(acc, 0, LEVELS * sizeof *acc);
    for (int64_t i = 0; i < rows;) {
        for (int k = 0; k < SUMS * LANES; k++)
            acc[0][k] += x[i * SUMS * LANES + k];
        if (++i % ((int64_t)1 << power))
            continue;
        for (int level = 1; level < LEVELS; level++) {
            for (int k = 0; k < SUMS * LANES; k++) {
                acc[level][k] += acc[level - 1][k];
                acc[level - 1][k] = 0;
            }
            if (i & ((((int64_t)1 << power) - 1) << (level * power)))
                break;
        }
    }
    for (int level = 1; level < LEVELS; level++)
        for (int k = 0; k < SUMS * LANES; k++)
            acc[0][k] += acc[level][k];
}

float qp_torch_mean(const float *x, int64_t n)
{
    float acc[LEVELS][SUMS * LANES], sum = 0;
    int64_t vectors = n / LANES, rows = vectors / SUMS;
    cascade(acc, x, rows);
    for (int64_t v = rows * SUMS; v < vectors; v++)
        for (int k = 0; k < LANES; k++)
            acc[0][k] += x[v * LANES + k];
    for (int s = 1; s < SUMS; s++)
        for (int k = 0; k < LANES; k++)
            acc[0][k] += acc[0][s * LANES + k];
    for (int64_t i = vectors * LANES; i < n; i++)
        sum += x[i];
    for (int k = 0; k < LANES; k++)
        sum += acc[0][k];
    return sum / (float)n;
}

/* ---- double quantization ---- */

#define STEPS 65535 /* of [-1, 1] */

/* v goes to the nearest of 65536 equally spaced numbers first, that one to the nearest value of the map, the lower one in the middle: bitsandbytes looks codes
 * up in a table of so many entries. */
static uint8_t nearest_of_map(const float map[256], float v)
{
    v = v < -1 ? -1 : v > 1 ? 1 : v;
    int step = (int)((v + 1) * 0.5f * STEPS + 0.5f), lo = 0, hi = 255;
    float snapped = -1 + (float)(2 * step) / STEPS;
    while (lo < hi) { /* how many midpoints lie below */
        int mid = (lo + hi) / 2;
        if (0.5f * (map[mid] + map[mid + 1]) < snapped)
            lo = mid + 1;
        else
            hi = mid;
    }
    return (uint8_t)lo;
}

/* Keeps the magnitudes in 8 bits, and replaces them by what these decode to. */
static int quantize_scales(struct qp_qweight *q, struct qp_err *err)
{
    float map[256];
    qp_dynamic_map(map);
    q->n_nested = (q->n_scales + QP_NESTED_BLOCK - 1) / QP_NESTED_BLOCK;
    q->scale_codes = qp_alloc((size_t)q->n_scales, "scales", err);
    q->nested = qp_alloc_n((size_t)q->n_nested, sizeof *q->nested, "scales", err);
    if (!q->scale_codes || !q->nested)
        return QP_E_RESOURCE;
    q->offset = qp_torch_mean(q->scales, q->n_scales);
    for (int64_t i = 0; i < q->n_scales; i++)
        q->scales[i] -= q->offset;
    for (int64_t b = 0; b < q->n_nested; b++) {
        int64_t at = b * QP_NESTED_BLOCK, n = q->n_scales - at < QP_NESTED_BLOCK ? q->n_scales - at : QP_NESTED_BLOCK;
        float most = q->nested[b] = greatest(q->scales + at, n), inverse = 1.f / most;
        for (int64_t i = at; i < at + n; i++) {
            q->scale_codes[i] = most > 0 ? nearest_of_map(map, q->scales[i] * inverse) : 0;
            q->scales[i] = map[q->scale_codes[i]] * most + q->offset;
        }
    }
    return 0;
}

/* ---- the format ---- */

int qp_blockwise_quantize(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err)
{
    int64_t n = q->rows * q->cols, size = q->format.block_size;
    const float *table = table_of(&q->format);
    const uint8_t *order = q->format.id == QP_FMT_NF4 ? nf4_order : fp4_order;
    float bounds[15];
    (void)ex;
    for (int i = 0; i < 15; i++)
        bounds[i] = (table[order[i]] + table[order[i + 1]]) / 2;
    q->n_scales = n_blocks(&q->format, n);
    q->codes = qp_alloc((size_t)n, "codes", err);
    q->scales = qp_alloc_n((size_t)q->n_scales, sizeof *q->scales, "scales", err);
    if (!q->codes || !q->scales)
        return QP_E_RESOURCE;
    for (int64_t b = 0; b < q->n_scales; b++) {
        int64_t at = b * size, some = n - at < size ? n - at : size;
        q->scales[b] = greatest(w + at, some);
        if (some < size && q->scales[b] < 1e-38f)
            q->scales[b] = 1e-38f;
        round_block(q->codes + at, w + at, some, some == size, q->scales[b], bounds, order);
    }
    return q->format.double_quant ? quantize_scales(q, err) : 0;
}

void qp_blockwise_decode(const struct qp_qweight *q, float *w)
{
    const float *table = table_of(&q->format);
    for (int64_t i = 0; i < q->rows * q->cols; i++)
        w[i] = table[q->codes[i]] * q->scales[i / q->format.block_size];
}

double qp_blockwise_bpw(const struct qp_format *f, int64_t rows, int64_t cols)
{
    double n = (double)rows * (double)cols, blocks = (double)n_blocks(f, rows * cols);
    return 4 + (f->double_quant ? blocks * 8 + ceil(blocks / QP_NESTED_BLOCK) * 32 : blocks * 32) / n;
}
