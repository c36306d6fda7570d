/* Linear layers on vdpbf16ps: weights in panels [N/64][K/2][64] pairs, x rounded to bf16 pairs block by block. */
#include <string.h>

#include "backend/cpu/avx512_bf16/tile.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

#define ROW_BLOCK 192   /* rows that share a panel while it is in the second-level cache */
#define BLOCK 2048     /* rows converted at a time */

static int64_t panels_of(int64_t N)
{
    return (N + NR - 1) / NR;
}

static int64_t pairs_of(int64_t K)
{
    return (K + 1) / 2;
}

size_t qp_avx512_bf16_linear_bf16_bytes(int64_t N, int64_t K)
{
    return (size_t)(panels_of(N) * NR) * (size_t)pairs_of(K) * sizeof(uint32_t);
}

struct pack_job {
    uint16_t *packed;
    const float *w;
    int64_t ldw, row0, K;
};

/* By squares of PACK_K columns, so that the panel's lines are filled while they are in the first-level cache. */
#define PACK_K (2 * VL)

static void pack_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct pack_job *j = arg;
    const __m512i step = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(NR));
    int64_t k2 = pairs_of(j->K);
    (void)thread;
    for (int64_t k0 = 0; k0 < j->K; k0 += PACK_K)
        for (int64_t r = begin; r < end; r++) {
            int64_t n = j->row0 + r;
            uint16_t *dst = j->packed + (n / NR * k2 * NR + n % NR) * 2;
            const float *src = j->w + r * j->ldw;
            if (k0 + PACK_K <= j->K)
                _mm512_i32scatter_epi32(dst + k0 * NR, step, to_bf16(v_load(src + k0), v_load(src + k0 + VL)), 4);
            else
                for (int64_t k = k0; k < j->K; k++)
                    dst[k / 2 * NR * 2 + (k & 1)] = qp_f32_to_bf16(src[k]);
        }
}

void qp_avx512_bf16_linear_bf16_pack(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows, int64_t N, int64_t K)
{
    (void)N;
    struct pack_job j = {packed, w, ldw, row0, K};
    qp_pool_for(ex->pool, rows, NR, pack_rows, &j);
}

struct job {
    float *y;
    const float *x;
    const uint32_t *w;
    uint32_t *xb;
    int64_t ldy, ldx, T, N, K, panels, threads;
    bool accumulate;
};

/* A panel, and a part of the thread's next one. */
struct panel {
    const uint32_t *pairs;
    struct ahead ahead;
};

INLINE void tile_panel_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const uint32_t *x, int64_t ldx, const struct panel *p, int64_t K2)
{
    struct ahead ahead = p->ahead;
    tile_pairs_of(mr, y, ldy, n, accumulate, x, ldx, p->pairs, K2, &ahead);
}
DEFINE_TILE(tile_panel, uint32_t, struct panel)

static void convert_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    int64_t k2 = pairs_of(j->K);
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->ldx;
        uint32_t *dst = j->xb + t * k2;
        int64_t k = 0;
        for (; k + 2 * VL <= j->K; k += 2 * VL)
            _mm512_storeu_si512(dst + k / 2, to_bf16(v_load(x + k), v_load(x + k + VL)));
        for (; k < j->K; k += 2)
            dst[k / 2] = (uint32_t)qp_f32_to_bf16(x[k]) | (k + 1 < j->K ? (uint32_t)qp_f32_to_bf16(x[k + 1]) << 16 : 0);
    }
}

static void tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    int64_t k2 = pairs_of(j->K);
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        int64_t p = task % j->panels, t0 = task / j->panels * ROW_BLOCK, t1 = t0 + ROW_BLOCK < j->T ? t0 + ROW_BLOCK : j->T;
        int64_t n = j->N - p * NR < NR ? j->N - p * NR : NR, next = p + j->threads < j->panels ? p + j->threads : j->panels - 1;
        for (int64_t t = t0; t < t1; t += MR) {
            int mr = t1 - t < MR ? (int)(t1 - t) : MR;
            struct panel panel = {j->w + p * k2 * NR, ahead_part(j->w + next * k2 * NR, (size_t)(k2 * NR) * sizeof *j->w, k2 * NV, (t - t0) / MR, (t1 - t0 + MR - 1) / MR)};
            tile_panel(mr, j->y + t * j->ldy + p * NR, j->ldy, n, j->accumulate, j->xb + t * k2, k2, &panel, k2);
        }
    }
}

void qp_avx512_bf16_linear_bf16(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T,
                                int64_t N, int64_t K, bool accumulate)
{
    uint32_t *xb = qp_exec_scratch(ex, (size_t)(T < BLOCK ? T : BLOCK) * (size_t)pairs_of(K) * sizeof *xb);
    for (int64_t t = 0; xb && t < T; t += BLOCK) {
        struct job j = {y + t * ldy, x + t * ldx, packed, xb, ldy, ldx, T - t < BLOCK ? T - t : BLOCK, N, K, panels_of(N), qp_pool_threads(ex->pool), accumulate};
        qp_pool_for(ex->pool, j.T, 24, convert_rows, &j);
        qp_pool_for(ex->pool, j.panels * ((j.T + ROW_BLOCK - 1) / ROW_BLOCK), 1, tasks, &j);
    }
}
