#include "model/decode.h"

#include <string.h>

#include "base/half.h"

static uint16_t u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

static uint32_t u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static void q4(const uint8_t *p, float *y, bool has_min)
{
    float d = qp_f16_to_f32(u16(p)), m = has_min ? qp_f16_to_f32(u16(p + 2)) : 0;
    p += has_min ? 4 : 2;
    for (int i = 0; i < 16; i++) {
        y[i] = has_min ? (float)(p[i] & 15) * d + m : (float)((p[i] & 15) - 8) * d;
        y[i + 16] = has_min ? (float)(p[i] >> 4) * d + m : (float)((p[i] >> 4) - 8) * d;
    }
}

static void q5(const uint8_t *p, float *y, bool has_min)
{
    float d = qp_f16_to_f32(u16(p)), m = has_min ? qp_f16_to_f32(u16(p + 2)) : 0;
    p += has_min ? 4 : 2;
    uint32_t high = u32(p);
    p += 4;
    for (int i = 0; i < 16; i++) {
        int lo = (p[i] & 15) | (int)((high >> i & 1) << 4), hi = (p[i] >> 4) | (int)((high >> (i + 16) & 1) << 4);
        y[i] = has_min ? (float)lo * d + m : (float)(lo - 16) * d;
        y[i + 16] = has_min ? (float)hi * d + m : (float)(hi - 16) * d;
    }
}

static void q8_0(const uint8_t *p, float *y)
{
    float d = qp_f16_to_f32(u16(p));
    for (int i = 0; i < 32; i++)
        y[i] = (float)(int8_t)p[2 + i] * d;
}

/* Scale and minimum j (0..7) of the 12 packed bytes of Q4_K and Q5_K. */
static void scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    }
}

/* 256 weights: f16 d, f16 dmin, 12 bytes of scales, (Q5_K: 32 bytes of fifth bits), 128 bytes of nibbles. */
static void qk(const uint8_t *p, float *y, bool five)
{
    float d = qp_f16_to_f32(u16(p)), dmin = qp_f16_to_f32(u16(p + 2));
    const uint8_t *scales = p + 4, *high = p + 16, *low = p + (five ? 48 : 16);
    for (int j = 0; j < 8; j++) {
        int s, m, shift = j & 1 ? 4 : 0;
        scale_min(scales, j, &s, &m);
        float ds = d * (float)s, ms = dmin * (float)m;
        const uint8_t *q = low + j / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int v = (q[i] >> shift & 15) + (five && (high[i] >> j & 1) ? 16 : 0);
            y[j * 32 + i] = ds * (float)v - ms;
        }
    }
}

/* 256 weights: 128 bytes of low nibbles, 64 of high pairs, 16 int8 scales, f16 d. */
static void q6_k(const uint8_t *p, float *y)
{
    float d = qp_f16_to_f32(u16(p + 208));
    for (int half = 0; half < 2; half++) {
        const uint8_t *low = p + half * 64, *high = p + 128 + half * 32;
        const int8_t *scale = (const int8_t *)p + 192 + half * 8;
        for (int i = 0; i < 128; i++) {
            int l = i % 32, part = i / 32;
            int nibble = part < 2 ? low[l + part * 32] & 15 : low[l + (part - 2) * 32] >> 4;
            int v = (nibble | (high[l] >> (2 * part) & 3) << 4) - 32;
            y[half * 128 + i] = d * (float)scale[part * 2 + l / 16] * (float)v;
        }
    }
}

static void block(enum qp_dtype dtype, const uint8_t *p, float *y)
{
    switch (dtype) {
    case QP_DT_Q4_0: q4(p, y, false); break;
    case QP_DT_Q4_1: q4(p, y, true); break;
    case QP_DT_Q5_0: q5(p, y, false); break;
    case QP_DT_Q5_1: q5(p, y, true); break;
    case QP_DT_Q8_0: q8_0(p, y); break;
    case QP_DT_Q4_K: qk(p, y, false); break;
    case QP_DT_Q5_K: qk(p, y, true); break;
    case QP_DT_Q6_K: q6_k(p, y); break;
    default: break;
    }
}

bool qp_decodes(enum qp_dtype dtype)
{
    return dtype == QP_DT_F32 || dtype == QP_DT_F16 || dtype == QP_DT_BF16 || (dtype >= QP_DT_Q4_0 && dtype <= QP_DT_Q6_K);
}

void qp_decode(enum qp_dtype dtype, const void *src, int64_t n, float *dst)
{
    const uint8_t *p = src;
    const struct qp_dtype_info *info = &qp_dtype_info[dtype];
    switch (dtype) {
    case QP_DT_F32:
        memcpy(dst, p, (size_t)n * 4);
        break;
    case QP_DT_F16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = qp_f16_to_f32(u16(p + 2 * i));
        break;
    case QP_DT_BF16:
        for (int64_t i = 0; i < n; i++)
            dst[i] = qp_bf16_to_f32(u16(p + 2 * i));
        break;
    default:
        for (int64_t i = 0; i < n; i += info->block_elems)
            block(dtype, p + i / info->block_elems * info->block_bytes, dst + i);
    }
}
