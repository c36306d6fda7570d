/* Overlays: a baseline's weights with some replaced by quantized ones. */
#include <string.h>

#include "base/mem.h"
#include "model/decode.h"
#include "model/internal.h"

int qp_model_overlay(struct qp_model **out, struct qp_model *base, struct qp_err *err)
{
    *out = NULL;
    struct qp_model *m = qp_zalloc(sizeof *m, "model", err);
    if (!m)
        return QP_E_RESOURCE;
    m->refs = 1;
    m->config = base->config;
    m->arch = base->arch;
    m->path = qp_strdup(base->path, err);
    m->weights = qp_alloc_n(base->n_weights + 1, sizeof *m->weights, "weights", err);
    if (!m->path || !m->weights) {
        qp_model_free(m);
        return QP_E_RESOURCE;
    }
    m->base = base;
    base->refs++;
    m->n_weights = base->n_weights;
    memcpy(m->weights, base->weights, m->n_weights * sizeof *m->weights);
    for (size_t i = 0; i < m->n_weights; i++) {
        m->weights[i].owned = NULL;
        m->weights[i].pub.impl = &m->weights[i];
    }
    if (qp_model_list_linears(m, err)) {
        qp_model_free(m);
        return QP_E_RESOURCE;
    }
    *out = m;
    return 0;
}

/* The weight to replace; what an earlier call put there is dropped, what belongs to the base stays. */
static struct qp_weight_impl *replace(struct qp_model *m, const char *name, int64_t rows, int64_t cols, struct qp_err *err)
{
    struct qp_weight_impl *w = qp_model_find(m, name);
    if (!m->base)
        qp_err_set(err, QP_E_INTERNAL, "weights can be replaced in an overlay only");
    else if (!w)
        qp_err_set(err, QP_E_INPUT, "the model has no weight '%s'", name);
    else if (w->pub.rows != rows || w->pub.cols != cols) {
        qp_err_set(err, QP_E_INPUT, "'%s' is %lld x %lld, the model's is %lld x %lld", name, (long long)rows, (long long)cols, (long long)w->pub.rows, (long long)w->pub.cols);
        w = NULL;
    }
    if (!m->base || !w)
        return NULL;
    if (w->store != qp_model_find(m->base, name)->store)
        qp_store_free(w->store);
    qp_free(w->owned);
    w->store = NULL;
    w->owned = NULL;
    w->rotated_head_dim = w->parted_head_dim = 0;
    w->turned = w->minus_one = false;
    return w;
}

struct parts {
    const struct qp_tensor *v;
    size_t n;
};

static const struct qp_tensor *find_part(void *ctx, const char *part)
{
    const struct parts *p = ctx;
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->v[i].name, part))
            return &p->v[i];
    return NULL;
}

bool qp_parts_are_whole(const struct qp_tensor *parts, size_t n)
{
    struct parts p = {parts, n};
    return qp_store_is_whole(find_part, &p);
}

static int open_parts(struct qp_store **out, const char *name, int64_t rows, int64_t cols, struct parts p, const struct qp_part_hints *hints, bool copy, struct qp_err *err)
{
    struct qp_quant_config c = {.method = hints->awq ? QP_QUANT_AWQ : QP_QUANT_ANY, .bits = hints->bits, .mixed = !hints->bits, .zero_minus_one = hints->zero_minus_one,
                                .group_size = hints->group_size, .outlier_threshold = hints->outlier_threshold};
    int r = qp_store_open(out, name, rows, cols, find_part, &p, &c, copy, err);
    return r < 0 ? r : r ? 0 : qp_err_set(err, QP_E_INPUT, "'%s': its tensors are no quantized layer", name);
}

int qp_store_of_parts(struct qp_store **out, const char *name, int64_t rows, int64_t cols, const struct qp_tensor *parts, size_t n, const struct qp_part_hints *hints,
                      struct qp_err *err)
{
    return open_parts(out, name, rows, cols, (struct parts){parts, n}, hints, false, err);
}

int qp_model_set_parts(struct qp_model *m, const char *name, const struct qp_tensor *parts, size_t n, const struct qp_part_hints *hints, struct qp_err *err)
{
    struct qp_store *store;
    struct qp_weight_impl *w = qp_model_find(m, name);
    if (!w)
        return qp_err_set(err, QP_E_INPUT, "the model has no weight '%s'", name);
    if (open_parts(&store, w->pub.name, w->pub.rows, w->pub.cols, (struct parts){parts, n}, hints, true, err))
        return err->code;
    if (!replace(m, name, w->pub.rows, w->pub.cols, err)) {
        qp_store_free(store);
        return err ? err->code : QP_E_INTERNAL;
    }
    w->store = store;
    w->pub.storage = QP_STORE_QUANTIZED;
    return 0;
}

int qp_model_set_dense(struct qp_model *m, const char *name, const struct qp_tensor *t, struct qp_err *err)
{
    int64_t rows = t->ndim == 2 ? t->shape[0] : 1, cols = t->ndim ? t->shape[t->ndim - 1] : 1;
    if (!qp_decodes(t->dtype) || t->ndim < 1 || t->ndim > 2)
        return qp_err_set(err, QP_E_INPUT, "'%s': dtype %s with %d dimensions is no weight", name, qp_dtype_info[t->dtype].name, t->ndim);
    void *copy = qp_alloc(t->bytes, name, err);
    if (!copy)
        return QP_E_RESOURCE;
    struct qp_weight_impl *w = replace(m, name, rows, cols, err);
    if (!w) {
        qp_free(copy);
        return err ? err->code : QP_E_INPUT;
    }
    w->owned = memcpy(copy, t->data, t->bytes);
    w->tensor = *t;
    w->tensor.data = w->owned;
    w->pub.storage = QP_STORE_DENSE;
    return 0;
}
