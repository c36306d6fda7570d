/* Packs codes into panels (simd/qpanel.h). */
#include "backend/cpu/simd/qpanel.h"
#include "backend/cpu/variants.h"

size_t QP_V(linear_q_bytes)(const struct qp_qmatrix *q)
{
    return (size_t)q_panels(q) * q_panel_bytes(q);
}

struct qpack_job {
    uint8_t *packed;
    const struct qp_qmatrix *q;
    const uint8_t *codes;
    const float *scales, *zeros;
    int64_t row0;
};

static void put_scale(const struct qp_qmatrix *q, uint8_t *to, int64_t lane, float f)
{
    if (q->half)
        ((uint16_t *)(void *)to)[lane] = qp_f32_to_f16(f);
    else
        ((float *)(void *)to)[lane] = f;
}

/* The code of column k of the kernels' order. */
static uint32_t code_of(const struct qp_qmatrix *q, const uint8_t *codes, int64_t k)
{
    int64_t from = q->perm ? q->perm[k] : k;
    return from < 0 ? 0 : codes[from];
}

static void pack_codes(const struct qp_qmatrix *q, uint8_t *to, const uint8_t *codes, int64_t k0, int64_t cols, int64_t lane)
{
    int64_t a_unit = 32 / q->bits;
    uint32_t *word = (uint32_t *)(void *)to + lane;
    for (int64_t k = k0; k < k0 + cols; k += a_unit, word += QN) {
        uint32_t w = 0;
        for (int64_t i = 0; i < a_unit; i++)
            w |= code_of(q, codes, k + i) << (q->bits == 8 ? 8 * i : 4 * (i / 2 + 4 * (i & 1)));
        *word = w;
    }
}

static void pack_codes_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct qpack_job *j = arg;
    const struct qp_qmatrix *q = j->q;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        int64_t n = j->row0 + r, lane = n % QN;
        uint8_t *to = j->packed + (size_t)(n / QN) * q_panel_bytes(q);
        for (int64_t g = 0; g < q->n_groups; g++) {
            int64_t cols = q_width(q, g);
            pack_codes(q, to, j->codes + r * q->K, g * q->group, cols, lane);
            put_scale(q, to + q_code_bytes(q, cols), lane, j->scales[r * q->n_groups + g]);
            if (q->zeros)
                put_scale(q, to + q_code_bytes(q, cols) + q_scale_bytes(q), lane, j->zeros[r * q->n_groups + g]);
            to += q_group_bytes(q, cols);
        }
    }
}

void QP_V(linear_q_pack)(struct qp_exec *ex, void *packed, const struct qp_qmatrix *q, const uint8_t *codes, const float *scales, const float *zeros,
                         int64_t row0, int64_t rows)
{
    struct qpack_job j = {packed, q, codes, scales, zeros, row0};
    qp_pool_for(ex->pool, rows, QN, pack_codes_rows, &j);
}
