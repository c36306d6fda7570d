#include "text/csv.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "text/dataset.h"

int qp_csv_open(struct qp_csv *csv, const char *path, struct qp_err *err)
{
    struct qp_dataset *ds;
    *csv = (struct qp_csv){.path = path, .next_line = 1};
    if (qp_dataset_open(&ds, path, NULL, err))
        return err->code;
    int r = qp_dataset_next(ds, &csv->text, err);
    qp_dataset_close(ds);
    if (r >= 0 && csv->text.len && memchr(csv->text.data, 0, csv->text.len))
        r = qp_err_set(err, QP_E_INPUT, "'%s' holds zero bytes: no text", path);
    if (r < 0)
        qp_csv_close(csv);
    else if (csv->text.len >= 3 && !memcmp(csv->text.data, "\xef\xbb\xbf", 3))
        csv->at = 3;
    return r < 0 ? r : 0;
}

void qp_csv_close(struct qp_csv *csv)
{
    qp_buf_release(&csv->text);
    csv->n = 0;
}

/* A quoted field from the byte behind its opening quote, unquoted in place; *p ends behind the closing quote. */
static int quoted(struct qp_csv *csv, char **p, struct qp_err *err)
{
    char *out = *p;
    for (;; (*p)++) {
        if (!**p)
            return qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": field %zu has a quote that is not closed", csv->path, csv->line, csv->n);
        if (**p == '"' && *++*p != '"')
            break;
        csv->next_line += **p == '\n';
        *out++ = **p;
    }
    if (**p && !strchr(",\r\n", **p))
        return qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": field %zu has text behind its closing quote", csv->path, csv->line, csv->n);
    *out = 0; /* the closing quote's place, or one before it */
    return 0;
}

/* One field; returns what ended it: ',', '\n' or 0, or a negative error. The byte that ended it becomes its zero. */
static int field(struct qp_csv *csv, char **p, struct qp_err *err)
{
    if (csv->n == QP_CSV_FIELDS)
        return qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": more than %d fields", csv->path, csv->line, QP_CSV_FIELDS);
    bool in_quotes = **p == '"';
    *p += in_quotes;
    csv->field[csv->n++] = *p;
    if (in_quotes && quoted(csv, p, err))
        return err->code;
    *p += in_quotes ? 0 : strcspn(*p, ",\r\n");
    char *end = *p;
    if (*end == '\r' && end[1] == '\n')
        (*p)++;
    int what = **p == ',' ? ',' : **p ? '\n' : 0;
    *p += what != 0;
    *end = 0;
    return what;
}

int qp_csv_next(struct qp_csv *csv, struct qp_err *err)
{
    char *p = csv->text.data ? csv->text.data + csv->at : NULL;
    int r;
    for (; p && (*p == '\n' || *p == '\r'); p++)
        csv->next_line += *p == '\n';
    csv->n = 0;
    csv->line = csv->next_line;
    if (!p || !*p)
        return 0;
    do
        r = field(csv, &p, err);
    while (r == ',');
    if (r < 0)
        return r;
    csv->next_line += r == '\n';
    csv->at = (size_t)(p - csv->text.data);
    return 1;
}
