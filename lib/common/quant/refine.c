/* Coordinate descent after GPTQ, and the measure of a layer's error. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "quant/gptq.h"

#define MAX_BLOCK 128 /* inputs that are refined together: a group, or a piece of a long one */

struct job {
    struct qp_qlinear *q;
    const float *h;      /* [n, n] */
    float *r;            /* [rows, n] (W - Q) · (H + ridge) */
    float *delta;        /* [rows, MAX_BLOCK] change of Q in the block */
    const int32_t *in;   /* the block's inputs */
    float hb[MAX_BLOCK * MAX_BLOCK]; /* H among them */
    float ridge;         /* added to H's diagonal, as GPTQ does: codes that suit H to the last digit suit other text less */
    int64_t n, len;
    int32_t group;
    bool fit_scale;      /* the block is the whole group */
};

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
static void move(float *r, const float *h, float d, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        r[i] -= d * h[i];
}

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
static float dot(const float *a, const float *b, int64_t n)
{
    float s = 0;
    for (int64_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* The least-squares scale for the codes as they are; taken only when it lowers the error after its rounding to float16. */
static void fit_scale(const struct job *j, float *r, float *c, float *scale, int zero, float *delta)
{
    float num = dot(c, r, j->len), hc[MAX_BLOCK], den = 0;
    for (int64_t i = 0; i < j->len; i++)
        hc[i] = dot(j->hb + i * MAX_BLOCK, c, j->len);
    den = dot(c, hc, j->len);
    if (!(den > 0))
        return;
    float want = *scale + num / den;
    if (!(want > 0x1p-24f) || !(want < 65504.f))
        return;
    float step = qp_grid_scale(&j->q->grid, want, zero) - *scale;
    if (!(2 * step * num > step * step * den))
        return;
    *scale += step;
    for (int64_t i = 0; i < j->len; i++) {
        delta[i] += step * c[i];
        r[i] -= step * hc[i];
    }
}

static void refine_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    struct qp_qlinear *q = j->q;
    int max = (1 << q->grid.bits) - 1;
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        int64_t at = row * q->n_groups + j->group;
        float r[MAX_BLOCK], c[MAX_BLOCK], *delta = j->delta + row * MAX_BLOCK, zero = (float)q->zeros[at];
        uint8_t *codes = q->codes + row * q->cols;
        for (int64_t i = 0; i < j->len; i++) {
            r[i] = j->r[row * j->n + j->in[i]];
            c[i] = (float)codes[j->in[i]] - zero;
            delta[i] = 0;
        }
        if (j->fit_scale)
            fit_scale(j, r, c, &q->scales[at], q->zeros[at], delta);
        float scale = q->scales[at], inv = 1.f / scale;
        for (int64_t i = 0; i < j->len; i++) { /* the best value of one code with all others fixed is the current one plus r/h */
            float want = c[i] + r[i] / j->hb[i * MAX_BLOCK + i] * inv + zero;
            want = want < 0 ? 0 : want > (float)max ? (float)max : want;
            float fresh = (float)(int)(want + 0.5f) - zero;
            if (fresh == c[i])
                continue;
            float d = scale * (fresh - c[i]);
            delta[i] += d;
            c[i] = fresh;
            move(r, j->hb + i * MAX_BLOCK, d, j->len);
        }
        for (int64_t i = 0; i < j->len; i++)
            codes[j->in[i]] = (uint8_t)(c[i] + zero);
    }
}

/* One block for all rows, then its change is carried to the whole of r. hrows [len, n]: the block's rows of H, gathered. */
static void refine_block(struct job *j, float *hrows, const struct qp_ops *ops, struct qp_exec *ex)
{
    for (int64_t i = 0; i < j->len; i++) {
        memcpy(hrows + i * j->n, j->h + (int64_t)j->in[i] * j->n, (size_t)j->n * sizeof *hrows);
        for (int64_t k = 0; k < j->len; k++)
            j->hb[i * MAX_BLOCK + k] = j->h[(int64_t)j->in[i] * j->n + j->in[k]] + (i == k ? j->ridge : 0);
        hrows[i * j->n + j->in[i]] += j->ridge;
    }
    qp_pool_for(ex->pool, j->q->rows, 8, refine_rows, j);
    ops->gemm_sub(ex, j->r, j->n, j->delta, MAX_BLOCK, hrows, j->n, j->q->rows, j->n, j->len);
}

/* r = (W - Q) · (H + ridge) */
static void residual(float *r, float *diff, const struct qp_qlinear *q, const float *w, const float *h, float ridge, const struct qp_ops *ops, struct qp_exec *ex)
{
    qp_qlinear_decode(q, diff);
    for (int64_t i = 0; i < q->rows * q->cols; i++)
        diff[i] -= w[i];
    for (int64_t i = 0; i < q->rows * q->cols; i++)
        r[i] = -ridge * diff[i];
    ops->gemm_sub(ex, r, q->cols, diff, q->cols, h, q->cols, q->rows, q->cols, q->cols);
}

int qp_gptq_refine(struct qp_qlinear *q, const float *w, const struct qp_hessian *h, int sweeps, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t n = q->cols;
    struct job *j = qp_zalloc(sizeof *j, "refinement", err);
    float *r = qp_alloc_n((size_t)(q->rows * n), sizeof *r, "refinement", err), *diff = qp_alloc_n((size_t)(q->rows * n), sizeof *diff, "refinement", err);
    float *hrows = qp_alloc_n((size_t)(MAX_BLOCK * n), sizeof *hrows, "refinement", err), *delta = qp_alloc_n((size_t)(q->rows * MAX_BLOCK), sizeof *delta, "refinement", err);
    int32_t *in = qp_alloc_n((size_t)n, sizeof *in, "refinement", err);
    int status = j && r && diff && hrows && delta && in ? 0 : QP_E_RESOURCE;
    if (!status) {
        float ridge = (float)(h->damp * h->trace / (double)n);
        residual(r, diff, q, w, h->h, ridge, ops, ex);
        *j = (struct job){.q = q, .h = h->h, .r = r, .delta = delta, .in = in, .n = n, .ridge = ridge};
    }
    for (int s = 0; s < sweeps && !status; s++)
        for (int32_t g = 0; g < q->n_groups; g++) {
            int64_t members = 0;
            for (int64_t i = 0; i < n; i++)
                if (q->g_idx[i] == g)
                    in[members++] = (int32_t)i;
            j->group = g;
            j->fit_scale = members <= MAX_BLOCK;
            for (int64_t at = 0; at < members; at += MAX_BLOCK) {
                j->in = in + at;
                j->len = members - at < MAX_BLOCK ? members - at : MAX_BLOCK;
                refine_block(j, hrows, ops, ex);
            }
        }
    qp_free(j);
    qp_free(r);
    qp_free(diff);
    qp_free(hrows);
    qp_free(delta);
    qp_free(in);
    return status;
}

static double inner(const float *a, const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

int qp_quant_measure(struct qp_quant_error *e, const struct qp_qweight *q, const float *w, const struct qp_hessian *h, const struct qp_ops *ops, struct qp_exec *ex,
                     struct qp_err *err)
{
    int64_t n = q->rows * q->cols;
    float *diff = qp_alloc_n((size_t)n, sizeof *diff, "error", err), *prod = h ? qp_alloc_n((size_t)n, sizeof *prod, "error", err) : NULL;
    if (!diff || (h && !prod)) {
        qp_free(diff);
        qp_free(prod);
        return QP_E_RESOURCE;
    }
    qp_qweight_decode(q, diff);
    for (int64_t i = 0; i < n; i++)
        diff[i] -= w[i];
    double squares = inner(diff, diff, n), num = squares, den = h ? 0 : inner(w, w, n);
    if (h) { /* tr(E H Eᵀ): the product is -E·H */
        memset(prod, 0, (size_t)n * sizeof *prod);
        ops->gemm_sub(ex, prod, q->cols, diff, q->cols, h->h, q->cols, q->rows, q->cols, q->cols);
        num = -inner(prod, diff, n);
        memset(prod, 0, (size_t)n * sizeof *prod);
        ops->gemm_sub(ex, prod, q->cols, w, q->cols, h->h, q->cols, q->rows, q->cols, q->cols);
        den = -inner(prod, w, n);
    }
    e->mse = squares / (double)n;
    e->rel_error = den > 0 ? num / den : 0;
    e->snr_db = e->rel_error > 0 ? -10 * log10(e->rel_error) : 200;
    qp_free(diff);
    qp_free(prod);
    return 0;
}
