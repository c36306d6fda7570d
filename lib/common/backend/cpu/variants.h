/* Declarations of every CPU variant, made from ops.def: qp_REF_linear_f32 and so on have the type of their entry in struct qp_ops. */
#ifndef QP_BACKEND_CPU_VARIANTS_H
#define QP_BACKEND_CPU_VARIANTS_H

#include "backend/ops.h"
#include "backend/ops.def"

#define QP_DECLARE(op, variant, tol) extern __typeof__(*((struct qp_ops *)0)->op) qp_##variant##_##op;
QP_OPS_REF(QP_DECLARE)
#ifdef QP_ISA_avx2
QP_OPS_AVX2(QP_DECLARE)
#endif
#ifdef QP_ISA_avx512
QP_OPS_AVX512(QP_DECLARE)
#endif
#ifdef QP_ISA_avx512_vnni
QP_OPS_AVX512_VNNI(QP_DECLARE)
#endif
#ifdef QP_ISA_avx512_bf16
QP_OPS_AVX512_BF16(QP_DECLARE)
#endif
#undef QP_DECLARE

#endif
