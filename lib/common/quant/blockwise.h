/* 4-bit blocks (nf4, fp4) and their double quantization, in the arithmetic of bitsandbytes 0.50 on a CPU, so that codes, magnitudes and offsets are equal bit
 * for bit. The formats' entries in quant/formats.c. */
#ifndef QP_QUANT_BLOCKWISE_H
#define QP_QUANT_BLOCKWISE_H

#include "quant/formats.h"

#define QP_NESTED_BLOCK 256

int qp_blockwise_quantize(struct qp_qweight *q, const float *w, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
void qp_blockwise_decode(const struct qp_qweight *q, float *w);
double qp_blockwise_bpw(const struct qp_format *f, int64_t rows, int64_t cols);

/* The mean as torch.mean computes it for float32: 8 lanes of 4 sums, whose parts are added in a tree of 16 at a time. */
float qp_torch_mean(const float *x, int64_t n);

#endif
