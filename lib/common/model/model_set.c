#include "model/model_set.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/internal.h"

#define MAX_MODELS 64

/* A tensor of an inline model under assembly. */
struct piece {
    char *name;
    struct qp_tensor t;
    char *data;
    size_t have;
};

struct entry {
    struct qp_model_entry pub;
    bool inline_;
    int bits;
    int64_t group_size;
    bool minus_one;
    struct piece *pieces;
    size_t n, cap;
};

struct qp_model_set {
    struct entry e[MAX_MODELS];
    size_t n;
};

int qp_model_set_new(struct qp_model_set **out, struct qp_err *err)
{
    *out = qp_zalloc(sizeof **out, "model set", err);
    return *out ? 0 : QP_E_RESOURCE;
}

static void free_pieces(struct entry *e)
{
    for (size_t i = 0; i < e->n; i++) {
        qp_free(e->pieces[i].name);
        qp_free(e->pieces[i].data);
    }
    qp_free(e->pieces);
    e->pieces = NULL;
    e->n = e->cap = 0;
}

void qp_model_set_free(struct qp_model_set *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        free_pieces(&s->e[i]);
        qp_free(s->e[i].pub.id);
        qp_free(s->e[i].pub.role);
        qp_free(s->e[i].pub.base);
        qp_free(s->e[i].pub.method);
        qp_model_free(s->e[i].pub.model);
    }
    qp_free(s);
}

static struct entry *find(struct qp_model_set *s, const char *id)
{
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->e[i].pub.id, id))
            return &s->e[i];
    return NULL;
}

static struct entry *add(struct qp_model_set *s, const char *id, const char *role, struct qp_err *err)
{
    if (find(s, id)) {
        qp_err_set(err, QP_E_INPUT, "model '%s' is in the stream twice", id);
        return NULL;
    }
    if (s->n == MAX_MODELS) {
        qp_err_set(err, QP_E_INPUT, "more than %d models in one stream", MAX_MODELS);
        return NULL;
    }
    struct entry *e = &s->e[s->n++];
    *e = (struct entry){.pub = {.id = qp_strdup(id, err), .role = qp_strdup(role, err)}};
    return e->pub.id && e->pub.role ? e : NULL;
}

char *qp_model_id(const char *path, struct qp_err *err)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start && path[start - 1] != '/')
        start--;
    char *id = qp_strdup(path + start, err);
    if (!id)
        return NULL;
    id[n - start] = 0;
    n -= start;
    if (n > 5 && !strcmp(id + n - 5, ".gguf"))
        id[n - 5] = 0;
    return id;
}

int qp_model_set_add_path(struct qp_model_set *s, const char *path, struct qp_err *err)
{
    char *id = qp_model_id(path, err);
    struct entry *e = id ? add(s, id, "baseline", err) : NULL;
    qp_free(id);
    return e ? qp_model_open(&e->pub.model, path, err) : err->code;
}

/* The baseline under an inline model: one that the stream has opened already, or base_path. */
static int overlay(struct qp_model_set *s, struct entry *e, const char *base_path, struct qp_err *err)
{
    struct qp_model *base = NULL;
    struct entry *known = e->pub.base ? find(s, e->pub.base) : NULL;
    if (known && known->pub.model)
        return qp_model_overlay(&e->pub.model, known->pub.model, err);
    if (!base_path)
        return qp_err_set(err, QP_E_INPUT, "inline model '%s': neither its baseline's record nor base_path is there", e->pub.id);
    if (qp_model_open(&base, base_path, err))
        return err->code;
    int r = qp_model_overlay(&e->pub.model, base, err);
    qp_model_free(base); /* the overlay holds its own reference */
    return r;
}

static int read_inline_config(struct entry *e, const struct qp_record *rec, struct qp_err *err)
{
    struct qp_record c;
    const char *method = "", *format = "gptq_v2";
    int64_t bits = 0;
    int r = qp_record_map(rec, "config", &c, err);
    if (r <= 0)
        return r < 0 ? r : qp_err_set(err, QP_E_INPUT, "model record: inline model '%s' has no config", e->pub.id);
    if (qp_record_need_str(&c, "quant_method", &method, err) || qp_record_str(&c, "checkpoint_format", &format, err) < 0 ||
        qp_record_i64(&c, "bits", &bits, err) < 0 || qp_record_i64(&c, "group_size", &e->group_size, err) < 0)
        return err->code;
    if (strcmp(method, "gptq") && strcmp(method, "none"))
        return qp_err_set(err, QP_E_INPUT, "model '%s': quant_method '%s' is not supported; supported: gptq", e->pub.id, method);
    e->bits = (int)bits;
    e->minus_one = !strcmp(format, "gptq");
    return 0;
}

static int take_model(struct qp_model_set *s, const struct qp_record *rec, struct qp_err *err)
{
    const char *id, *role, *path = NULL, *base = NULL, *base_path = NULL, *method = NULL;
    if (qp_record_need_str(rec, "id", &id, err) || qp_record_need_str(rec, "role", &role, err))
        return err->code;
    struct entry *e = add(s, id, role, err);
    if (!e)
        return err->code;
    if (qp_record_str(rec, "path", &path, err) < 0 || qp_record_bool(rec, "inline", &e->inline_, err) < 0 || qp_record_str(rec, "base", &base, err) < 0 ||
        qp_record_str(rec, "base_path", &base_path, err) < 0 || qp_record_str(rec, "method", &method, err) < 0)
        return err->code;
    if ((base && !(e->pub.base = qp_strdup(base, err))) || (method && !(e->pub.method = qp_strdup(method, err))))
        return QP_E_RESOURCE;
    if (e->inline_)
        return read_inline_config(e, rec, err) ? err->code : overlay(s, e, base_path, err);
    if (!path)
        return qp_err_set(err, QP_E_INPUT, "model record '%s' has neither path nor inline", id);
    return qp_model_open(&e->pub.model, path, err);
}

static int new_piece(struct entry *e, const struct qp_record *rec, const char *name, int64_t bytes, struct qp_err *err)
{
    const char *dtype_name;
    size_t ndim = 0, want = 1, weights = 1;
    if (qp_record_need_str(rec, "dtype", &dtype_name, err))
        return err->code;
    int dtype = qp_dtype_by_name(dtype_name);
    struct piece p = {0};
    if (dtype < 0)
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s': unknown dtype '%s'", name, e->pub.id, dtype_name);
    int r = qp_record_i64s(rec, "shape", p.t.shape, QP_MAX_DIMS, &ndim, err);
    if (r <= 0)
        return r < 0 ? r : qp_err_set(err, QP_E_INPUT, "tensor record: field 'shape' is missing");
    for (size_t i = 0; i < ndim; i++)
        if (p.t.shape[i] < 1 || !qp_mul(want, (size_t)p.t.shape[i], &want))
            return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s': absurd shape", name, e->pub.id);
    /* No tensor of a model is larger than its greatest weight in float32. */
    for (size_t i = 0; i < qp_model_n_weights(e->pub.model); i++) {
        const struct qp_weight *w = qp_model_weight_at(e->pub.model, i);
        weights = (size_t)(w->rows * w->cols) > weights ? (size_t)(w->rows * w->cols) : weights;
    }
    if (want % (size_t)qp_dtype_info[dtype].block_elems || want > weights ||
        want / (size_t)qp_dtype_info[dtype].block_elems * (size_t)qp_dtype_info[dtype].block_bytes != (size_t)bytes)
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s': %lld bytes do not hold its shape", name, e->pub.id, (long long)bytes);
    if (e->n == e->cap) {
        size_t cap = e->cap ? 2 * e->cap : 64;
        struct piece *grown = qp_alloc_n(cap, sizeof *grown, "tensors", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (e->n)
            memcpy(grown, e->pieces, e->n * sizeof *grown);
        qp_free(e->pieces);
        e->pieces = grown;
        e->cap = cap;
    }
    p.name = qp_strdup(name, err);
    p.data = qp_alloc((size_t)bytes, name, err);
    p.t.name = p.name;
    p.t.dtype = (enum qp_dtype)dtype;
    p.t.ndim = (int)ndim;
    p.t.bytes = (size_t)bytes;
    p.t.data = p.data;
    e->pieces[e->n++] = p;
    return p.name && p.data ? 0 : QP_E_RESOURCE;
}

static struct piece *find_piece(struct entry *e, const char *module, const char *part)
{
    size_t n = strlen(module);
    for (size_t i = e->n; i-- > 0;)
        if (!strncmp(e->pieces[i].name, module, n) && !strcmp(e->pieces[i].name + n, part))
            return &e->pieces[i];
    return NULL;
}

/* Once the four GPTQ tensors of a module are whole, they become a weight, and their copies are dropped. */
static int complete_gptq(struct entry *e, const char *name, struct qp_err *err)
{
    static const char *const parts[] = {"qweight", "qzeros", "scales", "g_idx"};
    const char *dot = strrchr(name, '.');
    char module[256], weight[264];
    struct piece *p[4];
    if (!dot || (size_t)(dot - name) + 2 > sizeof module)
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s': not a name of this model", name, e->pub.id);
    snprintf(module, sizeof module, "%.*s", (int)(dot - name + 1), name);
    snprintf(weight, sizeof weight, "%sweight", module);
    for (int i = 0; i < 4; i++)
        if (!(p[i] = find_piece(e, module, parts[i])) || p[i]->have < p[i]->t.bytes)
            return 0;
    const struct qp_weight *w = qp_model_weight(e->pub.model, weight);
    if (!w)
        return qp_err_set(err, QP_E_INPUT, "model '%s': the baseline has no weight '%s'", e->pub.id, weight);
    int64_t groups = p[2]->t.shape[0], rows = w->rows, cols = w->cols;
    if (p[0]->t.dtype != QP_DT_I32 || p[1]->t.dtype != QP_DT_I32 || p[2]->t.dtype != QP_DT_F16 || p[3]->t.dtype != QP_DT_I32 ||
        p[0]->t.bytes != (size_t)(cols * e->bits / 32 * rows * 4) || p[2]->t.bytes != (size_t)(groups * rows * 2) ||
        p[1]->t.bytes != (size_t)(groups * (rows * e->bits / 32) * 4) || p[3]->t.bytes != (size_t)cols * 4)
        return qp_err_set(err, QP_E_INPUT, "model '%s': the GPTQ tensors of '%s' do not fit %lld x %lld weights of %d bits", e->pub.id, weight, (long long)rows,
                          (long long)cols, e->bits);
    struct qp_gptq_tensors t = {.rows = rows, .cols = cols, .bits = e->bits, .group_size = e->group_size, .zero_minus_one = e->minus_one,
                                .qweight = p[0]->t.data, .qzeros = p[1]->t.data, .g_idx = p[3]->t.data, .scales = p[2]->t.data, .n_groups = groups};
    int r = qp_model_set_gptq(e->pub.model, weight, &t, err);
    for (int i = 0; i < 4; i++) { /* keep the name: a second tensor of that name must be refused */
        qp_free(p[i]->data);
        p[i]->data = NULL;
        p[i]->t.data = NULL;
    }
    return r;
}

static int take_tensor(struct qp_model_set *s, const struct qp_record *rec, struct qp_err *err)
{
    const char *id, *name;
    int64_t offset, bytes;
    const uint8_t *data = NULL;
    size_t n = 0;
    if (qp_record_need_str(rec, "model", &id, err) || qp_record_need_str(rec, "name", &name, err) || qp_record_need_i64(rec, "offset", &offset, err) ||
        qp_record_need_i64(rec, "bytes", &bytes, err) || qp_record_bin(rec, "data", &data, &n, err) < 0)
        return err->code;
    struct entry *e = find(s, id);
    if (!e || !e->inline_)
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' belongs to model '%s', which is %s", name, id, e ? "not inline" : "not in the stream");
    struct piece *p = find_piece(e, name, "");
    if (!p || offset == 0) {
        if (p)
            return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s' is in the stream twice", name, id);
        if (new_piece(e, rec, name, bytes, err))
            return err->code;
        p = &e->pieces[e->n - 1];
    }
    if (!data || (size_t)offset != p->have || (size_t)bytes != p->t.bytes || n > p->t.bytes - p->have || !p->data)
        return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s': a piece of %zu bytes at %lld does not follow the %zu before it", name, id, n, (long long)offset, p->have);
    memcpy(p->data + p->have, data, n);
    p->have += n;
    if (p->have < p->t.bytes)
        return 0;
    size_t len = strlen(name);
    if ((len > 7 && !strcmp(name + len - 7, ".weight")) || (len > 5 && !strcmp(name + len - 5, ".bias"))) {
        int r = qp_model_set_dense(e->pub.model, name, &p->t, err);
        qp_free(p->data);
        p->data = NULL;
        return r;
    }
    return complete_gptq(e, name, err);
}

int qp_model_set_record(struct qp_model_set *s, const struct qp_record *rec, struct qp_err *err)
{
    if (qp_record_is(rec, "model"))
        return take_model(s, rec, err);
    if (qp_record_is(rec, "tensor"))
        return take_tensor(s, rec, err);
    return 0;
}

int qp_model_set_finish(struct qp_model_set *s, struct qp_err *err)
{
    if (!s->n)
        return qp_err_set(err, QP_E_INPUT, "no model: give --model M, or a stream with a model record");
    for (size_t i = 0; i < s->n; i++)
        for (size_t j = 0; j < s->e[i].n; j++)
            if (s->e[i].pieces[j].have < s->e[i].pieces[j].t.bytes || s->e[i].pieces[j].data)
                return qp_err_set(err, QP_E_INPUT, "model '%s': tensor '%s' is incomplete", s->e[i].pub.id, s->e[i].pieces[j].name);
    struct entry sorted[MAX_MODELS];
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < s->n; i++)
            if ((strcmp(s->e[i].pub.role, "baseline") == 0) == (pass == 0))
                sorted[n++] = s->e[i];
    memcpy(s->e, sorted, n * sizeof *sorted);
    return 0;
}

size_t qp_model_set_count(const struct qp_model_set *s)
{
    return s->n;
}

void qp_model_set_keep(struct qp_model_set *s, size_t i)
{
    for (size_t k = 0; k < s->n; k++) {
        if (k == i)
            continue;
        qp_model_free(s->e[k].pub.model);
        s->e[k].pub.model = NULL;
    }
}

const struct qp_model_entry *qp_model_set_at(const struct qp_model_set *s, size_t i)
{
    return &s->e[i].pub;
}

void qp_model_write_record(struct qp_writer *w, const struct qp_model *m, const char *id)
{
    qp_w_begin(w, "model");
    qp_w_str(w, "id", id);
    qp_w_str(w, "role", "baseline");
    qp_w_str(w, "path", qp_model_path(m));
    qp_w_str(w, "arch", qp_model_config(m)->arch);
    qp_w_i64(w, "params", qp_model_params(m));
    qp_w_str(w, "method", "none");
    qp_w_f64(w, "bpw", qp_model_linear_bpw(m));
    qp_w_i64(w, "bytes", qp_model_bytes(m));
    qp_w_end(w);
}
