/* Text sources: .txt (whole file is one document), .jsonl and .jsonl.gz (one document a line, its text in one field).
 * Streams: memory is one document. Errors name file and line. */
#ifndef QP_TEXT_DATASET_H
#define QP_TEXT_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct qp_dataset;

/* field NULL: "text". The kind is told by the name: .jsonl, .jsonl.gz, .json (lines), else plain text (also .gz). */
int qp_dataset_open(struct qp_dataset **out, const char *path, const char *field, struct qp_err *err) QP_MUST_USE;
bool qp_dataset_is_lines(const struct qp_dataset *ds); /* .jsonl and its like: it has rows */
/* 1 and the next document's text in *doc (cleared first), 0 at the end. Invalid UTF-8, a line that is no JSON object, a missing
 * or non-string field: QP_E_INPUT with "'file' line N: ...". */
int qp_dataset_next(struct qp_dataset *ds, struct qp_buf *doc, struct qp_err *err) QP_MUST_USE;
/* 1 and the next line of a .jsonl file as an object (the caller's reference) with its line number; field is not used. Text with a zero character, duplicate
 * keys and invalid UTF-8 are QP_E_INPUT, too. */
struct json_t;
int qp_dataset_row(struct qp_dataset *ds, struct json_t **row, int64_t *line, struct qp_err *err) QP_MUST_USE;
void qp_dataset_close(struct qp_dataset *ds);

/* All documents joined by sep (rows of hub data sets: "\n\n"), at most max_bytes. *docs (may be NULL): how many. */
int qp_dataset_join(const char *path, const char *field, const char *sep, size_t max_bytes, struct qp_buf *out, int64_t *docs,
                    struct qp_err *err) QP_MUST_USE;

#endif
