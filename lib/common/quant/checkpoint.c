#include "quant/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "quant/checkpoint_internal.h"

/* ---- what has been put ---- */

static struct qp_ck_slot *find(const struct qp_checkpoint *ck, const char *weight, bool quantized, struct qp_err *err)
{
    struct qp_ck_slot *s = qp_ck_find(ck, weight);
    if (s && s->quantized == quantized)
        return s;
    qp_err_set(err, QP_E_INTERNAL, "'%s' is no weight of the checkpoint that %s", weight, quantized ? "is quantized" : "stays dense");
    return NULL;
}

/* Writes a layer's tensors, and reads them again. */
static int put_layer(struct qp_checkpoint *ck, struct qp_ck_slot *s, const struct qp_qweight *q, struct qp_err *err)
{
    struct qp_parts parts;
    if (qp_pack(ck->o.layout->packing(&ck->o.quant), &q->format, q->rows, q->cols, q, &parts, err))
        return err->code;
    int r = parts.n == s->n ? 0 : qp_err_set(err, QP_E_INTERNAL, "layer '%s' came in another format", s->w->name);
    r = r ? r : ck->kind->put(ck, s, &parts, err);
    qp_parts_release(&parts);
    if (r)
        return r;
    size_t n = (size_t)(q->rows * q->cols);
    float *w = qp_alloc_n(n, sizeof *w, "weights", err);
    if (!w)
        return QP_E_RESOURCE;
    qp_qweight_decode(q, w);
    s->sum = qp_xxh64(w, n * sizeof *w);
    r = ck->kind->measure(ck, s, w, err);
    qp_free(w);
    return r;
}

/* A layer that was kept in 16 bits is a dense weight. */
static int add_kept(struct qp_checkpoint *ck, const struct qp_qweight *q, const char *weight, const void *note, size_t note_bytes, struct qp_err *err)
{
    struct qp_ck_slot *s = find(ck, weight, false, err);
    float *w = s ? qp_alloc_n((size_t)(q->rows * q->cols), sizeof *w, "weights", err) : NULL;
    if (!w)
        return err->code;
    qp_qweight_decode(q, w);
    int r = ck->kind->put_dense(ck, s, w, err);
    r = r ? r : qp_ck_journal_slot(ck, s, note, note_bytes, err);
    s->done = !r;
    qp_free(w);
    return r;
}

int qp_checkpoint_add(struct qp_checkpoint *ck, const char *weight, const struct qp_qweight *q, const void *note, size_t note_bytes, struct qp_err *err)
{
    if (qp_format_keeps(&q->format))
        return add_kept(ck, q, weight, note, note_bytes, err);
    struct qp_ck_slot *s = find(ck, weight, true, err);
    if (!s)
        return err->code;
    if (s->done || q->rows != s->w->rows || q->cols != s->w->cols)
        return qp_err_set(err, QP_E_INTERNAL, "layer '%s' came %s", weight, s->done ? "twice" : "in another shape");
    int r = put_layer(ck, s, q, err);
    r = r ? r : qp_ck_journal_slot(ck, s, note, note_bytes, err);
    s->done = !r;
    return r;
}

int qp_checkpoint_set_dense(struct qp_checkpoint *ck, const char *weight, const float *values, struct qp_err *err)
{
    struct qp_ck_slot *s = find(ck, weight, false, err);
    int r = s ? ck->kind->put_dense(ck, s, values, err) : QP_E_INTERNAL;
    r = r ? r : qp_ck_journal_slot(ck, s, NULL, 0, err);
    if (!r)
        s->done = true;
    return r;
}

/* ---- the folder ---- */

static bool is_empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = dir != NULL;
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            empty = false;
    if (dir)
        closedir(dir);
    return empty;
}

static void remove_folder(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(path);
}

static char *suffixed(const char *path, const char *suffix, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    qp_buf_addf(&b, "%.*s%s", (int)n, path, suffix);
    char *s = qp_buf_check(&b, err) ? NULL : qp_strdup(b.data, err);
    qp_buf_release(&b);
    return s;
}

/* PATH.part is new, or an unfinished checkpoint. */
static int make_part(struct qp_checkpoint *ck, const char *path, struct qp_err *err)
{
    struct stat st;
    ck->path = suffixed(path, "", err);
    ck->part = suffixed(path, ".part", err);
    ck->files_path = suffixed(path, ".part/files", err);
    char *journal = suffixed(path, ".part/journal", err);
    int r = ck->path && ck->part && ck->files_path && journal ? 0 : QP_E_RESOURCE;
    if (!r && stat(ck->path, &st) == 0 && (ck->o.gguf || !(S_ISDIR(st.st_mode) && is_empty_folder(ck->path))))
        r = qp_err_set(err, QP_E_RESOURCE, "'%s' exists already; give a new %s", ck->path, ck->o.gguf ? "file" : "folder");
    if (!r && mkdir(ck->part, 0777) && errno != EEXIST)
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot create '%s'", ck->path);
    if (!r && access(journal, F_OK) && !is_empty_folder(ck->part))
        r = qp_err_set(err, QP_E_RESOURCE, "'%s' exists already and is no unfinished checkpoint; remove it, or give another name", ck->part);
    qp_free(journal);
    return r;
}

static int begin(struct qp_checkpoint *ck, struct qp_err *err)
{
    remove_folder(ck->files_path);
    if (mkdir(ck->files_path, 0777))
        return qp_err_errno(err, QP_E_RESOURCE, "cannot create '%s'", ck->files_path);
    int r = qp_ck_journal_setup(ck, err);
    r = r ? r : ck->kind->open(ck, true, err);
    r = r ? r : ck->kind->put_rest(ck, err);
    return r ? r : qp_ck_journal_ready(ck, err);
}

/* Dense weights are written again: their checksums are needed, and they are the small part. */
static int go_on(struct qp_checkpoint *ck, struct qp_err *err)
{
    int r = ck->kind->open(ck, false, err);
    return r ? r : ck->kind->put_rest(ck, err);
}

int qp_checkpoint_check(size_t *dense_bytes, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err)
{
    if (o->gguf)
        return qp_ck_outline_gguf(dense_bytes, m, o, err);
    *dense_bytes = 0;
    for (size_t i = 0; i < qp_model_n_weights(m); i++) {
        const struct qp_weight *w = qp_model_weight_at(m, i);
        if (!o->layout || !qp_model_linear_by_name(m, w->name))
            *dense_bytes += (size_t)(w->rows * w->cols) * 2;
    }
    return 0;
}

int qp_checkpoint_open(struct qp_checkpoint **out, const char *path, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err)
{
    *out = NULL;
    bool fresh = true, ours = false;
    struct qp_checkpoint *ck = qp_zalloc(sizeof *ck, "checkpoint", err);
    if (!ck)
        return QP_E_RESOURCE;
    ck->m = m;
    ck->o = *o;
    ck->kind = o->gguf ? &qp_ck_file : &qp_ck_folder;
    int r = ck->kind->declare(ck, err);
    r = r ? r : make_part(ck, path, err);
    r = r ? r : qp_ck_resume(ck, &fresh, err);
    ours = !r && fresh;
    r = r ? r : fresh ? begin(ck, err) : go_on(ck, err);
    if (r)
        qp_checkpoint_close(ck, !ours); /* another run's work is left alone */
    else
        *out = ck;
    return r;
}

const char *qp_checkpoint_part(const struct qp_checkpoint *ck)
{
    return ck->part;
}

static int check_complete(const struct qp_checkpoint *ck, struct qp_err *err)
{
    for (size_t i = 0; i < ck->n_slots; i++)
        if (ck->slots[i].quantized && !ck->slots[i].done)
            return qp_err_set(err, QP_E_INTERNAL, "'%s': layer '%s' was never added", ck->path, ck->slots[i].w->name);
    return 0;
}

int qp_checkpoint_commit(struct qp_checkpoint *ck, double *max_diff, struct qp_err *err)
{
    int r = check_complete(ck, err);
    r = r ? r : qp_ck_close_files(ck, err);
    r = r ? r : ck->kind->read_back(ck, err);
    char *result = r ? NULL : qp_path_join(ck->part, ck->kind->result, err);
    if (!r && (!result || rename(result, ck->path)))
        r = result ? qp_err_errno(err, QP_E_RESOURCE, "cannot rename to '%s'", ck->path) : QP_E_RESOURCE;
    qp_free(result);
    if (!r)
        qp_sync_folder_of(ck->path);
    if (max_diff)
        *max_diff = ck->max_diff;
    qp_checkpoint_close(ck, false);
    return r;
}

void qp_checkpoint_close(struct qp_checkpoint *ck, bool keep)
{
    if (!ck)
        return;
    qp_ck_release_files(ck);
    if (ck->part && !keep) {
        remove_folder(ck->files_path);
        remove_folder(ck->part);
    }
    qp_journal_close(ck->journal);
    qp_buf_release(&ck->notes);
    qp_free(ck->files_path);
    qp_free(ck->part);
    qp_free(ck->path);
    qp_free(ck);
}
