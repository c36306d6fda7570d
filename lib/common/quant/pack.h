/* The tensors that a quantized weight becomes in a checkpoint or a stream: their names, types, shapes and bytes. Files are others' business.
 *
 *   GPTQ_V1, GPTQ_V2  int grids: qweight, qzeros (v1: less one), scales, g_idx (model/gptq_store.c has the layout)
 *   AWQ               int grids of 4 bits in order, groups that divide: qweight, qzeros, scales (model/awq_store.c)
 *   BNB               nf4, fp4: weight, weight.absmax, weight.quant_map, weight.nested_*, weight.quant_state.*; int8: weight, SCB (model/bnb_store.c)
 *   CT                compressed-tensors: int grids packed, int8 rows, fp8 (model/ct_store.c)
 *   GGUF              int grids in groups of whole blocks of 32: weight, of dtype q4_0 (4 bits, symmetric), q4_1 (4 bits, not symmetric: grids with `blocks`) or q8_0
 *                     (8 bits, symmetric); rows in the canonical order
 * f16 and bf16 are "weight" everywhere. */
#ifndef QP_QUANT_PACK_H
#define QP_QUANT_PACK_H

#include "quant/formats.h"

enum qp_packing { QP_PACK_GPTQ_V1, QP_PACK_GPTQ_V2, QP_PACK_AWQ, QP_PACK_BNB, QP_PACK_CT, QP_PACK_GGUF };

struct qp_parts {
    size_t n;
    struct qp_tensor v[QP_MAX_PARTS]; /* name: what stands in place of "weight" at the end of the weight's name */
    void *block;                      /* owns the data */
};

/* q NULL: names, types, shapes and sizes alone, known before the work; with q the same with data. QP_E_INPUT: the packing cannot hold such a weight.
 * Names are constants. Free with qp_parts_release. */
int qp_pack(enum qp_packing packing, const struct qp_format *f, int64_t rows, int64_t cols, const struct qp_qweight *q, struct qp_parts *out, struct qp_err *err) QP_MUST_USE;
void qp_parts_release(struct qp_parts *p);
/* The packing in which a stream carries a format. */
enum qp_packing qp_stream_packing(const struct qp_format *f);

#endif
