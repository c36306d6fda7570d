/* A dense weight rounded to codes of 8 bits with a scale for each row and group of columns, for products with x of 8 bits. */
#include <math.h>

#include "base/half.h"
#include "base/mem.h"
#include "engine/internal.h"

#define SLICE_FLOATS ((int64_t)1 << 20)

/* One row: codes 1 to 255 around 128, scale = max |w| / 127. */
static void round_row(uint8_t *codes, float *scales, const float *w, const struct qp_qmatrix *q)
{
    for (int64_t g = 0; g < q->n_groups; g++) {
        int64_t k0 = g * q->group, k1 = k0 + q->group < q->K ? k0 + q->group : q->K;
        float most = 0;
        for (int64_t k = k0; k < k1; k++)
            most = fmaxf(most, fabsf(w[k]));
        float scale = qp_f16_to_f32(qp_f32_to_f16(most / 127)), by = scale > 0 ? 1 / scale : 0;
        scales[g] = scale;
        for (int64_t k = k0; k < k1; k++)
            codes[k] = (uint8_t)(128 + lrintf(fmaxf(-127, fminf(127, w[k] * by))));
    }
}

static int pack_slices(struct qp_packed_part *part, const struct qp_weight *w, const struct qp_ops *ops, struct qp_exec *ex, float *rows, uint8_t *codes, float *scales,
                       int64_t slice, struct qp_err *err)
{
    const struct qp_qmatrix *q = &part->q;
    for (int64_t at = 0; at < q->N; at += slice) {
        int64_t n = q->N - at < slice ? q->N - at : slice;
        if (qp_read_finite_rows(w, at, n, rows, err))
            return err->code;
        for (int64_t r = 0; r < n; r++)
            round_row(codes + r * q->K, scales + r * q->n_groups, rows + r * q->K, q);
        ops->linear_q_pack(ex, part->data, q, codes, scales, NULL, at, n);
    }
    return 0;
}

int qp_round8_pack(struct qp_packed_part *part, const struct qp_weight *w, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t K = w->cols, n_groups = (K + QP_ROUND8_GROUP - 1) / QP_ROUND8_GROUP, slice = SLICE_FLOATS / K / 64 * 64 + 64;
    *part = (struct qp_packed_part){.rows = w->rows, .codes = true, .factor = 1};
    if (!(part->table = qp_alloc_n(256, sizeof *part->table, "weights", err)))
        return QP_E_RESOURCE;
    for (int c = 0; c < 256; c++)
        part->table[c] = (float)(c - 128);
    part->q = (struct qp_qmatrix){.N = w->rows, .K = K, .Kp = K, .group = QP_ROUND8_GROUP, .n_groups = n_groups, .bits = 8, .half = true, .affine = true, .round_x = true,
                                  .table = part->table};
    part->bytes = ops->linear_q_bytes(&part->q);
    part->data = qp_zalloc(part->bytes, "weights", err);
    float *rows = qp_alloc_n((size_t)slice, (size_t)K * sizeof *rows, "weights", err), *scales = qp_alloc_n((size_t)slice, (size_t)n_groups * sizeof *scales, "weights", err);
    uint8_t *codes = qp_alloc_n((size_t)slice, (size_t)K, "weights", err);
    int r = part->data && rows && scales && codes ? pack_slices(part, w, ops, ex, rows, codes, scales, slice, err) : QP_E_RESOURCE;
    qp_free(rows);
    qp_free(scales);
    qp_free(codes);
    return r;
}
