/* Reading a checkpoint back. */
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "quant/checkpoint_internal.h"

static int check_layer(const struct qp_ck_slot *s, const struct qp_model *m, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_weight(m, s->w->name);
    float *x = qp_alloc_n((size_t)(w->rows * w->cols), sizeof *x, w->name, err);
    int r = x ? qp_weight_read_rows(w, 0, w->rows, x, err) : QP_E_RESOURCE;
    if (!r && qp_xxh64(x, (size_t)(w->rows * w->cols) * sizeof *x) != s->sum)
        r = qp_err_set(err, QP_E_INTERNAL, "'%s' reads back differently from what was written", w->name);
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
        r = ck->slots[i].quantized ? check_layer(&ck->slots[i], m, err) : check_dense(&ck->slots[i], st, err);
        qp_safetensors_drop_pages(st);
        qp_model_drop_pages(m);
    }
    if (st)
        qp_safetensors_close(st);
    qp_model_free(m);
    qp_free(path);
    return r;
}
