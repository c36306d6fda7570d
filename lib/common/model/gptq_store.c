/* Linear layers in GPTQ's layout (AutoGPTQ, GPTQModel), R = ceil(in / group) groups:
 *   qweight i32 [in*bits/32, out]   inputs run down the words, 3 bits as one stream of bits
 *   qzeros  i32 [R, out*bits/32]    outputs run along the words; version 1 holds zero - 1, version 2 the zero
 *   scales  f16 [R, out]
 *   g_idx   i32 [in]                group of each input; files without an activation order may leave it out
 * w = scale * (code - zero). */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "model/store.h"

enum { QWEIGHT, QZEROS, SCALES, G_IDX };

static uint32_t ones(int bits)
{
    return bits == 2 ? 0x55555555u : bits == 4 ? 0x11111111u : bits == 8 ? 0x01010101u : 0;
}

/* Some files say version 1 but store the zeros themselves: a symmetric model's zeros, all 2^(b-1), give them away. */
static bool really_minus_one(const struct qp_store *s, const struct qp_quant_config *c)
{
    const struct qp_tensor *t = &s->part[QZEROS];
    if (!c->zero_minus_one || !c->sym || s->bits == 3)
        return c->zero_minus_one;
    for (size_t i = 0; i < t->bytes / 4; i++)
        if (qp_store_word(t->data, (int64_t)i) != ones(s->bits) << (s->bits - 1))
            return true;
    return false;
}

/* Version 1 stores zero - 1. Writers subtract the constant from whole words, so a field may have borrowed from its neighbour: adding it back
 * to the whole word undoes that. */
static void unpack_zeros(struct qp_store *s, bool minus_one)
{
    const void *data = s->part[QZEROS].data;
    int64_t words = s->rows * s->bits / 32;
    uint32_t mask = (1u << s->bits) - 1;
    for (int64_t g = 0; g < s->n_groups; g++)
        for (int64_t o = 0; o < s->rows; o++) {
            uint32_t z;
            if (minus_one && ones(s->bits)) {
                int64_t bit = o * s->bits;
                z = (qp_store_word(data, g * words + bit / 32) + ones(s->bits)) >> bit % 32;
            } else
                z = qp_store_field(data, g * words, 1, o, s->bits) + (minus_one ? 1u : 0u);
            s->zeros[g * s->rows + o] = (uint8_t)(z & mask);
        }
}

/* group_size as the tensors have it: the configuration's, unless a layer has its own. */
static void set_groups(struct qp_store *s, const struct qp_quant_config *c)
{
    int64_t size = c->group_size > 0 ? c->group_size : s->cols;
    s->n_groups = s->part[SCALES].ndim == 2 ? s->part[SCALES].shape[0] : 0;
    if (s->n_groups > 0 && (s->cols + size - 1) / size != s->n_groups) /* a shorter last group is possible where the size is known only */
        size = (s->cols + s->n_groups - 1) / s->n_groups;
    s->group_size = size;
}

static int read_order(struct qp_store *s, const char *name, struct qp_err *err)
{
    bool ordered = true;
    if (!(s->order = qp_alloc_n((size_t)s->cols, sizeof *s->order, name, err)))
        return QP_E_RESOURCE;
    memcpy(s->order, s->part[G_IDX].data, (size_t)s->cols * 4);
    for (int64_t i = 0; i < s->cols; i++) {
        if (s->order[i] < 0 || s->order[i] >= s->n_groups)
            return qp_err_set(err, QP_E_INPUT, "'%s': g_idx of input %lld is %d, expected 0 to %lld", name, (long long)i, s->order[i], (long long)s->n_groups - 1);
        ordered = ordered && s->order[i] == i / s->group_size;
    }
    if (ordered) {
        qp_free(s->order);
        s->order = NULL;
    }
    return 0;
}

static int open_layer(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    const struct qp_tensor *qw = &s->part[QWEIGHT];
    s->bits = qw->ndim == 2 && qw->shape[0] <= s->cols ? (int)(qw->shape[0] * 32 / s->cols) : 0;
    if (c->bits && c->bits != s->bits && !c->mixed)
        s->bits = (int)c->bits; /* the message says what was expected */
    if (s->bits != 2 && s->bits != 3 && s->bits != 4 && s->bits != 8)
        return qp_err_set(err, QP_E_INPUT, "'%s': %d bits, expected 2, 3, 4 or 8", name, s->bits);
    if (s->rows * s->bits % 32 || s->cols * s->bits % 32)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld x %lld does not pack into words of 32 bits", name, (long long)s->rows, (long long)s->cols);
    set_groups(s, c);
    if (s->n_groups < 1 || s->n_groups > s->cols)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld groups for %lld inputs", name, (long long)s->n_groups, (long long)s->cols);
    if (qp_store_check(s, name, QWEIGHT, QP_DT_I32, s->cols * s->bits / 32, s->rows, err) ||
        qp_store_check(s, name, QZEROS, QP_DT_I32, s->n_groups, s->rows * s->bits / 32, err) ||
        qp_store_check(s, name, SCALES, QP_DT_F16, s->n_groups, s->rows, err) || qp_store_check_scales(s, name, SCALES, err))
        return err->code;
    if (s->part[G_IDX].data && (qp_store_check(s, name, G_IDX, QP_DT_I32, s->cols, -1, err) || read_order(s, name, err)))
        return err->code;
    if (!(s->zeros = qp_alloc((size_t)(s->n_groups * s->rows), name, err)))
        return QP_E_RESOURCE;
    unpack_zeros(s, really_minus_one(s, c));
    s->stored_bits = s->rows * s->cols * s->bits + s->n_groups * s->rows * (16 + s->bits);
    return 0;
}


static void read_codes(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    for (int64_t i = 0; codes && i < s->cols; i++)
        for (int64_t r = 0; r < n; r++)
            codes[r * s->cols + i] = (uint8_t)qp_store_field(s->part[QWEIGHT].data, row0 + r, s->rows, i, s->bits);
    for (int64_t g = 0; g < s->n_groups; g++)
        for (int64_t r = 0; r < n; r++) {
            scales[r * s->n_groups + g] = qp_store_number(&s->part[SCALES], g * s->rows + row0 + r);
            zeros[r * s->n_groups + g] = (float)s->zeros[g * s->rows + row0 + r];
        }
}

const struct qp_store_kind qp_store_gptq = {.name = "GPTQ", .method = QP_QUANT_GPTQ, .parts = {"qweight", "qzeros", "scales", "g_idx"}, .needed = 7, .awaited = 8,
                                            .open = open_layer, .read_codes = read_codes};
