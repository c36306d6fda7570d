/* Linear layers as bitsandbytes saves them.
 *
 * 4 bits (nf4, fp4): the matrix is flattened by rows and cut into blocks, which run across the ends of rows; a block has one scale, its greatest magnitude.
 *   weight             u8 [ceil(out*in/2), 1]  even elements in the high nibble (other types are the same bytes)
 *   weight.absmax      f32 [blocks], or u8: codes of the nested quantization
 *   weight.quant_map   f32 [16]                what a nibble stands for
 *   weight.nested_absmax f32 [ceil(blocks/256)], weight.nested_quant_map f32 [256]: absmax = map[code] * nested_absmax + offset
 *   weight.quant_state.bitsandbytes__nf4 (__fp4)  u8 [n]: JSON with blocksize, shape, nested_offset, ...
 * 8 bits (LLM.int8()): weight i8 [out, in], SCB f32 [out] the rows' greatest magnitudes, weight_format u8 (0: by row). w = code * SCB / 127. */
#include <jansson.h>
#include <math.h>

#include "base/mem.h"
#include "model/store.h"

enum { NF4_STATE, FP4_STATE, WEIGHT, ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP };

static bool is_bnb4(const struct qp_store *s)
{
    return s->part[NF4_STATE].data || s->part[FP4_STATE].data;
}

static const char *missing(const struct qp_store *s)
{
    if (s->part[ABSMAX].dtype != QP_DT_U8)
        return NULL;
    return !s->part[NESTED_ABSMAX].data ? "weight.nested_absmax" : !s->part[NESTED_MAP].data ? "weight.nested_quant_map" : NULL;
}

static int read_state(struct qp_store *s, const char *name, struct qp_err *err)
{
    const struct qp_tensor *t = s->part[NF4_STATE].data ? &s->part[NF4_STATE] : &s->part[FP4_STATE];
    json_t *o = t->dtype == QP_DT_U8 ? json_loadb(t->data, t->bytes, 0, NULL) : NULL, *shape = json_object_get(o, "shape"), *offset = json_object_get(o, "nested_offset");
    int r = 0;
    s->block = json_integer_value(json_object_get(o, "blocksize"));
    s->nested_block = json_integer_value(json_object_get(o, "nested_blocksize"));
    s->offset = (float)json_number_value(offset);
    if (!json_is_object(o))
        r = qp_err_set(err, QP_E_INPUT, "'%s': its quant_state is no JSON object", name);
    else if (s->block < 1 || s->block > 1 << 20)
        r = qp_err_set(err, QP_E_INPUT, "'%s': its quant_state says a blocksize of %lld", name, (long long)s->block);
    else if (json_array_size(shape) != 2 || json_integer_value(json_array_get(shape, 0)) != s->rows || json_integer_value(json_array_get(shape, 1)) != s->cols)
        r = qp_err_set(err, QP_E_INPUT, "'%s': its quant_state says another shape than %lld x %lld", name, (long long)s->rows, (long long)s->cols);
    else if (s->part[ABSMAX].dtype == QP_DT_U8 && (s->nested_block < 1 || s->nested_block > 1 << 20 || !json_is_number(offset) || !isfinite(s->offset)))
        r = qp_err_set(err, QP_E_INPUT, "'%s': its quant_state lacks nested_blocksize or nested_offset, which an absmax of 8-bit codes needs", name);
    json_decref(o);
    return r;
}

static int read_maps(struct qp_store *s, const char *name, struct qp_err *err)
{
    bool nested = s->part[ABSMAX].dtype == QP_DT_U8;
    int r = qp_store_check(s, name, MAP, QP_DT_F32, 16, -1, err);
    r = r || !nested ? r : qp_store_check(s, name, NESTED_MAP, QP_DT_F32, 256, -1, err);
    r = r ? r : qp_store_check_scales(s, name, MAP, err);
    r = r || !nested ? r : qp_store_check_scales(s, name, NESTED_MAP, err);
    if (!r && !(s->values = qp_alloc_n(16 + 256, sizeof *s->values, name, err)))
        r = QP_E_RESOURCE;
    for (int i = 0; i < 16 + (nested ? 256 : 0) && !r; i++)
        s->values[i] = i < 16 ? qp_store_number(&s->part[MAP], i) : qp_store_number(&s->part[NESTED_MAP], i - 16);
    return r;
}

static int open_bnb4(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    if (c->bits == 8)
        return qp_err_set(err, QP_E_INPUT, "'%s' is stored in 4 bits, which contradicts quantization_config: load_in_8bit", name);
    if (read_state(s, name, err) || read_maps(s, name, err))
        return err->code;
    int64_t n = s->rows * s->cols, blocks = (n + s->block - 1) / s->block;
    bool nested = s->part[ABSMAX].dtype == QP_DT_U8;
    if (s->part[WEIGHT].bytes != (size_t)((n + 1) / 2))
        return qp_err_set(err, QP_E_INPUT, "'%s' has %zu bytes, expected %lld for %lld x %lld weights of 4 bits", name, s->part[WEIGHT].bytes, (long long)(n + 1) / 2,
                          (long long)s->rows, (long long)s->cols);
    int r = qp_store_check(s, name, ABSMAX, nested ? QP_DT_U8 : QP_DT_F32, blocks, -1, err);
    r = r || !nested ? r : qp_store_check(s, name, NESTED_ABSMAX, QP_DT_F32, (blocks + s->nested_block - 1) / s->nested_block, -1, err);
    r = r ? r : qp_store_check_scales(s, name, nested ? NESTED_ABSMAX : ABSMAX, err);
    s->bits = 4;
    s->table = s->values;
    s->by_row = s->cols % s->block == 0 || s->block % s->cols == 0;
    s->group_size = s->cols % s->block ? s->cols : s->block;
    s->n_groups = s->cols / s->group_size;
    s->stored_bits = n * 4 + (int64_t)(s->part[ABSMAX].bytes + s->part[NESTED_ABSMAX].bytes) * 8;
    return r;
}

static float absmax(const struct qp_store *s, int64_t block)
{
    if (s->part[ABSMAX].dtype == QP_DT_F32)
        return qp_store_number(&s->part[ABSMAX], block);
    return s->values[16 + ((const uint8_t *)s->part[ABSMAX].data)[block]] * qp_store_number(&s->part[NESTED_ABSMAX], block / s->nested_block) + s->offset;
}

static int nibble(const struct qp_store *s, int64_t i)
{
    int byte = ((const uint8_t *)s->part[WEIGHT].data)[i / 2];
    return i % 2 ? byte & 15 : byte >> 4;
}

static void read_codes4(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    (void)zeros;
    for (int64_t i = 0; codes && i < n * s->cols; i++)
        codes[i] = (uint8_t)nibble(s, row0 * s->cols + i);
    for (int64_t i = 0; i < n * s->n_groups; i++)
        scales[i] = absmax(s, (row0 * s->cols + i * s->group_size) / s->block);
}

/* Blocks that straddle rows. */
static void read_rows4(const struct qp_store *s, int64_t row0, int64_t n, float *dst)
{
    float scale = 0;
    for (int64_t i = 0, at = row0 * s->cols; i < n * s->cols; i++, at++) {
        if (i == 0 || at % s->block == 0)
            scale = absmax(s, at / s->block);
        dst[i] = s->table[nibble(s, at)] * scale;
    }
}

const struct qp_store_kind qp_store_bnb4 = {
    .name = "bitsandbytes' 4 bits", .method = QP_QUANT_BNB, .needed = 1u << WEIGHT | 1u << ABSMAX | 1u << MAP, .is = is_bnb4, .missing = missing, .open = open_bnb4,
    .parts = {"weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4", "weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax",
              "weight.nested_quant_map"},
    .read_codes = read_codes4, .read_rows = read_rows4};

/* ---- 8 bits ---- */

enum { SCB, WEIGHT8 };

static int open_bnb8(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err)
{
    if (c->bits == 4)
        return qp_err_set(err, QP_E_INPUT, "'%s' is stored in 8 bits, which contradicts quantization_config: load_in_4bit", name);
    s->bits = 8;
    s->group_size = s->cols;
    s->n_groups = 1;
    s->outlier_threshold = c->outlier_threshold;
    s->stored_bits = s->rows * (s->cols * 8 + 32);
    if (qp_store_check(s, name, WEIGHT8, QP_DT_I8, s->rows, s->cols, err) || qp_store_check(s, name, SCB, QP_DT_F32, s->rows, -1, err))
        return err->code;
    return qp_store_check_scales(s, name, SCB, err);
}

/* Integers from -127 to 127 as codes around 128. */
static void read_codes8(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros)
{
    const int8_t *w = (const int8_t *)s->part[WEIGHT8].data + row0 * s->cols;
    for (int64_t i = 0; codes && i < n * s->cols; i++)
        codes[i] = (uint8_t)(w[i] + 128);
    for (int64_t r = 0; r < n; r++) {
        scales[r] = qp_store_number(&s->part[SCB], row0 + r) / 127.f;
        zeros[r] = 128;
    }
}

const struct qp_store_kind qp_store_bnb8 = {.name = "bitsandbytes' 8 bits", .method = QP_QUANT_BNB, .parts = {"SCB", "weight", "weight_format"}, .needed = 3, .awaited = 4, .open = open_bnb8,
                                            .read_codes = read_codes8};
