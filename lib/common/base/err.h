/* Errors: a status code and one line of text, filled by the function that fails and carried up unprinted.
 *
 * Library functions return 0 (or a count) on success and a negative QP_E_* on failure. They never print and never exit;
 * qp_tool_main prints the one line and maps the code to the exit status. The first error wins: qp_err_set on an
 * error that is already set keeps the old text.
 *
 *     struct qp_err err = {0};
 *     if (qp_model_open(&m, path, &err) < 0)
 *         return qp_err_context(&err, "--model");        // "--model: cannot open 'x': No such file or directory"
 */
#ifndef QP_BASE_ERR_H
#define QP_BASE_ERR_H

#define QP_MUST_USE __attribute__((warn_unused_result))
#define QP_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* The codes are the negated exit statuses of the tools. */
enum qp_status {
    QP_OK = 0,
    QP_E_GATE = -1,      /* qgate: a check failed */
    QP_E_USAGE = -2,     /* bad option or argument */
    QP_E_INPUT = -3,     /* bad file, bad record, cut-off stream */
    QP_E_RESOURCE = -4,  /* memory, disk, threads, a file that cannot be written */
    QP_E_INTERNAL = -5,  /* our own bug */
    QP_E_UNDECIDED = -6, /* qgate: too few items to decide */
    QP_E_PIPE = -7       /* the reader of our output has gone; tools end quietly with status 0 */
};

struct qp_err {
    int code;       /* QP_OK or a QP_E_* */
    char text[512]; /* lower case, no full stop, subject quoted, then what would be accepted */
};

/* Sets code and text unless err already holds an error; err may be NULL. Returns code. */
int qp_err_set(struct qp_err *err, int code, const char *fmt, ...) QP_PRINTF(3, 4);

/* As qp_err_set, with ": strerror(errno)" appended. ENOSPC, ENOMEM, EDQUOT, EFBIG force QP_E_RESOURCE, EPIPE QP_E_PIPE. */
int qp_err_errno(struct qp_err *err, int code, const char *fmt, ...) QP_PRINTF(3, 4);

/* Puts "prefix: " before the text of an error that is set. Returns err->code. */
int qp_err_context(struct qp_err *err, const char *fmt, ...) QP_PRINTF(2, 3);

#endif
