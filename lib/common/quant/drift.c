#include "quant/drift.h"

#include <string.h>

#include "base/mem.h"

#define CHUNK 2048 /* tokens transposed at a time */
#define TILE 16

struct turn {
    float *out;
    const float *in;
    int64_t n, tokens;
};

/* out [n, tokens] from in [tokens, n], by tiles that stay in the first-level cache. */
static void turn_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct turn *s = arg;
    (void)thread;
    for (int64_t t0 = 0; t0 < s->tokens; t0 += TILE) {
        int64_t t1 = t0 + TILE < s->tokens ? t0 + TILE : s->tokens;
        for (int64_t i = begin; i < end; i++)
            for (int64_t t = t0; t < t1; t++)
                s->out[i * s->tokens + t] = s->in[t * s->n + i];
    }
}

static void turn(float *out, const float *in, int64_t n, int64_t tokens, struct qp_exec *ex)
{
    struct turn s = {out, in, n, tokens};
    qp_pool_for(ex->pool, n, TILE, turn_rows, &s);
}

static void scale(float *m, int64_t n, double by)
{
    for (int64_t i = 0; i < n; i++)
        m[i] = (float)((double)m[i] * by);
}

static int moment_bf16(float *m, const float *a, int64_t na, const float *b, int64_t nb, int64_t T, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t chunk = T < CHUNK ? T : CHUNK;
    float *at = qp_alloc_n((size_t)(na * chunk), sizeof *at, "moments", err), *bt = a == b ? at : qp_alloc_n((size_t)(nb * chunk), sizeof *bt, "moments", err);
    void *packed = qp_alloc(ops->linear_bf16_bytes(nb, chunk), "moments", err);
    int r = at && bt && packed ? 0 : QP_E_RESOURCE;
    for (int64_t t = 0; t < T && !r; t += CHUNK) {
        int64_t n = T - t < CHUNK ? T - t : CHUNK;
        turn(at, a + t * na, na, n, ex);
        if (bt != at)
            turn(bt, b + t * nb, nb, n, ex);
        memset(packed, 0, ops->linear_bf16_bytes(nb, n));
        ops->linear_bf16_pack(ex, packed, bt, n, 0, nb, nb, n);
        ops->linear_bf16(ex, m, nb, at, n, packed, na, nb, n, true);
    }
    if (bt != at)
        qp_free(bt);
    qp_free(at);
    qp_free(packed);
    return r;
}

static int moment_f32(float *m, const float *a, int64_t na, const float *b, int64_t nb, int64_t T, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    float *at = qp_alloc_n((size_t)(na * (T < CHUNK ? T : CHUNK)), sizeof *at, "moments", err);
    for (int64_t t = 0; t < T && at; t += CHUNK) {
        int64_t n = T - t < CHUNK ? T - t : CHUNK;
        turn(at, a + t * na, na, n, ex);
        ops->gemm_sub(ex, m, nb, at, n, b + t * nb, nb, na, nb, n);
    }
    scale(m, na * nb, -1);
    qp_free(at);
    return at ? 0 : QP_E_RESOURCE;
}

int qp_moment(float *m, const float *a, int64_t na, const float *b, int64_t nb, int64_t T, enum qp_compute compute, const struct qp_ops *ops, struct qp_exec *ex,
              struct qp_err *err)
{
    memset(m, 0, (size_t)(na * nb) * sizeof *m);
    int r = compute == QP_COMPUTE_BF16 ? moment_bf16(m, a, na, b, nb, T, ops, ex, err) : moment_f32(m, a, na, b, nb, T, ops, ex, err);
    if (T)
        scale(m, na * nb, 1.0 / (double)T);
    if (!r && ex->failed)
        r = qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the moments");
    return r;
}

/* lack [rows, n] = -E[d xᵀ] */
static void lacking(float *lack, const float *w, int64_t rows, const struct qp_drift *d, const struct qp_ops *ops, struct qp_exec *ex)
{
    int64_t n = d->h->n;
    memset(lack, 0, (size_t)(rows * n) * sizeof *lack);
    if (d->inputs) {
        ops->gemm_sub(ex, lack, n, w, n, d->inputs, n, rows, n, n);
        return;
    }
    ops->gemm_sub(ex, lack, n, w, n, d->h->h, n, rows, n, n); /* -W·H: what the layer adds already */
    for (int64_t i = 0; i < rows * n; i++)
        lack[i] = -lack[i] - d->outputs[i];
}

int qp_drift_correct(float *w, int64_t rows, const struct qp_drift *d, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t n = d->h->n;
    float *lack = qp_alloc_n((size_t)(rows * n), sizeof *lack, "drift", err), *half = qp_zalloc((size_t)(rows * n) * sizeof *half, "drift", err);
    float *ut = qp_alloc_n((size_t)(n * n), sizeof *ut, "drift", err);
    int r = lack && half && ut ? 0 : QP_E_RESOURCE;
    if (!r) { /* Hinv = Uᵀ·U */
        lacking(lack, w, rows, d, ops, ex);
        turn(ut, d->h->factor, n, n, ex);
        ops->gemm_sub(ex, half, n, lack, n, ut, n, rows, n, n);
        scale(half, rows * n, -d->gain);
        ops->gemm_sub(ex, w, n, half, n, d->h->factor, n, rows, n, n);
    }
    qp_free(lack);
    qp_free(half);
    qp_free(ut);
    return r;
}
