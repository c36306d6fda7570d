#define LINEAR_Q8 qp_avx512_vnni_linear_q8
#include "backend/cpu/simd/q8bytes.h"
#include "backend/cpu/simd/linear_q8.inc.h"
