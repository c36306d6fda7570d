/* Comma-separated values (RFC 4180): quoted fields may hold commas, doubled quotes and line ends. For files that fit in memory, .csv and .csv.gz.
 *
 *     struct qp_csv csv;
 *     qp_csv_open(&csv, "anatomy_test.csv", &err);
 *     while ((r = qp_csv_next(&csv, &err)) == 1)
 *         csv.field[0 .. csv.n) ...                  // of the row that begins in line csv.line
 *     qp_csv_close(&csv);
 */
#ifndef QP_TEXT_CSV_H
#define QP_TEXT_CSV_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define QP_CSV_FIELDS 256

struct qp_csv {
    const char *path;                 /* borrowed */
    const char *field[QP_CSV_FIELDS]; /* zero-terminated, valid until the next row */
    size_t n;
    int64_t line;
    struct qp_buf text;               /* the file */
    size_t at;
    int64_t next_line;
};

/* path must outlive *csv. Invalid UTF-8 and zero bytes are QP_E_INPUT. */
int qp_csv_open(struct qp_csv *csv, const char *path, struct qp_err *err) QP_MUST_USE;
/* 1: a row; 0: the end. Empty lines are passed over. A quote that is not closed, or text behind a closing quote: QP_E_INPUT with the line. */
int qp_csv_next(struct qp_csv *csv, struct qp_err *err) QP_MUST_USE;
void qp_csv_close(struct qp_csv *csv);

#endif
