#include "backend/cpu/simd/distribution.inc.h"
