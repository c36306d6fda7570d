/* Small floating-point formats as tables: what a code of 4 or 8 bits stands for. Readers decode with them, quantizers round to them.
 *
 * NF4 (Dettmers et al. 2023): 16 quantiles of a normal distribution, scaled to [-1, 1], zero exact at code 7. FP4: sign, two bits of exponent, one of
 * mantissa, divided by its greatest value 12, so that blocks are scaled to [-1, 1] too. The signed dynamic map (Dettmers 2016): 256 values whose leading zero
 * bits are a decimal exponent and whose other bits are a linear fraction; bitsandbytes stores the scales of 4-bit blocks with it ("double quantization").
 * FP8 (Micikevicius et al. 2022): e4m3 as "fn" (no infinities, greatest 448, NaN is 0x7f and 0xff), e5m2 as IEEE (greatest 57344). */
#ifndef QP_MODEL_CODEBOOK_H
#define QP_MODEL_CODEBOOK_H

#include <stdint.h>

extern const float qp_nf4[16];
extern const float qp_fp4[16];
/* Ascending; map[127] = 0, map[255] = 1. The same bits as bitsandbytes' create_dynamic_map(). */
void qp_dynamic_map(float map[256]);

#define QP_E4M3_MAX 448.f
#define QP_E5M2_MAX 57344.f
/* All 256 values; codes that stand for no number give NaN (and infinities for e5m2). */
extern const float *qp_e4m3_table(void);
extern const float *qp_e5m2_table(void);
/* Nearest code, ties to even; beyond the greatest value: the greatest. NaN gives a NaN code. */
uint8_t qp_f32_to_e4m3(float f);
uint8_t qp_f32_to_e5m2(float f);

#endif
