#include "backend/cpu/simd/quantizer.inc.h"
