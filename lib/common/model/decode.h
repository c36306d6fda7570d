/* Decoding of stored numbers to float32: every dtype of base/tensor.h that a weight may have. Block formats are GGUF's (ggml-common.h): a block's
 * scale and minimum are float16; Q4_K and Q5_K pack eight 6-bit scales and minima in 12 bytes; Q6_K has sixteen int8 scales. */
#ifndef QP_MODEL_DECODE_H
#define QP_MODEL_DECODE_H

#include <stdbool.h>

#include "base/tensor.h"

/* True for dtypes that qp_decode knows. */
bool qp_decodes(enum qp_dtype dtype);
/* n elements from src, n a multiple of the block's elements. src needs no alignment. */
void qp_decode(enum qp_dtype dtype, const void *src, int64_t n, float *dst);

#endif
