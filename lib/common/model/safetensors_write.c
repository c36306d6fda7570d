#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/safetensors.h"

struct qp_st_writer {
    struct qp_outfile out;
    size_t left; /* bytes of data still to come */
};

static json_t *describe(const struct qp_tensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; i++)
        json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", qp_safetensors_dtype(t->dtype), "shape", shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + t->bytes));
}

/* The header as text, padded with spaces so that data begins at a multiple of 8. NULL: no memory. */
static char *header_text(const struct qp_tensor *decl, size_t n, size_t *data_bytes, size_t *length)
{
    json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        json_object_set_new(root, decl[i].name, describe(&decl[i], at));
        at += decl[i].bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text)
        return NULL;
    size_t len = strlen(text), full = (len + 7) & ~(size_t)7;
    char *padded = realloc(text, full + 1);
    if (!padded) {
        free(text);
        return NULL;
    }
    memset(padded + len, ' ', full - len);
    padded[full] = 0;
    *data_bytes = at;
    *length = full;
    return padded;
}

static int check_dtypes(const struct qp_tensor *decl, size_t n, struct qp_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!qp_safetensors_dtype(decl[i].dtype))
            return qp_err_set(err, QP_E_INTERNAL, "safetensors cannot hold dtype '%s'", qp_dtype_info[decl[i].dtype].name);
    return 0;
}

int qp_st_writer_open(struct qp_st_writer **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err)
{
    *out = NULL;
    if (check_dtypes(decl, n, err))
        return err->code;
    struct qp_st_writer *w = qp_zalloc(sizeof *w, "safetensors writer", err);
    if (!w)
        return QP_E_RESOURCE;
    size_t length = 0;
    char *text = header_text(decl, n, &w->left, &length);
    int r = text ? qp_outfile_open(&w->out, path, err) : qp_err_set(err, QP_E_RESOURCE, "no memory for the header of '%s'", path);
    uint64_t head = length;
    if (!r && (fwrite(&head, 8, 1, w->out.file) != 1 || fwrite(text, 1, length, w->out.file) != length)) {
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", path);
        qp_outfile_abort(&w->out);
    }
    free(text);
    if (r) {
        qp_free(w);
        return r;
    }
    *out = w;
    return 0;
}

int qp_st_writer_add(struct qp_st_writer *w, const void *data, size_t bytes, struct qp_err *err)
{
    if (bytes > w->left)
        return qp_err_set(err, QP_E_INTERNAL, "'%s': more data than was declared", w->out.path);
    w->left -= bytes;
    if (fwrite(data, 1, bytes, w->out.file) != bytes)
        return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", w->out.path);
    return 0;
}

int qp_st_writer_commit(struct qp_st_writer *w, struct qp_err *err)
{
    int r;
    if (w->left) {
        r = qp_err_set(err, QP_E_INTERNAL, "'%s': %zu declared bytes never came", w->out.path, w->left);
        qp_outfile_abort(&w->out);
    } else
        r = qp_outfile_commit(&w->out, err);
    qp_free(w);
    return r;
}

void qp_st_writer_abort(struct qp_st_writer *w)
{
    if (!w)
        return;
    qp_outfile_abort(&w->out);
    qp_free(w);
}

/* ---- images ---- */

struct qp_st_image {
    int fd;
    char *path;
    size_t *begin; /* [n + 1] file offset of each tensor */
    size_t n;
};

static int write_at(const struct qp_st_image *im, const void *data, size_t bytes, size_t at, struct qp_err *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(im->fd, (const char *)data + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path);
        done += (size_t)n;
    }
    return 0;
}

/* The file's header and size, written or compared. */
static int begin_image(struct qp_st_image *im, const char *text, uint64_t length, bool fresh, struct qp_err *err)
{
    size_t bytes = im->begin[im->n];
    if (fresh) {
        if (fallocate(im->fd, 0, 0, (off_t)bytes) && (errno != EOPNOTSUPP || ftruncate(im->fd, (off_t)bytes)))
            return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path);
        return write_at(im, &length, 8, 0, err) ? err->code : write_at(im, text, length, 8, err);
    }
    struct stat st;
    char *there = qp_alloc(8 + length, "header", err);
    if (!there)
        return QP_E_RESOURCE;
    bool same = !fstat(im->fd, &st) && (size_t)st.st_size == bytes && pread(im->fd, there, 8 + length, 0) == (ssize_t)(8 + length) && !memcmp(there, &length, 8) &&
                !memcmp(there + 8, text, length);
    qp_free(there);
    return same ? 0 : qp_err_set(err, QP_E_INPUT, "'%s' holds other tensors than those to be written", im->path);
}

static void free_image(struct qp_st_image *im)
{
    if (im->fd >= 0)
        close(im->fd);
    qp_free(im->path);
    qp_free(im->begin);
    qp_free(im);
}

static int open_image(struct qp_st_image **out, const char *path, const struct qp_tensor *decl, size_t n, bool fresh, struct qp_err *err)
{
    *out = NULL;
    if (check_dtypes(decl, n, err))
        return err->code;
    struct qp_st_image *im = qp_zalloc(sizeof *im, "safetensors writer", err);
    if (!im)
        return QP_E_RESOURCE;
    size_t length = 0, data = 0;
    char *text = header_text(decl, n, &data, &length);
    im->n = n;
    im->fd = -1;
    im->path = qp_strdup(path, err);
    im->begin = qp_alloc_n(n + 1, sizeof *im->begin, "safetensors writer", err);
    int r = im->path && im->begin ? 0 : QP_E_RESOURCE;
    if (!text)
        r = qp_err_set(err, QP_E_RESOURCE, "no memory for the header of '%s'", path);
    for (size_t i = 0, at = 8 + length; i <= n && !r; at += i < n ? decl[i].bytes : 0, i++)
        im->begin[i] = at;
    if (!r && (im->fd = open(path, O_RDWR | O_CLOEXEC | (fresh ? O_CREAT | O_EXCL : 0), 0666)) < 0)
        r = qp_err_errno(err, fresh ? QP_E_RESOURCE : QP_E_INPUT, "cannot open '%s'", path);
    r = r ? r : begin_image(im, text, length, fresh, err);
    free(text);
    if (r)
        free_image(im);
    else
        *out = im;
    return r;
}

int qp_st_image_create(struct qp_st_image **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err)
{
    return open_image(out, path, decl, n, true, err);
}

int qp_st_image_reopen(struct qp_st_image **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err)
{
    return open_image(out, path, decl, n, false, err);
}

static int check_range(const struct qp_st_image *im, size_t i, size_t offset, size_t bytes, struct qp_err *err)
{
    if (i >= im->n || offset > im->begin[i + 1] - im->begin[i] || bytes > im->begin[i + 1] - im->begin[i] - offset)
        return qp_err_set(err, QP_E_INTERNAL, "'%s': more data than was declared", im->path);
    return 0;
}

int qp_st_image_put(struct qp_st_image *im, size_t i, size_t offset, const void *data, size_t bytes, struct qp_err *err)
{
    return check_range(im, i, offset, bytes, err) ? QP_E_INTERNAL : write_at(im, data, bytes, im->begin[i] + offset, err);
}

int qp_st_image_get(const struct qp_st_image *im, size_t i, size_t offset, void *data, size_t bytes, struct qp_err *err)
{
    if (check_range(im, i, offset, bytes, err))
        return QP_E_INTERNAL;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(im->fd, (char *)data + done, bytes - done, (off_t)(im->begin[i] + offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qp_err_errno(err, QP_E_RESOURCE, "cannot read '%s'", im->path);
        done += (size_t)n;
    }
    return 0;
}

int qp_st_image_sync(struct qp_st_image *im, struct qp_err *err)
{
    return fsync(im->fd) ? qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path) : 0;
}

int qp_st_image_close(struct qp_st_image *im, struct qp_err *err)
{
    int r = close(im->fd) ? qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path) : 0;
    im->fd = -1;
    free_image(im);
    return r;
}
