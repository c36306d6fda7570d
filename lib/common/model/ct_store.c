/* Linear layers as compressed-tensors saves them (llm-compressor); scales are [1], [out, 1] or [out, R], R = in / group:
 *   pack-quantized   weight_packed i32 [out, ceil(in*bits/32)]: code = value + 2^(bits-1), inputs run along the words; weight_shape i64 [2]
 *   int-quantized    weight i8 [out, in]
 *   float-quantized  weight f8_e4m3 or f8_e5m2 [out, in]; its scales may also be [ceil(out/a), ceil(in/b)], one for a block of a x b weights
 *   weight_scale     floating point
 *   weight_zero_point  asymmetric grids only: i32 [ceil(out*bits/32), R], outputs run down the words; or i8 [out, R]
 *   weight_g_idx     i32 [in], -1 everywhere: unused
 * w = scale * (code - zero). */
#include <math.h>

#include "base/mem.h"
#include "model/codebook.h"
#include "model/store.h"

enum { PACKED, SCALE, SHAPE, ZERO_POINT, G_IDX };          /* pack-quantized */
enum { INT_SCALE, INT_WEIGHT, INT_ZERO_POINT };            /* int- and float-quantized */

/* Rows and columns of the scales as they are stored; groups from their number. */
static int read_groups(struct qp_store *s, const char *name, int i, const struct qp_quant_config *c, struct qp_err *err)
{
    const struct qp_tensor *t = &s->part[i];
    int64_t rows = t->ndim == 2 ? t->shape[0] : 1, cols = t->ndim == 2 ? t->shape[1] : t->ndim ? t->shape[0] : 1;
    if (t->ndim == 1 && cols == s->rows && s->rows > 1) /* a channel's scales without their second dimension */
        rows = cols, cols = 1;
    if (qp_store_check_scales(s, name, i, err))
        return err->code;
    if (rows == 1 && cols == 1)
        s->scale_rows = s->rows;
    else if (rows == s->rows)
        s->scale_rows = 1;
    else
        return qp_err_set(err, QP_E_INPUT, "'%s': scales of %lld x %lld do not fit %lld x %lld weights", name, (long long)rows, (long long)cols, (long long)s->rows, (long long)s->cols);
    s->n_groups = cols;
    s->group_size = c->group_size > 0 && (s->cols + c->group_size - 1) / c->group_size == cols ? c->group_size : cols > 0 && s->cols % cols == 0 ? s->cols / cols : 0;
    if (s->group_size < 1 || (s->cols + s->group_size - 1) / s->group_size != cols)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld groups for %lld inputs", name, (long long)cols, (long long)s->cols);
    return 0;
}

static int64_t scale_bits(const struct qp_store *s, int scale, int zero)
{
    return (int64_t)(s->part[scale].bytes + s->part[zero].bytes) * 8;
}

static void read_scales(const struct qp_store *s, int i, int64_t row, float *scales)
{
    for (int64_t g = 0; g < s->n_groups; g++)
        scales[g] = qp_store_number(&s->part[i], row / s->scale_rows * s->n_groups + g);
}

/* ---- pack-quantized ---- */

static int64_t packed_words(const struct qp_store *s, int64_t n)
{
    int64_t per_word = 32 / s->field;
    return s->padded ? (n + per_word - 1) / per_word : (n * s->field + 31) / 32;
}

static uint32_t packed_field(const struct qp_store *s, const struct qp_tensor *t, int64_t at, int64_t step, int64_t i)
{
    int64_t per_word = 32 / s->field;
    if (!s->padded)
        return qp_store_field(t->data, at, step, i, s->field);
    return qp_store_word(t->data, at + i / per_word * step) >> i % per_word * s->field & ((1u << s->field) - 1);
}

static int read_order(struct qp_store *s, const char *name, struct qp_err *err)
{
    bool used = false, ordered = true;
    if (qp_store_check(s, name, G_IDX, QP_DT_I32, s->cols, -1, err))
        return err->code;
    for (int64_t i = 0; i < s->cols; i++) {
        int32_t g = (int32_t)qp_store_word(s->part[G_IDX].data, i);
        used = used || g != -1;
        ordered = ordered && g == i / s->group_size;
    }
    if (!used || ordered)
        return 0;
    if (!(s->order = qp_alloc_n((size_t)s->cols, sizeof *s->order, name, err)))
        return QP_E_RESOURCE;
    for (int64_t i = 0; i < s->cols; i++) {
        s->order[i] = (int32_t)qp_store_word(s->part[G_IDX].data, i);
        if (s->order[i] < 0 || s->order[i] >= s->n_groups)
            return qp_err_set(err, QP_E_INPUT, "'%s': weight_g_idx of input %lld is %d, expected 0 to %lld", name, (long long)i, s->order[i], (long long)s->n_groups - 1);
    }
    return 0;
}

/* Bits as the file says; where groups of layers differ, as the words of a row tell. These also tell the packers of before, which left the bits at a word's
 * end unused where fields (3, 5, 6, 7 bits) would straddle. */
static int read_bits(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    const struct qp_tensor *t = &s->part[PACKED];
    int64_t words = t->ndim == 2 ? t->shape[1] : 0;
    for (int padded = 0; padded < 2 && !s->field; padded++)
        for (int b = 1; b <= 8 && !s->field; b++) {
            int64_t expected = padded ? (s->cols + 32 / b - 1) / (32 / b) : (s->cols * b + 31) / 32;
            if ((c->mixed || !c->bits || c->bits == b) && words == expected) {
                s->field = b;
                s->padded = padded;
            }
        }
    s->field = s->field ? s->field : c->bits ? (int)c->bits : 4; /* none fits: the message says what was expected */
    s->bits = s->field > 4 ? 8 : s->field < 2 ? 2 : s->field;
    return qp_store_check(s, name, PACKED, QP_DT_I32, s->rows, packed_words(s, s->cols), err);
}

static int open_pack(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    const struct qp_tensor *shape = &s->part[SHAPE], *zero = &s->part[ZERO_POINT];
    if (read_bits(s, name, c, err) || read_groups(s, name, SCALE, c, err))
        return err->code;
    int64_t said[2] = {s->rows, s->cols};
    if (shape->data && shape->bytes == sizeof said && shape->dtype == QP_DT_I64)
        memcpy(said, shape->data, sizeof said);
    if (said[0] != s->rows || said[1] != s->cols)
        return qp_err_set(err, QP_E_INPUT, "'%s': weight_shape says %lld x %lld, the configuration %lld x %lld", name, (long long)said[0], (long long)said[1], (long long)s->rows,
                          (long long)s->cols);
    int r = 0;
    if (zero->data && zero->dtype == QP_DT_I8)
        r = qp_store_check(s, name, ZERO_POINT, QP_DT_I8, s->rows, s->n_groups, err);
    else if (zero->data)
        r = qp_store_check(s, name, ZERO_POINT, QP_DT_I32, packed_words(s, s->rows), s->n_groups, err);
    s->stored_bits = s->rows * s->cols * s->field + scale_bits(s, SCALE, ZERO_POINT);
    return r || !s->part[G_IDX].data ? r : read_order(s, name, err);
}

static float packed_zero(const struct qp_store *s, int64_t row, int64_t g)
{
    const struct qp_tensor *t = &s->part[ZERO_POINT];
    int middle = 1 << (s->field - 1);
    if (!t->data)
        return (float)middle;
    if (t->dtype == QP_DT_I8)
        return (float)(((const int8_t *)t->data)[row * s->n_groups + g] + middle);
    return (float)packed_field(s, t, g, s->n_groups, row);
}

static void read_packed(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    int64_t words = packed_words(s, s->cols);
    for (int64_t r = 0; r < n; r++) {
        for (int64_t i = 0; codes && i < s->cols; i++)
            codes[r * s->cols + i] = (uint8_t)packed_field(s, &s->part[PACKED], (row0 + r) * words, 1, i);
        read_scales(s, SCALE, row0 + r, scales + r * s->n_groups);
        for (int64_t g = 0; g < s->n_groups; g++)
            zeros[r * s->n_groups + g] = packed_zero(s, row0 + r, g);
    }
}

const struct qp_store_kind qp_store_ct_pack = {.name = "compressed-tensors' packed integers", .method = QP_QUANT_CT, .needed = 3, .open = open_pack, .read_codes = read_packed,
                                               .parts = {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"}};

/* ---- int-quantized ---- */

static bool is_int(const struct qp_store *s)
{
    return s->part[INT_SCALE].data && s->part[INT_WEIGHT].data && s->part[INT_WEIGHT].dtype == QP_DT_I8;
}

static int open_int(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    s->bits = 8;
    if (qp_store_check(s, name, INT_WEIGHT, QP_DT_I8, s->rows, s->cols, err) || read_groups(s, name, INT_SCALE, c, err))
        return err->code;
    s->stored_bits = s->rows * s->cols * 8 + scale_bits(s, INT_SCALE, INT_ZERO_POINT);
    return s->part[INT_ZERO_POINT].data ? qp_store_check(s, name, INT_ZERO_POINT, QP_DT_I8, s->rows, s->n_groups, err) : 0;
}

static void read_int(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    const int8_t *w = (const int8_t *)s->part[INT_WEIGHT].data + row0 * s->cols, *z = s->part[INT_ZERO_POINT].data;
    for (int64_t i = 0; codes && i < n * s->cols; i++)
        codes[i] = (uint8_t)(w[i] + 128);
    for (int64_t r = 0; r < n; r++) {
        read_scales(s, INT_SCALE, row0 + r, scales + r * s->n_groups);
        for (int64_t g = 0; g < s->n_groups; g++)
            zeros[r * s->n_groups + g] = 128.f + (z ? (float)z[(row0 + r) * s->n_groups + g] : 0);
    }
}

const struct qp_store_kind qp_store_ct_int = {.name = "compressed-tensors' integers", .method = QP_QUANT_CT, .parts = {"weight_scale", "weight", "weight_zero_point"}, .needed = 3,
                                              .is = is_int, .open = open_int, .read_codes = read_int};

/* ---- float-quantized ---- */

static bool is_float8(const struct qp_store *s)
{
    enum qp_dtype d = s->part[INT_WEIGHT].dtype;
    return s->part[INT_SCALE].data && s->part[INT_WEIGHT].data && (d == QP_DT_F8_E4M3 || d == QP_DT_F8_E5M2);
}

/* Edge of a block: the configuration's, else the power of two that gives so many. 0: none does. */
static int64_t block_edge(int64_t n, int64_t blocks, int64_t said)
{
    if (said > 0 && (n + said - 1) / said == blocks)
        return said;
    for (int64_t e = 1; e < 2 * n; e *= 2)
        if ((n + e - 1) / e == blocks)
            return e;
    return 0;
}

static int open_float8(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    const struct qp_tensor *t = &s->part[INT_SCALE];
    s->bits = 8;
    bool e4m3 = s->part[INT_WEIGHT].dtype == QP_DT_F8_E4M3;
    s->table = e4m3 ? qp_e4m3_table() : qp_e5m2_table();
    s->nan_from = e4m3 ? 0x7f : 0x7c;
    if (qp_store_check(s, name, INT_WEIGHT, s->part[INT_WEIGHT].dtype, s->rows, s->cols, err))
        return err->code;
    s->stored_bits = s->rows * s->cols * 8 + (int64_t)t->bytes * 8;
    if (t->ndim != 2 || t->shape[0] == s->rows || t->shape[0] * t->shape[1] == 1)
        return read_groups(s, name, INT_SCALE, c, err);
    s->scale_rows = block_edge(s->rows, t->shape[0], c->block_rows);
    s->group_size = block_edge(s->cols, t->shape[1], c->block_cols);
    s->n_groups = t->shape[1];
    if (!s->scale_rows || !s->group_size)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld x %lld blocks do not cover %lld x %lld weights", name, (long long)t->shape[0], (long long)t->shape[1], (long long)s->rows,
                          (long long)s->cols);
    return qp_store_check_scales(s, name, INT_SCALE, err);
}

static void read_float8(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    (void)zeros;
    if (codes)
        memcpy(codes, (const uint8_t *)s->part[INT_WEIGHT].data + row0 * s->cols, (size_t)(n * s->cols));
    for (int64_t r = 0; r < n; r++)
        read_scales(s, INT_SCALE, row0 + r, scales + r * s->n_groups);
}

const struct qp_store_kind qp_store_float8 = {.name = "8-bit floating point", .method = QP_QUANT_CT, .parts = {"weight_scale", "weight"}, .needed = 3, .is = is_float8,
                                              .open = open_float8, .read_codes = read_float8};
