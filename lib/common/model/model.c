/* Opening models, looking weights up, decoding rows. */
#include "model/model.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "model/decode.h"
#include "model/internal.h"
#include "text/tokenizer.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct qp_weight_impl *)a)->pub.name, ((const struct qp_weight_impl *)b)->pub.name);
}

/* ---- building the list of weights ---- */

/* Shape of the whole tensor that a part is stored in; returns the number of dimensions. */
static int stored_shape(const struct qp_model *m, const struct qp_part *p, int64_t shape[3])
{
    int64_t rows = qp_dim(&m->config, p->rows), cols = qp_dim(&m->config, p->cols);
    if (p->rows == QP_DIM_1 && p->role != QP_ROLE_SHARED_ROUTER)
        return shape[0] = cols, 1;
    if (m->gguf && p->role == QP_ROLE_SHARED_ROUTER)
        return shape[0] = cols, 1;
    if (m->gguf && (p->flags & QP_PART_EXPERT))
        return shape[0] = m->config.n_experts, shape[1] = rows, shape[2] = cols, 3;
    bool turned = m->st && (p->flags & QP_PART_TRANSPOSED);
    return shape[0] = turned ? cols : rows, shape[1] = turned ? rows : cols, 2;
}

static int set_dense(struct qp_model *m, struct qp_weight_impl *w, const struct qp_part *p, int64_t expert, const struct qp_tensor *t, struct qp_err *err)
{
    int64_t shape[3];
    int ndim = stored_shape(m, p, shape);
    if (m->gguf && ndim == 1 && t->ndim == 2 && t->shape[0] == 1 && t->shape[1] == shape[0])
        ndim = 2, shape[0] = 1, shape[1] = t->shape[1]; /* some converters keep the shared expert's gate as a matrix of one row */
    if (t->ndim != ndim || memcmp(t->shape, shape, (size_t)ndim * sizeof *shape)) {
        char found[96] = "", expected[96] = "";
        for (int i = 0; i < t->ndim; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%" PRId64, i ? " x " : "", t->shape[i]);
        for (int i = 0; i < ndim; i++)
            snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "%s%" PRId64, i ? " x " : "", shape[i]);
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' is %s, the configuration says %s", m->path, t->name, found, expected);
    }
    if (!qp_decodes(t->dtype))
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' has dtype %s, which is not supported for weights", m->path, t->name, qp_dtype_info[t->dtype].name);
    w->tensor = *t;
    if (ndim == 3) { /* one expert of the tensor that holds all */
        w->tensor.bytes = t->bytes / (size_t)shape[0];
        w->tensor.data = (const uint8_t *)t->data + (size_t)expert * w->tensor.bytes;
    }
    w->pub = (struct qp_weight){.name = w->pub.name, .rows = qp_dim(&m->config, p->rows), .cols = qp_dim(&m->config, p->cols), .storage = QP_STORE_DENSE,
                                .one_row = p->role == QP_ROLE_SHARED_ROUTER, .transposed = p->flags & QP_PART_TRANSPOSED};
    w->turned = m->st && w->pub.transposed;
    w->linear = p->flags & QP_PART_LINEAR;
    return 0;
}

struct layer_parts {
    const struct qp_model *m;
    const char *name;
};

static const struct qp_tensor *find_part(void *ctx, const char *part)
{
    const struct layer_parts *l = ctx;
    char full[256];
    snprintf(full, sizeof full, "%.*s%s", (int)(strlen(l->name) - strlen("weight")), l->name, part);
    return qp_safetensors_find(l->m->st, full);
}

/* 1: the layer is stored quantized; 0: it is not. */
static int set_quantized(struct qp_model *m, struct qp_weight_impl *w, const struct qp_part *p, struct qp_err *err)
{
    struct layer_parts l = {m, w->pub.name};
    int64_t rows = qp_dim(&m->config, p->rows), cols = qp_dim(&m->config, p->cols);
    int r = qp_store_open(&w->store, w->pub.name, rows, cols, find_part, &l, &m->quant, false, err);
    if (r < 0)
        return qp_err_context(err, "'%s'", m->path);
    if (r)
        w->store->file = qp_safetensors_file(m->st, &w->store->part[0]);
    w->pub = (struct qp_weight){.name = w->pub.name, .rows = rows, .cols = cols, .storage = QP_STORE_QUANTIZED, .transposed = p->flags & QP_PART_TRANSPOSED};
    w->linear = p->flags & QP_PART_LINEAR;
    m->n_quantized += (size_t)r;
    return r;
}

static const struct qp_tensor *find_tensor(const struct qp_model *m, const struct qp_part *p, int64_t layer, const char *canonical)
{
    if (m->st)
        return qp_safetensors_find(m->st, canonical);
    char name[256];
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%" PRId64 ".%s", layer, p->gguf);
    else
        snprintf(name, sizeof name, "%s", p->gguf);
    return qp_gguf_find(m->gguf, name);
}

static void set_order(struct qp_model *m, struct qp_weight_impl *w, const struct qp_part *p)
{
    if (!m->gguf)
        return;
    if (m->arch->gguf_rotated && p->rotated != QP_DIM_1)
        w->rotated_head_dim = m->config.head_dim;
    if (p->flags & QP_PART_BY_HEAD)
        w->parted_head_dim = m->config.head_dim;
    w->minus_one = m->config.norm == QP_NORM_RMS_PLUS_ONE && (p->role == QP_ROLE_FINAL_NORM || (p->role >= QP_ROLE_NORM1 && p->role <= QP_ROLE_K_NORM));
}

static int add_weight(struct qp_model *m, const struct qp_part *p, int64_t layer, int64_t expert, struct qp_err *err)
{
    char full[256];
    if (!qp_part_needed(p, &m->config, layer))
        return 0;
    qp_part_name(full, m->arch, p, layer, expert);
    char *name = qp_strdup(full, err);
    if (!name)
        return QP_E_RESOURCE;
    m->names[m->n_names++] = name;
    struct qp_weight_impl *w = &m->weights[m->n_weights];
    *w = (struct qp_weight_impl){.pub.name = name};
    bool matrix = m->st && p->rows != QP_DIM_1 && !(p->flags & QP_PART_BIAS);
    int r = matrix ? set_quantized(m, w, p, err) : 0;
    if (!r) {
        const struct qp_tensor *t = find_tensor(m, p, layer, name);
        r = t ? set_dense(m, w, p, expert, t, err) : qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' is missing", m->path, name);
    }
    r = r < 0 ? r : 0;
    if (!r)
        set_order(m, w, p);
    m->n_weights += !r;
    return r;
}

static int add_layer(struct qp_model *m, int64_t layer, struct qp_err *err)
{
    int r = 0;
    for (const struct qp_part *p = m->arch->layer_parts; p->hf && !r; p++) {
        int64_t experts = p->flags & QP_PART_EXPERT ? m->config.n_experts : 0;
        if (!experts)
            r = add_weight(m, p, layer, -1, err);
        for (int64_t e = 0; e < experts && !r; e++)
            r = add_weight(m, p, layer, e, err);
    }
    return r;
}

/* Room for all weights; the counts are bounded by check_config. */
static size_t count_weights(const struct qp_model *m)
{
    size_t in_layer = 0, n = 0;
    for (const struct qp_part *p = m->arch->layer_parts; p->hf; p++)
        in_layer += p->flags & QP_PART_EXPERT ? (size_t)m->config.n_experts : 1;
    while (m->arch->model_parts[n].hf)
        n++;
    return n + (size_t)m->config.n_layers * in_layer;
}

static int add_weights(struct qp_model *m, struct qp_err *err)
{
    size_t n = count_weights(m);
    m->weights = qp_alloc_n(n, sizeof *m->weights, "weights", err);
    m->names = qp_alloc_n(n, sizeof *m->names, "weights", err);
    if (!m->weights || !m->names)
        return QP_E_RESOURCE;
    for (const struct qp_part *p = m->arch->model_parts; p->hf; p++)
        if (add_weight(m, p, -1, -1, err))
            return err->code;
    for (int64_t l = 0; l < m->config.n_layers; l++)
        if (add_layer(m, l, err))
            return err->code;
    qsort(m->weights, m->n_weights, sizeof *m->weights, by_name);
    for (size_t i = 0; i < m->n_weights; i++)
        m->weights[i].pub.impl = &m->weights[i];
    return qp_model_list_linears(m, err);
}

/* ---- opening ---- */

/* As numbers, or quantized. */
static bool has_head(const struct qp_model *m, const char *name)
{
    static const char *const parts[] = {"weight", "qweight", "weight_packed"};
    struct layer_parts l = {m, name};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (find_part(&l, parts[i]))
            return true;
    return false;
}

static int open_directory(struct qp_model *m, struct qp_err *err)
{
    char *config = qp_path_join(m->path, "config.json", err), *one = qp_path_join(m->path, "model.safetensors", err);
    char *index = qp_path_join(m->path, "model.safetensors.index.json", err);
    struct stat st;
    int r = config && one && index ? 0 : QP_E_RESOURCE;
    if (!r)
        r = qp_config_from_json(&m->config, &m->quant, &m->arch, config, err);
    if (!r && stat(index, &st) == 0)
        r = qp_safetensors_open(&m->st, index, err);
    else if (!r && stat(one, &st) == 0)
        r = qp_safetensors_open(&m->st, one, err);
    else if (!r)
        r = qp_err_set(err, QP_E_INPUT, "'%s' holds no weights: expected model.safetensors or model.safetensors.index.json", m->path);
    for (const struct qp_part *p = r ? NULL : m->arch->model_parts; p && p->hf; p++)
        if (p->role == QP_ROLE_HEAD && !(p->flags & QP_PART_BIAS) && !has_head(m, p->hf))
            m->config.tied_embeddings = true;
    if (!r)
        r = add_weights(m, err);
    if (!r && m->quant.method != QP_QUANT_NONE && !m->n_quantized)
        r = qp_err_set(err, QP_E_INPUT, "'%s': config.json has a quantization_config, but no layer is stored quantized", m->path);
    qp_free(config);
    qp_free(one);
    qp_free(index);
    return r;
}

static int open_gguf(struct qp_model *m, struct qp_err *err)
{
    int r = qp_gguf_open(&m->gguf, m->path, err);
    r = r ? r : qp_config_from_gguf(&m->config, &m->arch, m->gguf, m->path, err);
    return r ? r : add_weights(m, err);
}

int qp_model_open(struct qp_model **out, const char *path, struct qp_err *err)
{
    *out = NULL;
    struct stat st;
    char *real = qp_path_real(path, err);
    if (!real)
        return err ? err->code : QP_E_INPUT;
    struct qp_model *m = qp_zalloc(sizeof *m, "model", err);
    if (!m || stat(real, &st)) {
        qp_free(real);
        qp_free(m);
        return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
    }
    m->refs = 1;
    m->path = real;
    size_t n = strlen(real);
    int r;
    if (S_ISDIR(st.st_mode))
        r = open_directory(m, err);
    else if (n > 5 && !strcmp(real + n - 5, ".gguf"))
        r = open_gguf(m, err);
    else
        r = qp_err_set(err, QP_E_INPUT, "'%s' is no model: expected a directory with config.json and *.safetensors, or a .gguf file", path);
    if (r) {
        qp_model_free(m);
        return r;
    }
    *out = m;
    return 0;
}

void qp_model_free(struct qp_model *m)
{
    if (!m || --m->refs > 0)
        return;
    for (size_t i = 0; i < m->n_weights; i++) {
        bool inherited = m->base && qp_model_find(m->base, m->weights[i].pub.name)->store == m->weights[i].store;
        if (!inherited)
            qp_store_free(m->weights[i].store);
        qp_free(m->weights[i].owned);
    }
    for (size_t i = 0; i < m->n_names; i++)
        qp_free(m->names[i]);
    qp_free(m->names);
    qp_free(m->weights);
    qp_free(m->linears);
    qp_free(m->first_linear);
    qp_safetensors_close(m->st);
    qp_gguf_close(m->gguf);
    qp_free(m->path);
    qp_model_free(m->base);
    qp_free(m);
}

struct qp_model *qp_model_ref(struct qp_model *m)
{
    m->refs++;
    return m;
}

void qp_model_drop_pages(const struct qp_model *m)
{
    if (m->st)
        qp_safetensors_drop_pages(m->st);
    if (m->gguf)
        qp_gguf_drop_pages(m->gguf);
    if (m->base)
        qp_model_drop_pages(m->base);
}

/* ---- looking up ---- */

const struct qp_model_config *qp_model_config(const struct qp_model *m)
{
    return &m->config;
}

const char *qp_model_path(const struct qp_model *m)
{
    return m->path;
}

struct qp_weight_impl *qp_model_find(const struct qp_model *m, const char *name)
{
    struct qp_weight_impl key = {.pub.name = name};
    return m->n_weights ? bsearch(&key, m->weights, m->n_weights, sizeof key, by_name) : NULL;
}

const struct qp_weight *qp_model_weight(const struct qp_model *m, const char *name)
{
    const struct qp_weight_impl *w = qp_model_find(m, name);
    return w ? &w->pub : NULL;
}

const struct qp_weight *qp_model_weightf(const struct qp_model *m, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return qp_model_weight(m, name);
}

size_t qp_model_n_weights(const struct qp_model *m)
{
    return m->n_weights;
}

const struct qp_weight *qp_model_weight_at(const struct qp_model *m, size_t i)
{
    return &m->weights[i].pub;
}

static int64_t stored_bits(const struct qp_weight_impl *w)
{
    return w->store ? w->store->stored_bits : (int64_t)w->tensor.bytes * 8;
}

int64_t qp_model_params(const struct qp_model *m)
{
    int64_t n = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        n += m->weights[i].pub.rows * m->weights[i].pub.cols;
    return n;
}

int64_t qp_model_bytes(const struct qp_model *m)
{
    int64_t bits = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        bits += stored_bits(&m->weights[i]);
    return bits / 8;
}

double qp_model_linear_bpw(const struct qp_model *m)
{
    int64_t bits = 0, n = 0;
    for (size_t i = 0; i < m->n_weights; i++)
        if (m->weights[i].linear) {
            bits += stored_bits(&m->weights[i]);
            n += m->weights[i].pub.rows * m->weights[i].pub.cols;
        }
    return n ? (double)bits / (double)n : 0;
}

void qp_weight_codes(const struct qp_weight *pub, struct qp_codes *out)
{
    const struct qp_weight_impl *w = pub->impl;
    *out = (struct qp_codes){.kind = QP_CODES_NONE};
    if (w->store)
        qp_store_codes(w->store, out);
}

int qp_weight_read_codes(const struct qp_weight *pub, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, struct qp_err *err)
{
    const struct qp_weight_impl *w = pub->impl;
    if (!w->store || !w->store->by_row)
        return qp_err_set(err, QP_E_INTERNAL, "'%s' has no codes by row", pub->name);
    return qp_store_read_codes(w->store, row0, n, codes, scales, zeros, err);
}

int qp_weight_read_rows(const struct qp_weight *pub, int64_t row0, int64_t n, float *dst, struct qp_err *err)
{
    const struct qp_weight_impl *w = pub->impl;
    if (row0 < 0 || n < 0 || row0 > pub->rows - n)
        return qp_err_set(err, QP_E_INTERNAL, "rows %" PRId64 " to %" PRId64 " of '%s', which has %" PRId64, row0, row0 + n, pub->name, pub->rows);
    if (w->store)
        return qp_store_read_rows(w->store, row0, n, dst, err);
    return qp_dense_read_rows(w, row0, n, dst, err);
}

int qp_model_hash(const struct qp_model *m, char out[17], struct qp_err *err)
{
    struct qp_xxh64 *h = qp_xxh64_new();
    if (!h)
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
    for (size_t i = 0, read = 0; i < m->n_weights; i++) {
        const struct qp_weight_impl *w = &m->weights[i];
        qp_xxh64_add(h, w->pub.name, strlen(w->pub.name) + 1);
        qp_xxh64_add(h, &w->pub.rows, 8);
        qp_xxh64_add(h, &w->pub.cols, 8);
        if (w->store)
            qp_store_hash(w->store, h);
        else
            qp_xxh64_add(h, w->tensor.data, w->tensor.bytes);
        if ((read += w->tensor.bytes) > (size_t)64 << 20) {
            qp_model_drop_pages(m);
            read = 0;
        }
    }
    qp_model_drop_pages(m);
    snprintf(out, 17, "%016" PRIx64, qp_xxh64_value(h));
    qp_xxh64_free(h);
    return 0;
}
