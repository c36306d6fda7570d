#include "quant/pack.h"

#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "model/codebook.h"
#include "quant/blockwise.h"

#define STATE_BYTES 256 /* bitsandbytes' JSON, padded with spaces: its size is known before its numbers are */

/* ---- a list of parts, then their memory ---- */

/* ndim 0: a scalar; 1: [a]; 2: [a, b] */
static void add(struct qp_parts *p, const char *name, enum qp_dtype dtype, int ndim, int64_t a, int64_t b)
{
    p->v[p->n++] = (struct qp_tensor){.name = name, .dtype = dtype, .ndim = ndim, .shape = {ndim > 0 ? a : 0, ndim > 1 ? b : 0},
                                      .bytes = (size_t)((ndim > 0 ? a : 1) * (ndim > 1 ? b : 1)) * (size_t)qp_dtype_info[dtype].block_bytes};
}

static int allocate(struct qp_parts *p, struct qp_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < p->n; i++)
        bytes += (p->v[i].bytes + 63) / 64 * 64;
    if (!(p->block = qp_zalloc(bytes, "packed weights", err)))
        return QP_E_RESOURCE;
    char *at = p->block;
    for (size_t i = 0; i < p->n; i++) {
        p->v[i].data = at;
        at += (p->v[i].bytes + 63) / 64 * 64;
    }
    return 0;
}

static void *data(struct qp_parts *p, size_t i)
{
    return (void *)(uintptr_t)p->v[i].data;
}

void qp_parts_release(struct qp_parts *p)
{
    qp_free(p->block);
    *p = (struct qp_parts){0};
}

/* Puts a b-bit field i into a stream of fields that runs along p[0], p[step], ... */
static void put_field(int32_t *p, int64_t step, int64_t i, int bits, uint32_t v)
{
    int64_t bit = i * bits, word = bit / 32;
    int at = (int)(bit % 32);
    p[word * step] = (int32_t)((uint32_t)p[word * step] | v << at);
    if (at + bits > 32)
        p[(word + 1) * step] = (int32_t)((uint32_t)p[(word + 1) * step] | v >> (32 - at));
}

static int no_such(const struct qp_format *f, const char *holds, struct qp_err *err)
{
    char name[32];
    qp_format_name(f, name);
    return qp_err_set(err, QP_E_INPUT, "weights of format %s: %s", name, holds);
}

/* ---- GPTQ ---- */

static int pack_gptq(bool v1, const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    int bits = f->grid.bits;
    int64_t groups = qp_grid_groups(&f->grid, cols), zero_words = rows * bits / 32;
    if (f->id != QP_FMT_INT)
        return no_such(f, "GPTQ tensors hold integer grids", err);
    if (cols * bits % 32 || rows * bits % 32)
        return qp_err_set(err, QP_E_INPUT, "a layer of %lld x %lld weights does not pack into words of 32 bits at %d bits", (long long)rows, (long long)cols, bits);
    add(out, "qweight", QP_DT_I32, 2, cols * bits / 32, rows);
    add(out, "qzeros", QP_DT_I32, 2, groups, zero_words);
    add(out, "scales", QP_DT_F16, 2, groups, rows);
    add(out, "g_idx", QP_DT_I32, 1, cols, 0);
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    const struct qp_qlinear *q = &w->ints;
    int32_t *qweight = data(out, 0), *qzeros = data(out, 1);
    uint16_t *scales = data(out, 2);
    for (int64_t o = 0; o < rows; o++) {
        for (int64_t i = 0; i < cols; i++)
            put_field(qweight + o, rows, i, bits, q->codes[o * cols + i]);
        for (int64_t g = 0; g < groups; g++) {
            scales[g * rows + o] = qp_f32_to_f16(q->scales[o * groups + g]);
            uint32_t zero = (uint32_t)q->zeros[o * groups + g] - (v1 ? 1u : 0u);
            put_field(qzeros + g * zero_words, 1, o, bits, zero & ((1u << bits) - 1));
        }
    }
    memcpy(data(out, 3), q->g_idx, (size_t)cols * 4);
    return 0;
}

/* ---- AWQ ---- */

static int pack_awq(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    static const int shift_of[8] = {0, 16, 4, 20, 8, 24, 12, 28}; /* where output i of eight lies */
    int64_t size = f->grid.group_size ? f->grid.group_size : cols, groups = cols / size;
    if (f->id != QP_FMT_INT || f->grid.bits != 4)
        return no_such(f, "AWQ tensors hold integer grids of 4 bits", err);
    if (f->permuted)
        return no_such(f, "AWQ tensors hold groups of neighbouring inputs only", err);
    if (rows % 8 || cols % size)
        return qp_err_set(err, QP_E_INPUT, "a layer of %lld x %lld weights in groups of %lld is none that AWQ tensors hold: outputs by 8, inputs by whole groups", (long long)rows,
                          (long long)cols, (long long)size);
    add(out, "qweight", QP_DT_I32, 2, cols, rows / 8);
    add(out, "qzeros", QP_DT_I32, 2, groups, rows / 8);
    add(out, "scales", QP_DT_F16, 2, groups, rows);
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    uint32_t *qweight = data(out, 0), *qzeros = data(out, 1);
    uint16_t *scales = data(out, 2);
    for (int64_t o = 0; o < rows; o++) {
        for (int64_t i = 0; i < cols; i++)
            qweight[i * (rows / 8) + o / 8] |= (uint32_t)w->ints.codes[o * cols + i] << shift_of[o % 8];
        for (int64_t g = 0; g < groups; g++) {
            qzeros[g * (rows / 8) + o / 8] |= (uint32_t)w->ints.zeros[o * groups + g] << shift_of[o % 8];
            scales[g * rows + o] = qp_f32_to_f16(w->ints.scales[o * groups + g]);
        }
    }
    return 0;
}

/* ---- bitsandbytes ---- */

static void write_state(char *to, const struct qp_qweight *w)
{
    int n = snprintf(to, STATE_BYTES, "{\"quant_type\": \"%s\", \"blocksize\": %lld, \"dtype\": \"float16\", \"shape\": [%lld, %lld]", qp_format_traits[w->format.id].name,
                     (long long)w->format.block_size, (long long)w->rows, (long long)w->cols);
    if (w->format.double_quant)
        n += snprintf(to + n, STATE_BYTES - (size_t)n, ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": %.17g", QP_NESTED_BLOCK, (double)w->offset);
    n += snprintf(to + n, STATE_BYTES - (size_t)n, "}");
    memset(to + n, ' ', STATE_BYTES - (size_t)n);
}

static void fill_bnb4(struct qp_parts *out, const struct qp_qweight *w)
{
    uint8_t *bytes = data(out, 0);
    for (int64_t i = 0; i < w->rows * w->cols; i++)
        bytes[i / 2] |= (uint8_t)(i % 2 ? w->codes[i] : w->codes[i] << 4);
    memcpy(data(out, 2), w->format.id == QP_FMT_NF4 ? qp_nf4 : qp_fp4, 16 * sizeof(float));
    if (w->format.double_quant) {
        memcpy(data(out, 1), w->scale_codes, (size_t)w->n_scales);
        memcpy(data(out, 3), w->nested, (size_t)w->n_nested * sizeof(float));
        qp_dynamic_map(data(out, 4));
    } else
        memcpy(data(out, 1), w->scales, (size_t)w->n_scales * sizeof(float));
    write_state(data(out, out->n - 1), w);
}

static int pack_bnb(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    bool four = f->id == QP_FMT_NF4 || f->id == QP_FMT_FP4;
    if (!four && f->id != QP_FMT_INT8)
        return no_such(f, "bitsandbytes' tensors hold nf4, fp4 and int8", err);
    if (four) {
        int64_t blocks = (rows * cols + f->block_size - 1) / f->block_size;
        add(out, "weight", QP_DT_U8, 2, (rows * cols + 1) / 2, 1);
        add(out, "weight.absmax", f->double_quant ? QP_DT_U8 : QP_DT_F32, 1, blocks, 0);
        add(out, "weight.quant_map", QP_DT_F32, 1, 16, 0);
        if (f->double_quant) {
            add(out, "weight.nested_absmax", QP_DT_F32, 1, (blocks + QP_NESTED_BLOCK - 1) / QP_NESTED_BLOCK, 0);
            add(out, "weight.nested_quant_map", QP_DT_F32, 1, 256, 0);
        }
        add(out, f->id == QP_FMT_NF4 ? "weight.quant_state.bitsandbytes__nf4" : "weight.quant_state.bitsandbytes__fp4", QP_DT_U8, 1, STATE_BYTES, 0);
    } else {
        add(out, "weight", QP_DT_I8, 2, rows, cols);
        add(out, "SCB", QP_DT_F32, 1, rows, 0);
        add(out, "weight_format", QP_DT_U8, 0, 0, 0); /* 0: by row */
    }
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    if (four)
        fill_bnb4(out, w);
    else {
        memcpy(data(out, 0), w->codes, (size_t)(rows * cols));
        memcpy(data(out, 1), w->scales, (size_t)rows * sizeof(float));
    }
    return 0;
}

/* ---- compressed-tensors ---- */

static int pack_ct_ints(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    int bits = f->grid.bits;
    int64_t groups = qp_grid_groups(&f->grid, cols), words = (cols * bits + 31) / 32;
    if (f->grid.group_size && cols % f->grid.group_size)
        return qp_err_set(err, QP_E_INPUT, "%lld inputs do not divide into groups of %lld, which compressed-tensors needs", (long long)cols, (long long)f->grid.group_size);
    add(out, "weight_packed", QP_DT_I32, 2, rows, words);
    add(out, "weight_scale", QP_DT_F16, 2, rows, groups);
    add(out, "weight_shape", QP_DT_I64, 1, 2, 0);
    if (!f->grid.sym)
        add(out, "weight_zero_point", QP_DT_I32, 2, (rows * bits + 31) / 32, groups);
    if (f->permuted)
        add(out, "weight_g_idx", QP_DT_I32, 1, cols, 0);
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    int32_t *packed = data(out, 0);
    uint16_t *scales = data(out, 1);
    for (int64_t o = 0; o < rows; o++) {
        for (int64_t i = 0; i < cols; i++)
            put_field(packed + o * words, 1, i, bits, w->ints.codes[o * cols + i]);
        for (int64_t g = 0; g < groups; g++) {
            scales[o * groups + g] = qp_f32_to_f16(w->ints.scales[o * groups + g]);
            if (!f->grid.sym)
                put_field((int32_t *)data(out, 3) + g, groups, o, bits, w->ints.zeros[o * groups + g]);
        }
    }
    memcpy(data(out, 2), (const int64_t[]){rows, cols}, 16);
    if (f->permuted)
        memcpy(data(out, out->n - 1), w->ints.g_idx, (size_t)cols * 4);
    return 0;
}

static int pack_ct_bytes(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    int64_t a = f->id == QP_FMT_INT8 ? 1 : f->block_rows ? f->block_rows : rows, b = f->id == QP_FMT_INT8 || !f->block_cols ? cols : f->block_cols;
    int64_t down = (rows + a - 1) / a, across = (cols + b - 1) / b;
    bool whole = down * across == 1;
    add(out, "weight", f->id == QP_FMT_INT8 ? QP_DT_I8 : f->id == QP_FMT_E4M3 ? QP_DT_F8_E4M3 : QP_DT_F8_E5M2, 2, rows, cols);
    add(out, "weight_scale", QP_DT_F32, whole && rows > 1 ? 1 : 2, down, across);
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    memcpy(data(out, 0), w->codes, (size_t)(rows * cols));
    float *scales = data(out, 1);
    for (int64_t i = 0; i < w->n_scales; i++)
        scales[i] = f->id == QP_FMT_INT8 ? w->scales[i] / 127.f : w->scales[i];
    return 0;
}

static int pack_ct(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    if (f->id == QP_FMT_INT)
        return pack_ct_ints(f, rows, cols, w, out, err);
    if (f->id == QP_FMT_INT8 || f->id == QP_FMT_E4M3 || f->id == QP_FMT_E5M2)
        return pack_ct_bytes(f, rows, cols, w, out, err);
    return no_such(f, "compressed-tensors holds integer grids, int8 and fp8", err);
}

/* ---- GGUF ---- */

static int gguf_dtype(enum qp_dtype *dtype, const struct qp_format *f, int64_t cols, struct qp_err *err)
{
    const struct qp_grid *g = &f->grid;
    if (f->id != QP_FMT_INT || (g->bits != 4 && !(g->bits == 8 && g->sym)))
        return no_such(f, "GGUF blocks hold integer grids of 4 bits (symmetric: Q4_0, with zero points: Q4_1) and of 8 bits, symmetric (Q8_0)", err);
    if (f->permuted)
        return no_such(f, "GGUF blocks hold groups of neighbouring inputs only", err);
    if (g->group_size % QP_GRID_BLOCK)
        return no_such(f, "GGUF blocks hold 32 weights: groups of 32, 64, 96, ... are wanted", err);
    if (cols % QP_GRID_BLOCK)
        return qp_err_set(err, QP_E_INPUT, "%lld inputs do not divide into GGUF's blocks of 32", (long long)cols);
    *dtype = g->bits == 8 ? QP_DT_Q8_0 : g->sym ? QP_DT_Q4_0 : QP_DT_Q4_1;
    return 0;
}

/* The first half of a block lies in the low nibbles. */
static void fill_block(uint8_t *to, enum qp_dtype dtype, const uint8_t *codes, uint16_t scale, uint16_t minimum)
{
    memcpy(to, &scale, 2);
    to += 2;
    if (dtype == QP_DT_Q4_1) {
        memcpy(to, &minimum, 2);
        to += 2;
    }
    if (dtype == QP_DT_Q8_0)
        for (int i = 0; i < QP_GRID_BLOCK; i++)
            to[i] = (uint8_t)(codes[i] - 128);
    else
        for (int i = 0; i < QP_GRID_BLOCK / 2; i++)
            to[i] = (uint8_t)(codes[i] | codes[i + QP_GRID_BLOCK / 2] << 4);
}

static int pack_gguf(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    enum qp_dtype dtype = QP_DT_Q4_0;
    if (gguf_dtype(&dtype, f, cols, err))
        return err->code;
    int64_t bytes = qp_dtype_info[dtype].block_bytes, blocks = cols / QP_GRID_BLOCK;
    out->v[out->n++] = (struct qp_tensor){.name = "weight", .dtype = dtype, .ndim = 2, .shape = {rows, cols}, .bytes = (size_t)(rows * blocks * bytes)};
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    uint8_t *to = data(out, 0);
    for (int64_t o = 0; o < rows; o++)
        for (int64_t b = 0; b < blocks; b++, to += bytes) {
            int64_t g = o * w->ints.n_groups + w->ints.g_idx[b * QP_GRID_BLOCK];
            float scale = w->ints.scales[g], minimum = -scale * (float)w->ints.zeros[g];
            uint16_t half = qp_f32_to_f16(minimum);
            if (dtype == QP_DT_Q4_1 && qp_f16_to_f32(half) != minimum)
                return qp_err_set(err, QP_E_INTERNAL, "row %lld: %g times %d is no float16 value; Q4_1 takes grids with `blocks`", (long long)o, (double)scale, w->ints.zeros[g]);
            fill_block(to, dtype, w->ints.codes + o * cols + b * QP_GRID_BLOCK, qp_f32_to_f16(scale), half);
        }
    return 0;
}

/* ---- */

static int pack_halves(const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    add(out, "weight", f->id == QP_FMT_F16 ? QP_DT_F16 : QP_DT_BF16, 2, rows, cols);
    if (!w)
        return 0;
    if (allocate(out, err))
        return err->code;
    memcpy(data(out, 0), w->halves, out->v[0].bytes);
    return 0;
}

int qp_pack(enum qp_packing packing, const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *q, struct qp_parts *out, struct qp_err *err)
{
    struct qp_err local = {0};
    int r;
    err = err ? err : &local;
    *out = (struct qp_parts){0};
    if (qp_format_keeps(f))
        r = pack_halves(f, rows, cols, q, out, err);
    else if (packing == QP_PACK_AWQ)
        r = pack_awq(f, rows, cols, q, out, err);
    else if (packing == QP_PACK_BNB)
        r = pack_bnb(f, rows, cols, q, out, err);
    else if (packing == QP_PACK_CT)
        r = pack_ct(f, rows, cols, q, out, err);
    else if (packing == QP_PACK_GGUF)
        r = pack_gguf(f, rows, cols, q, out, err);
    else
        r = pack_gptq(packing == QP_PACK_GPTQ_V1, f, rows, cols, q, out, err);
    if (r)
        qp_parts_release(out);
    return r;
}

enum qp_packing qp_stream_packing(const struct qp_format *f)
{
    if (f->id == QP_FMT_NF4 || f->id == QP_FMT_FP4 || f->id == QP_FMT_INT8)
        return QP_PACK_BNB;
    return f->id == QP_FMT_E4M3 || f->id == QP_FMT_E5M2 ? QP_PACK_CT : QP_PACK_GPTQ_V2;
}
