/* A folder of safetensors: declarations, shards, the index, dense weights in float16. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"
#include "quant/checkpoint_internal.h"
#include "quant/dir_config.h"

#define SLICE_FLOATS ((int64_t)1 << 20)
#define SHARD_BYTES ((size_t)4000000000)

/* ---- declarations ---- */

/* part: what stands in place of "weight" at the end of the weight's name; NULL: the weight itself. */
static int declare(struct qp_checkpoint *ck, const char *weight, const char *part, const struct qp_tensor *like, struct qp_err *err)
{
    struct qp_buf name = QP_BUF_INIT;
    qp_buf_addf(&name, "%.*s%s", (int)(strlen(weight) - (part ? strlen("weight") : 0)), weight, part ? part : "");
    char *copy = qp_buf_check(&name, err) ? NULL : qp_strdup(name.data, err);
    qp_buf_release(&name);
    if (!copy)
        return QP_E_RESOURCE;
    ck->decl[ck->n_decl] = *like;
    ck->decl[ck->n_decl++].name = copy;
    return 0;
}

static int declare_dense(struct qp_checkpoint *ck, struct qp_ck_slot *s, struct qp_err *err)
{
    const struct qp_weight *w = s->w;
    int64_t first = w->transposed ? w->cols : w->rows, second = w->transposed ? w->rows : w->cols;
    bool matrix = w->rows > 1 || w->one_row;
    struct qp_tensor t = {.dtype = QP_DT_F16, .ndim = matrix ? 2 : 1, .shape = {matrix ? first : w->cols, matrix ? second : 0}, .bytes = (size_t)(w->rows * w->cols) * 2};
    s->first = ck->n_decl;
    s->n = 1;
    return declare(ck, w->name, NULL, &t, err);
}

static int declare_layer(struct qp_checkpoint *ck, struct qp_ck_slot *s, size_t i, struct qp_err *err)
{
    struct qp_parts parts;
    if (qp_layout_declare(ck->o.layout, &ck->o.quant, ck->m, i, &parts, err))
        return qp_err_context(err, "'%s' as a %s checkpoint", s->w->name, ck->o.layout->name);
    s->first = ck->n_decl;
    s->n = parts.n;
    for (size_t k = 0; k < parts.n; k++)
        if (declare(ck, s->w->name, parts.v[k].name, &parts.v[k], err))
            return err->code;
    return 0;
}

static int by_slot_name(const void *name, const void *slot)
{
    return strcmp(name, ((const struct qp_ck_slot *)slot)->w->name);
}

struct qp_ck_slot *qp_ck_find(const struct qp_checkpoint *ck, const char *weight)
{
    return bsearch(weight, ck->slots, ck->n_slots, sizeof *ck->slots, by_slot_name);
}

/* A layer that is kept in 16 bits becomes a dense weight. */
static int declare_layers(struct qp_checkpoint *ck, struct qp_err *err)
{
    for (size_t i = 0; i < qp_model_n_linears(ck->m) && ck->o.layout; i++) {
        struct qp_ck_slot *s = qp_ck_find(ck, qp_model_linear(ck->m, i)->weight->name);
        const struct qp_format *f = qp_layout_format(&ck->o.quant, i);
        s->quantized = !qp_format_keeps(f);
        if (s->quantized && declare_layer(ck, s, i, err))
            return err->code;
    }
    return 0;
}

int qp_ck_list_slots(struct qp_checkpoint *ck, struct qp_err *err)
{
    size_t n = qp_model_n_weights(ck->m);
    ck->slots = qp_zalloc(n * sizeof *ck->slots, "tensor list", err);
    ck->decl = qp_zalloc((n + qp_model_n_linears(ck->m) * QP_MAX_PARTS) * sizeof *ck->decl, "tensor list", err);
    if (!ck->slots || !ck->decl)
        return QP_E_RESOURCE;
    for (ck->n_slots = 0; ck->n_slots < n; ck->n_slots++)
        ck->slots[ck->n_slots].w = qp_model_weight_at(ck->m, ck->n_slots);
    return 0;
}

/* The quantized layers in the order of the forward pass, then what stays dense. */
static int declare_all(struct qp_checkpoint *ck, struct qp_err *err)
{
    if (qp_ck_list_slots(ck, err) || declare_layers(ck, err))
        return err->code;
    for (size_t i = 0; i < ck->n_slots; i++)
        if (!ck->slots[i].quantized && declare_dense(ck, &ck->slots[i], err))
            return err->code;
    return 0;
}

/* ---- files ---- */

/* Cuts the declarations into files of at most `limit` bytes; a greater tensor has a file of its own. */
static int cut(struct qp_checkpoint *ck, size_t limit, struct qp_err *err)
{
    ck->files = qp_zalloc((ck->n_decl + 1) * sizeof *ck->files, "shards", err);
    size_t bytes = 0;
    for (size_t i = 0; i < ck->n_decl && ck->files; i++) {
        if (!ck->n_files || (bytes && bytes + ck->decl[i].bytes > limit)) {
            ck->files[ck->n_files++].first = i;
            bytes = 0;
        }
        ck->files[ck->n_files - 1].n++;
        bytes += ck->decl[i].bytes;
    }
    return ck->files ? 0 : QP_E_RESOURCE;
}

static int name_file(struct qp_checkpoint *ck, size_t i, struct qp_err *err)
{
    char name[64] = "model.safetensors";
    if (ck->n_files > 1)
        snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, ck->n_files);
    return (ck->files[i].name = qp_strdup(name, err)) ? 0 : QP_E_RESOURCE;
}

static int write_index(const struct qp_checkpoint *ck, struct qp_err *err)
{
    json_t *map = json_object();
    json_int_t total = 0;
    for (size_t f = 0; f < ck->n_files; f++)
        for (size_t i = ck->files[f].first; i < ck->files[f].first + ck->files[f].n; i++) {
            json_object_set_new(map, ck->decl[i].name, json_string(ck->files[f].name));
            total += (json_int_t)ck->decl[i].bytes;
        }
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", map);
    int r = index ? qp_dir_write_json(ck->files_path, "model.safetensors.index.json", index, err) : qp_err_set(err, QP_E_RESOURCE, "no memory for the index of '%s'", ck->path);
    json_decref(index);
    return r;
}

static int open_files(struct qp_checkpoint *ck, bool fresh, struct qp_err *err)
{
    int r = fresh ? qp_dir_config_write(ck->files_path, ck->m, &ck->o, err) : 0;
    r = r ? r : cut(ck, ck->o.shard_bytes ? ck->o.shard_bytes : SHARD_BYTES, err);
    for (size_t i = 0; i < ck->n_files && !r; i++) {
        struct qp_ck_file *f = &ck->files[i];
        r = name_file(ck, i, err);
        char *path = r ? NULL : qp_path_join(ck->files_path, f->name, err);
        r = path ? (fresh ? qp_st_image_create : qp_st_image_reopen)(&f->image, path, ck->decl + f->first, f->n, err) : QP_E_RESOURCE;
        qp_free(path);
    }
    return !r && fresh && ck->n_files > 1 ? write_index(ck, err) : r;
}

static struct qp_ck_file *file_of(const struct qp_checkpoint *ck, size_t tensor)
{
    struct qp_ck_file *f = ck->files;
    while (tensor >= f->first + f->n)
        f++;
    return f;
}

int qp_ck_put(struct qp_checkpoint *ck, size_t tensor, size_t offset, const void *data, size_t bytes, struct qp_err *err)
{
    struct qp_ck_file *f = file_of(ck, tensor);
    return qp_image_put(f->image, tensor - f->first, offset, data, bytes, err);
}

static int put_layer(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const struct qp_parts *parts, struct qp_err *err)
{
    int r = 0;
    for (size_t i = 0; i < s->n && !r; i++)
        r = qp_ck_put(ck, s->first + i, 0, parts->v[i].data, ck->decl[s->first + i].bytes, err);
    return r;
}

int qp_ck_get(const struct qp_checkpoint *ck, size_t tensor, size_t offset, void *data, size_t bytes, struct qp_err *err)
{
    struct qp_ck_file *f = file_of(ck, tensor);
    return qp_image_get(f->image, tensor - f->first, offset, data, bytes, err);
}

int qp_ck_sync_files(struct qp_checkpoint *ck, struct qp_err *err)
{
    for (size_t i = 0; i < ck->n_files; i++)
        if (qp_image_sync(ck->files[i].image, err))
            return err->code;
    return 0;
}

int qp_ck_close_files(struct qp_checkpoint *ck, struct qp_err *err)
{
    int r = 0;
    for (size_t i = 0; i < ck->n_files; i++) {
        struct qp_image *im = ck->files[i].image;
        if (!im)
            continue;
        r = r ? r : qp_image_sync(im, err);
        int closed = qp_image_close(im, err);
        r = r ? r : closed;
        ck->files[i].image = NULL;
    }
    return r;
}

void qp_ck_release_files(struct qp_checkpoint *ck)
{
    struct qp_err dropped = {0};
    qp_ck_release_gguf(ck);
    if (qp_ck_close_files(ck, &dropped))
        dropped.code = 0; /* the folder goes with what was wrong in it */
    for (size_t i = 0; i < ck->n_files; i++)
        qp_free(ck->files[i].name);
    for (size_t i = 0; i < ck->n_decl; i++)
        qp_free((void *)(uintptr_t)ck->decl[i].name);
    qp_free(ck->files);
    qp_free(ck->decl);
    qp_free(ck->slots);
}

/* ---- dense weights ---- */

int64_t qp_ck_slice(const struct qp_weight *w)
{
    return SLICE_FLOATS / w->cols > 1 ? SLICE_FLOATS / w->cols : 1;
}

struct slice {
    float *x;
    uint16_t *half;
    int64_t rows;
};

/* Rows [at, at + n) as the file has them; NULL values: read from the model. */
static int to_half(struct slice *s, const struct qp_weight *w, const float *values, int64_t at, int64_t n, struct qp_err *err)
{
    const float *x = values ? values + at * w->cols : s->x;
    int r = values ? 0 : qp_weight_read_rows(w, at, n, s->x, err);
    for (int64_t i = 0; i < n * w->cols && !r; i++) {
        int64_t to = w->transposed ? i % w->cols * w->rows + i / w->cols : i;
        s->half[to] = qp_f32_to_f16(x[i]);
        if (!isfinite(x[i]) || (s->half[to] & 0x7c00u) == 0x7c00u)
            r = qp_err_set(err, QP_E_INPUT, "tensor '%s' holds %g, which float16 cannot", w->name, (double)x[i]);
    }
    return r;
}

/* In slices of rows, or whole where files hold it transposed. */
static int write_dense(struct qp_checkpoint *ck, struct qp_ck_slot *slot, const float *values, struct qp_err *err)
{
    const struct qp_weight *w = slot->w;
    struct slice s = {.rows = w->transposed ? w->rows : qp_ck_slice(w)};
    struct qp_xxh64 *sum = qp_xxh64_new();
    s.x = values ? NULL : qp_alloc_n((size_t)(s.rows * w->cols), sizeof *s.x, w->name, err);
    s.half = qp_alloc_n((size_t)(s.rows * w->cols), sizeof *s.half, w->name, err);
    int r = sum ? 0 : qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
    if (!s.half || (!s.x && !values))
        r = QP_E_RESOURCE;
    for (int64_t at = 0; at < w->rows && !r; at += s.rows) {
        int64_t n = w->rows - at < s.rows ? w->rows - at : s.rows;
        size_t bytes = (size_t)(n * w->cols) * 2;
        r = to_half(&s, w, values, at, n, err);
        r = r ? r : qp_ck_put(ck, slot->first, (size_t)(at * w->cols) * 2, s.half, bytes, err);
        if (bytes >= (size_t)1 << 20)
            qp_model_drop_pages(ck->m);
        if (!r)
            qp_xxh64_add(sum, s.half, bytes);
    }
    if (!r)
        slot->sum = qp_xxh64_value(sum);
    qp_xxh64_free(sum);
    qp_free(s.x);
    qp_free(s.half);
    return r;
}

static int write_rest(struct qp_checkpoint *ck, struct qp_err *err)
{
    int r = 0;
    for (size_t i = 0; i < ck->n_slots && !r; i++)
        if (!ck->slots[i].quantized && !ck->slots[i].done)
            r = write_dense(ck, &ck->slots[i], NULL, err);
    return r;
}

const struct qp_ck_kind qp_ck_folder = {.result = "files", .declare = declare_all, .open = open_files, .put = put_layer, .measure = qp_ck_measure, .put_dense = write_dense, .put_rest = write_rest,
                                        .read_back = qp_ck_read_back};
