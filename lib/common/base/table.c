#include "base/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void qp_table_column(struct qp_table *t, const char *name, bool right)
{
    if (t->n_columns == QP_TABLE_COLUMNS)
        return;
    t->names[t->n_columns] = name;
    t->right[t->n_columns++] = right;
}

void qp_table_cell(struct qp_table *t, const char *fmt, ...)
{
    if (t->n_cells == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        char **grown = realloc(t->cells, cap * sizeof *grown);
        if (!grown) {
            t->failed = true;
            return;
        }
        t->cells = grown;
        t->cap = cap;
    }
    struct qp_buf b = QP_BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *at = n >= 0 ? qp_buf_grow(&b, (size_t)n) : NULL;
    va_start(ap, fmt);
    if (at)
        vsnprintf(at, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->failed |= !at;
    t->cells[t->n_cells++] = b.data; /* the buffer's block, freed with free */
}

/* Columns on a terminal: UTF-8 characters, and one for each control, which is printed as '?'. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; s && *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void add_cell(struct qp_buf *out, const char *s, bool markdown)
{
    struct qp_buf clean = QP_BUF_INIT;
    qp_buf_add_clean(&clean, s);
    for (const char *p = clean.data; p && *p; p++) {
        if (markdown && *p == '|')
            qp_buf_adds(out, "\\");
        qp_buf_add(out, p, 1);
    }
    out->failed |= clean.failed;
    qp_buf_release(&clean);
}

static void pad(struct qp_buf *out, const char *s, size_t to, bool right, bool markdown)
{
    size_t w = width(s);
    size_t fill = to > w ? to - w : 0;
    if (right)
        qp_buf_addf(out, "%*s", (int)fill, "");
    add_cell(out, s ? s : "", markdown);
    if (!right)
        qp_buf_addf(out, "%*s", (int)fill, "");
}

static void csv_cell(struct qp_buf *out, const char *s)
{
    if (!s || !strpbrk(s, ",\"\n\r")) {
        qp_buf_adds(out, s ? s : "");
        return;
    }
    qp_buf_adds(out, "\"");
    for (; *s; s++)
        qp_buf_addf(out, *s == '"' ? "\"%c" : "%c", *s);
    qp_buf_adds(out, "\"");
}

void qp_table_html(const char *s, struct qp_buf *out)
{
    struct qp_buf clean = QP_BUF_INIT;
    qp_buf_add_clean(&clean, s ? s : "");
    for (const char *p = clean.data; p && *p; p++) {
        const char *as = *p == '&' ? "&amp;" : *p == '<' ? "&lt;" : *p == '>' ? "&gt;" : *p == '"' ? "&quot;" : *p == '\'' ? "&#39;" : NULL;
        qp_buf_add(out, as ? as : p, as ? strlen(as) : 1);
    }
    out->failed |= clean.failed;
    qp_buf_release(&clean);
}

static void html_row(const struct qp_table *t, const char *const *cells, const char *tag, struct qp_buf *out)
{
    qp_buf_adds(out, "<tr>");
    for (int c = 0; c < t->n_columns; c++) {
        qp_buf_addf(out, "<%s%s>", tag, t->right[c] ? " class=\"n\"" : "");
        qp_table_html(cells[c], out);
        qp_buf_addf(out, "</%s>", tag);
    }
    qp_buf_adds(out, "</tr>\n");
}

static void row(const struct qp_table *t, enum qp_table_format f, const char *const *cells, const size_t *widths, struct qp_buf *out)
{
    for (int c = 0; c < t->n_columns; c++) {
        if (f == QP_TABLE_CSV) {
            qp_buf_adds(out, c ? "," : "");
            csv_cell(out, cells[c]);
            continue;
        }
        qp_buf_adds(out, f == QP_TABLE_MARKDOWN ? "| " : c ? "  " : "");
        bool last = f == QP_TABLE_TEXT && c == t->n_columns - 1 && !t->right[c];
        pad(out, cells[c], last ? 0 : widths[c], t->right[c], f == QP_TABLE_MARKDOWN);
        qp_buf_adds(out, f == QP_TABLE_MARKDOWN ? " " : "");
    }
    while (f == QP_TABLE_TEXT && out->len && out->data[out->len - 1] == ' ') /* empty last cells */
        out->data[--out->len] = 0;
    qp_buf_adds(out, f == QP_TABLE_MARKDOWN ? "|\n" : "\n");
}

static void rule(const struct qp_table *t, enum qp_table_format f, const size_t *widths, struct qp_buf *out)
{
    for (int c = 0; c < t->n_columns; c++) {
        qp_buf_adds(out, f == QP_TABLE_MARKDOWN ? "|" : c ? "  " : "");
        size_t n = f == QP_TABLE_MARKDOWN ? widths[c] + 2 : widths[c];
        for (size_t i = 0; i < n; i++)
            qp_buf_adds(out, f == QP_TABLE_MARKDOWN && t->right[c] && i == n - 1 ? ":" : "-");
    }
    qp_buf_adds(out, f == QP_TABLE_MARKDOWN ? "|\n" : "\n");
}

void qp_table_print(const struct qp_table *t, enum qp_table_format f, struct qp_buf *out)
{
    size_t widths[QP_TABLE_COLUMNS];
    if (!t->n_columns)
        return;
    out->failed |= t->failed;
    for (int c = 0; c < t->n_columns; c++)
        widths[c] = width(t->names[c]);
    size_t whole = t->n_cells - t->n_cells % (size_t)t->n_columns; /* a row that is not full is left out */
    for (size_t i = 0; i < whole; i++) {
        size_t w = width(t->cells[i]), c = i % (size_t)t->n_columns;
        widths[c] = w > widths[c] ? w : widths[c];
    }
    if (f == QP_TABLE_HTML) {
        qp_buf_adds(out, "<table>\n");
        html_row(t, t->names, "th", out);
        for (size_t i = 0; i < whole; i += (size_t)t->n_columns)
            html_row(t, (const char *const *)t->cells + i, "td", out);
        qp_buf_adds(out, "</table>\n");
        return;
    }
    row(t, f, t->names, widths, out);
    if (f != QP_TABLE_CSV)
        rule(t, f, widths, out);
    for (size_t i = 0; i < whole; i += (size_t)t->n_columns)
        row(t, f, (const char *const *)t->cells + i, widths, out);
}

void qp_table_release(struct qp_table *t)
{
    for (size_t i = 0; i < t->n_cells; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (struct qp_table){0};
}
