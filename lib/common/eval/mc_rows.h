/* Rows of data files for multiple choice: .jsonl and MMLU's .csv, gzipped or not, checked and brought into the fields that a task names. Private to eval/. */
#ifndef QP_EVAL_MC_ROWS_H
#define QP_EVAL_MC_ROWS_H

#include "eval/mc_task.h"

struct qp_mc_row {
    struct json_t *doc;
    size_t file;       /* index into files */
    int64_t line;
    const char *group; /* of doc; NULL: none */
};

struct qp_mc_rows { /* zero-initialize */
    struct qp_mc_row *v;
    size_t n, cap;
};

struct qp_mc_files { /* zero-initialize */
    struct qp_mc_file *v;
    size_t n, cap;
};

/* Reads the first of the patterns that names files under dir (or a task file's folder). 1: rows were read; 0: there are none of those files, what was looked for is
 * appended to `looked`. */
int qp_mc_rows_read(struct qp_mc_rows *rows, struct qp_mc_files *files, const struct qp_mc_spec *s, const char *dir, bool shots, struct qp_buf *looked,
                    struct qp_err *err) QP_MUST_USE;
void qp_mc_rows_release(struct qp_mc_rows *rows);
void qp_mc_files_release(struct qp_mc_files *files);

/* What a row says, into p: the choices, the right one, the context's own part behind `p->text`'s end and the target. Appends to p->text. */
int qp_mc_row_render(const struct qp_mc_spec *s, const struct json_t *doc, struct qp_mc_prompt *p, struct qp_err *err) QP_MUST_USE;

#endif
