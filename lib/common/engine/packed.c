/* Weights in the backend's packed layout. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

#define SLICE_FLOATS ((int64_t)1 << 20)

bool qp_all_finite(const float *x, int64_t n)
{
    float sum = 0; /* 0 * x is 0 for finite x, else NaN */
    for (int64_t i = 0; i < n; i++)
        sum += 0.f * x[i];
    return sum == 0;
}

int qp_read_finite_rows(const struct qp_weight *w, int64_t row0, int64_t n, float *dst, struct qp_err *err)
{
    if (qp_weight_read_rows(w, row0, n, dst, err))
        return err->code;
    if (qp_all_finite(dst, n * w->cols))
        return 0;
    return qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights (rows %lld to %lld)", w->name, (long long)row0, (long long)(row0 + n - 1));
}

void qp_packed_release(struct qp_packed *p)
{
    for (int i = 0; i < p->n_parts; i++) {
        qp_free(p->part[i].data);
        qp_free(p->part[i].perm);
        qp_free(p->part[i].table);
    }
    qp_free(p->bias);
    *p = (struct qp_packed){0};
}

/* Decodes a weight in slices and packs it at row0. */
static int pack_dense(struct qp_packed_part *p, int64_t row0, const struct qp_weight *w, struct qp_linear_ops lin, struct qp_exec *ex, struct qp_err *err)
{
    int64_t slice = SLICE_FLOATS / w->cols;
    slice = slice < 64 ? 64 : slice / 64 * 64;
    slice = slice < w->rows ? slice : w->rows;
    float *rows = qp_alloc_n((size_t)slice, (size_t)w->cols * sizeof *rows, "weights", err);
    int r = rows ? 0 : QP_E_RESOURCE;
    for (int64_t at = 0; !r && at < w->rows; at += slice) {
        int64_t n = w->rows - at < slice ? w->rows - at : slice;
        r = qp_read_finite_rows(w, at, n, rows, err);
        if (!r)
            lin.pack(ex, p->data, rows, w->cols, row0 + at, n, p->rows, w->cols);
    }
    qp_free(rows);
    return r;
}

/* The weights w[0..n) as one part. */
static int load_part(struct qp_packed_part *p, const struct qp_weight *const *w, int n, enum qp_codes_use use, struct qp_linear_ops lin, const struct qp_ops *ops,
                     struct qp_exec *ex, struct qp_err *err)
{
    if (p->codes)
        return qp_codes_pack(p, w, n, use, ops, ex, err);
    p->bytes = lin.bytes(p->rows, w[0]->cols);
    if (!(p->data = qp_zalloc(p->bytes, "weights", err)))
        return QP_E_RESOURCE;
    for (int64_t i = 0, row0 = 0; i < n; row0 += w[i++]->rows)
        if (pack_dense(p, row0, w[i], lin, ex, err))
            return err->code;
    size_t left = lin.compact ? lin.compact(ex, p->data, p->rows, w[0]->cols) : p->bytes;
    if (left < p->bytes) {
        p->data = qp_shrink(p->data, left);
        p->bytes = left;
    }
    return 0;
}

/* How many of the weights w[0..n) belong to the first one's part; fills its layout. */
static int begin_part(struct qp_packed_part *p, const struct qp_weight *const *w, int n, bool codes, int *count, struct qp_err *err)
{
    struct qp_codes first, other;
    *count = 1;
    p->rows = w[0]->rows;
    if (!codes) {
        for (; *count < n; ++*count)
            p->rows += w[*count]->rows;
        return 0;
    }
    qp_weight_codes(w[0], &first);
    for (; *count < n; ++*count) {
        qp_weight_codes(w[*count], &other);
        if (!qp_codes_alike(&first, &other, w[0]->cols))
            break;
        p->rows += w[*count]->rows;
    }
    return qp_codes_layout(p, &first, p->rows, w[0]->cols, &p->codes, err);
}

int qp_packed_load(struct qp_packed *p, const struct qp_weight *const *w, int n, enum qp_codes_use use, struct qp_linear_ops lin, const struct qp_ops *ops,
                   struct qp_exec *ex, struct qp_err *err)
{
    *p = (struct qp_packed){.K = w[0]->cols};
    for (int i = 0, count; i < n; i += count) {
        struct qp_packed_part *part = &p->part[p->n_parts++];
        part->row0 = p->N;
        if (begin_part(part, w + i, n - i, use != QP_CODES_DECODE, &count, err) || load_part(part, w + i, count, use, lin, ops, ex, err))
            return err->code;
        p->N += part->rows;
    }
    return 0;
}

int qp_packed_load_head(struct qp_packed *p, const struct qp_weight *w, enum qp_codes_use use, struct qp_linear_ops lin, const struct qp_ops *ops, struct qp_exec *ex,
                        struct qp_err *err)
{
    struct qp_codes c;
    qp_weight_codes(w, &c);
    if (use != QP_CODES_INT8 || w->cols % 8)
        return qp_packed_load(p, &w, 1, QP_CODES_DECODE, lin, ops, ex, err);
    if (c.kind == QP_CODES_INT) {
        if (qp_packed_load(p, &w, 1, use, lin, ops, ex, err) || (p->part[0].codes && p->part[0].q.round_x))
            return err->code;
        qp_packed_release(p);
    }
    *p = (struct qp_packed){.N = w->rows, .K = w->cols, .n_parts = 1};
    return qp_round8_pack(&p->part[0], w, ops, ex, err);
}

size_t qp_packed_bytes(const struct qp_packed *p)
{
    size_t bytes = 0;
    for (int i = 0; i < p->n_parts; i++)
        bytes += p->part[i].bytes;
    return bytes;
}

void qp_packed_run(const struct qp_packed *p, struct qp_linear_ops lin, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t ldx,
                   int64_t T, bool accumulate)
{
    for (int i = 0; i < p->n_parts; i++) {
        const struct qp_packed_part *part = &p->part[i];
        if (part->codes)
            qp_code_ops_of(ops, &part->q).run(ex, y + part->row0, p->N, x, ldx, part->data, &part->q, T, accumulate);
        else
            lin.run(ex, y + part->row0, p->N, x, ldx, part->data, T, part->rows, p->K, accumulate);
    }
    if (p->bias)
        ops->add_bias(ex, y, p->N, p->bias, T, p->N);
}
