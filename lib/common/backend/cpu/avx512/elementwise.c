#include "backend/cpu/simd/elementwise.inc.h"
