/* A GGUF file: a quantized or kept layer's blocks come row by row in the file's order; what no layer is, of a GGUF model, is copied byte for byte. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"
#include "model/decode.h"
#include "model/gguf_place.h"
#include "quant/checkpoint_internal.h"
#include "quant/gguf_meta.h"

#define COPY ((size_t)4 << 20) /* bytes that are copied or compared at a time */

struct tensor { /* beside the declaration */
    const struct qp_tensor *from;     /* copied from there, unless its owner was set; NULL: by value */
    const struct qp_ck_slot *owner;   /* the only weight in it; NULL: none, or several */
    bool layer;                       /* to be quantized, or kept in 16 bits */
    bool settled;                     /* by an expert before */
};

struct qp_ck_gguf {
    struct qp_gguf_place *places; /* [n_slots] */
    struct tensor *tensors;       /* [n_decl] */
    struct qp_tensor factors;     /* rope_freqs.weight of a folder that needs it */
    float factor[128];
    bool outline;                 /* what becomes of layers is not asked */
};

void qp_ck_release_gguf(struct qp_checkpoint *ck)
{
    if (!ck->gguf)
        return;
    qp_free(ck->gguf->places);
    qp_free(ck->gguf->tensors);
    qp_free(ck->gguf);
    ck->gguf = NULL;
}

static const struct qp_gguf_place *place_of(const struct qp_checkpoint *ck, const struct qp_ck_slot *s)
{
    return &ck->gguf->places[s - ck->slots];
}

static bool is_copied(const struct qp_checkpoint *ck, size_t tensor)
{
    const struct tensor *t = &ck->gguf->tensors[tensor];
    return t->from && !(t->owner && t->owner->done);
}

/* ---- declarations ---- */

static void set_dtype(struct qp_tensor *t, enum qp_dtype dtype)
{
    t->dtype = dtype;
    t->bytes = (size_t)qp_dtype_info[dtype].block_bytes;
    for (int i = 0; i < t->ndim; i++)
        t->bytes *= (size_t)(i == t->ndim - 1 ? t->shape[i] / qp_dtype_info[dtype].block_elems : t->shape[i]);
}

static int by_position(const void *a, const void *b)
{
    const struct qp_tensor *x = *(const struct qp_tensor *const *)a, *y = *(const struct qp_tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data ? 1 : strcmp(x->name, y->name);
}

static int allocate(struct qp_checkpoint *ck, size_t n, struct qp_err *err)
{
    ck->decl = qp_zalloc((n + 1) * sizeof *ck->decl, "tensor list", err);
    ck->gguf->tensors = qp_zalloc((n + 1) * sizeof *ck->gguf->tensors, "tensor list", err);
    return ck->decl && ck->gguf->tensors ? 0 : QP_E_RESOURCE;
}

/* The model's tensors as its file has them, those that are no weights of ours too. */
static int declare_file(struct qp_checkpoint *ck, const struct qp_gguf *g, struct qp_err *err)
{
    size_t n = qp_gguf_count(g);
    const struct qp_tensor **sorted = qp_alloc_n(n + 1, sizeof *sorted, "tensor list", err);
    int r = sorted ? allocate(ck, n, err) : QP_E_RESOURCE;
    for (size_t i = 0; i < n && !r; i++)
        sorted[i] = qp_gguf_at(g, i);
    if (!r)
        qsort(sorted, n, sizeof *sorted, by_position);
    for (size_t i = 0; i < n && !r; i++) {
        ck->decl[i] = *sorted[i];
        ck->gguf->tensors[i].from = sorted[i];
        r = (ck->decl[i].name = qp_strdup(sorted[i]->name, err)) ? 0 : QP_E_RESOURCE;
        ck->n_decl += !r;
    }
    qp_free(sorted);
    return r;
}

/* A folder's weights, and what is a tensor in GGUF alone. */
static int declare_folder(struct qp_checkpoint *ck, struct qp_err *err)
{
    size_t n = qp_gguf_rope_factors(qp_model_config(ck->m), ck->gguf->factor);
    int r = qp_gguf_check_folder(ck->m, err);
    r = r ? r : allocate(ck, ck->n_slots + 1, err);
    for (size_t i = 0; i < ck->n_slots && !r; i++) {
        const struct qp_weight *w = ck->slots[i].w;
        bool vector = ck->gguf->places[i].vector;
        ck->decl[i] = (struct qp_tensor){.name = qp_strdup(ck->gguf->places[i].tensor, err), .ndim = vector ? 1 : 2, .shape = {vector ? w->cols : w->rows, vector ? 0 : w->cols}};
        ck->n_decl += ck->decl[i].name != NULL;
        r = ck->decl[i].name ? 0 : QP_E_RESOURCE;
    }
    if (r || !n)
        return r;
    ck->gguf->factors = (struct qp_tensor){.name = "rope_freqs.weight", .dtype = QP_DT_F32, .ndim = 1, .shape = {(int64_t)n}, .data = ck->gguf->factor, .bytes = n * sizeof(float)};
    ck->gguf->tensors[ck->n_decl].from = &ck->gguf->factors;
    ck->decl[ck->n_decl] = ck->gguf->factors;
    if (!(ck->decl[ck->n_decl].name = qp_strdup(ck->gguf->factors.name, err)))
        return QP_E_RESOURCE;
    ck->n_decl++;
    return 0;
}

/* What is not quantized: types of 16 and 32 bits stay; others do, unless all is converted. */
static enum qp_dtype dense_dtype(const struct qp_checkpoint *ck, const struct qp_gguf_place *p)
{
    if (p->vector)
        return QP_DT_F32;
    if (p->dtype == QP_DT_F32 || p->dtype == QP_DT_F16 || p->dtype == QP_DT_BF16)
        return p->dtype;
    return ck->o.layout && qp_model_gguf(ck->m) ? p->dtype : QP_DT_F16;
}

static int layer_dtype(const struct qp_checkpoint *ck, struct qp_ck_slot *s, size_t linear, enum qp_dtype *dtype, struct qp_err *err)
{
    struct qp_parts parts;
    const struct qp_format *f = qp_layout_format(&ck->o.quant, linear);
    if (qp_pack(QP_PACK_GGUF, f, s->w->rows, s->w->cols, NULL, &parts, err))
        return qp_err_context(err, "'%s' as a gguf checkpoint", s->w->name);
    *dtype = parts.v[0].dtype;
    s->quantized = f->id == QP_FMT_INT;
    qp_parts_release(&parts);
    return 0;
}

static size_t find_decl(const struct qp_checkpoint *ck, const char *name)
{
    size_t i = 0;
    while (i < ck->n_decl && strcmp(ck->decl[i].name, name))
        i++;
    return i;
}

/* linear: SIZE_MAX, no linear layer. */
static int settle(struct qp_checkpoint *ck, struct qp_ck_slot *s, size_t linear, struct qp_err *err)
{
    const struct qp_gguf_place *p = place_of(ck, s);
    bool layer = ck->o.layout && linear != SIZE_MAX;
    enum qp_dtype dtype = dense_dtype(ck, p);
    if (layer && !ck->gguf->outline && layer_dtype(ck, s, linear, &dtype, err))
        return err->code;
    s->first = find_decl(ck, p->tensor);
    s->n = 1;
    if (s->first == ck->n_decl)
        return qp_err_set(err, QP_E_INTERNAL, "no tensor '%s' for '%s'", p->tensor, s->w->name);
    struct qp_tensor *t = &ck->decl[s->first];
    struct tensor *beside = &ck->gguf->tensors[s->first];
    beside->layer |= layer;
    if (layer && ck->gguf->outline)
        return 0;
    if (beside->settled && t->dtype != dtype)
        return qp_err_set(err, QP_E_INPUT, "'%s' as a gguf checkpoint: it would be %s, experts before it %s, and all of them are one tensor", s->w->name, qp_dtype_info[dtype].name,
                          qp_dtype_info[t->dtype].name);
    if (layer || t->dtype != dtype)
        beside->from = NULL;
    beside->settled = true;
    beside->owner = p->n_experts ? NULL : s;
    set_dtype(t, dtype);
    s->at = p->n_experts ? t->bytes / (size_t)p->n_experts * (size_t)p->expert : 0;
    return 0;
}

static int declare(struct qp_checkpoint *ck, struct qp_err *err)
{
    size_t n = qp_model_n_weights(ck->m), layers = qp_model_n_linears(ck->m);
    const struct qp_gguf *g = qp_model_gguf(ck->m);
    if (!ck->gguf)
        ck->gguf = qp_zalloc(sizeof *ck->gguf, "checkpoint", err);
    if (!ck->gguf || qp_gguf_places(&ck->gguf->places, ck->m, err) || qp_ck_list_slots(ck, err))
        return err->code;
    qp_free(ck->decl);
    ck->decl = NULL;
    int r = g ? declare_file(ck, g, err) : declare_folder(ck, err);
    bool *linear = qp_zalloc(n + 1, "tensor list", err);
    r = linear ? r : QP_E_RESOURCE;
    for (size_t i = 0; i < layers && !r; i++) {
        struct qp_ck_slot *s = qp_ck_find(ck, qp_model_linear(ck->m, i)->weight->name);
        linear[s - ck->slots] = true;
        r = settle(ck, s, i, err);
    }
    for (size_t i = 0; i < n && !r; i++)
        if (!linear[i])
            r = settle(ck, &ck->slots[i], SIZE_MAX, err);
    qp_free(linear);
    return r;
}

/* The type of most matrices. */
static enum qp_dtype main_dtype(const struct qp_checkpoint *ck)
{
    const struct qp_format *f = &ck->o.quant.format;
    struct qp_parts parts;
    if (!ck->o.layout)
        return qp_model_n_linears(ck->m) ? ck->decl[qp_ck_find(ck, qp_model_linear(ck->m, 0)->weight->name)->first].dtype : QP_DT_F16;
    if (qp_pack(QP_PACK_GGUF, f, 1, QP_GRID_BLOCK, NULL, &parts, NULL))
        return QP_DT_F16;
    enum qp_dtype dtype = parts.v[0].dtype;
    qp_parts_release(&parts);
    return dtype;
}

int qp_ck_outline_gguf(size_t *dense_bytes, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err)
{
    struct qp_gguf_meta meta = {0};
    size_t alignment;
    struct qp_checkpoint ck = {.m = m, .o = *o, .kind = &qp_ck_file, .gguf = qp_zalloc(sizeof *ck.gguf, "checkpoint", err)};
    if (!ck.gguf)
        return QP_E_RESOURCE;
    ck.gguf->outline = true;
    int r = declare(&ck, err);
    r = r ? r : qp_gguf_metadata(&meta, &alignment, m, main_dtype(&ck), err);
    *dense_bytes = 0;
    for (size_t i = 0; i < ck.n_decl && !r; i++)
        *dense_bytes += ck.gguf->tensors[i].layer ? 0 : ck.decl[i].bytes;
    qp_gguf_meta_release(&meta);
    qp_ck_release_files(&ck);
    return r;
}

static int open_file(struct qp_checkpoint *ck, bool fresh, struct qp_err *err)
{
    struct qp_gguf_meta meta = {0};
    size_t alignment;
    int r = qp_gguf_metadata(&meta, &alignment, ck->m, main_dtype(ck), err);
    char *path = qp_path_join(ck->part, ck->kind->result, err);
    ck->files = qp_zalloc(sizeof *ck->files, "file", err);
    if (!path || !ck->files)
        r = QP_E_RESOURCE;
    if (!r) {
        ck->n_files = 1;
        ck->files[0].n = ck->n_decl;
        r = qp_gguf_image(&ck->files[0].image, path, &meta, ck->decl, ck->n_decl, alignment, fresh, err);
    }
    qp_gguf_meta_release(&meta);
    qp_free(path);
    return r;
}

/* ---- data ---- */

/* Rows [at, at + n) of the weight, row_bytes each, where the file has them. */
static int put_rows(struct qp_checkpoint *ck, const struct qp_ck_slot *s, int64_t at, int64_t n, const void *rows, size_t row_bytes, struct qp_err *err)
{
    const struct qp_gguf_place *p = place_of(ck, s);
    if (!p->rotated && !p->parted)
        return qp_ck_put(ck, s->first, s->at + (size_t)at * row_bytes, rows, (size_t)n * row_bytes, err);
    int r = 0;
    for (int64_t i = 0; i < n && !r; i++)
        r = qp_ck_put(ck, s->first, s->at + (size_t)qp_gguf_place_row(p, s->w->rows, at + i) * row_bytes, (const char *)rows + (size_t)i * row_bytes, row_bytes, err);
    return r;
}

static int put_layer(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const struct qp_parts *parts, struct qp_err *err)
{
    if (parts->v[0].dtype != ck->decl[s->first].dtype)
        return qp_err_set(err, QP_E_INTERNAL, "layer '%s' came in another format", s->w->name);
    return put_rows(ck, s, 0, s->w->rows, parts->v[0].data, parts->v[0].bytes / (size_t)s->w->rows, err);
}

static int measure(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const float *want, struct qp_err *err)
{
    const struct qp_weight *w = s->w;
    enum qp_dtype dtype = ck->decl[s->first].dtype;
    size_t row_bytes = (size_t)(w->cols / qp_dtype_info[dtype].block_elems * qp_dtype_info[dtype].block_bytes), bytes = (size_t)w->rows * row_bytes;
    char *data = qp_alloc(bytes, w->name, err);
    float *x = qp_alloc_n((size_t)w->cols, sizeof *x, w->name, err);
    int r = data && x ? qp_ck_get(ck, s->first, s->at, data, bytes, err) : QP_E_RESOURCE;
    double most = 0;
    for (int64_t i = 0; i < w->rows && !r; i++) {
        qp_decode(dtype, data + (size_t)qp_gguf_place_row(place_of(ck, s), w->rows, i) * row_bytes, w->cols, x);
        double d = qp_ck_greatest_difference(x, want + i * w->cols, w->cols);
        most = d > most ? d : most;
    }
    qp_free(data);
    qp_free(x);
    return r ? r : qp_ck_keep_difference(ck, w->name, most, err);
}

/* n values as the file has them; x becomes what will be read back. */
static int encode(void *to, float *x, int64_t n, enum qp_dtype dtype, bool plus_one, const char *name, struct qp_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        float v = plus_one ? x[i] + 1 : x[i];
        uint16_t half = dtype == QP_DT_F16 ? qp_f32_to_f16(v) : qp_f32_to_bf16(v);
        float held = dtype == QP_DT_F32 ? v : dtype == QP_DT_F16 ? qp_f16_to_f32(half) : qp_bf16_to_f32(half);
        if (!isfinite(held))
            return qp_err_set(err, QP_E_INPUT, "tensor '%s' holds %g, which %s cannot", name, (double)v, dtype == QP_DT_F16 ? "float16" : dtype == QP_DT_F32 ? "a model" : "bfloat16");
        if (dtype == QP_DT_F32)
            memcpy((char *)to + 4 * i, &held, 4);
        else
            memcpy((char *)to + 2 * i, &half, 2);
        x[i] = plus_one ? held - 1 : held;
    }
    return 0;
}

/* Element by element where the file has them in another order. */
static int put_vector(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const void *data, size_t bytes, struct qp_err *err)
{
    const struct qp_gguf_place *p = place_of(ck, s);
    int r = 0;
    for (int64_t i = 0; i < s->w->cols && !r; i++)
        r = qp_ck_put(ck, s->first, (size_t)qp_gguf_place_row(p, s->w->cols, i) * bytes, (const char *)data + (size_t)i * bytes, bytes, err);
    return r;
}

static int put_dense(struct qp_checkpoint *ck, struct qp_ck_slot *s, const float *values, struct qp_err *err)
{
    const struct qp_gguf_place *p = place_of(ck, s);
    const struct qp_weight *w = s->w;
    enum qp_dtype dtype = ck->decl[s->first].dtype;
    int64_t rows = qp_ck_slice(w) < w->rows ? qp_ck_slice(w) : w->rows;
    size_t bytes = (size_t)qp_dtype_info[dtype].block_bytes;
    struct qp_xxh64 *sum = qp_xxh64_new();
    float *x = qp_alloc_n((size_t)(rows * w->cols), sizeof *x, w->name, err);
    void *to = qp_alloc_n((size_t)(rows * w->cols), bytes, w->name, err);
    int r = !x || !to ? QP_E_RESOURCE : sum ? 0 : qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
    for (int64_t at = 0; at < w->rows && !r; at += rows) {
        int64_t n = w->rows - at < rows ? w->rows - at : rows;
        if (values)
            memcpy(x, values + at * w->cols, (size_t)(n * w->cols) * sizeof *x);
        else
            r = qp_weight_read_rows(w, at, n, x, err);
        r = r ? r : encode(to, x, n * w->cols, dtype, p->plus_one, w->name, err);
        if (!r)
            r = p->vector && (p->rotated || p->parted) ? put_vector(ck, s, to, bytes, err) : put_rows(ck, s, at, n, to, bytes * (size_t)w->cols, err);
        if (!r)
            qp_xxh64_add(sum, x, (size_t)(n * w->cols) * sizeof *x);
        qp_model_drop_pages(ck->m);
    }
    if (!r)
        s->sum = qp_xxh64_value(sum);
    qp_xxh64_free(sum);
    qp_free(x);
    qp_free(to);
    return r;
}

static int put_rest(struct qp_checkpoint *ck, struct qp_err *err)
{
    int r = 0;
    for (size_t i = 0; i < ck->n_decl && !r; i++)
        for (size_t at = 0; is_copied(ck, i) && at < ck->decl[i].bytes && !r; at += COPY) {
            size_t n = ck->decl[i].bytes - at < COPY ? ck->decl[i].bytes - at : COPY;
            r = qp_ck_put(ck, i, at, (const char *)ck->gguf->tensors[i].from->data + at, n, err);
            qp_model_drop_pages(ck->m);
        }
    for (size_t i = 0; i < ck->n_slots && !r; i++)
        if (!ck->slots[i].quantized && !ck->slots[i].done && !is_copied(ck, ck->slots[i].first))
            r = put_dense(ck, &ck->slots[i], NULL, err);
    return r;
}

/* ---- reading back ---- */

static int check_copy(const struct qp_checkpoint *ck, size_t i, const struct qp_model *back, struct qp_err *err)
{
    const struct qp_tensor *t = qp_gguf_find(qp_model_gguf(back), ck->decl[i].name), *from = ck->gguf->tensors[i].from;
    bool same = t && t->dtype == from->dtype && t->bytes == from->bytes;
    for (size_t at = 0; same && at < t->bytes; at += COPY) {
        same = !memcmp((const char *)t->data + at, (const char *)from->data + at, t->bytes - at < COPY ? t->bytes - at : COPY);
        qp_model_drop_pages(ck->m);
        qp_model_drop_pages(back);
    }
    return same ? 0 : qp_err_set(err, QP_E_INTERNAL, "'%s' reads back differently from what was written", ck->decl[i].name);
}

static int read_back(const struct qp_checkpoint *ck, struct qp_err *err)
{
    struct qp_model *m = NULL;
    char *path = qp_path_join(ck->part, ck->kind->result, err);
    int r = path ? qp_model_open(&m, path, err) : QP_E_RESOURCE;
    if (r)
        qp_err_context(err, "reading back");
    for (size_t i = 0; i < ck->n_decl && !r; i++)
        if (is_copied(ck, i))
            r = check_copy(ck, i, m, err);
    for (size_t i = 0; i < ck->n_slots && !r; i++)
        if (!is_copied(ck, ck->slots[i].first))
            r = qp_ck_check_values(&ck->slots[i], m, err);
    qp_model_free(m);
    qp_free(path);
    return r;
}

const struct qp_ck_kind qp_ck_file = {.result = "files/model.gguf", .declare = declare, .open = open_file, .put = put_layer, .measure = measure, .put_dense = put_dense, .put_rest = put_rest,
                                      .read_back = read_back};
