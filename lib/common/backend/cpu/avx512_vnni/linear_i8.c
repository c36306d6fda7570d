/* LLM.int8() on vpdpbusd. Packed: scales [Np] float32, 128 times the sums of the rows [Np] int32, then panels [Np/64][K/4][64][4] int8; Np is N up to a
 * multiple of 64. The instruction takes x unsigned, so 128 is added to its codes and what that adds is taken off. Sums of integers are exact in any order. */
#include "backend/cpu/simd/vec.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

#define ROW_BLOCK 192 /* rows that share a panel while it is in the second-level cache */
#define BLOCK 512     /* rows of x that are rounded at a time */

struct outlier {
    int32_t k;
    float x;
};

struct job {
    float *y;
    const float *x, *scales;
    const int32_t *sums;
    const int8_t *panels;
    const struct qp_qmatrix *q;
    uint8_t *xq;              /* [T][K] */
    float *xs;                /* [T] */
    struct outlier *outliers; /* [T][K] */
    int64_t *n_outliers;      /* [T] */
    int64_t ldy, ldx, T;
    bool accumulate;
};

static int64_t padded(int64_t N)
{
    return (N + NR - 1) / NR * NR;
}

size_t qp_avx512_vnni_linear_i8_bytes(const struct qp_qmatrix *q)
{
    return (size_t)padded(q->N) * ((size_t)q->K + sizeof(float) + sizeof(int32_t));
}

void qp_avx512_vnni_linear_i8_pack(struct qp_exec *ex, void *packed, const struct qp_qmatrix *q, const uint8_t *codes, const float *scales, const float *zeros,
                                   int64_t row0, int64_t rows)
{
    float *s = packed;
    int32_t *sums = (int32_t *)packed + padded(q->N);
    int8_t *panels = (int8_t *)(sums + padded(q->N));
    (void)ex, (void)zeros;
    for (int64_t r = 0; r < rows; r++) {
        int64_t n = row0 + r;
        int8_t *to = panels + n / NR * NR * q->K + n % NR * 4;
        int32_t sum = 0;
        for (int64_t k = 0; k < q->K; k++) {
            int c = codes[r * q->K + k] - 128;
            to[k / 4 * NR * 4 + k % 4] = (int8_t)c;
            sum += c;
        }
        s[n] = scales[r];
        sums[n] = 128 * sum;
    }
}

INLINE vf v_abs(vf a)
{
    return _mm512_abs_ps(a);
}

static void convert_row(const struct job *j, int64_t t)
{
    const int64_t K = j->q->K;
    const float *x = j->x + t * j->ldx;
    struct outlier *out = j->outliers + t * K;
    vf limit = v_set1(j->q->outlier), most = v_set1(0);
    int64_t n = 0;
    for (int64_t k = 0; k < K; k += VL) {
        vf v = v_load_n(x + k, K - k < VL ? K - k : VL);
        __mmask16 in = _mm512_cmp_ps_mask(v_abs(v), limit, _CMP_LT_OQ);
        most = _mm512_mask_max_ps(most, in, most, v_abs(v));
        for (uint32_t rest = (uint16_t)~in; rest; rest &= rest - 1) {
            int64_t at = k + __builtin_ctz(rest);
            out[n++] = (struct outlier){(int32_t)at, qp_bf16_to_f32(qp_f32_to_bf16(x[at]))};
        }
    }
    float top = v_hmax(most), by = top > 0 ? 127.f / top : 0;
    for (int64_t k = 0; k < K; k += VL) {
        __mmask16 there = K - k < VL ? (__mmask16)((1u << (K - k)) - 1) : 0xffff;
        vf v = _mm512_maskz_loadu_ps(there, x + k);
        __mmask16 in = _mm512_cmp_ps_mask(v_abs(v), limit, _CMP_LT_OQ);
        __m512i c = _mm512_add_epi32(_mm512_maskz_cvtps_epi32(in, v_mul(v, v_set1(by))), _mm512_set1_epi32(128));
        _mm_mask_storeu_epi8(j->xq + t * K + k, there, _mm512_cvtepi32_epi8(c));
    }
    j->xs[t] = top / 127.f;
    j->n_outliers[t] = n;
}

static void convert_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        convert_row(arg, t);
}

INLINE void tile_body(int mr, int32_t *sums, const uint8_t *x, int64_t K, const int8_t *panel)
{
    __m512i acc[MR][NV];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < NV; v++)
            acc[i][v] = _mm512_setzero_si512();
    for (int64_t k = 0; k < K; k += 4) {
        __m512i b[NV];
        UNROLL for (int v = 0; v < NV; v++)
            b[v] = _mm512_loadu_si512(panel + k * NR + v * 4 * VL);
        UNROLL for (int i = 0; i < mr; i++) {
            int32_t four;
            memcpy(&four, x + i * K + k, sizeof four);
            __m512i a = _mm512_set1_epi32(four);
            UNROLL for (int v = 0; v < NV; v++)
                acc[i][v] = _mm512_dpbusd_epi32(acc[i][v], a, b[v]);
        }
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < NV; v++)
            _mm512_storeu_si512(sums + i * NR + v * VL, acc[i][v]);
}

#define TILE(mr)                                                                                                               \
    static __attribute__((noinline)) void tile_##mr(int32_t *sums, const uint8_t *x, int64_t K, const int8_t *panel)            \
    {                                                                                                                          \
        tile_body(mr, sums, x, K, panel);                                                                                      \
    }
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)

/* The outliers of row t times VL rows of W from lane n of the panel on. */
INLINE vf outliers_dot(const struct job *j, int64_t t, const int8_t *panel, int64_t n)
{
    const struct outlier *o = j->outliers + t * j->q->K;
    vf sum = v_set1(0);
    for (int64_t i = 0; i < j->n_outliers[t]; i++) {
        __m512i four = _mm512_loadu_si512(panel + o[i].k / 4 * NR * 4 + n * 4);
        __m512i w = _mm512_srai_epi32(_mm512_sllv_epi32(four, _mm512_set1_epi32(24 - 8 * (o[i].k % 4))), 24);
        sum = v_fma(v_set1(o[i].x), _mm512_cvtepi32_ps(w), sum);
    }
    return sum;
}

/* y[t, 64] (+)= xs scale (sums - 128 rowsum) + scale outliers */
static void finish_row(const struct job *j, int64_t t, int64_t p, const int32_t *sums, const int8_t *panel)
{
    int64_t left = j->q->N - p * NR;
    float *y = j->y + t * j->ldy + p * NR;
    for (int64_t v = 0; v < NR && v < left; v += VL) {
        int64_t n = left - v < VL ? left - v : VL;
        vf scale = v_load(j->scales + p * NR + v);
        __m512i whole = _mm512_sub_epi32(_mm512_loadu_si512(sums + v), _mm512_loadu_si512(j->sums + p * NR + v));
        vf sum = v_mul(_mm512_cvtepi32_ps(whole), v_mul(v_set1(j->xs[t]), scale));
        if (j->n_outliers[t])
            sum = v_fma(outliers_dot(j, t, panel, v), scale, sum);
        v_store_n(y + v, j->accumulate ? v_add(v_load_n(y + v, n), sum) : sum, n);
    }
}

static void tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    static void (*const tiles[MR])(int32_t *, const uint8_t *, int64_t, const int8_t *) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
    const struct job *j = arg;
    const int64_t K = j->q->K, panels = padded(j->q->N) / NR;
    int32_t sums[MR * NR] __attribute__((aligned(64)));
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        int64_t p = task % panels, t0 = task / panels * ROW_BLOCK, t1 = t0 + ROW_BLOCK < j->T ? t0 + ROW_BLOCK : j->T;
        const int8_t *panel = j->panels + p * NR * K;
        for (int64_t t = t0; t < t1; t += MR) {
            int64_t mr = t1 - t < MR ? t1 - t : MR;
            tiles[mr - 1](sums, j->xq + t * K, K, panel);
            for (int64_t i = 0; i < mr; i++)
                finish_row(j, t + i, p, sums + i * NR, panel);
        }
    }
}

void qp_avx512_vnni_linear_i8(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                              bool accumulate)
{
    int64_t block = T < BLOCK ? T : BLOCK, Np = padded(q->N);
    size_t xq = lines_up((size_t)(block * q->K)), rows = lines_up((size_t)block * sizeof(float)), counts = lines_up((size_t)block * sizeof(int64_t));
    uint8_t *scratch = qp_exec_scratch(ex, xq + rows + counts + (size_t)(block * q->K) * sizeof(struct outlier));
    if (!scratch)
        return;
    struct job j = {.scales = packed, .sums = (const int32_t *)packed + Np, .q = q, .ldy = ldy, .ldx = ldx, .accumulate = accumulate, .xq = scratch};
    j.panels = (const int8_t *)(j.sums + Np);
    j.xs = (float *)(void *)(scratch + xq);
    j.n_outliers = (int64_t *)(void *)(scratch + xq + rows);
    j.outliers = (struct outlier *)(void *)(scratch + xq + rows + counts);
    for (int64_t t = 0; t < T; t += block) {
        j.T = T - t < block ? T - t : block;
        j.x = x + t * ldx;
        j.y = y + t * ldy;
        qp_pool_for(ex->pool, j.T, 24, convert_rows, &j);
        qp_pool_for(ex->pool, Np / NR * ((j.T + ROW_BLOCK - 1) / ROW_BLOCK), 1, tasks, &j);
    }
}
