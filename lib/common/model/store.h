/* Quantized linear layers as files and streams hold them: a table of storages, each a handful of tensors in place of one weight. Private to model/.
 *
 * A storage is recognized by its tensors' names ("qweight", "weight.absmax", ...) and types; what they leave open comes from quantization_config
 * (struct qp_quant_config). All of them decode to codes with a scale and a zero point for each group, or table values with a scale (struct qp_codes), and
 * so do the kernels; only 4-bit blocks that straddle rows have no codes by row and are read as numbers. Data is borrowed, or copied for overlays. */
#ifndef QP_MODEL_STORE_H
#define QP_MODEL_STORE_H

#include <string.h>

#include "base/hash.h"
#include "model/config.h"
#include "model/model.h"

struct qp_store_kind;

struct qp_store {
    const struct qp_store_kind *kind;
    const char *name, *file;   /* for messages; borrowed. file NULL: not from one */
    int64_t rows, cols;
    int bits;
    int64_t group_size, n_groups;
    int32_t *order;            /* group of each input, owned; NULL: i / group_size */
    const float *table;        /* values of codes; NULL: integers with a zero point */
    unsigned nan_from;         /* codes whose low 7 bits reach it are NaN or infinite (8-bit floating point); 0: none are */
    bool by_row;               /* scales belong to one row and group: there are codes */
    double outlier_threshold;
    int64_t stored_bits;       /* codes, scales, zero points */
    struct qp_tensor part[QP_MAX_PARTS]; /* as kind->parts lists them; data NULL: absent */
    /* the storages' own */
    uint8_t *zeros;            /* GPTQ: [groups, out], owned */
    float *values;             /* bitsandbytes: the code book [16], then the absmax' one [256]; owned */
    int64_t block, nested_block;
    float offset;
    int field;                 /* compressed-tensors: bits as stored */
    bool padded;               /* ... and these do not straddle words */
    int64_t scale_rows;        /* rows that share their scales */
    void *owned;               /* copies of the tensors, or NULL */
};

struct qp_store_kind {
    const char *name;                     /* for messages: "GPTQ" */
    enum qp_quant_kind method;          /* whose checkpoints hold it */
    const char *parts[QP_MAX_PARTS];      /* what stands in place of "weight"; the rest NULL */
    unsigned needed;                      /* bit i: part i must be there */
    unsigned awaited;                     /* ... and so must these in a stream, where tensors come one by one */
    /* Whether these tensors are this storage's (NULL: the first part tells). */
    bool (*is)(const struct qp_store *s);
    /* Another part that these tensors need, or NULL. */
    const char *(*missing)(const struct qp_store *s);
    /* Checks shapes and contents, fills s. */
    int (*open)(struct qp_store *s, const char *name, const struct qp_quant_config *c, struct qp_err *err);
    /* Rows [row0, row0 + n). codes may be NULL. */
    void (*read_codes)(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros);
    /* NULL: from the codes */
    void (*read_rows)(const struct qp_store *s, int64_t row0, int64_t n, float *dst);
};
extern const struct qp_store_kind qp_store_gptq, qp_store_awq, qp_store_bnb4, qp_store_bnb8, qp_store_ct_pack, qp_store_ct_int, qp_store_float8;

/* The tensor that stands in place of "weight" under the layer's name, or NULL. */
typedef const struct qp_tensor *qp_part_fn(void *ctx, const char *part);

/* 1: *out is the layer `name`, which is borrowed; 0: no storage has tensors of these names. copy: the tensors are copied, else borrowed. */
int qp_store_open(struct qp_store **out, const char *name, int64_t rows, int64_t cols, qp_part_fn *find, void *ctx, const struct qp_quant_config *c, bool copy,
                  struct qp_err *err) QP_MUST_USE;
/* 1: the tensors make a layer; 0: some are still to come, or none belongs to a storage. */
int qp_store_is_whole(qp_part_fn *find, void *ctx);
void qp_store_codes(const struct qp_store *s, struct qp_codes *out);
/* Rows [row0, row0 + n), as qp_weight_read_codes. Codes that stand for no number are QP_E_INPUT. */
int qp_store_read_codes(const struct qp_store *s, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, struct qp_err *err) QP_MUST_USE;
void qp_store_hash(const struct qp_store *s, struct qp_xxh64 *h);

/* ---- for the storages ---- */
/* QP_E_INPUT unless part i has that dtype and shape (b < 0: one dimension, or a column). */
int qp_store_check(const struct qp_store *s, const char *name, int i, enum qp_dtype dtype, int64_t a, int64_t b, struct qp_err *err) QP_MUST_USE;
/* QP_E_INPUT unless part i holds finite floating-point numbers. */
int qp_store_check_scales(const struct qp_store *s, const char *name, int i, struct qp_err *err) QP_MUST_USE;
/* Number i of a tensor of f32, f16 or bf16. */
float qp_store_number(const struct qp_tensor *t, int64_t i);

/* Word i of a tensor, which may lie anywhere in a file. */
static inline uint32_t qp_store_word(const void *words, int64_t i)
{
    uint32_t w;
    memcpy(&w, (const char *)words + i * 4, 4);
    return w;
}
/* Field i of a stream of b-bit fields that runs down the words at, at + step, at + 2*step, ...; the lowest bits first. */
static inline uint32_t qp_store_field(const void *words, int64_t at, int64_t step, int64_t i, int bits)
{
    int64_t bit = i * bits, word = at + bit / 32 * step;
    int shift = (int)(bit % 32);
    uint64_t v = qp_store_word(words, word);
    if (shift + bits > 32)
        v |= (uint64_t)qp_store_word(words, word + step) << 32;
    return (uint32_t)(v >> shift) & ((1u << bits) - 1);
}

#endif
