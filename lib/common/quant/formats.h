/* Number formats of quantized weights: a table with what each does, and one quantized weight of any of them.
 *
 *   int      integer grids with scales and zero points by group of inputs (quant/qlinear.h): what GPTQ and AWQ search
 *   nf4 fp4  4-bit table values times the greatest magnitude of a block of the flattened matrix (Dettmers et al. 2023), bit for bit as bitsandbytes
 *            has them; double_quant: these magnitudes are kept in 8 bits themselves, less their mean, in blocks of 256
 *   int8     rows of integers, w = code * absmax / 127 (Dettmers et al. 2022), of weights rounded to float16 first, as bitsandbytes has them
 *   fp8      e4m3 or e5m2 times a scale for the tensor, each row, or each block of rows x columns
 *   f16 bf16 kept, rounded
 *
 *     struct qp_format f = {.id = QP_FMT_NF4, .block_size = 64};
 *     qp_qweight_quantize(&q, &f, w, rows, cols, &ex, &err);  qp_qweight_decode(&q, w);  qp_qweight_release(&q);
 */
#ifndef QP_QUANT_FORMATS_H
#define QP_QUANT_FORMATS_H

#include "backend/ops.h"
#include "quant/qlinear.h"

enum qp_format_id { QP_FMT_INT, QP_FMT_NF4, QP_FMT_FP4, QP_FMT_INT8, QP_FMT_E4M3, QP_FMT_E5M2, QP_FMT_F16, QP_FMT_BF16, QP_FMT_COUNT };

struct qp_format {          /* what a weight shall become */
    enum qp_format_id id;
    struct qp_grid grid;    /* INT */
    bool permuted;          /* INT: groups follow an activation order (g_idx) instead of being neighbours */
    int64_t block_size;     /* NF4, FP4: 32, 64, ... 4096 */
    bool double_quant;      /* NF4, FP4 */
    int64_t block_rows, block_cols; /* E4M3, E5M2: weights that share a scale; 0: all rows, all columns. {0, 0} the tensor, {1, 0} a row */
    double outlier_threshold; /* INT8: at run time, inputs with |x| at or above it are multiplied in 16 bit; 0: weights alone are quantized */
};

/* A quantized weight. INT has all of it in ints. */
struct qp_qweight {
    struct qp_format format;
    int64_t rows, cols;
    struct qp_qlinear ints;
    uint8_t *codes;         /* [rows, cols] of nf4, fp4, fp8; int8 as two's complement */
    uint16_t *halves;       /* [rows, cols] of f16, bf16 */
    float *scales;          /* [n_scales]: greatest magnitudes of blocks (as decoding finds them), of rows (int8); fp8 scales [row blocks, column blocks] */
    int64_t n_scales;
    uint8_t *scale_codes;   /* double_quant: [n_scales], in the signed dynamic map (model/codebook.h) */
    float *nested;          /* [n_nested]: greatest magnitude of each 256 of them */
    int64_t n_nested;
    float offset;           /* their mean */
};

struct qp_format_traits {
    const char *name;
    /* Fills codes and scales; allocated and released by the callers below. w [rows, cols] float32, finite. */
    int (*quantize)(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err);
    void (*decode)(const struct qp_qweight *q, float *w);
    /* Bits a weight, scales and all. */
    double (*bpw)(const struct qp_format *f, int64_t rows, int64_t cols);
};
extern const struct qp_format_traits qp_format_traits[QP_FMT_COUNT];

/* Each weight by itself, as the format rounds: int to the nearest on the group's own grid. q is initialized here. */
int qp_qweight_quantize(struct qp_qweight *q, const struct qp_format *f, const float *w, int64_t rows, int64_t cols, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* Takes what a method searched. */
void qp_qweight_take_ints(struct qp_qweight *q, struct qp_qlinear *ints);
/* Whether a weight of it stays in 16 bits: is rounded to them, and no more. */
static inline bool qp_format_keeps(const struct qp_format *f)
{
    return f->id == QP_FMT_F16 || f->id == QP_FMT_BF16;
}
void qp_qweight_decode(const struct qp_qweight *q, float *w);
void qp_qweight_release(struct qp_qweight *q);
double qp_format_bpw(const struct qp_format *f, int64_t rows, int64_t cols);
/* For records: bits of a code, and weights that share a scale (-1: a row, or more). */
int qp_format_bits(const struct qp_format *f);
int64_t qp_format_group(const struct qp_format *f);
/* "nf4", "int8", "w4g64" (asymmetric: "w4g64-asym"), "wrow" groups: "w8row"; as ids and records have it. */
void qp_format_name(const struct qp_format *f, char out[32]);
/* The reverse: those names, and fp16 for f16, fp8 for e4m3 by row. Blocks of nf4 and fp4 are 64 unless a number follows ("nf4-128"). */
int qp_format_parse(struct qp_format *f, const char *text, struct qp_err *err) QP_MUST_USE;

#endif
