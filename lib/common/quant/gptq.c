#include "quant/gptq.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define BLOCK 128 /* columns whose errors are carried within the block first, then to the rest in one product */

struct job {
    struct qp_qlinear *q;
    float *w;         /* [rows, n] in the Hessian's order; becomes what is left to explain */
    const float *h;   /* diagonal in that order: importance for the grid search */
    const float *u;   /* [n, n] */
    float *e;         /* [rows, BLOCK] errors of the block */
    const int32_t *group; /* [n] group of each place */
    const int32_t *place; /* [n] input of each place */
    int64_t n, begin, end;
    bool fit_on_the_way; /* a group's grid is fitted when its first column comes */
};

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
static void carry(float *w, const float *u, float e, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        w[i] -= e * u[i];
}

/* The grid of the group that begins at place k of a row: from the weights as the carried errors have left them. */
static void fit_group(const struct job *j, const float *w, int64_t row, int64_t k)
{
    int32_t g = j->group[k];
    int64_t n = 1;
    while (k + n < j->n && j->group[k + n] == g)
        n++;
    qp_grid_fit(&j->q->grid, w + k, j->h + k, n, &j->q->scales[row * j->q->n_groups + g], &j->q->zeros[row * j->q->n_groups + g]);
}

static void quantize_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    struct qp_qlinear *q = j->q;
    int max = (1 << q->grid.bits) - 1;
    (void)thread;
    for (int64_t row = begin; row < end; row++) {
        float *w = j->w + row * j->n, *e = j->e + row * BLOCK;
        for (int64_t k = j->begin; k < j->end; k++) {
            int32_t g = j->group[k];
            if (j->fit_on_the_way && (k == 0 || j->group[k - 1] != g))
                fit_group(j, w, row, k);
            int64_t at = row * q->n_groups + g;
            int code = qp_grid_code(w[k], 1.f / q->scales[at], q->zeros[at], max);
            q->codes[row * q->cols + j->place[k]] = (uint8_t)code;
            float err = (w[k] - q->scales[at] * (float)(code - q->zeros[at])) / j->u[k * j->n + k];
            e[k - j->begin] = err;
            carry(w + k + 1, j->u + k * j->n + k + 1, err, j->end - k - 1);
        }
    }
}

/* Grids of all groups from the weights as they are. */
static void fit_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    struct qp_qlinear *q = j->q;
    (void)thread;
    for (int64_t row = begin; row < end; row++)
        for (int64_t g = 0, at = 0; g < q->n_groups; g++) {
            int64_t size = q->grid.group_size ? q->grid.group_size : q->cols, n = q->cols - at < size ? q->cols - at : size;
            qp_grid_fit(&q->grid, j->w + row * q->cols + at, j->h ? j->h + at : NULL, n, &q->scales[row * q->n_groups + g], &q->zeros[row * q->n_groups + g]);
            at += n;
        }
}

static void run_blocks(struct job *j, int64_t rows, const struct qp_ops *ops, struct qp_exec *ex)
{
    for (j->begin = 0; j->begin < j->n; j->begin = j->end) {
        j->end = j->begin + BLOCK < j->n ? j->begin + BLOCK : j->n;
        qp_pool_for(ex->pool, rows, 8, quantize_rows, j);
        if (j->end < j->n)
            ops->gemm_sub(ex, j->w + j->end, j->n, j->e, BLOCK, j->u + j->begin * j->n + j->end, j->n, rows, j->n - j->end, j->end - j->begin);
    }
}

struct work {
    float *w, *e, *diag, *plain_diag;
    int32_t *group, *place;
};

static int prepare(struct work *k, const float *w, int64_t rows, const struct qp_hessian *h, const struct qp_gptq_options *o, struct qp_qlinear *q, struct qp_err *err)
{
    int64_t n = h->n, size = o->grid.group_size ? o->grid.group_size : n;
    k->w = qp_alloc_n((size_t)(rows * n), sizeof *k->w, "weights", err);
    k->e = qp_alloc_n((size_t)(rows * BLOCK), sizeof *k->e, "weights", err);
    k->diag = qp_alloc_n((size_t)n, 2 * sizeof *k->diag, "weights", err);
    k->group = qp_alloc_n((size_t)n, 2 * sizeof *k->group, "weights", err);
    if (!k->w || !k->e || !k->diag || !k->group)
        return QP_E_RESOURCE;
    k->place = k->group + n;
    k->plain_diag = k->diag + n;
    for (int64_t i = 0; i < n; i++) {
        int32_t input = h->order ? h->order[i] : (int32_t)i;
        k->place[i] = input;
        k->plain_diag[i] = h->h[i * n + i];
        k->diag[i] = h->h[(int64_t)input * n + input];
        k->group[i] = (int32_t)((o->static_groups || o->group_aware ? input : i) / size);
        q->g_idx[input] = k->group[i];
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++)
            k->w[r * n + i] = w[r * n + k->place[i]];
    return 0;
}

int qp_gptq_quantize(struct qp_qlinear *q, const float *w, int64_t rows, const struct qp_hessian *h, const struct qp_gptq_options *o, const struct qp_ops *ops,
                     struct qp_exec *ex, struct qp_err *err)
{
    struct work k = {0};
    if (qp_qlinear_init(q, rows, h->n, o->grid, err))
        return QP_E_RESOURCE;
    int r = prepare(&k, w, rows, h, o, q, err);
    if (!r) {
        struct job j = {.q = q, .w = (float *)(uintptr_t)w, .h = k.plain_diag, .u = h->factor, .e = k.e, .group = k.group, .place = k.place, .n = h->n,
                        .fit_on_the_way = o->group_aware || !(o->static_groups && h->order)};
        if (!j.fit_on_the_way)
            qp_pool_for(ex->pool, rows, 8, fit_rows, &j); /* reads w, in the inputs' own order */
        j.w = k.w;
        j.h = k.diag;
        run_blocks(&j, rows, ops, ex);
        r = o->sweeps ? qp_gptq_refine(q, w, h, o->sweeps, ops, ex, err) : 0;
    }
    qp_free(k.w);
    qp_free(k.e);
    qp_free(k.diag);
    qp_free(k.group);
    if (r)
        qp_qlinear_release(q);
    return r;
}

static void round_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    struct qp_qlinear *q = j->q;
    int max = (1 << q->grid.bits) - 1;
    fit_rows(arg, begin, end, thread);
    for (int64_t row = begin; row < end; row++)
        for (int64_t i = 0; i < q->cols; i++) {
            int64_t at = row * q->n_groups + q->g_idx[i];
            q->codes[row * q->cols + i] = (uint8_t)qp_grid_code(j->w[row * q->cols + i], 1.f / q->scales[at], q->zeros[at], max);
        }
}

int qp_rtn_quantize(struct qp_qlinear *q, const float *w, int64_t rows, int64_t cols, struct qp_grid grid, struct qp_exec *ex, struct qp_err *err)
{
    if (qp_qlinear_init(q, rows, cols, grid, err))
        return QP_E_RESOURCE;
    struct job j = {.q = q, .w = (float *)(uintptr_t)w};
    qp_pool_for(ex->pool, rows, 8, round_rows, &j);
    return 0;
}
