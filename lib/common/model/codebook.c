#include "model/codebook.h"

#include <math.h>
#include <string.h>

const float qp_nf4[16] = {-0x1p0f,          -0x1.647362p-1f, -0x1.0cd66p-1f, -0x1.94654p-2f,  -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0,
                          0x1.45f5fep-4f, 0x1.4995c6p-3f,  0x1.f809bap-3f, 0x1.5a0674p-2f, 0x1.c3497p-2f,   0x1.200f56p-1f,  0x1.722766p-1f,  0x1p0f};

/* In units of 1/12: 0, .0625, 8, 12, 4, 6, 2, 3. */
#define TWO_THIRDS 0x1.555556p-1f
const float qp_fp4[16] = {0, TWO_THIRDS / 128, TWO_THIRDS, 1, TWO_THIRDS / 2, 0.5f, TWO_THIRDS / 4, 0.25f,
                          0, -TWO_THIRDS / 128, -TWO_THIRDS, -1, -TWO_THIRDS / 2, -0.5f, -TWO_THIRDS / 4, -0.25f};

/* Boundary i of n equal steps from 0.1 to 1, as torch.linspace rounds it: once, and from the nearer end. */
static float boundary(int i, int n)
{
    float step = (1.f - 0.1f) / (float)n;
    return i < (n + 1) / 2 ? fmaf(step, (float)i, 0.1f) : fmaf(-step, (float)(n - i), 1.f);
}

void qp_dynamic_map(float map[256])
{
    static const float powers[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.f};
    int at = 128; /* positive values, ascending: 2^e of them for the exponent e */
    map[127] = 0;
    for (int e = 0; e < 7; e++)
        for (int i = 0; i < 1 << e; i++)
            map[at++] = powers[e] * ((boundary(i, 1 << e) + boundary(i + 1, 1 << e)) / 2.f);
    map[at] = 1;
    for (int i = 0; i < 127; i++)
        map[126 - i] = -map[128 + i];
}

/* exponent and mantissa bits as IEEE has them, subnormals included; what the top exponent means is the caller's business */
static float small_float(unsigned code, int mantissa, int bias)
{
    unsigned m = code & ((1u << mantissa) - 1), e = (code & 127) >> mantissa;
    float v = e ? ldexpf((float)(m + (1u << mantissa)), (int)e - bias - mantissa) : ldexpf((float)m, 1 - bias - mantissa);
    return code & 128 ? -v : v;
}

static float e4m3_values[256], e5m2_values[256];

static __attribute__((constructor)) void fill_tables(void)
{
    for (unsigned c = 0; c < 256; c++) {
        e4m3_values[c] = (c & 127) == 127 ? NAN : small_float(c, 3, 7);
        e5m2_values[c] = (c & 127) < 124 ? small_float(c, 2, 15) : (c & 127) > 124 ? NAN : c & 128 ? -INFINITY : INFINITY;
    }
}

const float *qp_e4m3_table(void)
{
    return e4m3_values;
}

const float *qp_e5m2_table(void)
{
    return e5m2_values;
}

/* The codes of one sign ascend with their values, so the nearest lies where a / ulp rounds to. */
static uint8_t to_small(float f, int mantissa, int bias, float max, uint8_t nan)
{
    float a = fabsf(f);
    uint8_t sign = signbit(f) ? 128 : 0;
    int e;
    if (isnan(f))
        return nan | sign;
    if (a == 0)
        return sign;
    a = a > max ? max : a;
    frexpf(a, &e); /* a < 2^e */
    e = e - 1 < 1 - bias ? 1 - bias : e - 1;
    int units = (int)nearbyintf(ldexpf(a, mantissa - e)); /* of the last place; 2^(mantissa+1) carries into the exponent by itself */
    return sign | (uint8_t)(units + ((e + bias - 1) << mantissa));
}

uint8_t qp_f32_to_e4m3(float f)
{
    return to_small(f, 3, 7, QP_E4M3_MAX, 0x7f);
}

uint8_t qp_f32_to_e5m2(float f)
{
    return to_small(f, 2, 15, QP_E5M2_MAX, 0x7f);
}
