/* Linear layers in GPTQ's layout (AutoGPTQ, GPTQModel): checks, zero points of both versions, decoding. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "model/internal.h"

/* Field i of a stream of b-bit fields that runs down the words p[0], p[step], p[2*step], ... */
static uint32_t field(const int32_t *p, int64_t step, int64_t i, int bits)
{
    int64_t bit = i * bits, word = bit / 32;
    int at = (int)(bit % 32);
    uint64_t v = (uint32_t)p[word * step];
    if (at + bits > 32)
        v |= (uint64_t)(uint32_t)p[(word + 1) * step] << 32;
    return (uint32_t)(v >> at) & ((1u << bits) - 1);
}

static uint32_t ones(int bits)
{
    return bits == 2 ? 0x55555555u : bits == 4 ? 0x11111111u : bits == 8 ? 0x01010101u : 0;
}

/* Version 1 stores zero - 1. Writers subtract the constant from whole words, so a field may have borrowed from its neighbour: adding it back
 * to the whole word undoes that. */
static void unpack_zeros(struct qp_gptq_store *s, const struct qp_gptq_tensors *t)
{
    int64_t words = t->rows * t->bits / 32;
    for (int64_t g = 0; g < t->n_groups; g++)
        for (int64_t o = 0; o < t->rows; o++) {
            const int32_t *row = t->qzeros + g * words;
            uint32_t mask = (1u << t->bits) - 1, z;
            if (t->zero_minus_one && ones(t->bits)) {
                int64_t bit = o * t->bits;
                z = (((uint32_t)row[bit / 32] + ones(t->bits)) >> (bit % 32)) & mask;
            } else
                z = (field(row, 1, o, t->bits) + (t->zero_minus_one ? 1u : 0u)) & mask;
            s->zeros[g * t->rows + o] = (uint8_t)z;
        }
}

static int check(const char *name, const struct qp_gptq_tensors *t, struct qp_err *err)
{
    if (t->bits != 2 && t->bits != 3 && t->bits != 4 && t->bits != 8)
        return qp_err_set(err, QP_E_INPUT, "'%s': %d bits, expected 2, 3, 4 or 8", name, t->bits);
    if (t->rows * t->bits % 32 || t->cols * t->bits % 32)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld x %lld does not pack into words of 32 bits", name, (long long)t->rows, (long long)t->cols);
    if (t->n_groups < 1 || t->n_groups > t->cols)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld groups for %lld inputs", name, (long long)t->n_groups, (long long)t->cols);
    for (int64_t i = 0; i < t->cols; i++)
        if (t->g_idx[i] < 0 || t->g_idx[i] >= t->n_groups)
            return qp_err_set(err, QP_E_INPUT, "'%s': g_idx of input %lld is %d, expected 0 to %lld", name, (long long)i, t->g_idx[i], (long long)t->n_groups - 1);
    for (int64_t i = 0; i < t->n_groups * t->rows; i++)
        if ((t->scales[i] & 0x7c00u) == 0x7c00u)
            return qp_err_set(err, QP_E_INPUT, "'%s': scale %lld is not finite", name, (long long)i);
    return 0;
}

int qp_gptq_store_new(struct qp_gptq_store **out, const char *name, const struct qp_gptq_tensors *t, bool copy, struct qp_err *err)
{
    *out = NULL;
    if (check(name, t, err))
        return err->code;
    struct qp_gptq_store *s = qp_zalloc(sizeof *s, name, err);
    size_t qw = (size_t)(t->cols * t->bits / 32 * t->rows) * 4, sc = (size_t)(t->n_groups * t->rows) * 2, gi = (size_t)t->cols * 4;
    if (!s || !(s->zeros = qp_alloc((size_t)(t->n_groups * t->rows), name, err)) || (copy && !(s->owned = qp_alloc(qw + gi + sc, name, err)))) {
        qp_gptq_store_free(s);
        return QP_E_RESOURCE;
    }
    s->bits = t->bits;
    s->n_groups = t->n_groups;
    s->group_size = t->group_size > 0 ? t->group_size : t->cols;
    s->ordered = true;
    for (int64_t i = 0; i < t->cols; i++)
        s->ordered = s->ordered && t->g_idx[i] == i / s->group_size;
    s->qweight = t->qweight;
    s->g_idx = t->g_idx;
    s->scales = t->scales;
    if (copy) {
        char *p = s->owned;
        s->qweight = memcpy(p, t->qweight, qw);
        s->g_idx = memcpy(p + qw, t->g_idx, gi);
        s->scales = memcpy(p + qw + gi, t->scales, sc);
    }
    unpack_zeros(s, t);
    *out = s;
    return 0;
}

void qp_gptq_store_free(struct qp_gptq_store *s)
{
    if (!s)
        return;
    qp_free(s->zeros);
    qp_free(s->owned);
    qp_free(s);
}

void qp_gptq_codes(const struct qp_gptq_store *s, struct qp_codes *out)
{
    *out = (struct qp_codes){.kind = QP_CODES_INT, .bits = s->bits, .group_size = s->group_size, .n_groups = s->n_groups, .g_idx = s->ordered ? NULL : s->g_idx};
}

void qp_gptq_read_codes(const struct qp_weight_impl *w, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    const struct qp_gptq_store *s = w->gptq;
    int64_t out = w->pub.rows, in = w->pub.cols;
    for (int64_t o = row0; o < row0 + n; o++) {
        for (int64_t i = 0; codes && i < in; i++)
            codes[(o - row0) * in + i] = (uint8_t)field(s->qweight + o, out, i, s->bits);
        for (int64_t g = 0; g < s->n_groups; g++) {
            scales[(o - row0) * s->n_groups + g] = qp_f16_to_f32(s->scales[g * out + o]);
            zeros[(o - row0) * s->n_groups + g] = (float)s->zeros[g * out + o];
        }
    }
}

void qp_gptq_read_rows(const struct qp_weight_impl *w, int64_t row0, int64_t n, float *dst)
{
    const struct qp_gptq_store *s = w->gptq;
    int64_t out = w->pub.rows, in = w->pub.cols;
    for (int64_t o = row0; o < row0 + n; o++)
        for (int64_t i = 0; i < in; i++) {
            int64_t at = s->g_idx[i] * out + o;
            dst[(o - row0) * in + i] = qp_f16_to_f32(s->scales[at]) * (float)((int)field(s->qweight + o, out, i, s->bits) - (int)s->zeros[at]);
        }
}

int64_t qp_gptq_bits(const struct qp_weight_impl *w)
{
    return w->pub.rows * w->pub.cols * w->gptq->bits + w->gptq->n_groups * w->pub.rows * (16 + w->gptq->bits);
}
