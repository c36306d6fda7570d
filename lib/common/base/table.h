/* Small tables for people: columns of text that line up (by characters, not bytes), as plain text, Markdown, CSV or HTML.
 *
 *     struct qp_table t = {0};
 *     qp_table_column(&t, "model", false);
 *     qp_table_column(&t, "PPL", true);                 // numbers: right-aligned
 *     qp_table_cell(&t, "%s", id);                      // row by row; a row is full after as many cells as columns
 *     qp_table_print(&t, QP_TABLE_TEXT, &buf);
 *     qp_table_release(&t);
 */
#ifndef QP_BASE_TABLE_H
#define QP_BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

#define QP_TABLE_COLUMNS 32

enum qp_table_format { QP_TABLE_TEXT, QP_TABLE_MARKDOWN, QP_TABLE_CSV, QP_TABLE_HTML };

struct qp_table { /* zero-initialize */
    const char *names[QP_TABLE_COLUMNS]; /* borrowed */
    bool right[QP_TABLE_COLUMNS];
    int n_columns;
    char **cells; /* owned */
    size_t n_cells, cap;
    bool failed;
};

/* More than QP_TABLE_COLUMNS columns are left out. */
void qp_table_column(struct qp_table *t, const char *name, bool right);
void qp_table_cell(struct qp_table *t, const char *fmt, ...) QP_PRINTF(2, 3);
void qp_table_print(const struct qp_table *t, enum qp_table_format format, struct qp_buf *out);
/* Text from outside as HTML: the five special characters escaped, controls as '?'. */
void qp_table_html(const char *s, struct qp_buf *out);
void qp_table_release(struct qp_table *t);

#endif
