#include "backend/cpu/simd/q8bytes.h"
#include "backend/cpu/simd/linear_q8.inc.h"
