/* Finding a layer's storage, and what all storages share. */
#include "model/store.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"

#define ROWS_AT_ONCE 16 /* GPTQ and AWQ have neighbouring rows in neighbouring words */

static const struct qp_store_kind *const kinds[] = {&qp_store_gptq, &qp_store_awq, &qp_store_bnb4, &qp_store_bnb8, &qp_store_ct_pack, &qp_store_ct_int, &qp_store_float8};

static bool collect(struct qp_store *s, const struct qp_store_kind *kind, qp_part_fn *find, void *ctx)
{
    bool any = false;
    s->kind = kind;
    for (int i = 0; i < QP_MAX_PARTS; i++) {
        const struct qp_tensor *t = kind->parts[i] ? find(ctx, kind->parts[i]) : NULL;
        s->part[i] = t ? *t : (struct qp_tensor){0};
        any |= i == 0 && t;
    }
    return kind->is ? kind->is(s) : any;
}

static const char *missing_part(const struct qp_store *s, unsigned needed)
{
    for (int i = 0; i < QP_MAX_PARTS; i++)
        if ((needed >> i & 1) && !s->part[i].data)
            return s->kind->parts[i];
    return s->kind->missing ? s->kind->missing(s) : NULL;
}

int qp_store_is_whole(qp_part_fn *find, void *ctx)
{
    struct qp_store s = {0};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (collect(&s, kinds[k], find, ctx))
            return !missing_part(&s, s.kind->needed | s.kind->awaited);
    return 0;
}

static int copy_parts(struct qp_store *s, const char *name, struct qp_err *err)
{
    size_t bytes = 0;
    for (int i = 0; i < QP_MAX_PARTS; i++)
        bytes += (s->part[i].bytes + 63) / 64 * 64;
    char *p = s->owned = qp_alloc(bytes, name, err);
    for (int i = 0; i < QP_MAX_PARTS && p; i++)
        if (s->part[i].data) {
            s->part[i].data = memcpy(p, s->part[i].data, s->part[i].bytes);
            p += (s->part[i].bytes + 63) / 64 * 64;
        }
    return p ? 0 : QP_E_RESOURCE;
}

static int open_as(struct qp_store *s, const char *name, const struct qp_quant_config *c, bool copy, struct qp_err *err)
{
    const char *missing = missing_part(s, s->kind->needed);
    if (missing)
        return qp_err_set(err, QP_E_INPUT, "tensor '%.*s%s' is missing", (int)(strlen(name) - strlen("weight")), name, missing);
    if (c->method != QP_QUANT_ANY && s->kind->method != c->method)
        return qp_err_set(err, QP_E_INPUT, "'%s' is stored as %s, which contradicts quantization_config", name, s->kind->name);
    s->by_row = true;
    if (copy && copy_parts(s, name, err))
        return QP_E_RESOURCE;
    return s->kind->open(s, name, c, err);
}

int qp_store_open(struct qp_store **out, const char *name, int64_t rows, int64_t cols, qp_part_fn *find, void *ctx, const struct qp_quant_config *c, bool copy,
                  struct qp_err *err)
{
    *out = NULL;
    struct qp_store *s = qp_zalloc(sizeof *s, name, err);
    if (!s)
        return QP_E_RESOURCE;
    s->name = name;
    s->rows = rows;
    s->cols = cols;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        bool other = kinds[k] == &qp_store_gptq && c->method == QP_QUANT_AWQ; /* they share their names */
        if (other || !collect(s, kinds[k], find, ctx))
            continue;
        int r = open_as(s, name, c, copy, err);
        if (r) {
            qp_store_free(s);
            return r;
        }
        *out = s;
        return 1;
    }
    qp_store_free(s);
    return 0;
}

void qp_store_free(struct qp_store *s)
{
    if (!s)
        return;
    qp_free(s->zeros);
    qp_free(s->values);
    qp_free(s->order);
    qp_free(s->owned);
    qp_free(s);
}

void qp_store_codes(const struct qp_store *s, struct qp_codes *out)
{
    *out = (struct qp_codes){.kind = QP_CODES_NONE};
    if (s->by_row)
        *out = (struct qp_codes){.kind = s->table ? QP_CODES_TABLE : QP_CODES_INT, .bits = s->bits, .group_size = s->group_size, .n_groups = s->n_groups,
                                 .g_idx = s->order, .table = s->table, .outlier_threshold = s->outlier_threshold};
}

static void decode_row(const struct qp_store *s, const uint8_t *codes, const float *scales, const float *zeros, float *dst)
{
    for (int64_t i = 0; i < s->cols; i++) {
        int64_t g = s->order ? s->order[i] : i / s->group_size;
        dst[i] = scales[g] * (s->table ? s->table[codes[i]] : (float)codes[i] - zeros[g]);
    }
}

/* Looked for where codes are read anyway, in a slice that is in the cache: a pass over the file when it is opened would double what opening costs. */
static int check_codes(const struct qp_store *s, int64_t row0, int64_t n, const uint8_t *codes, struct qp_err *err)
{
    unsigned most = 0;
    for (int64_t i = 0; i < n * s->cols; i++) {
        unsigned magnitude = codes[i] & 127u;
        most = magnitude > most ? magnitude : most;
    }
    if (most < s->nan_from)
        return 0;
    int64_t i = 0;
    while ((codes[i] & 127u) < s->nan_from)
        i++;
    return qp_err_set(err, QP_E_INPUT, "%s%s%stensor '%s' holds the code 0x%02x (row %" PRId64 ", input %" PRId64 "), which is %s", s->file ? "'" : "", s->file ? s->file : "",
                      s->file ? "': " : "", s->name, codes[i], row0 + i / s->cols, i % s->cols, isnan(s->table[codes[i]]) ? "NaN" : "infinite");
}

int qp_store_read_codes(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, struct qp_err *err)
{
    s->kind->read_codes(s, row0, n, codes, scales, zeros);
    return codes && s->nan_from ? check_codes(s, row0, n, codes, err) : 0;
}

int qp_store_read_rows(const struct qp_store *s, int64_t row0, int64_t n, float *dst, struct qp_err *err)
{
    if (!s->by_row) {
        s->kind->read_rows(s, row0, n, dst);
        return 0;
    }
    size_t codes_bytes = ((size_t)(ROWS_AT_ONCE * s->cols) + 63) / 64 * 64, scales_bytes = (size_t)(ROWS_AT_ONCE * s->n_groups) * sizeof(float);
    uint8_t *codes = qp_alloc(codes_bytes + 2 * scales_bytes, "weights", err);
    float *scales = (float *)(void *)(codes + codes_bytes), *zeros = scales + ROWS_AT_ONCE * s->n_groups;
    if (!codes)
        return QP_E_RESOURCE;
    int bad = 0;
    for (int64_t at = 0; at < n && !bad; at += ROWS_AT_ONCE) {
        int64_t some = n - at < ROWS_AT_ONCE ? n - at : ROWS_AT_ONCE;
        bad = qp_store_read_codes(s, row0 + at, some, codes, scales, zeros, err);
        for (int64_t r = 0; r < some && !bad; r++)
            decode_row(s, codes + r * s->cols, scales + r * s->n_groups, zeros + r * s->n_groups, dst + (at + r) * s->cols);
    }
    qp_free(codes);
    return bad;
}

void qp_store_hash(const struct qp_store *s, struct qp_xxh64 *h)
{
    qp_xxh64_add(h, s->kind->name, strlen(s->kind->name) + 1);
    for (int i = 0; i < QP_MAX_PARTS; i++)
        if (s->part[i].data)
            qp_xxh64_add(h, s->part[i].data, s->part[i].bytes);
}

/* ---- for the storages ---- */

int qp_store_check(const struct qp_store *s, const char *name, int i, enum qp_dtype dtype, int64_t a, int64_t b, struct qp_err *err)
{
    const struct qp_tensor *t = &s->part[i];
    int stem = (int)(strlen(name) - strlen("weight"));
    char found[96] = "";
    if (t->dtype != dtype)
        return qp_err_set(err, QP_E_INPUT, "tensor '%.*s%s' has dtype %s, expected %s", stem, name, s->kind->parts[i], qp_dtype_info[t->dtype].name, qp_dtype_info[dtype].name);
    if (t->shape[0] == a && (b < 0 ? t->ndim == 1 || (t->ndim == 2 && t->shape[1] == 1) : t->ndim == 2 && t->shape[1] == b))
        return 0;
    for (int d = 0; d < t->ndim; d++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%" PRId64, d ? " x " : "", t->shape[d]);
    if (b < 0)
        return qp_err_set(err, QP_E_INPUT, "tensor '%.*s%s' has %s values, expected %" PRId64, stem, name, s->kind->parts[i], found, a);
    return qp_err_set(err, QP_E_INPUT, "tensor '%.*s%s' is %s, which does not fit %" PRId64 " x %" PRId64 " weights: expected %" PRId64 " x %" PRId64, stem, name,
                      s->kind->parts[i], found, s->rows, s->cols, a, b);
}

float qp_store_number(const struct qp_tensor *t, int64_t i)
{
    float f;
    uint16_t h;
    if (t->dtype == QP_DT_F32) {
        memcpy(&f, (const char *)t->data + i * 4, 4);
        return f;
    }
    memcpy(&h, (const char *)t->data + i * 2, 2);
    return t->dtype == QP_DT_F16 ? qp_f16_to_f32(h) : qp_bf16_to_f32(h);
}

int qp_store_check_scales(const struct qp_store *s, const char *name, int i, struct qp_err *err)
{
    const struct qp_tensor *t = &s->part[i];
    int stem = (int)(strlen(name) - strlen("weight"));
    if (t->dtype != QP_DT_F32 && t->dtype != QP_DT_F16 && t->dtype != QP_DT_BF16)
        return qp_err_set(err, QP_E_INPUT, "tensor '%.*s%s' has dtype %s, expected f32, f16 or bf16", stem, name, s->kind->parts[i], qp_dtype_info[t->dtype].name);
    int64_t n = (int64_t)t->bytes / qp_dtype_info[t->dtype].block_bytes;
    for (int64_t k = 0; k < n; k++)
        if (!isfinite(qp_store_number(t, k)))
            return qp_err_set(err, QP_E_INPUT, "tensor '%.*s%s': scale %" PRId64 " is not finite", stem, name, s->kind->parts[i], k);
    return 0;
}
