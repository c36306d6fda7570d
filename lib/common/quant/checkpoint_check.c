/* Reading a checkpoint back: each layer as soon as it is written, while what it must be is known; all of them by their checksums when the folder is whole. */
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "quant/checkpoint_internal.h"

double qp_ck_greatest_difference(const float *a, const float *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most))
            most = isnan(d) ? INFINITY : d;
    }
    return most;
}

static int compare_rows(const struct qp_store *store, const struct qp_weight *w, const float *want, double *most, struct qp_err *err)
{
    int64_t slice = qp_ck_slice(w) > 16 ? qp_ck_slice(w) / 16 * 16 : 16;
    slice = slice < w->rows ? slice : w->rows;
    float *x = qp_alloc_n((size_t)(slice * w->cols), sizeof *x, w->name, err);
    int r = x ? 0 : QP_E_RESOURCE;
    for (int64_t at = 0; at < w->rows && !r; at += slice) {
        int64_t n = w->rows - at < slice ? w->rows - at : slice;
        r = qp_store_read_rows(store, at, n, x, err);
        double d = r ? 0 : qp_ck_greatest_difference(x, want + at * w->cols, n * w->cols);
        *most = d > *most ? d : *most;
    }
    qp_free(x);
    return r;
}

int qp_ck_keep_difference(struct qp_checkpoint *ck, const char *name, double difference, struct qp_err *err)
{
    ck->max_diff = difference > ck->max_diff ? difference : ck->max_diff;
    return difference > 0 ? qp_err_set(err, QP_E_INTERNAL, "'%s' reads back differently from what was quantized, by up to %g", name, difference) : 0;
}

int qp_ck_measure(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const float *want, struct qp_err *err)
{
    struct qp_tensor parts[QP_MAX_PARTS];
    struct qp_store *store = NULL;
    const char *name = s->w->name;
    size_t bytes = 0, i = (size_t)(qp_model_linear_by_name(ck->m, name) - qp_model_linear(ck->m, 0));
    struct qp_part_hints hints = qp_layout_hints(ck->o.layout, &ck->o.quant, i);
    double most = 0;
    for (size_t k = 0; k < s->n; k++)
        bytes += (ck->decl[s->first + k].bytes + 63) / 64 * 64;
    char *data = qp_alloc(bytes, name, err), *at = data;
    int r = data ? 0 : QP_E_RESOURCE;
    for (size_t k = 0; k < s->n && !r; k++) {
        parts[k] = ck->decl[s->first + k];
        parts[k].name += strlen(name) - strlen("weight");
        parts[k].data = at;
        r = qp_ck_get(ck, s->first + k, 0, at, parts[k].bytes, err);
        at += (parts[k].bytes + 63) / 64 * 64;
    }
    r = r ? r : qp_store_of_parts(&store, name, s->w->rows, s->w->cols, parts, s->n, &hints, err);
    r = r ? r : compare_rows(store, s->w, want, &most, err);
    qp_store_free(store);
    qp_free(data);
    return r ? r : qp_ck_keep_difference(ck, name, most, err);
}

int qp_ck_check_values(const struct qp_ck_slot *s, const struct qp_model *m, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_weight(m, s->w->name);
    int64_t rows = qp_ck_slice(w);
    struct qp_xxh64 *sum = qp_xxh64_new();
    float *x = qp_alloc_n((size_t)((rows < w->rows ? rows : w->rows) * w->cols), sizeof *x, w->name, err);
    int r = !x ? QP_E_RESOURCE : sum ? 0 : qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
    for (int64_t at = 0; at < w->rows && !r; at += rows) {
        int64_t n = w->rows - at < rows ? w->rows - at : rows;
        r = qp_weight_read_rows(w, at, n, x, err);
        if (!r)
            qp_xxh64_add(sum, x, (size_t)(n * w->cols) * sizeof *x);
        qp_model_drop_pages(m);
    }
    if (!r && qp_xxh64_value(sum) != s->sum)
        r = qp_err_set(err, QP_E_INTERNAL, "'%s' reads back differently from what was written", w->name);
    qp_xxh64_free(sum);
    qp_free(x);
    return r;
}

static int check_dense(const struct qp_ck_slot *s, const struct qp_safetensors *st, struct qp_err *err)
{
    const struct qp_tensor *t = qp_safetensors_find(st, s->w->name);
    if (!t || qp_xxh64(t->data, t->bytes) != s->sum)
        return qp_err_set(err, QP_E_INTERNAL, "'%s' reads back differently from what was written", s->w->name);
    return 0;
}

int qp_ck_read_back(const struct qp_checkpoint *ck, struct qp_err *err)
{
    struct qp_model *m = NULL;
    struct qp_safetensors *st = NULL;
    char *path = qp_path_join(ck->files_path, ck->n_files > 1 ? "model.safetensors.index.json" : "model.safetensors", err);
    int r = path ? qp_safetensors_open(&st, path, err) : QP_E_RESOURCE;
    r = r ? r : qp_model_open(&m, ck->files_path, err);
    if (r)
        qp_err_context(err, "reading back");
    for (size_t i = 0; i < ck->n_slots && !r; i++) {
        r = ck->slots[i].quantized ? qp_ck_check_values(&ck->slots[i], m, err) : check_dense(&ck->slots[i], st, err);
        qp_safetensors_drop_pages(st);
        qp_model_drop_pages(m);
    }
    if (st)
        qp_safetensors_close(st);
    qp_model_free(m);
    qp_free(path);
    return r;
}
