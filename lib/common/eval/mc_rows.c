#include "eval/mc_rows.h"

#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "text/csv.h"
#include "text/dataset.h"

#define MAX_ROWS ((size_t)1 << 24)
#define MAX_LABELS ((size_t)64 << 20)

/* ---- lists ---- */

void qp_mc_rows_release(struct qp_mc_rows *rows)
{
    for (size_t i = 0; i < rows->n; i++)
        json_decref(rows->v[i].doc);
    qp_free(rows->v);
    *rows = (struct qp_mc_rows){0};
}

void qp_mc_files_release(struct qp_mc_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        qp_free(files->v[i].path);
    qp_free(files->v);
    *files = (struct qp_mc_files){0};
}

static bool grow(void **v, size_t n, size_t *cap, size_t size, const char *what, struct qp_err *err)
{
    if (n < *cap)
        return true;
    size_t more = *cap ? 2 * *cap : 64;
    void *grown = qp_alloc_n(more, size, what, err);
    if (!grown)
        return false;
    if (n)
        memcpy(grown, *v, n * size);
    qp_free(*v);
    *v = grown;
    *cap = more;
    return true;
}

static int add_file(struct qp_mc_files *files, const char *path, bool shots, struct qp_err *err)
{
    if (!grow((void **)&files->v, files->n, &files->cap, sizeof *files->v, "files", err))
        return QP_E_RESOURCE;
    struct qp_mc_file *f = &files->v[files->n];
    *f = (struct qp_mc_file){.path = qp_strdup(path, err), .shots = shots};
    files->n += f->path != NULL;
    return f->path ? qp_sha256_file(f->sha256, path, err) : QP_E_RESOURCE;
}

/* ---- one row ---- */

/* "a/b/anatomy_test.csv" gives "anatomy"; "a/anatomy/test.jsonl" gives "anatomy": MMLU's files that name no subject in their rows. */
static void subject_of(const char *path, char *out, size_t n)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *end = strstr(name, "_test.csv");
    end = end ? end : strstr(name, "_dev.csv");
    if (!end && slash) {
        const char *begin = slash;
        while (begin > path && begin[-1] != '/')
            begin--;
        name = begin;
        end = slash;
    }
    snprintf(out, n, "%.*s", (int)(end ? end - name : 0), name);
}

static int prepare(const struct qp_mc_spec *s, json_t *doc, const char *path, struct qp_err *err)
{
    char subject[128];
    for (int i = 0; i < QP_MC_PATHS && s->aliases[i][0]; i++) {
        json_t *v = qp_mc_field(doc, s->aliases[i][1]);
        if (!v)
            return qp_err_set(err, QP_E_INPUT, "field '%s' is missing", s->aliases[i][1]);
        if (json_object_set(doc, s->aliases[i][0], v))
            return qp_err_set(err, QP_E_RESOURCE, "no memory for a row");
    }
    if (s->subtasks && !json_object_get(doc, s->group)) {
        subject_of(path, subject, sizeof subject);
        if (json_object_set_new(doc, s->group, json_string(subject)))
            return qp_err_set(err, QP_E_RESOURCE, "no memory for a row");
    }
    return s->convert ? s->convert(doc, err) : 0;
}

static int group_of(const struct qp_mc_spec *s, const json_t *doc, const char **group, struct qp_err *err)
{
    const json_t *v = s->group ? qp_mc_field(doc, s->group) : NULL;
    *group = NULL;
    if (!s->group)
        return 0;
    if (!json_is_string(v))
        return qp_err_set(err, QP_E_INPUT, "field '%s' is %s", s->group, v ? "no text" : "missing");
    *group = json_string_value(v);
    if (s->section && !s->section(*group))
        return qp_err_set(err, QP_E_INPUT, "field '%s' is '%.80s', none of the task's subjects", s->group, *group);
    return 0;
}

static bool wanted(const struct qp_mc_spec *s, const char *group)
{
    return !s->only || !strcmp(group, s->only) || !strcmp(s->section(group), s->only);
}

/* Takes doc. What is wrong with the row is found here, before anything is scored. */
static int add_row(struct qp_mc_rows *rows, const struct qp_mc_files *files, const struct qp_mc_spec *s, json_t *doc, int64_t line, struct qp_mc_prompt *scratch,
                   struct qp_err *err)
{
    const char *path = files->v[files->n - 1].path, *group;
    qp_buf_clear(&scratch->text);
    if (prepare(s, doc, path, err) || group_of(s, doc, &group, err) || qp_mc_row_render(s, doc, scratch, err)) {
        json_decref(doc);
        return qp_err_context(err, "'%s' line %" PRId64, path, line);
    }
    files->v[files->n - 1].rows++;
    if (s->only && !wanted(s, group)) {
        json_decref(doc);
        return 0;
    }
    if (rows->n == MAX_ROWS || !grow((void **)&rows->v, rows->n, &rows->cap, sizeof *rows->v, "rows", err)) {
        json_decref(doc);
        return qp_err_set(err, QP_E_RESOURCE, "'%s' holds too many rows", path);
    }
    rows->v[rows->n++] = (struct qp_mc_row){.doc = doc, .file = files->n - 1, .line = line, .group = group};
    return 0;
}

/* ---- files ---- */

static int read_csv(struct qp_mc_rows *rows, const struct qp_mc_files *files, const struct qp_mc_spec *s, struct qp_mc_prompt *scratch, struct qp_err *err)
{
    const char *path = files->v[files->n - 1].path;
    struct qp_csv csv;
    int r = qp_csv_open(&csv, path, err);
    if (r)
        return r;
    while (!err->code && (r = qp_csv_next(&csv, err)) == 1) {
        if (csv.n != 6) {
            qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": %zu fields, expected question, four choices and the answer's letter", path, csv.line, csv.n);
            break;
        }
        json_t *doc = json_pack("{s:s,s:[s,s,s,s],s:s}", "question", csv.field[0], "choices", csv.field[1], csv.field[2], csv.field[3], csv.field[4], "answer", csv.field[5]);
        if (!doc)
            qp_err_set(err, QP_E_RESOURCE, "no memory for a row");
        else
            r = add_row(rows, files, s, doc, csv.line, scratch, err);
    }
    qp_csv_close(&csv);
    return err->code;
}

/* PIQA's publisher keeps answers in a file of their own, "valid-labels.lst" beside "valid.jsonl": a number a line. */
static char *read_labels(const char *path, struct qp_buf *out, struct qp_err *err)
{
    char labels[4096];
    const char *end = strstr(path, ".jsonl");
    snprintf(labels, sizeof labels, "%.*s-labels.lst", (int)(end ? end - path : 0), path);
    if (!end || access(labels, R_OK) || qp_file_read(out, labels, MAX_LABELS, err))
        return NULL;
    return out->data;
}

static int set_label(json_t *doc, const struct qp_mc_spec *s, const char *path, char **at, struct qp_err *err)
{
    size_t n = strcspn(*at, "\r\n");
    if (!n)
        return qp_err_set(err, QP_E_INPUT, "'%s' has more rows than its labels file has lines", path);
    if (json_object_set_new(doc, s->answer, json_stringn(*at, n)))
        return qp_err_set(err, QP_E_INPUT, "labels of '%s': invalid UTF-8", path);
    *at += n;
    *at += strspn(*at, "\r\n");
    return 0;
}

static int read_jsonl(struct qp_mc_rows *rows, const struct qp_mc_files *files, const struct qp_mc_spec *s, struct qp_mc_prompt *scratch, struct qp_err *err)
{
    const char *path = files->v[files->n - 1].path;
    struct qp_buf labels = QP_BUF_INIT;
    struct qp_dataset *ds;
    json_t *doc;
    int64_t line;
    int r = qp_dataset_open(&ds, path, NULL, err);
    if (r)
        return r;
    char *at = read_labels(path, &labels, err);
    while (!err->code && qp_dataset_row(ds, &doc, &line, err) == 1) {
        if (at && !qp_mc_field(doc, s->answer) && set_label(doc, s, path, &at, err))
            json_decref(doc);
        else
            r = add_row(rows, files, s, doc, line, scratch, err);
    }
    qp_dataset_close(ds);
    qp_buf_release(&labels);
    return err->code;
}

static int read_file(struct qp_mc_rows *rows, struct qp_mc_files *files, const struct qp_mc_spec *s, const char *path, bool shots, struct qp_err *err)
{
    struct qp_mc_prompt scratch = {0};
    if (add_file(files, path, shots, err))
        return err->code;
    int r = strstr(path, ".csv") ? read_csv(rows, files, s, &scratch, err) : read_jsonl(rows, files, s, &scratch, err);
    qp_mc_prompt_release(&scratch);
    if (!r && !files->v[files->n - 1].rows)
        r = qp_err_set(err, QP_E_INPUT, "'%s' holds no row", path);
    return r;
}

/* 1 when files match dir/pattern, as they are or gzipped. */
static int try(struct qp_mc_rows *rows, struct qp_mc_files *files, const struct qp_mc_spec *s, const char *dir, const char *pattern, bool shots, struct qp_err *err)
{
    static const char *const ends[] = {"", ".gz"};
    for (int k = 0; k < 2; k++) {
        char full[4096];
        glob_t found;
        if (snprintf(full, sizeof full, "%s%s%s%s", dir, *dir ? "/" : "", pattern, ends[k]) >= (int)sizeof full)
            return qp_err_set(err, QP_E_INPUT, "'%.200s...': the path is too long", dir);
        if (!strchr(pattern, '*')) {
            if (!access(full, R_OK))
                return read_file(rows, files, s, full, shots, err) ? err->code : 1;
            if (errno != ENOENT && errno != ENOTDIR)
                return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", full);
            continue;
        }
        if (glob(full, 0, NULL, &found))
            continue;
        for (size_t i = 0; i < found.gl_pathc && !err->code; i++)
            if (read_file(rows, files, s, found.gl_pathv[i], shots, err))
                break;
        globfree(&found);
        return err->code ? err->code : 1;
    }
    return 0;
}

/* A pattern "mmlu/test.jsonl" under a folder that is named mmlu itself: what lies in it. */
static const char *inside(const char *dir, const char *pattern)
{
    const char *slash = strchr(pattern, '/'), *end = dir + strlen(dir);
    while (end > dir && end[-1] == '/')
        end--;
    const char *base = end;
    while (base > dir && base[-1] != '/')
        base--;
    return slash && slash - pattern == end - base && !strncmp(base, pattern, (size_t)(end - base)) ? slash + 1 : NULL;
}

int qp_mc_rows_read(struct qp_mc_rows *rows, struct qp_mc_files *files, const struct qp_mc_spec *s, const char *dir, bool shots, struct qp_buf *looked, struct qp_err *err)
{
    const char *const *patterns = shots ? s->shots : s->eval;
    for (int i = 0; i < QP_MC_PATHS && patterns[i]; i++) {
        const char *within = dir ? inside(dir, patterns[i]) : NULL;
        int r = patterns[i][0] == '/' ? try(rows, files, s, "", patterns[i], shots, err) : 0;
        r = r || !s->dir || patterns[i][0] == '/' ? r : try(rows, files, s, s->dir, patterns[i], shots, err);
        r = r || !dir ? r : try(rows, files, s, dir, patterns[i], shots, err);
        r = r || !within ? r : try(rows, files, s, dir, within, shots, err);
        if (r)
            return r;
        qp_buf_addf(looked, "%s%s", looked->len ? ", " : "", patterns[i]);
    }
    return 0;
}
