/* Linear layers on vdpbf16ps: weights in panels of 64 rows (packed.h), x rounded to bf16 pairs block by block. */
#include <string.h>

#include "backend/cpu/avx512_bf16/packed.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

#define ROW_BLOCK 192   /* rows that share a panel while it is in the second-level cache */
#define BLOCK 2048      /* rows converted at a time */
#define DIRECT_ROWS 36  /* rows for which a compact panel is read as it is; more share one that is expanded */
#define WIDE_STEPS 1024 /* steps expanded at a time */

size_t qp_avx512_bf16_linear_bf16_bytes(int64_t N, int64_t K)
{
    return where_bytes(panels_of(N)) + (size_t)panels_of(N) * (size_t)pairs_of(K) * WHOLE_STEP;
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
    struct pack_job j = {(uint16_t *)(void *)((uint8_t *)packed + where_bytes(panels_of(N))), w, ldw, row0, K};
    qp_pool_for(ex->pool, rows, NR, pack_rows, &j);
}

struct job {
    float *y;
    const float *x;
    const void *packed;
    uint32_t *xb;
    uint32_t *wide; /* [WIDE_STEPS][NR] for each thread */
    int64_t ldy, ldx, T, N, K, panels, threads;
    bool accumulate;
};

/* A panel, and a part of the thread's next one. */
struct panel {
    const void *at; /* as pairs, or compact */
    struct ahead ahead;
};

INLINE void tile_plain_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const uint32_t *x, int64_t ldx, const struct panel *p, int64_t K2)
{
    struct ahead ahead = p->ahead;
    tile_pairs_of(mr, y, ldy, n, accumulate, x, ldx, p->at, K2, &ahead);
}
DEFINE_TILE(tile_plain, uint32_t, struct panel)

INLINE void tile_compact_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const uint32_t *x, int64_t ldx, const struct panel *p, int64_t K2)
{
    vf acc[MR][NV];
    struct ahead ahead = p->ahead;
    struct compact c = compact_open(p->at, K2);
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    for (int64_t k = 0; k < K2; k++) {
        __m512i b[NV];
        for (int64_t stop = *c.whole; k < stop; k++, c.at += COMPACT_STEP) {
            compact_step(b, c.at, c.exponents);
            ahead_bring(&ahead, COMPACT_STEP / LINE);
            step_products(acc, mr, x + k, ldx, b);
        }
        if (k < K2) {
            load_step(b, c.at);
            ahead_bring(&ahead, COMPACT_STEP / LINE);
            step_products(acc, mr, x + k, ldx, b);
            c.whole++;
            c.at += WHOLE_STEP;
        }
    }
    tile_store(acc, mr, y, ldy, n);
}
DEFINE_TILE(tile_compact, uint32_t, struct panel)

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

/* Rows of x by a panel. */
struct task {
    float *y;
    const uint32_t *x;
    int64_t rows, n; /* n: columns of y */
    struct packed_panel panel, next;
};

/* A panel as it is stored. */
static void multiply(const struct job *j, const struct task *t, int64_t k2)
{
    int64_t vectors = k2 * (t->panel.compact ? COMPACT_STEP / LINE : NV), passes = (t->rows + MR - 1) / MR;
    for (int64_t r = 0; r < t->rows; r += MR) {
        struct panel panel = {t->panel.at, ahead_part(t->next.at, t->next.bytes, vectors, r / MR, passes)};
        (t->panel.compact ? tile_compact : tile_plain)(t->rows - r < MR ? (int)(t->rows - r) : MR, t->y + r * j->ldy, j->ldy, t->n, j->accumulate, t->x + r * k2, k2,
                                                       &panel, k2);
    }
}

/* A compact panel, expanded in slices; y holds the sums in between. */
static void multiply_expanded(const struct job *j, const struct task *t, int64_t k2, uint32_t *wide)
{
    struct compact c = compact_open(t->panel.at, k2);
    for (int64_t k = 0, steps; k < k2; k += steps) {
        steps = k2 - k < WIDE_STEPS ? k2 - k : WIDE_STEPS;
        compact_expand(&c, wide, k, k + steps);
        size_t from = t->next.bytes * (size_t)k / (size_t)k2, to = t->next.bytes * (size_t)(k + steps) / (size_t)k2;
        for (int64_t r = 0; r < t->rows; r += MR) {
            struct panel panel = {wide, ahead_part(t->next.at + from, to - from, steps * NV, r / MR, (t->rows + MR - 1) / MR)};
            tile_plain(t->rows - r < MR ? (int)(t->rows - r) : MR, t->y + r * j->ldy, j->ldy, t->n, j->accumulate || k, t->x + r * k2 + k, k2, &panel, steps);
        }
    }
}

static void tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    int64_t k2 = pairs_of(j->K);
    for (int64_t task = begin; task < end; task++) {
        int64_t p = task % j->panels, t0 = task / j->panels * ROW_BLOCK, rows = j->T - t0 < ROW_BLOCK ? j->T - t0 : ROW_BLOCK;
        int64_t n = j->N - p * NR < NR ? j->N - p * NR : NR, next = p + j->threads < j->panels ? p + j->threads : j->panels - 1;
        struct task t = {j->y + t0 * j->ldy + p * NR, j->xb + t0 * k2, rows, n, packed_panel(j->packed, p, j->panels, k2), packed_panel(j->packed, next, j->panels, k2)};
        if (t.panel.compact && rows > DIRECT_ROWS)
            multiply_expanded(j, &t, k2, j->wide + thread * WIDE_STEPS * NR);
        else
            multiply(j, &t, k2);
    }
}

void qp_avx512_bf16_linear_bf16(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T,
                                int64_t N, int64_t K, bool accumulate)
{
    size_t rounded = lines_up((size_t)(T < BLOCK ? T : BLOCK) * (size_t)pairs_of(K) * sizeof(uint32_t)), threads = (size_t)qp_pool_threads(ex->pool);
    uint8_t *scratch = qp_exec_scratch(ex, rounded + (T > DIRECT_ROWS ? threads * WIDE_STEPS * WHOLE_STEP : 0));
    for (int64_t t = 0; scratch && t < T; t += BLOCK) {
        struct job j = {y + t * ldy, x + t * ldx, packed, (uint32_t *)(void *)scratch, (uint32_t *)(void *)(scratch + rounded), ldy, ldx,
                        T - t < BLOCK ? T - t : BLOCK, N, K, panels_of(N), (int64_t)threads, accumulate};
        qp_pool_for(ex->pool, j.T, 24, convert_rows, &j);
        qp_pool_for(ex->pool, j.panels * ((j.T + ROW_BLOCK - 1) / ROW_BLOCK), 1, tasks, &j);
    }
}
