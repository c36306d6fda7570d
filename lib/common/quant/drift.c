#include "quant/drift.h"

#include <string.h>

#include "base/mem.h"

#define CHUNK 2048 /* tokens transposed at a time */
#define TILE 16
#define PAD 16     /* keeps the rows of a transposed chunk apart in the cache's sets */
#define COLUMNS 192 /* of a symmetric moment at a time: what lies above them is not computed */

struct turn {
    float *out;
    const float *in;
    int64_t n, tokens, ld;
};

typedef float four __attribute__((vector_size(16), aligned(4)));

static inline void turn_4x4(float *out, int64_t ld, const float *in, int64_t n)
{
    four a = *(const four *)in, b = *(const four *)(in + n), c = *(const four *)(in + 2 * n), d = *(const four *)(in + 3 * n);
    *(four *)out = (four){a[0], b[0], c[0], d[0]};
    *(four *)(out + ld) = (four){a[1], b[1], c[1], d[1]};
    *(four *)(out + 2 * ld) = (four){a[2], b[2], c[2], d[2]};
    *(four *)(out + 3 * ld) = (four){a[3], b[3], c[3], d[3]};
}

/* out [n, ld] from in [tokens, n], by tiles that stay in the first-level cache. */
static void turn_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct turn *s = arg;
    (void)thread;
    int64_t whole = end - begin == TILE ? s->tokens / TILE * TILE : 0;
    for (int64_t t0 = 0; t0 < whole; t0 += TILE)
        for (int64_t i = begin; i < end; i += 4)
            for (int64_t t = t0; t < t0 + TILE; t += 4)
                turn_4x4(s->out + i * s->ld + t, s->ld, s->in + t * s->n + i, s->n);
    for (int64_t i = begin; i < end; i++)
        for (int64_t t = whole; t < s->tokens; t++)
            s->out[i * s->ld + t] = s->in[t * s->n + i];
}

static void turn(float *out, int64_t ld, const float *in, int64_t n, int64_t tokens, struct qp_exec *ex)
{
    struct turn s = {out, in, n, tokens, ld};
    qp_pool_for(ex->pool, n, TILE, turn_rows, &s);
}

static void scale(float *m, int64_t n, double by)
{
    for (int64_t i = 0; i < n; i++)
        m[i] = (float)((double)m[i] * by);
}

/* m += at · btᵀ for a chunk; of a symmetric moment the lower triangle and little more. */
static void add_chunk(float *m, const float *at, int64_t na, const float *bt, int64_t nb, int64_t ld, int64_t tokens, void *packed, const struct qp_ops *ops,
                      struct qp_exec *ex)
{
    int64_t step = at == bt ? COLUMNS : nb;
    for (int64_t c = 0; c < nb; c += step) {
        int64_t n = nb - c < step ? nb - c : step, first = at == bt ? c : 0;
        memset(packed, 0, ops->linear_bf16_bytes(n, tokens));
        ops->linear_bf16_pack(ex, packed, bt + c * ld, ld, 0, n, n, tokens);
        ops->linear_bf16(ex, m + first * nb + c, nb, at + first * ld, ld, packed, na - first, n, tokens, true);
    }
}

static int moment_bf16(float *m, const float *a, int64_t na, const float *b, int64_t nb, int64_t T, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t chunk = T < CHUNK ? T : CHUNK, ld = chunk + PAD;
    float *at = qp_alloc_n((size_t)(na * ld), sizeof *at, "moments", err), *bt = a == b ? at : qp_alloc_n((size_t)(nb * ld), sizeof *bt, "moments", err);
    void *packed = qp_alloc(ops->linear_bf16_bytes(nb, chunk), "moments", err);
    int r = at && bt && packed ? 0 : QP_E_RESOURCE;
    for (int64_t t = 0; t < T && !r; t += CHUNK) {
        int64_t n = T - t < CHUNK ? T - t : CHUNK;
        turn(at, ld, a + t * na, na, n, ex);
        if (bt != at)
            turn(bt, ld, b + t * nb, nb, n, ex);
        add_chunk(m, at, na, bt, nb, ld, n, packed, ops, ex);
        qp_spool_passed(ex->spool, a + t * na, (size_t)(n * na) * sizeof *a);
        qp_spool_passed(ex->spool, b + t * nb, (size_t)(n * nb) * sizeof *b);
    }
    for (int64_t i = 0; i < na && a == b && !r; i++)
        for (int64_t j = 0; j < i; j++)
            m[j * nb + i] = m[i * nb + j];
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
        turn(at, n, a + t * na, na, n, ex);
        ops->gemm_sub(ex, m, nb, at, n, b + t * nb, nb, na, nb, n);
        qp_spool_passed(ex->spool, a + t * na, (size_t)(n * na) * sizeof *a);
        qp_spool_passed(ex->spool, b + t * nb, (size_t)(n * nb) * sizeof *b);
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

/* out[:, k] = in[:, order[k]], or back */
static void reorder(float *out, const float *in, int64_t rows, const struct qp_hessian *h, bool back)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < h->n; k++) {
            int64_t i = h->order ? h->order[k] : k;
            out[r * h->n + (back ? i : k)] = in[r * h->n + (back ? k : i)];
        }
}

int qp_drift_correct(float *w, int64_t rows, const struct qp_drift *d, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t n = d->h->n, bytes = rows * n * (int64_t)sizeof(float);
    float *a = qp_alloc((size_t)bytes, "drift", err), *b = qp_alloc((size_t)bytes, "drift", err), *ut = qp_alloc_n((size_t)(n * n), sizeof *ut, "drift", err);
    int r = a && b && ut ? 0 : QP_E_RESOURCE;
    if (!r) { /* w -= gain · lack · Hinv, Hinv = Uᵀ·U in the Hessian's order */
        lacking(a, w, rows, d, ops, ex);
        reorder(b, a, rows, d->h, false);
        turn(ut, n, d->h->factor, n, n, ex);
        memset(a, 0, (size_t)bytes);
        ops->gemm_sub(ex, a, n, b, n, ut, n, rows, n, n); /* -lack·Uᵀ */
        memset(b, 0, (size_t)bytes);
        ops->gemm_sub(ex, b, n, a, n, d->h->factor, n, rows, n, n); /* lack·Hinv */
        reorder(a, b, rows, d->h, true);
        for (int64_t i = 0; i < rows * n; i++)
            w[i] -= (float)d->gain * a[i];
    }
    qp_free(a);
    qp_free(b);
    qp_free(ut);
    return r;
}
