/* Rows of dense weights: decoded, and put into Hugging Face's order where a file has another one. */
#include "model/decode.h"
#include "model/internal.h"

#define COLUMN 256 /* rows of a turned matrix that are read at a time */

static void read_turned(const struct qp_weight_impl *w, int64_t row0, int64_t n, float *dst)
{
    float column[COLUMN];
    const struct qp_dtype_info *info = &qp_dtype_info[w->tensor.dtype]; /* safetensors hold no blocks */
    for (int64_t at = 0; at < n; at += COLUMN) {
        int64_t some = n - at < COLUMN ? n - at : COLUMN;
        for (int64_t k = 0; k < w->pub.cols; k++) {
            qp_decode(w->tensor.dtype, (const uint8_t *)w->tensor.data + (size_t)((k * w->pub.rows + row0 + at) * info->block_bytes), some, column);
            for (int64_t r = 0; r < some; r++)
                dst[(at + r) * w->pub.cols + k] = column[r];
        }
    }
}

/* A bias in the file's order of parts, element by element. */
static int read_parted_bias(const struct qp_weight_impl *w, float *dst, struct qp_err *err)
{
    struct qp_weight_impl column = *w;
    column.pub.rows = w->pub.cols;
    column.pub.cols = 1;
    if (qp_dtype_info[w->tensor.dtype].block_elems != 1)
        return qp_err_set(err, QP_E_INPUT, "'%s': a bias in blocks is not supported", w->pub.name);
    return qp_dense_read_rows(&column, 0, column.pub.rows, dst, err);
}

int qp_dense_read_rows(const struct qp_weight_impl *w, int64_t row0, int64_t n, float *dst, struct qp_err *err)
{
    const struct qp_dtype_info *info = &qp_dtype_info[w->tensor.dtype];
    size_t row_bytes = (size_t)(w->pub.cols / info->block_elems * info->block_bytes);
    const uint8_t *data = w->tensor.data;
    if (w->turned) {
        read_turned(w, row0, n, dst);
        return 0;
    }
    if (w->pub.rows == 1 && w->rotated_head_dim) /* a bias in pairs is no case that a converter writes */
        return qp_err_set(err, QP_E_INPUT, "'%s': a rotated bias is not supported", w->pub.name);
    if (w->pub.rows == 1 && w->parted_head_dim)
        return read_parted_bias(w, dst, err);
    if (!w->rotated_head_dim && !w->parted_head_dim)
        qp_decode(w->tensor.dtype, data + (size_t)row0 * row_bytes, n * w->pub.cols, dst);
    else
        for (int64_t r = row0; r < row0 + n; r++)
            qp_decode(w->tensor.dtype, data + (size_t)qp_gguf_row(w->rotated_head_dim, w->parted_head_dim, w->pub.rows, r) * row_bytes, w->pub.cols, dst + (r - row0) * w->pub.cols);
    for (int64_t i = 0; w->minus_one && i < n * w->pub.cols; i++)
        dst[i] -= 1;
    return 0;
}
