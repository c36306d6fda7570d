#include "model/model_set.h"

#include <stdio.h>
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
    struct qp_part_hints hints;
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
    int r = qp_record_map(rec, "config", &c, err);
    if (r <= 0)
        return r < 0 ? r : qp_err_set(err, QP_E_INPUT, "model record: inline model '%s' has no config", e->pub.id);
    if (qp_record_need_str(&c, "quant_method", &method, err) || qp_record_str(&c, "checkpoint_format", &format, err) < 0 ||
        qp_record_i64(&c, "group_size", &e->hints.group_size, err) < 0 || qp_record_f64(&c, "llm_int8_threshold", &e->hints.outlier_threshold, err) < 0)
        return err->code;
    if (strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return qp_err_set(err, QP_E_INPUT, "model '%s': checkpoint_format '%s' is not supported; supported: gptq, gptq_v2", e->pub.id, format);
    e->hints.zero_minus_one = !strcmp(format, "gptq");
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

static struct piece *find_piece(struct entry *e, const char *name)
{
    for (size_t i = e->n; i-- > 0;)
        if (!strcmp(e->pieces[i].name, name))
            return &e->pieces[i];
    return NULL;
}

/* The weight that a tensor belongs to: MODULE.weight of MODULE.qweight, MODULE.weight.absmax, ...; *part: what stands behind "MODULE.". */
static int find_weight(struct entry *e, const char *name, char weight[264], const char **part, struct qp_err *err)
{
    const char *dot = strstr(name, ".weight.") ? strstr(name, ".weight.") : strrchr(name, '.');
    if (dot && dot - name < 256) {
        snprintf(weight, 264, "%.*sweight", (int)(dot - name + 1), name);
        *part = dot + 1;
        if (qp_model_weight(e->pub.model, weight))
            return 0;
    }
    return qp_err_set(err, QP_E_INPUT, "tensor '%s' of model '%s': not a name of this model", name, e->pub.id);
}

/* Once all tensors of a quantized layer have come, they become a weight, and their copies are dropped. */
static int complete_layer(struct entry *e, const char *name, struct qp_err *err)
{
    struct qp_tensor parts[QP_MAX_PARTS];
    struct piece *from[QP_MAX_PARTS];
    char weight[264];
    const char *part;
    size_t n = 0;
    if (find_weight(e, name, weight, &part, err))
        return err->code;
    size_t stem = strlen(weight) - strlen("weight");
    for (size_t i = e->n; i-- > 0 && n < QP_MAX_PARTS;) {
        struct piece *p = &e->pieces[i];
        if (!strncmp(p->name, weight, stem) && p->data && p->have == p->t.bytes) {
            from[n] = p;
            parts[n] = p->t;
            parts[n++].name = p->name + stem;
        }
    }
    if (!qp_parts_are_whole(parts, n))
        return 0;
    int r = qp_model_set_parts(e->pub.model, weight, parts, n, &e->hints, err);
    for (size_t i = 0; i < n; i++) { /* keep the name: a second tensor of that name must be refused */
        qp_free(from[i]->data);
        from[i]->data = NULL;
        from[i]->t.data = NULL;
    }
    return r ? qp_err_context(err, "model '%s'", e->pub.id) : 0;
}

/* A weight as numbers; a layer's codes may be called ".weight" too. */
static bool is_dense(const struct piece *p)
{
    size_t n = strlen(p->name);
    bool number = p->t.dtype == QP_DT_F32 || p->t.dtype == QP_DT_F16 || p->t.dtype == QP_DT_BF16;
    return number && ((n > 7 && !strcmp(p->name + n - 7, ".weight")) || (n > 5 && !strcmp(p->name + n - 5, ".bias")));
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
    struct piece *p = find_piece(e, name);
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
    if (!is_dense(p))
        return complete_layer(e, name, err);
    int r = qp_model_set_dense(e->pub.model, name, &p->t, err);
    qp_free(p->data);
    p->data = NULL;
    return r;
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
