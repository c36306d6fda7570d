/* How a row of keys or values becomes 8-bit codes with one scale: x ~ scale * code, code in [-127, 127]. One definition for all variants, so that their
 * caches hold the same numbers. A row with NaN or infinities has no scale: its scale is NaN, so that what reads it is NaN, too. */
#ifndef QP_BACKEND_CPU_KV_INT8_H
#define QP_BACKEND_CPU_KV_INT8_H

#include <math.h>
#include <stdint.h>

static inline float qp_kv_int8_encode(int8_t *codes, const float *x, int64_t n)
{
    float most = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        most = a > most ? a : most;
        sum += 0.f * x[i]; /* 0, or NaN */
    }
    float inverse = most > 0 ? 127.f / most : 0;
    if (sum != 0 || !isfinite(inverse)) { /* denormal rows are as good as zero */
        for (int64_t i = 0; i < n; i++)
            codes[i] = 0;
        return sum != 0 ? NAN : 0;
    }
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int8_t)rintf(x[i] * inverse);
    return most / 127.f;
}

#endif
