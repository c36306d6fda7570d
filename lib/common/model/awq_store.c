/* Linear layers in AWQ's "gemm" layout (AutoAWQ), 4 bits, R = in / group:
 *   qweight i32 [in, out/8]   eight outputs to a word
 *   qzeros  i32 [R, out/8]    likewise
 *   scales  f16 [R, out]
 * Within a word the outputs lie in the order 0 2 4 6 1 3 5 7 from the lowest bits up, as AWQ's CUDA kernel unpacks them. w = scale * (code - zero). */
#include "model/store.h"

enum { QWEIGHT, QZEROS, SCALES };

static const int shift_of[8] = {0, 16, 4, 20, 8, 24, 12, 28}; /* where output i of eight lies */

static uint32_t nibble(const struct qp_tensor *t, int64_t row, int64_t out, int64_t o)
{
    return qp_store_word(t->data, row * (out / 8) + o / 8) >> shift_of[o % 8] & 15;
}

static int open_layer(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    int64_t size = c->group_size > 0 ? c->group_size : s->cols;
    if (s->rows % 8 || s->cols % size)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld x %lld weights are none that AWQ holds: outputs by 8, inputs by groups of %lld", name, (long long)s->rows, (long long)s->cols,
                          (long long)size);
    s->bits = 4;
    s->group_size = size;
    s->n_groups = s->cols / size;
    s->stored_bits = s->rows * s->cols * 4 + s->n_groups * s->rows * 20;
    if (qp_store_check(s, name, QWEIGHT, QP_DT_I32, s->cols, s->rows / 8, err) || qp_store_check(s, name, QZEROS, QP_DT_I32, s->n_groups, s->rows / 8, err) ||
        qp_store_check(s, name, SCALES, QP_DT_F16, s->n_groups, s->rows, err))
        return err->code;
    return qp_store_check_scales(s, name, SCALES, err);
}

static void read_codes(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    for (int64_t i = 0; codes && i < s->cols; i++)
        for (int64_t r = 0; r < n; r++)
            codes[r * s->cols + i] = (uint8_t)nibble(&s->part[QWEIGHT], i, s->rows, row0 + r);
    for (int64_t g = 0; g < s->n_groups; g++)
        for (int64_t r = 0; r < n; r++) {
            scales[r * s->n_groups + g] = qp_store_number(&s->part[SCALES], g * s->rows + row0 + r);
            zeros[r * s->n_groups + g] = (float)nibble(&s->part[QZEROS], g, s->rows, row0 + r);
        }
}

const struct qp_store_kind qp_store_awq = {.name = "AWQ", .method = QP_QUANT_AWQ, .parts = {"qweight", "qzeros", "scales"}, .needed = 7, .open = open_layer,
                                           .read_codes = read_codes};
