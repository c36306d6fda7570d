/* Linear layers on vectors of floats: weights in panels [N/NR][K][NR]; bf16 weights are widened as they are read, or for many rows once, with the same sums. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/simd/ahead.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

/* A panel as it is stored, and a part of the thread's next one. */
struct panel {
    const float *f32;
    const uint16_t *bf16;
    struct ahead ahead;
};
#define LINES(type) (NR * (int64_t)sizeof(type) > 64 ? NR * (int64_t)sizeof(type) / 64 : 1) /* for each k */
#define NEXT_LINE(type, j) ((j) < LINES(type) ? ahead_bring(&ahead, 1) : (void)0)
#define PANEL_F32(k, j) (NEXT_LINE(float, j), v_load(p->f32 + (k) * NR + (j) * VL))
#define PANEL_BF16(k, j) (NEXT_LINE(uint16_t, j), v_load_bf16(p->bf16 + (k) * NR + (j) * VL))

INLINE void panel_f32_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const struct panel *p, int64_t K)
{
    vf acc[MR][NV];
    struct ahead ahead = p->ahead;
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    TILE_BODY(mr, K, ROW, PANEL_F32)
    tile_store(acc, mr, y, ldy, n);
}

INLINE void panel_bf16_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const struct panel *p, int64_t K)
{
    vf acc[MR][NV];
    struct ahead ahead = p->ahead;
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    TILE_BODY(mr, K, ROW, PANEL_BF16)
    tile_store(acc, mr, y, ldy, n);
}

DEFINE_TILE(tile_f32, float, float)
DEFINE_TILE(panel_f32, float, struct panel)
DEFINE_TILE(panel_bf16, float, struct panel)

#define ROW_BLOCK 96   /* rows that share a panel while it is in the second-level cache */
#define WIDE_ROWS 192  /* the same where they share the work of widening it */
#define WIDE_K 1024    /* columns widened at a time */
#define WIDEN_FROM 12  /* rows that are worth it */

struct linear_job {
    float *y;
    const float *x, *w;
    const uint16_t *wb;
    float *wide; /* [WIDE_K][NR] for each thread */
    int64_t ldy, ldx, T, N, K, panels, threads;
    bool accumulate;
};

static int64_t panels_of(int64_t N)
{
    return (N + NR - 1) / NR;
}

size_t QP_V(linear_f32_bytes)(int64_t N, int64_t K)
{
    return (size_t)(panels_of(N) * NR) * (size_t)K * sizeof(float);
}

size_t QP_V(linear_bf16_bytes)(int64_t N, int64_t K)
{
    return (size_t)(panels_of(N) * NR) * (size_t)K * sizeof(uint16_t);
}

struct pack_job {
    float *f32;
    uint16_t *bf16;
    const float *w;
    int64_t ldw, row0, rows, K;
};

/* By squares of PACK_K columns, so that the panel's lines are filled while they are in the first-level cache. */
#define PACK_K 32

static void pack_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct pack_job *j = arg;
    (void)thread;
    for (int64_t k0 = 0; k0 < j->K; k0 += PACK_K)
        for (int64_t r = begin; r < end; r++) {
            int64_t n = j->row0 + r, base = n / NR * j->K * NR + n % NR, k1 = k0 + PACK_K < j->K ? k0 + PACK_K : j->K;
            const float *src = j->w + r * j->ldw;
            if (j->f32)
                for (int64_t k = k0; k < k1; k++)
                    j->f32[base + k * NR] = src[k];
            else
                for (int64_t k = k0; k < k1; k++)
                    j->bf16[base + k * NR] = qp_f32_to_bf16(src[k]);
        }
}

void QP_V(linear_f32_pack)(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows, int64_t N, int64_t K)
{
    (void)N;
    struct pack_job j = {.f32 = packed, .w = w, .ldw = ldw, .row0 = row0, .rows = rows, .K = K};
    qp_pool_for(ex->pool, rows, NR, pack_rows, &j);
}

void QP_V(linear_bf16_pack)(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows, int64_t N, int64_t K)
{
    (void)N;
    struct pack_job j = {.bf16 = packed, .w = w, .ldw = ldw, .row0 = row0, .rows = rows, .K = K};
    qp_pool_for(ex->pool, rows, NR, pack_rows, &j);
}

size_t QP_V(linear_bf16_compact)(struct qp_exec *ex, void *packed, int64_t N, int64_t K)
{
    (void)ex;
    (void)packed;
    return QP_V(linear_bf16_bytes)(N, K);
}

static void linear_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct linear_job *j = arg;
    const int64_t lines = j->K * (j->w ? LINES(float) : LINES(uint16_t));
    const size_t bytes = (size_t)(j->K * NR) * (j->w ? sizeof *j->w : sizeof *j->wb);
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        int64_t p = task % j->panels, t0 = task / j->panels * ROW_BLOCK, t1 = t0 + ROW_BLOCK < j->T ? t0 + ROW_BLOCK : j->T;
        int64_t n = j->N - p * NR < NR ? j->N - p * NR : NR, next = (p + j->threads < j->panels ? p + j->threads : j->panels - 1) * j->K * NR;
        for (int64_t t = t0; t < t1; t += MR) {
            int mr = t1 - t < MR ? (int)(t1 - t) : MR;
            float *y = j->y + t * j->ldy + p * NR;
            const float *x = j->x + t * j->ldx;
            struct ahead ahead = ahead_part(j->w ? (const void *)(j->w + next) : j->wb + next, bytes, lines, (t - t0) / MR, (t1 - t0 + MR - 1) / MR);
            if (j->w)
                panel_f32(mr, y, j->ldy, n, j->accumulate, x, j->ldx, &(struct panel){.f32 = j->w + p * j->K * NR, .ahead = ahead}, j->K);
            else
                panel_bf16(mr, y, j->ldy, n, j->accumulate, x, j->ldx, &(struct panel){.bf16 = j->wb + p * j->K * NR, .ahead = ahead}, j->K);
        }
    }
}

void QP_V(linear_f32)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T, int64_t N,
                      int64_t K, bool accumulate)
{
    struct linear_job j = {.y = y, .x = x, .w = packed, .ldy = ldy, .ldx = ldx, .T = T, .N = N, .K = K, .panels = panels_of(N),
                           .threads = qp_pool_threads(ex->pool), .accumulate = accumulate};
    qp_pool_for(ex->pool, j.panels * ((T + ROW_BLOCK - 1) / ROW_BLOCK), 1, linear_tasks, &j);
}

/* Columns [k0, k1) of the panel in float32, then all rows; y holds the sums in between. */
static void wide_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct linear_job *j = arg;
    float *wide = j->wide + thread * WIDE_K * NR;
    for (int64_t task = begin; task < end; task++) {
        int64_t p = task % j->panels, t0 = task / j->panels * WIDE_ROWS, t1 = t0 + WIDE_ROWS < j->T ? t0 + WIDE_ROWS : j->T;
        int64_t n = j->N - p * NR < NR ? j->N - p * NR : NR;
        for (int64_t k0 = 0; k0 < j->K; k0 += WIDE_K) {
            int64_t cols = j->K - k0 < WIDE_K ? j->K - k0 : WIDE_K;
            const uint16_t *w = j->wb + (p * j->K + k0) * NR;
            for (int64_t i = 0; i < cols * NR; i += VL)
                v_store(wide + i, v_load_bf16(w + i));
            for (int64_t t = t0; t < t1; t += MR)
                tile_f32(t1 - t < MR ? (int)(t1 - t) : MR, j->y + t * j->ldy + p * NR, j->ldy, n, j->accumulate || k0, j->x + t * j->ldx + k0, j->ldx, wide, cols);
        }
    }
}

struct round_job {
    float *dst;
    const float *x;
    int64_t ldx, K;
};

static void round_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct round_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t k = 0; k < j->K; k++)
            j->dst[t * j->K + k] = qp_bf16_to_f32(qp_f32_to_bf16(j->x[t * j->ldx + k]));
}

void QP_V(linear_bf16)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T, int64_t N,
                       int64_t K, bool accumulate)
{
    const int64_t block = 1024;
    size_t rounded = (size_t)(T < block ? T : block) * (size_t)K;
    float *scratch = qp_exec_scratch(ex, (rounded + (T < WIDEN_FROM ? 0 : (size_t)qp_pool_threads(ex->pool) * WIDE_K * NR)) * sizeof *scratch);
    for (int64_t t = 0; scratch && t < T; t += block) {
        int64_t n = T - t < block ? T - t : block;
        struct round_job r = {scratch, x + t * ldx, ldx, K};
        qp_pool_for(ex->pool, n, 16, round_rows, &r);
        struct linear_job j = {.y = y + t * ldy, .x = scratch, .wb = packed, .wide = scratch + rounded, .ldy = ldy, .ldx = K, .T = n, .N = N, .K = K,
                               .panels = panels_of(N), .threads = qp_pool_threads(ex->pool), .accumulate = accumulate};
        if (n < WIDEN_FROM)
            qp_pool_for(ex->pool, j.panels * ((n + ROW_BLOCK - 1) / ROW_BLOCK), 1, linear_tasks, &j);
        else
            qp_pool_for(ex->pool, j.panels * ((n + WIDE_ROWS - 1) / WIDE_ROWS), 1, wide_tasks, &j);
    }
}
