/* Norms and embeddings: what stands before, between and behind the matrices. */
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

int qp_vector_load(float **out, const struct qp_weight *w, int64_t n, struct qp_err *err)
{
    *out = NULL;
    if (!w)
        return 0;
    *out = qp_alloc_n((size_t)n, sizeof **out, w->name, err);
    if (!*out || qp_weight_read_rows(w, 0, 1, *out, err))
        return err->code;
    return qp_all_finite(*out, n) ? 0 : qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", w->name);
}

int qp_norm_load(struct qp_norm *n, const struct qp_model *m, int64_t layer, enum qp_role role, int64_t width, struct qp_err *err)
{
    *n = (struct qp_norm){0};
    if (qp_vector_load(&n->w, qp_model_part(m, layer, role, -1, false), width, err) || qp_vector_load(&n->b, qp_model_part(m, layer, role, -1, true), width, err))
        return err->code;
    for (int64_t i = 0; n->w && qp_model_config(m)->norm == QP_NORM_RMS_PLUS_ONE && i < width; i++)
        n->w[i] += 1;
    return 0;
}

void qp_norm_release(struct qp_norm *n)
{
    qp_free(n->w);
    qp_free(n->b);
    *n = (struct qp_norm){0};
}

void qp_norm_run(const struct qp_norm *n, const struct qp_model_config *c, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t T,
                 int64_t width)
{
    if (!n->w) {
        memmove(y, x, (size_t)(T * width) * sizeof *y);
        return;
    }
    if (c->norm == QP_NORM_LAYER)
        ops->layer_norm(ex, y, x, n->w, n->b, T, width, (float)c->norm_eps);
    else
        ops->rms_norm(ex, y, x, n->w, T, width, (float)c->norm_eps);
}

int qp_final_norm(const struct qp_model *m, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t T, struct qp_err *err)
{
    const struct qp_model_config *c = qp_model_config(m);
    struct qp_norm n;
    int r = qp_norm_load(&n, m, -1, QP_ROLE_FINAL_NORM, c->d_model, err);
    if (!r)
        qp_norm_run(&n, c, ops, ex, y, x, T, c->d_model);
    qp_norm_release(&n);
    return r;
}

static int add_positions(const struct qp_model *m, int64_t n, int64_t pos0, float *x, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_part(m, -1, QP_ROLE_POSITIONS, -1, false);
    float *p = qp_alloc_n((size_t)w->cols, sizeof *p, "positions", err);
    int r = p ? 0 : QP_E_RESOURCE;
    for (int64_t i = 0; i < n && !r; i++) {
        r = qp_weight_read_rows(w, pos0 + i, 1, p, err);
        for (int64_t d = 0; d < w->cols && !r; d++)
            x[i * w->cols + d] += p[d];
    }
    qp_free(p);
    return r;
}

int qp_embed_at(const struct qp_model *m, const int32_t *ids, int64_t n, int64_t pos0, float *x, struct qp_err *err)
{
    const struct qp_model_config *c = qp_model_config(m);
    const struct qp_weight *w = qp_model_part(m, -1, QP_ROLE_EMBED, -1, false);
    if (c->learned_positions && pos0 + n > c->max_positions)
        return qp_err_set(err, QP_E_INPUT, "a text of %lld tokens, but the model has positions for %lld", (long long)(pos0 + n), (long long)c->max_positions);
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= w->rows)
            return qp_err_set(err, QP_E_INPUT, "token id %d is outside of the vocabulary of %lld", ids[i], (long long)w->rows);
        if (qp_weight_read_rows(w, ids[i], 1, x + i * w->cols, err))
            return err->code;
    }
    for (int64_t i = 0; c->embed_scale > 0 && i < n * w->cols; i++)
        x[i] *= (float)c->embed_scale;
    if (c->learned_positions && add_positions(m, n, pos0, x, err))
        return err->code;
    return qp_all_finite(x, n * w->cols) ? 0 : qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights", w->name);
}

int qp_embed(const struct qp_model *m, const int32_t *ids, int64_t n_seq, int64_t len, float *x, struct qp_err *err)
{
    for (int64_t i = 0; i < n_seq; i++)
        if (qp_embed_at(m, ids + i * len, len, 0, x + i * len * qp_model_config(m)->d_model, err))
            return err->code;
    return 0;
}
