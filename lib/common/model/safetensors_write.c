#include <jansson.h>
#include <stdlib.h>
#include <string.h>

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

static int open_image(struct qp_image **out, const char *path, const struct qp_tensor *decl, size_t n, bool fresh, struct qp_err *err)
{
    *out = NULL;
    if (check_dtypes(decl, n, err))
        return err->code;
    size_t length = 0, data = 0;
    struct qp_buf head = QP_BUF_INIT;
    char *text = header_text(decl, n, &data, &length);
    struct qp_extent *at = qp_alloc_n(n + 1, sizeof *at, "safetensors writer", err);
    int r = at ? 0 : QP_E_RESOURCE;
    if (!text)
        r = qp_err_set(err, QP_E_RESOURCE, "no memory for the header of '%s'", path);
    uint64_t bytes = length;
    qp_buf_add(&head, &bytes, 8);
    qp_buf_add(&head, text, r ? 0 : length);
    r = r ? r : qp_buf_check(&head, err);
    for (size_t i = 0, begin = 8 + length; i < n && !r; begin += decl[i++].bytes)
        at[i] = (struct qp_extent){begin, decl[i].bytes};
    struct qp_image_plan plan = {.head = head.data, .head_bytes = head.len, .at = at, .n = n, .bytes = 8 + length + data};
    r = r ? r : qp_image_open(out, path, &plan, fresh, err);
    qp_buf_release(&head);
    qp_free(at);
    free(text);
    return r;
}

int qp_st_image_create(struct qp_image **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err)
{
    return open_image(out, path, decl, n, true, err);
}

int qp_st_image_reopen(struct qp_image **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err)
{
    return open_image(out, path, decl, n, false, err);
}
