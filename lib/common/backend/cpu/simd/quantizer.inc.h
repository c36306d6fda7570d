/* The quantizers' matrix products: XᵀX by panels of packed columns, and C -= A·B. */
#include <string.h>

#include "backend/cpu/simd/vec.h"
#include "backend/cpu/variants.h"

#define SUB 128   /* rows of X in one panel: NR columns of them stay in the first-level cache */
#define CHUNK 512 /* rows of X packed at a time */

struct syrk_job {
    float *h, *pack;
    const float *x;
    int64_t ldh, ldx, T, K, panels;
};

/* pack: [panel][T][NR], zero behind the last column */
static void syrk_pack(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct syrk_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t p = 0; p < j->panels; p++) {
            int64_t n = j->K - p * NR < NR ? j->K - p * NR : NR;
            float *dst = j->pack + (p * j->T + t) * NR;
            memcpy(dst, j->x + t * j->ldx + p * NR, (size_t)n * sizeof(float));
            memset(dst + n, 0, (size_t)(NR - n) * sizeof(float));
        }
}

/* y[mr, n] += the sums over K rows of x[k, 0..mr) * panel[k]; both are packed panels. */
INLINE void tile_syrk_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const float *panel, int64_t K)
{
    vf acc[MR][NV], old[MR][NV];
    tile_load(acc, mr, NULL, 0, n);
    for (int64_t k = 0; k < K; k++) {
        vf b[NV];
        UNROLL for (int q = 0; q < NV; q++)
            b[q] = v_load(panel + k * NR + q * VL);
        UNROLL for (int i = 0; i < mr; i++) {
            vf s = v_set1(x[k * ldx + i]);
            UNROLL for (int q = 0; q < NV; q++)
                acc[i][q] = v_fma(s, b[q], acc[i][q]);
        }
    }
    tile_load(old, mr, accumulate ? y : NULL, ldy, n);
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int q = 0; q < NV; q++)
            acc[i][q] = v_add(old[i][q], acc[i][q]);
    tile_store(acc, mr, y, ldy, n);
}
DEFINE_TILE(tile_syrk, float, float)

/* Task: the pair (pi, pj) of panels, pj <= pi. */
static void syrk_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct syrk_job *j = arg;
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        int64_t pi = 0, left = task;
        while (left > pi)
            left -= ++pi;
        const float *a = j->pack + pi * j->T * NR, *b = j->pack + left * j->T * NR;
        for (int64_t t = 0; t < j->T; t += SUB) {
            int64_t rows = j->T - t < SUB ? j->T - t : SUB;
            for (int64_t i = 0; i < NR && pi * NR + i < j->K; i += MR) {
                int64_t row = pi * NR + i, mr = NR - i < MR ? NR - i : MR;
                mr = mr < j->K - row ? mr : j->K - row;
                int64_t n = row + mr - left * NR; /* columns up to the diagonal of the tile's last row */
                n = n < NR ? n : NR;
                tile_syrk((int)mr, j->h + row * j->ldh + left * NR, j->ldh, n, true, a + t * NR + i, NR, b + t * NR, rows);
            }
        }
    }
}

void QP_V(syrk)(struct qp_exec *ex, float *h, int64_t ldh, const float *x, int64_t ldx, int64_t T, int64_t K)
{
    int64_t panels = (K + NR - 1) / NR;
    float *pack = qp_exec_scratch(ex, (size_t)(panels * NR * (T < CHUNK ? T : CHUNK)) * sizeof(float));
    for (int64_t t = 0; pack && t < T; t += CHUNK) {
        struct syrk_job j = {h, pack, x + t * ldx, ldh, ldx, T - t < CHUNK ? T - t : CHUNK, K, panels};
        qp_pool_for(ex->pool, j.T, 32, syrk_pack, &j);
        qp_pool_for(ex->pool, panels * (panels + 1) / 2, 1, syrk_tasks, &j);
    }
}

struct sub_job {
    float *c;
    const float *a, *b;
    int64_t ldc, lda, ldb, M, N, K;
};

INLINE void tile_sub_body(int mr, float *c, int64_t ldc, int64_t n, bool accumulate, const float *a, int64_t lda, const float *panel, int64_t K)
{
    vf acc[MR][NV];
    tile_load(acc, mr, accumulate ? c : NULL, ldc, n);
    for (int64_t k = 0; k < K; k++) {
        vf b[NV];
        UNROLL for (int q = 0; q < NV; q++)
            b[q] = v_load(panel + k * NR + q * VL);
        UNROLL for (int i = 0; i < mr; i++) {
            vf s = v_set1(a[i * lda + k]);
            UNROLL for (int q = 0; q < NV; q++)
                acc[i][q] = v_fnma(s, b[q], acc[i][q]);
        }
    }
    tile_store(acc, mr, c, ldc, n);
}
DEFINE_TILE(tile_sub, float, float)

static void sub_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct sub_job *j = arg;
    float panel[SUB * NR] __attribute__((aligned(64)));
    (void)thread;
    for (int64_t p = begin; p < end; p++) {
        int64_t n = j->N - p * NR < NR ? j->N - p * NR : NR;
        for (int64_t k0 = 0; k0 < j->K; k0 += SUB) {
            int64_t kn = j->K - k0 < SUB ? j->K - k0 : SUB;
            for (int64_t k = 0; k < kn; k++) {
                memcpy(panel + k * NR, j->b + (k0 + k) * j->ldb + p * NR, (size_t)n * sizeof(float));
                memset(panel + k * NR + n, 0, (size_t)(NR - n) * sizeof(float));
            }
            for (int64_t m = 0; m < j->M; m += MR) {
                int mr = j->M - m < MR ? (int)(j->M - m) : MR;
                tile_sub(mr, j->c + m * j->ldc + p * NR, j->ldc, n, true, j->a + m * j->lda + k0, j->lda, panel, kn);
            }
        }
    }
}

void QP_V(gemm_sub)(struct qp_exec *ex, float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t M,
                    int64_t N, int64_t K)
{
    struct sub_job j = {c, a, b, ldc, lda, ldb, M, N, K};
    qp_pool_for(ex->pool, (N + NR - 1) / NR, 1, sub_tasks, &j);
}
