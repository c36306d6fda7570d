#include "backend/cpu/simd/qpack.inc.h"
#include "backend/cpu/simd/qcodes.h"
#include "backend/cpu/simd/linear_q.inc.h"
