#include "quant/formats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "model/codebook.h"
#include "quant/blockwise.h"
#include "quant/gptq.h"

/* ---- int ---- */

static int int_quantize(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err)
{
    return qp_rtn_quantize(&q->ints, w, q->rows, q->cols, q->format.grid, ex, err);
}

static void int_decode(const struct qp_qweight *q, float *w)
{
    qp_qlinear_decode(&q->ints, w);
}

static double int_bpw(const struct qp_format *f, int64_t rows, int64_t cols)
{
    (void)rows;
    return qp_grid_bpw(&f->grid, cols);
}

/* ---- int8 ---- */

static int int8_quantize(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err)
{
    (void)ex;
    q->n_scales = q->rows;
    q->codes = qp_alloc((size_t)(q->rows * q->cols), "codes", err);
    q->scales = qp_alloc_n((size_t)q->rows, sizeof *q->scales, "scales", err);
    if (!q->codes || !q->scales)
        return QP_E_RESOURCE;
    for (int64_t r = 0; r < q->rows; r++) {
        const float *row = w + r * q->cols;
        float most = 0;
        for (int64_t i = 0; i < q->cols; i++) {
            float half = fabsf(qp_f16_to_f32(qp_f32_to_f16(row[i])));
            most = half > most ? half : most;
        }
        if (!isfinite(most))
            return qp_err_set(err, QP_E_INPUT, "row %lld holds weights beyond float16's range, which int8 rounds through", (long long)r);
        float scale = most > 0 ? 1.f / most * 127.f : 0; /* torch's 127 / absmax */
        for (int64_t i = 0; i < q->cols; i++)
            q->codes[r * q->cols + i] = (uint8_t)(int8_t)nearbyintf(qp_f16_to_f32(qp_f32_to_f16(row[i])) * scale);
        q->scales[r] = most;
    }
    return 0;
}

static void int8_decode(const struct qp_qweight *q, float *w)
{
    for (int64_t r = 0; r < q->rows; r++) {
        float scale = q->scales[r] / 127.f;
        for (int64_t i = 0; i < q->cols; i++)
            w[r * q->cols + i] = scale * (float)(int8_t)q->codes[r * q->cols + i];
    }
}

static double int8_bpw(const struct qp_format *f, int64_t rows, int64_t cols)
{
    (void)f, (void)rows;
    return 8 + 32.0 / (double)cols;
}

/* ---- fp8 ---- */

static int64_t block_rows(const struct qp_format *f, int64_t rows)
{
    return f->block_rows ? f->block_rows : rows;
}

static int64_t block_cols(const struct qp_format *f, int64_t cols)
{
    return f->block_cols ? f->block_cols : cols;
}

static int64_t row_blocks(const struct qp_format *f, int64_t rows)
{
    return (rows + block_rows(f, rows) - 1) / block_rows(f, rows);
}

static int64_t col_blocks(const struct qp_format *f, int64_t cols)
{
    return (cols + block_cols(f, cols) - 1) / block_cols(f, cols);
}

/* A bfloat16 value not below s: the greatest weight stays in range, and no loader's type of scales changes it. */
static float scale_above(float s)
{
    float b = qp_bf16_to_f32(qp_f32_to_bf16(s));
    return b < s ? qp_bf16_to_f32((uint16_t)(qp_f32_to_bf16(s) + 1)) : b;
}

static void fp8_block(struct qp_qweight *q, const float *w, int64_t row0, int64_t row1, int64_t col0, int64_t col1, float *scale)
{
    bool e4m3 = q->format.id == QP_FMT_E4M3;
    float most = 0;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t i = col0; i < col1; i++)
            most = fabsf(w[r * q->cols + i]) > most ? fabsf(w[r * q->cols + i]) : most;
    *scale = most > 0 ? scale_above(most / (e4m3 ? QP_E4M3_MAX : QP_E5M2_MAX)) : 1;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t i = col0; i < col1; i++) {
            float v = w[r * q->cols + i] / *scale;
            q->codes[r * q->cols + i] = e4m3 ? qp_f32_to_e4m3(v) : qp_f32_to_e5m2(v);
        }
}

static int fp8_quantize(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err)
{
    int64_t a = block_rows(&q->format, q->rows), b = block_cols(&q->format, q->cols), down = row_blocks(&q->format, q->rows), across = col_blocks(&q->format, q->cols);
    (void)ex;
    q->n_scales = down * across;
    q->codes = qp_alloc((size_t)(q->rows * q->cols), "codes", err);
    q->scales = qp_alloc_n((size_t)q->n_scales, sizeof *q->scales, "scales", err);
    if (!q->codes || !q->scales)
        return QP_E_RESOURCE;
    for (int64_t i = 0; i < down; i++)
        for (int64_t j = 0; j < across; j++)
            fp8_block(q, w, i * a, (i + 1) * a < q->rows ? (i + 1) * a : q->rows, j * b, (j + 1) * b < q->cols ? (j + 1) * b : q->cols, &q->scales[i * across + j]);
    return 0;
}

static void fp8_decode(const struct qp_qweight *q, float *w)
{
    const float *table = q->format.id == QP_FMT_E4M3 ? qp_e4m3_table() : qp_e5m2_table();
    int64_t a = block_rows(&q->format, q->rows), b = block_cols(&q->format, q->cols), across = col_blocks(&q->format, q->cols);
    for (int64_t r = 0; r < q->rows; r++)
        for (int64_t i = 0; i < q->cols; i++)
            w[r * q->cols + i] = q->scales[r / a * across + i / b] * table[q->codes[r * q->cols + i]];
}

static double fp8_bpw(const struct qp_format *f, int64_t rows, int64_t cols)
{
    return 8 + 32.0 * (double)(row_blocks(f, rows) * col_blocks(f, cols)) / ((double)rows * (double)cols);
}

/* ---- f16, bf16 ---- */

static int half_quantize(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err)
{
    (void)ex;
    if (!(q->halves = qp_alloc_n((size_t)(q->rows * q->cols), sizeof *q->halves, "weights", err)))
        return QP_E_RESOURCE;
    for (int64_t i = 0; i < q->rows * q->cols; i++) {
        q->halves[i] = q->format.id == QP_FMT_F16 ? qp_f32_to_f16(w[i]) : qp_f32_to_bf16(w[i]);
        if (q->format.id == QP_FMT_F16 && (q->halves[i] & 0x7c00u) == 0x7c00u)
            return qp_err_set(err, QP_E_INPUT, "weight %lld is %g, which float16 cannot hold", (long long)i, (double)w[i]);
    }
    return 0;
}

static void half_decode(const struct qp_qweight *q, float *w)
{
    for (int64_t i = 0; i < q->rows * q->cols; i++)
        w[i] = q->format.id == QP_FMT_F16 ? qp_f16_to_f32(q->halves[i]) : qp_bf16_to_f32(q->halves[i]);
}

static double half_bpw(const struct qp_format *f, int64_t rows, int64_t cols)
{
    (void)f, (void)rows, (void)cols;
    return 16;
}

/* ---- the table ---- */

const struct qp_format_traits qp_format_traits[QP_FMT_COUNT] = {
    [QP_FMT_INT] = {"int", int_quantize, int_decode, int_bpw},
    [QP_FMT_NF4] = {"nf4", qp_blockwise_quantize, qp_blockwise_decode, qp_blockwise_bpw},
    [QP_FMT_FP4] = {"fp4", qp_blockwise_quantize, qp_blockwise_decode, qp_blockwise_bpw},
    [QP_FMT_INT8] = {"int8", int8_quantize, int8_decode, int8_bpw},
    [QP_FMT_E4M3] = {"e4m3", fp8_quantize, fp8_decode, fp8_bpw},
    [QP_FMT_E5M2] = {"e5m2", fp8_quantize, fp8_decode, fp8_bpw},
    [QP_FMT_F16] = {"f16", half_quantize, half_decode, half_bpw},
    [QP_FMT_BF16] = {"bf16", half_quantize, half_decode, half_bpw},
};

int qp_qweight_quantize(struct qp_qweight *q, const struct qp_format *f, const float *w, int64_t rows, int64_t cols, struct qp_exec *ex, struct qp_err *err)
{
    *q = (struct qp_qweight){.format = *f, .rows = rows, .cols = cols};
    int r = qp_format_traits[f->id].quantize(q, w, ex, err);
    if (r)
        qp_qweight_release(q);
    return r;
}

void qp_qweight_take_ints(struct qp_qweight *q, struct qp_qlinear *ints)
{
    *q = (struct qp_qweight){.format = {.id = QP_FMT_INT, .grid = ints->grid}, .rows = ints->rows, .cols = ints->cols, .ints = *ints};
    *ints = (struct qp_qlinear){0};
}

void qp_qweight_decode(const struct qp_qweight *q, float *w)
{
    qp_format_traits[q->format.id].decode(q, w);
}

void qp_qweight_release(struct qp_qweight *q)
{
    qp_qlinear_release(&q->ints);
    qp_free(q->codes);
    qp_free(q->halves);
    qp_free(q->scales);
    qp_free(q->scale_codes);
    qp_free(q->nested);
    *q = (struct qp_qweight){0};
}

double qp_format_bpw(const struct qp_format *f, int64_t rows, int64_t cols)
{
    return qp_format_traits[f->id].bpw(f, rows, cols);
}

int qp_format_bits(const struct qp_format *f)
{
    static const int bits[QP_FMT_COUNT] = {[QP_FMT_NF4] = 4, [QP_FMT_FP4] = 4, [QP_FMT_INT8] = 8, [QP_FMT_E4M3] = 8, [QP_FMT_E5M2] = 8, [QP_FMT_F16] = 16, [QP_FMT_BF16] = 16};
    return f->id == QP_FMT_INT ? f->grid.bits : bits[f->id];
}

int64_t qp_format_group(const struct qp_format *f)
{
    int64_t n = f->id == QP_FMT_INT ? f->grid.group_size : f->id == QP_FMT_NF4 || f->id == QP_FMT_FP4 ? f->block_size : f->block_cols;
    return n ? n : -1;
}

/* ---- names ---- */

static void fp8_name(const struct qp_format *f, char out[32])
{
    const char *name = qp_format_traits[f->id].name;
    if (!f->block_rows && !f->block_cols)
        snprintf(out, 32, "%s-tensor", name);
    else if (f->block_rows == 1 && !f->block_cols)
        snprintf(out, 32, "%s", name);
    else
        snprintf(out, 32, "%s-%lldx%lld", name, (long long)f->block_rows, (long long)f->block_cols);
}

void qp_format_name(const struct qp_format *f, char out[32])
{
    const char *name = qp_format_traits[f->id].name;
    char group[24] = "row";
    switch (f->id) {
    case QP_FMT_INT:
        if (f->grid.group_size)
            snprintf(group, sizeof group, "g%lld", (long long)f->grid.group_size);
        snprintf(out, 32, "w%d%s%s", f->grid.bits, group, f->grid.sym ? "" : "-asym");
        break;
    case QP_FMT_NF4:
    case QP_FMT_FP4:
        snprintf(group, sizeof group, "-%lld", (long long)f->block_size);
        snprintf(out, 32, "%s%s%s", name, f->double_quant ? "-dq" : "", f->block_size == 64 ? "" : group);
        break;
    case QP_FMT_E4M3:
    case QP_FMT_E5M2:
        fp8_name(f, out);
        break;
    default:
        snprintf(out, 32, "%s", name);
    }
}

static bool is_block(int64_t n)
{
    return n >= 32 && n <= 4096 && !(n & (n - 1));
}

/* "w4g64", "w8row-asym" */
static bool parse_int(struct qp_format *f, const char *text)
{
    char *end;
    long bits = strtol(text + 1, &end, 10), group = 0;
    if (*end == 'g')
        group = strtol(end + 1, &end, 10);
    else if (!strncmp(end, "row", 3))
        end += 3;
    else
        return false;
    *f = (struct qp_format){.id = QP_FMT_INT, .grid = {.bits = (int)bits, .group_size = group, .sym = strcmp(end, "-asym"), .search = true}};
    return (bits == 2 || bits == 3 || bits == 4 || bits == 8) && group >= 0 && group % 8 == 0 && group <= 1 << 20 && (!*end || !strcmp(end, "-asym"));
}

/* "nf4", "nf4-dq", "nf4-128", "nf4-dq-128" */
static bool parse_block(struct qp_format *f, enum qp_format_id id, const char *rest)
{
    *f = (struct qp_format){.id = id, .block_size = 64};
    if (!strncmp(rest, "-dq", 3)) {
        f->double_quant = true;
        rest += 3;
    }
    if (!*rest)
        return true;
    char *end;
    f->block_size = *rest == '-' ? strtol(rest + 1, &end, 10) : 0;
    return is_block(f->block_size) && !*end;
}

int qp_format_parse(struct qp_format *f, const char *text, struct qp_err *err)
{
    static const struct {
        const char *name;
        struct qp_format format;
    } names[] = {{"int8", {.id = QP_FMT_INT8}}, {"fp8", {.id = QP_FMT_E4M3, .block_rows = 1}}, {"e4m3", {.id = QP_FMT_E4M3, .block_rows = 1}},
                 {"e5m2", {.id = QP_FMT_E5M2, .block_rows = 1}}, {"e4m3-tensor", {.id = QP_FMT_E4M3}}, {"e5m2-tensor", {.id = QP_FMT_E5M2}},
                 {"fp16", {.id = QP_FMT_F16}}, {"f16", {.id = QP_FMT_F16}}, {"bf16", {.id = QP_FMT_BF16}}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, text)) {
            *f = names[i].format;
            return 0;
        }
    if ((text[0] == 'w' && parse_int(f, text)) || (!strncmp(text, "nf4", 3) && parse_block(f, QP_FMT_NF4, text + 3)) || (!strncmp(text, "fp4", 3) && parse_block(f, QP_FMT_FP4, text + 3)))
        return 0;
    return qp_err_set(err, QP_E_USAGE, "unknown format '%s': expected fp16, bf16, fp8, e4m3, e5m2, int8, nf4, fp4 (nf4-dq, nf4-128), or integers such as w4g64, w4g64-asym, w8row", text);
}
