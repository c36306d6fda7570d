#include "backend/cpu/simd/linear.inc.h"
