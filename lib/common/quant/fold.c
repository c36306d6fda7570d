#include "quant/fold.h"

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"

#define MAX_CHANGED 8 /* norms and biases of a block that can change */

/* ---- what computes a stage's inputs ---- */

static int64_t v_row(const struct qp_model_config *c, enum qp_role role, int64_t input)
{
    int64_t hd = c->head_dim, head = input / hd / (c->n_heads / c->n_kv_heads), i = input % hd;
    if (role == QP_ROLE_V)
        return head * hd + i;
    return c->qkv_by_head ? (3 * head + 2) * hd + i : (c->n_heads + c->n_kv_heads + head) * hd + i;
}

static int64_t up_row(const struct qp_linear *up, int64_t width, int64_t input)
{
    return up->role == QP_ROLE_GATE_UP ? width + input : input;
}

/* The linear layer of that role, or the fused one, in the stage's block and expert. */
static const struct qp_linear *partner(const struct qp_model *m, const struct qp_linear *l, enum qp_role role, enum qp_role fused)
{
    for (size_t i = qp_model_first_linear(m, l->layer); i < qp_model_first_linear(m, l->layer + 1); i++) {
        const struct qp_linear *p = qp_model_linear(m, i);
        if ((p->role == role || p->role == fused) && p->expert == l->expert)
            return p;
    }
    return NULL;
}

static void find_norm(struct qp_fold *f, const struct qp_model *m, const struct qp_linear *l, enum qp_role role)
{
    if (role == QP_ROLE_NORM2 && qp_config_has_experts(qp_model_config(m), l->layer)) {
        f->none = "a router reads the same inputs";
        return;
    }
    if (role == QP_ROLE_NORM1 && qp_model_config(m)->parallel_residual && !qp_model_part(m, l->layer, QP_ROLE_NORM2, -1, false)) {
        f->none = "the MLP reads the same inputs";
        return;
    }
    f->norm = qp_model_part(m, l->layer, role, -1, false);
    f->bias = qp_model_part(m, l->layer, role, -1, true);
    f->none = f->norm ? NULL : "no norm before it";
}

static void find_before(struct qp_fold *f, const struct qp_model *m, const struct qp_linear *l, enum qp_role role, enum qp_role fused)
{
    f->before = partner(m, l, role, fused);
    if (!f->before)
        f->none = "nothing linear before it";
    else
        f->bias = qp_model_part(m, l->layer, f->before->role, f->before->expert, true);
}

int qp_fold_find(struct qp_fold *f, const struct qp_model *m, const struct qp_stage *stage, struct qp_err *err)
{
    const struct qp_model_config *c = qp_model_config(m);
    const struct qp_linear *l = stage->linears;
    *f = (struct qp_fold){0};
    switch (l->role) {
    case QP_ROLE_Q:
    case QP_ROLE_K:
    case QP_ROLE_V:
    case QP_ROLE_QKV: find_norm(f, m, l, QP_ROLE_NORM1); break;
    case QP_ROLE_O: find_before(f, m, l, QP_ROLE_V, QP_ROLE_QKV); break;
    case QP_ROLE_DOWN:
        if (c->gated)
            find_before(f, m, l, QP_ROLE_UP, QP_ROLE_GATE_UP);
        else
            f->none = "an activation without a gate before it";
        break;
    case QP_ROLE_SHARED_DOWN: find_before(f, m, l, QP_ROLE_SHARED_UP, QP_ROLE_SHARED_UP); break;
    default: find_norm(f, m, l, QP_ROLE_NORM2); break;
    }
    if (f->none)
        return 0;
    if (!(f->row = qp_alloc_n((size_t)stage->width, sizeof *f->row, "scales", err)))
        return QP_E_RESOURCE;
    for (int64_t i = 0; i < stage->width; i++)
        f->row[i] = (int32_t)(f->norm ? i : l->role == QP_ROLE_O ? v_row(c, f->before->role, i) : up_row(f->before, stage->width, i));
    return 0;
}

void qp_fold_release(struct qp_fold *f)
{
    qp_free(f->row);
    *f = (struct qp_fold){0};
}

/* ---- one block's scales ---- */

struct scales {
    float *in, *out; /* [cols], [rows] factors; NULL: ones */
};

struct qp_folded {
    struct qp_model *m; /* overlay */
    struct scales *scales; /* of the block's linear layers */
    size_t first, n;
    const struct qp_weight *changed[MAX_CHANGED];
    int n_changed;
};

int qp_folded_new(struct qp_folded **out, struct qp_model *m, struct qp_err *err)
{
    size_t most = 0;
    *out = NULL;
    struct qp_folded *f = qp_zalloc(sizeof *f, "scales", err);
    for (int64_t l = 0; l < qp_model_config(m)->n_layers; l++) {
        size_t n = qp_model_first_linear(m, l + 1) - qp_model_first_linear(m, l);
        most = n > most ? n : most;
    }
    if (!f || !(f->scales = qp_zalloc((most + 1) * sizeof *f->scales, "scales", err)) || qp_model_overlay(&f->m, m, err)) {
        qp_folded_free(f);
        return QP_E_RESOURCE;
    }
    *out = f;
    return 0;
}

static void forget(struct qp_folded *f)
{
    for (size_t i = 0; i < f->n; i++) {
        qp_free(f->scales[i].in);
        qp_free(f->scales[i].out);
        f->scales[i] = (struct scales){0};
    }
    f->n_changed = 0;
}

void qp_folded_free(struct qp_folded *f)
{
    if (!f)
        return;
    forget(f);
    qp_free(f->scales);
    qp_model_free(f->m);
    qp_free(f);
}

void qp_folded_begin(struct qp_folded *f, int64_t layer)
{
    forget(f);
    f->first = qp_model_first_linear(f->m, layer);
    f->n = qp_model_first_linear(f->m, layer + 1) - f->first;
}

const struct qp_model *qp_folded_model(const struct qp_folded *f)
{
    return f->m;
}

const struct qp_weight *const *qp_folded_changed(const struct qp_folded *f, int *count)
{
    *count = f->n_changed;
    return f->changed;
}

/* Linear layers are told apart by name: l may be of the model under the overlay. */
static struct scales *scales_of(const struct qp_folded *f, const struct qp_linear *l)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(qp_model_linear(f->m, f->first + i)->weight->name, l->weight->name))
            return &f->scales[i];
    return NULL;
}

static float *ones(int64_t n, struct qp_err *err)
{
    float *v = qp_alloc_n((size_t)n, sizeof *v, "scales", err);
    for (int64_t i = 0; v && i < n; i++)
        v[i] = 1;
    return v;
}

static int set_vector(struct qp_folded *f, const struct qp_weight *w, const float *v, struct qp_err *err)
{
    struct qp_tensor t = {.name = w->name, .dtype = QP_DT_F32, .ndim = 1, .shape = {w->cols}, .bytes = (size_t)w->cols * sizeof *v, .data = v};
    if (qp_model_set_dense(f->m, w->name, &t, err))
        return err->code;
    for (int i = 0; i < f->n_changed; i++)
        if (!strcmp(f->changed[i]->name, w->name))
            return 0;
    f->changed[f->n_changed++] = qp_model_weight(f->m, w->name);
    return 0;
}

/* Norm weights become float16 values; s becomes what they were really divided by. Gemma's are 1 + w. */
static int divide_norm(struct qp_folded *f, const struct qp_weight *norm, float *s, struct qp_err *err)
{
    float one = qp_model_config(f->m)->norm == QP_NORM_RMS_PLUS_ONE, *v = ones(norm->cols, err);
    int r = v ? qp_weight_read_rows(norm, 0, 1, v, err) : QP_E_RESOURCE;
    for (int64_t i = 0; i < norm->cols && !r; i++) {
        float old = v[i] + one, fresh = qp_f16_to_f32(qp_f32_to_f16(old / s[i] - one));
        if (old == 0 || fresh + one == 0 || !isfinite(fresh) || !isfinite(old / (fresh + one))) {
            s[i] = 1; /* an input that is always zero, or scales that float16 cannot hold */
            continue;
        }
        v[i] = fresh;
        s[i] = old / (fresh + one);
    }
    r = r ? r : set_vector(f, norm, v, err);
    qp_free(v);
    return r;
}

/* bias [row[i]] /= s[i], each element once. */
static int divide_bias(struct qp_folded *f, const struct qp_fold *fold, const float *by, struct qp_err *err)
{
    const struct qp_weight *bias = qp_model_weight(f->m, fold->bias->name);
    float *v = ones(bias->cols, err);
    int r = v ? qp_weight_read_rows(bias, 0, 1, v, err) : QP_E_RESOURCE;
    for (int64_t i = 0; i < bias->cols && !r; i++)
        v[i] *= by[i];
    r = r ? r : set_vector(f, bias, v, err);
    qp_free(v);
    return r;
}

int qp_folded_add(struct qp_folded *f, const struct qp_fold *fold, const struct qp_stage *stage, const float *s, struct qp_err *err)
{
    int64_t n = stage->width, rows = fold->norm ? n : fold->before->weight->rows;
    float *by = ones(rows, err), *exact = ones(n, err);
    int r = by && exact ? 0 : QP_E_RESOURCE;
    if (!r)
        memcpy(exact, s, (size_t)n * sizeof *exact);
    if (!r && fold->norm)
        r = divide_norm(f, fold->norm, exact, err);
    for (int64_t i = 0; i < n && !r; i++)
        by[fold->row[i]] = 1 / exact[i];
    if (!r && fold->bias)
        r = divide_bias(f, fold, by, err);
    if (!r && fold->before) {
        struct scales *k = scales_of(f, fold->before);
        qp_free(k->out);
        k->out = by;
        by = NULL;
    }
    for (int i = 0; i < stage->count && !r; i++) {
        struct scales *k = scales_of(f, &stage->linears[i]);
        qp_free(k->in);
        if (!(k->in = ones(n, err)))
            r = QP_E_RESOURCE;
        else
            memcpy(k->in, exact, (size_t)n * sizeof *exact);
    }
    qp_free(by);
    qp_free(exact);
    return r;
}

void qp_folded_scale(const struct qp_folded *f, const struct qp_linear *l, float *w)
{
    const struct scales *k = scales_of(f, l);
    for (int64_t r = 0; r < l->weight->rows; r++) {
        float out = k->out ? k->out[r] : 1;
        for (int64_t i = 0; i < l->weight->cols; i++)
            w[r * l->weight->cols + i] *= k->in ? k->in[i] * out : out;
    }
}

bool qp_folded_scales(const struct qp_folded *f, const struct qp_linear *l)
{
    const struct scales *k = scales_of(f, l);
    return k && (k->in || k->out);
}
