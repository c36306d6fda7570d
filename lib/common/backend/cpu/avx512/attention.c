#include "backend/cpu/simd/attention.inc.h"
