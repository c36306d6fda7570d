#include "text/dataset.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "text/internal.h"

#define MAX_DOCUMENT ((size_t)1 << 30)

struct qp_dataset {
    gzFile file; /* plain files pass through it unchanged */
    char *path, *field;
    bool lines, done;
    int64_t line;
    struct qp_buf text;
};

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

int qp_dataset_open(struct qp_dataset **out, const char *path, const char *field, struct qp_err *err)
{
    *out = NULL;
    struct qp_dataset *ds = qp_zalloc(sizeof *ds, "data set", err);
    if (!ds)
        return QP_E_RESOURCE;
    ds->path = qp_strdup(path, err);
    ds->field = qp_strdup(field ? field : "text", err);
    ds->lines = ends_with(path, ".jsonl") || ends_with(path, ".jsonl.gz") || ends_with(path, ".json") || ends_with(path, ".json.gz");
    if (ds->path && ds->field && !(ds->file = gzopen(path, "rb")))
        qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
    if (!ds->file) {
        qp_dataset_close(ds);
        return err ? err->code : QP_E_INPUT;
    }
    gzbuffer(ds->file, 1 << 17);
    *out = ds;
    return 0;
}

bool qp_dataset_is_lines(const struct qp_dataset *ds)
{
    return ds->lines;
}

void qp_dataset_close(struct qp_dataset *ds)
{
    if (!ds)
        return;
    if (ds->file)
        gzclose(ds->file);
    qp_buf_release(&ds->text);
    qp_free(ds->path);
    qp_free(ds->field);
    qp_free(ds);
}

static int read_error(struct qp_dataset *ds, struct qp_err *err)
{
    int code;
    const char *why = gzerror(ds->file, &code);
    if (code == Z_ERRNO)
        return qp_err_errno(err, QP_E_INPUT, "cannot read '%s'", ds->path);
    return qp_err_set(err, QP_E_INPUT, "cannot read '%s': %s", ds->path, why);
}

/* 1: a line, without its end, in ds->text; 0: end of file. */
static int read_line(struct qp_dataset *ds, struct qp_err *err)
{
    char chunk[65536];
    qp_buf_clear(&ds->text);
    for (;;) {
        if (!gzgets(ds->file, chunk, sizeof chunk)) {
            int code;
            gzerror(ds->file, &code);
            if (code != Z_OK && code != Z_STREAM_END)
                return read_error(ds, err);
            if (!ds->text.len)
                return 0;
            break;
        }
        qp_buf_adds(&ds->text, chunk);
        if (ds->text.len > MAX_DOCUMENT)
            return qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 " is longer than 1 GiB", ds->path, ds->line + 1);
        if (qp_buf_check(&ds->text, err))
            return QP_E_RESOURCE;
        if (ds->text.len && ds->text.data[ds->text.len - 1] == '\n')
            break;
    }
    ds->line++;
    return 1;
}

static int read_all(struct qp_dataset *ds, struct qp_buf *doc, struct qp_err *err)
{
    char chunk[65536];
    int n;
    while ((n = gzread(ds->file, chunk, sizeof chunk)) > 0) {
        qp_buf_add(doc, chunk, (size_t)n);
        if (doc->len > MAX_DOCUMENT)
            return qp_err_set(err, QP_E_INPUT, "'%s' is longer than 1 GiB: give it as .jsonl", ds->path);
    }
    int code; /* gzip data that is cut off reads as if it ended */
    gzerror(ds->file, &code);
    return n < 0 || (code != Z_OK && code != Z_STREAM_END) ? read_error(ds, err) : qp_buf_check(doc, err);
}

static int check_utf8(const struct qp_dataset *ds, const struct qp_buf *doc, struct qp_err *err)
{
    size_t valid = doc->len ? qp_utf8_valid(doc->data, doc->len) : 0, line = 1;
    for (size_t i = 0; i < valid && valid < doc->len; i++)
        line += doc->data[i] == '\n';
    return valid < doc->len ? qp_err_set(err, QP_E_INPUT, "'%s' line %zu: invalid UTF-8 at byte %zu", ds->path, line, valid) : 0;
}

/* 1: the next line that is not empty, as an object; 0: end of file. */
static int next_object(struct qp_dataset *ds, size_t flags, json_t **o, struct qp_err *err)
{
    int r;
    json_error_t je;
    do
        r = read_line(ds, err);
    while (r == 1 && strspn(ds->text.data, " \t\r\n") == ds->text.len);
    if (r <= 0)
        return r;
    *o = json_loadb(ds->text.data, ds->text.len, flags, &je);
    if (json_is_object(*o))
        return 1;
    r = qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": not a JSON object%s%s", ds->path, ds->line, *o ? "" : ": ", *o ? "" : je.text);
    json_decref(*o);
    return r;
}

int qp_dataset_row(struct qp_dataset *ds, struct json_t **row, int64_t *line, struct qp_err *err)
{
    int r = next_object(ds, JSON_REJECT_DUPLICATES, row, err);
    *line = ds->line;
    return r;
}

static int next_line(struct qp_dataset *ds, struct qp_buf *doc, struct qp_err *err)
{
    json_t *o;
    int r = next_object(ds, JSON_ALLOW_NUL, &o, err);
    if (r <= 0)
        return r;
    json_t *v = json_object_get(o, ds->field);
    if (!json_is_string(v))
        r = qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": field '%s' is %s", ds->path, ds->line, ds->field, v ? "not a string" : "missing");
    else
        qp_buf_add(doc, json_string_value(v), json_string_length(v));
    json_decref(o);
    return r < 0 ? r : qp_buf_check(doc, err) ? QP_E_RESOURCE : 1;
}

int qp_dataset_next(struct qp_dataset *ds, struct qp_buf *doc, struct qp_err *err)
{
    qp_buf_clear(doc);
    if (ds->lines)
        return next_line(ds, doc, err);
    if (ds->done)
        return 0;
    ds->done = true;
    int r = read_all(ds, doc, err);
    r = r ? r : check_utf8(ds, doc, err);
    return r ? r : 1;
}

int qp_dataset_join(const char *path, const char *field, const char *sep, size_t max_bytes, struct qp_buf *out, int64_t *docs, struct qp_err *err)
{
    struct qp_dataset *ds;
    struct qp_buf doc = QP_BUF_INIT;
    int64_t n = 0;
    int r = qp_dataset_open(&ds, path, field, err);
    if (r)
        return r;
    while ((r = qp_dataset_next(ds, &doc, err)) == 1) {
        if (n++)
            qp_buf_adds(out, sep);
        if (doc.len)
            qp_buf_add(out, doc.data, doc.len);
        if (out->len > max_bytes) {
            r = qp_err_set(err, QP_E_INPUT, "'%s' holds more than %zu bytes of text", path, max_bytes);
            break;
        }
    }
    qp_buf_release(&doc);
    qp_dataset_close(ds);
    if (docs)
        *docs = n;
    return r < 0 ? r : qp_buf_check(out, err);
}
