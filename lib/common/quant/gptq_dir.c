#include "quant/gptq_dir.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"
#include "model/safetensors.h"
#include "quant/dir_config.h"

#define SLICE_FLOATS ((int64_t)1 << 20)

struct qp_gptq_dir {
    char *path, *tmp;
    const struct qp_model *m;
    struct qp_gptq_dir_options o;
    struct qp_st_writer *st;
    uint64_t *sums; /* [linear layers] XXH64 of each decoded layer, in order */
    int64_t n_added;
};

/* ---- declarations: dense weights first, then the quantized layers in the order in which they will come ---- */

struct decls {
    struct qp_tensor *v;
    size_t n;
    char **names;
};

static int declare(struct decls *d, const char *name, enum qp_dtype dtype, int ndim, int64_t a, int64_t b, struct qp_err *err)
{
    char *copy = qp_strdup(name, err);
    if (!copy)
        return QP_E_RESOURCE;
    d->names[d->n] = copy;
    d->v[d->n++] = (struct qp_tensor){.name = copy, .dtype = dtype, .ndim = ndim, .shape = {a, b},
                                      .bytes = (size_t)(a * (ndim == 2 ? b : 1)) * (size_t)qp_dtype_info[dtype].block_bytes};
    return 0;
}

static int declare_layer(struct decls *d, const struct qp_gptq_dir *dir, const struct qp_weight *w, struct qp_err *err)
{
    char name[288];
    const char *weight = w->name;
    int64_t rows = w->rows, cols = w->cols, bits = dir->o.grid.bits;
    int64_t groups = qp_grid_groups(&dir->o.grid, cols);
    int stem = (int)(strlen(weight) - strlen("weight"));
    const struct {
        const char *part;
        enum qp_dtype dtype;
        int ndim;
        int64_t a, b;
    } parts[] = {{"qweight", QP_DT_I32, 2, cols * bits / 32, rows}, {"qzeros", QP_DT_I32, 2, groups, rows * bits / 32}, {"scales", QP_DT_F16, 2, groups, rows}, {"g_idx", QP_DT_I32, 1, cols, 0}};
    if (cols * bits % 32 || rows * bits % 32)
        return qp_err_set(err, QP_E_INPUT, "'%s' is %lld x %lld, which does not pack into 32-bit words at %lld bits: GPTQ checkpoints cannot hold it", weight, (long long)rows,
                          (long long)cols, (long long)bits);
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%.*s%s", stem, weight, parts[i].part);
        if (declare(d, name, parts[i].dtype, parts[i].ndim, parts[i].a, parts[i].b, err))
            return err->code;
    }
    return 0;
}

static int declare_all(struct decls *d, const struct qp_gptq_dir *dir, struct qp_err *err)
{
    size_t most = qp_model_n_weights(dir->m) + qp_model_n_linears(dir->m) * 4;
    d->v = qp_zalloc(most * sizeof *d->v, "tensor list", err);
    d->names = qp_zalloc(most * sizeof *d->names, "tensor list", err);
    if (!d->v || !d->names)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < qp_model_n_weights(dir->m); i++) {
        const struct qp_weight *w = qp_model_weight_at(dir->m, i);
        bool matrix = w->rows > 1;
        int64_t first = w->transposed ? w->cols : w->rows, second = w->transposed ? w->rows : w->cols;
        if ((dir->o.dense || !qp_model_linear_by_name(dir->m, w->name)) &&
            declare(d, w->name, QP_DT_F16, matrix ? 2 : 1, matrix ? first : w->cols, matrix ? second : 0, err))
            return err->code;
    }
    for (size_t i = 0; i < qp_model_n_linears(dir->m) && !dir->o.dense; i++)
        if (declare_layer(d, dir, qp_model_linear(dir->m, i)->weight, err))
            return err->code;
    return 0;
}

/* In slices of rows, or whole where files hold it transposed. */
static int write_dense(struct qp_gptq_dir *d, const struct qp_weight *w, struct qp_err *err)
{
    int64_t slice = w->transposed ? w->rows : SLICE_FLOATS / w->cols > 1 ? SLICE_FLOATS / w->cols : 1;
    float *x = qp_alloc_n((size_t)(slice * w->cols), sizeof *x, w->name, err);
    uint16_t *half = qp_alloc_n((size_t)(slice * w->cols), sizeof *half, w->name, err);
    int r = x && half ? 0 : QP_E_RESOURCE;
    for (int64_t at = 0; at < w->rows && !r; at += slice) {
        int64_t n = w->rows - at < slice ? w->rows - at : slice;
        r = qp_weight_read_rows(w, at, n, x, err);
        for (int64_t i = 0; i < n * w->cols && !r; i++) {
            int64_t to = w->transposed ? i % w->cols * w->rows + i / w->cols : i;
            half[to] = qp_f32_to_f16(x[i]);
            if (!isfinite(x[i]) || (half[to] & 0x7c00u) == 0x7c00u)
                r = qp_err_set(err, QP_E_INPUT, "tensor '%s' holds %g, which float16 cannot", w->name, (double)x[i]);
        }
        r = r ? r : qp_st_writer_add(d->st, half, (size_t)(n * w->cols) * 2, err);
    }
    qp_free(x);
    qp_free(half);
    return r;
}

static int begin_weights(struct qp_gptq_dir *d, struct qp_err *err)
{
    struct decls decls = {0};
    char *file = qp_path_join(d->tmp, "model.safetensors", err);
    int r = file ? declare_all(&decls, d, err) : QP_E_RESOURCE;
    r = r ? r : qp_st_writer_open(&d->st, file, decls.v, decls.n, err);
    for (size_t i = 0; i < qp_model_n_weights(d->m) && !r; i++) {
        const struct qp_weight *w = qp_model_weight_at(d->m, i);
        if (d->o.dense || !qp_model_linear_by_name(d->m, w->name))
            r = write_dense(d, w, err);
    }
    for (size_t i = 0; i < decls.n; i++)
        qp_free(decls.names[i]);
    qp_free(decls.names);
    qp_free(decls.v);
    qp_free(file);
    return r;
}

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

static int make_tmp(struct qp_gptq_dir *d, const char *path, struct qp_err *err)
{
    struct stat st;
    struct qp_buf tmp = QP_BUF_INIT;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    qp_buf_addf(&tmp, "%.*s", (int)n, path);
    d->path = qp_buf_check(&tmp, err) ? NULL : qp_strdup(tmp.data, err);
    if (d->path && stat(d->path, &st) == 0 && !(S_ISDIR(st.st_mode) && is_empty_folder(d->path))) {
        qp_buf_release(&tmp);
        return qp_err_set(err, QP_E_RESOURCE, "'%s' exists already; give a new folder", d->path);
    }
    qp_buf_addf(&tmp, ".tmp-%ld", (long)getpid());
    if (d->path && !qp_buf_check(&tmp, err) && mkdir(tmp.data, 0777))
        qp_err_errno(err, QP_E_RESOURCE, "cannot create '%s'", d->path);
    else
        d->tmp = d->path ? qp_strdup(tmp.data, err) : NULL;
    qp_buf_release(&tmp);
    return d->tmp ? 0 : err->code;
}

int qp_gptq_dir_open(struct qp_gptq_dir **out, const char *path, const struct qp_model *m, const struct qp_gptq_dir_options *o, struct qp_err *err)
{
    *out = NULL;
    struct qp_gptq_dir *d = qp_zalloc(sizeof *d, "checkpoint", err);
    if (!d)
        return QP_E_RESOURCE;
    d->m = m;
    d->o = *o;
    d->sums = qp_zalloc((qp_model_n_linears(m) + 1) * sizeof *d->sums, "checkpoint", err);
    int r = d->sums ? make_tmp(d, path, err) : QP_E_RESOURCE;
    r = r ? r : qp_dir_config_write(d->tmp, m, &d->o, err);
    r = r ? r : begin_weights(d, err);
    if (r) {
        qp_gptq_dir_abort(d);
        return r;
    }
    *out = d;
    return 0;
}

static int decoded_sum(uint64_t *sum, const struct qp_qlinear *q, struct qp_err *err)
{
    float *w = qp_alloc_n((size_t)(q->rows * q->cols), sizeof *w, "weights", err);
    if (!w)
        return QP_E_RESOURCE;
    qp_qlinear_decode(q, w);
    *sum = qp_xxh64(w, (size_t)(q->rows * q->cols) * sizeof *w);
    qp_free(w);
    return 0;
}

int qp_gptq_dir_add(struct qp_gptq_dir *d, const char *weight, const struct qp_qlinear *q, struct qp_err *err)
{
    struct qp_gptq_tensors t;
    const char *expected = (size_t)d->n_added < qp_model_n_linears(d->m) ? qp_model_linear(d->m, (size_t)d->n_added)->weight->name : "none";
    if (strcmp(expected, weight))
        return qp_err_set(err, QP_E_INTERNAL, "layer '%s' came where '%s' was expected", weight, expected);
    if (decoded_sum(&d->sums[d->n_added], q, err) || qp_qlinear_pack(q, d->o.grid.sym, &t, err))
        return err->code;
    size_t groups = (size_t)t.n_groups;
    int r = qp_st_writer_add(d->st, t.qweight, (size_t)(t.cols * t.bits / 32 * t.rows) * 4, err);
    r = r ? r : qp_st_writer_add(d->st, t.qzeros, groups * (size_t)(t.rows * t.bits / 32) * 4, err);
    r = r ? r : qp_st_writer_add(d->st, t.scales, groups * (size_t)t.rows * 2, err);
    r = r ? r : qp_st_writer_add(d->st, t.g_idx, (size_t)t.cols * 4, err);
    qp_free((void *)(uintptr_t)t.qweight);
    d->n_added += !r;
    return r;
}

/* Opens what was written and compares every quantized layer with what was added. */
static int read_back(const struct qp_gptq_dir *d, struct qp_err *err)
{
    struct qp_model *m;
    int r = qp_model_open(&m, d->tmp, err);
    if (r)
        return qp_err_context(err, "reading back");
    for (int64_t i = 0; i < d->n_added && !r; i++) {
        const char *name = qp_model_linear(d->m, (size_t)i)->weight->name;
        const struct qp_weight *w = qp_model_weight(m, name);
        float *x = qp_alloc_n((size_t)(w->rows * w->cols), sizeof *x, name, err);
        r = x ? qp_weight_read_rows(w, 0, w->rows, x, err) : QP_E_RESOURCE;
        if (!r && qp_xxh64(x, (size_t)(w->rows * w->cols) * sizeof *x) != d->sums[i])
            r = qp_err_set(err, QP_E_INTERNAL, "'%s' reads back differently from what was written", name);
        qp_free(x);
    }
    qp_model_free(m);
    return r;
}

int qp_gptq_dir_commit(struct qp_gptq_dir *d, struct qp_err *err)
{
    int r = 0;
    if (!d->o.dense && (size_t)d->n_added != qp_model_n_linears(d->m))
        r = qp_err_set(err, QP_E_INTERNAL, "'%s': %lld layers were added, not all", d->path, (long long)d->n_added);
    if (!r) {
        r = qp_st_writer_commit(d->st, err);
        d->st = NULL;
    }
    r = r ? r : read_back(d, err);
    if (!r && rename(d->tmp, d->path))
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot rename to '%s'", d->path);
    if (!r) {
        qp_free(d->tmp);
        d->tmp = NULL;
    }
    qp_gptq_dir_abort(d);
    return r;
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

void qp_gptq_dir_abort(struct qp_gptq_dir *d)
{
    if (!d)
        return;
    qp_st_writer_abort(d->st);
    if (d->tmp)
        remove_folder(d->tmp);
    qp_free(d->tmp);
    qp_free(d->path);
    qp_free(d->sums);
    qp_free(d);
}
