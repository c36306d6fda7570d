/* Codes in panels, shared by all variants that compute on vectors of VL floats. A panel is 2*VL rows of W as one stream of bytes, group after group:
 * the group's codes, then 2*VL scales, then 2*VL zeros if there are any. Codes lie in units of two vectors: in each, a 32-bit word holds columns of
 * one row, 8 columns of 4 bits (column k at bit 4 * (k / 2 + 4 * (k & 1)), so that words of 16 bits hold even and odd columns) or 4 of 8 bits. */
#ifndef QP_BACKEND_CPU_SIMD_QPANEL_H
#define QP_BACKEND_CPU_SIMD_QPANEL_H

#include "backend/cpu/simd/ahead.h"
#include "backend/ops.h"
#include "base/half.h"

#define QN (2 * VL)

INLINE int64_t q_panels(const struct qp_qmatrix *q)
{
    return (q->N + QN - 1) / QN;
}

/* Columns of group g. */
INLINE int64_t q_width(const struct qp_qmatrix *q, int64_t g)
{
    return g + 1 < q->n_groups ? q->group : q->Kp - g * q->group;
}

INLINE size_t q_code_bytes(const struct qp_qmatrix *q, int64_t cols)
{
    return (size_t)(cols * QN * q->bits / 8);
}

/* Scales, or zeros, of one group. */
INLINE size_t q_scale_bytes(const struct qp_qmatrix *q)
{
    return QN * (q->half ? sizeof(uint16_t) : sizeof(float));
}

INLINE size_t q_group_bytes(const struct qp_qmatrix *q, int64_t cols)
{
    return q_code_bytes(q, cols) + q_scale_bytes(q) * (q->zeros ? 2 : 1);
}

INLINE size_t q_panel_bytes(const struct qp_qmatrix *q)
{
    return (size_t)(q->n_groups - 1) * q_group_bytes(q, q->group) + q_group_bytes(q, q_width(q, q->n_groups - 1));
}

/* Rows of y between memory and a tile's totals [mr][width], of which n are there: out of the tile, or into it when y is added to. */
INLINE void q_totals(float *total, int width, float *y, int64_t ldy, int mr, int64_t n, bool accumulate, bool out)
{
    for (int i = 0; i < mr; i++)
        if (out)
            memcpy(y + i * ldy, total + i * width, (size_t)n * sizeof *y);
        else if (accumulate)
            memcpy(total + i * width, y + i * ldy, (size_t)n * sizeof *y);
}

/* Where codes are read as they are, a task is `grain` panels, which stay in the first-level cache, times a block of rows in passes of nearly equal length. */
#define Q_ROW_BLOCK 192
struct q_share {
    int64_t p0, p1, t0, t1, rows, passes; /* rows: of a pass, at most MR */
};

INLINE int64_t q_shares(const struct qp_qmatrix *q, int64_t T, int64_t grain)
{
    return (q_panels(q) + grain - 1) / grain * ((T + Q_ROW_BLOCK - 1) / Q_ROW_BLOCK);
}

INLINE struct q_share q_share_of(const struct qp_qmatrix *q, int64_t T, int64_t grain, int64_t task)
{
    int64_t panels = q_panels(q), chunks = (panels + grain - 1) / grain, p0 = task % chunks * grain, t0 = task / chunks * Q_ROW_BLOCK;
    struct q_share s = {p0, p0 + grain < panels ? p0 + grain : panels, t0, t0 + Q_ROW_BLOCK < T ? t0 + Q_ROW_BLOCK : T, 0, 0};
    s.passes = (s.t1 - s.t0 + MR - 1) / MR;
    s.rows = (s.t1 - s.t0 + s.passes - 1) / s.passes;
    return s;
}

/* For a pass over np panels that reads all codes: np others, from `next` on or the last ones. */
INLINE struct ahead q_ahead(const struct qp_qmatrix *q, const uint8_t *packed, int64_t next, int np, int64_t pass, int64_t passes)
{
    int64_t last = q_panels(q) - np;
    next = next < last ? next : last;
    return ahead_part(packed + (size_t)next * q_panel_bytes(q), (size_t)np * q_panel_bytes(q), 2 * np * q->Kp * q->bits / 32, pass, passes);
}

INLINE int64_t q_grain(const struct qp_qmatrix *q, int64_t T)
{
    int64_t panels = q_panels(q);
    return T > 4 ? 1 : panels >= 64 ? 4 : panels >= 24 ? 3 : 2;
}

/* Vector v of the scales (or zeros) at s. */
INLINE vf q_load_scales(const struct qp_qmatrix *q, const uint8_t *s, int v)
{
#if defined(__AVX512F__)
    if (q->half)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(s + v * 32)));
#else
    if (q->half)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(s + v * 16)));
#endif
    return v_load((const float *)(const void *)s + v * VL);
}

#endif
