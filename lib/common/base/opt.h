/* Options as tables: parsing, usage and error messages come from the same rows, so help cannot drift from behaviour.
 * Long options as in GNU tools: --name=value, --name value, unambiguous prefixes, "--" ends options.
 *
 *     static const struct qp_opt opts[] = {
 *         QP_OPT_INT('\0', "bits", &o.bits, 2, 8, "N", "bits per weight (2, 3, 4 or 8)"),
 *         QP_OPT_END,
 *     };
 */
#ifndef QP_BASE_OPT_H
#define QP_BASE_OPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum qp_opt_kind {
    QP_OPT_K_END, QP_OPT_K_FLAG, QP_OPT_K_INT, QP_OPT_K_F64, QP_OPT_K_STR, QP_OPT_K_LIST, QP_OPT_K_EACH, QP_OPT_K_ENUM, QP_OPT_K_GROUP, QP_OPT_K_SIZE
};

/* Values of a repeatable option, in order; strings are borrowed from argv. `--general a.txt b.txt` and
 * `--general a.txt --general b.txt` are the same: a list option takes all following words up to the next option. EACH is
 * for tools that take plain arguments as well: one word each time, `--type model --type result FILE`. */
struct qp_strs {
    const char **v;
    int n;
};

struct qp_opt {
    enum qp_opt_kind kind;
    char letter;               /* '\0': long form only */
    const char *name;
    void *value;               /* bool, int64_t, double, const char *, struct qp_strs, int (index into choices) */
    double min, max;           /* numbers: inclusive range, in the error message */
    const char *const *choices; /* ENUM: NULL-terminated */
    const char *arg, *help;    /* GROUP: help is a heading */
};

#define QP_OPT_FLAG(l, n, p, h) {QP_OPT_K_FLAG, l, n, (p), 0, 0, 0, 0, h}
#define QP_OPT_INT(l, n, p, lo, hi, a, h) {QP_OPT_K_INT, l, n, (p), lo, hi, 0, a, h}
#define QP_OPT_F64(l, n, p, lo, hi, a, h) {QP_OPT_K_F64, l, n, (p), lo, hi, 0, a, h}
/* bytes: a whole number, with K, M, G or T behind it for powers of 1024; 0 shows no default */
#define QP_OPT_SIZE(l, n, p, a, h) {QP_OPT_K_SIZE, l, n, (p), 0, 0x1p60, 0, a, h}
#define QP_OPT_STR(l, n, p, a, h) {QP_OPT_K_STR, l, n, (p), 0, 0, 0, a, h}
#define QP_OPT_LIST(l, n, p, a, h) {QP_OPT_K_LIST, l, n, (p), 0, 0, 0, a, h}
#define QP_OPT_EACH(l, n, p, a, h) {QP_OPT_K_EACH, l, n, (p), 0, 0, 0, a, h}
#define QP_OPT_ENUM(l, n, p, c, a, h) {QP_OPT_K_ENUM, l, n, (p), 0, 0, c, a, h}
#define QP_OPT_GROUP(h) {QP_OPT_K_GROUP, 0, 0, 0, 0, 0, 0, 0, h}
#define QP_OPT_END {QP_OPT_K_END, 0, 0, 0, 0, 0, 0, 0, 0}

/* Parses argv by two tables (own, then common; either may be NULL). Plain arguments go to *args (strs owned by it; release
 * with qp_strs_release). Errors are QP_E_USAGE and name the option, the value and what it takes. An option given twice: the last wins
 * (LIST, EACH: appended). "--no-NAME" turns a flag off. */
int qp_opt_parse(const struct qp_opt *own, const struct qp_opt *common, int argc, char **argv, struct qp_strs *args,
                 struct qp_err *err) QP_MUST_USE;
void qp_strs_release(struct qp_strs *s);
int qp_strs_add(struct qp_strs *s, const char *v, struct qp_err *err) QP_MUST_USE;

struct qp_buf;
/* The option part of --help, columns aligned, defaults (current values) in brackets. */
void qp_opt_help(const struct qp_opt *table, struct qp_buf *out);
/* The option's value as text, the same for equal values. */
void qp_opt_value(const struct qp_opt *o, struct qp_buf *out);

#endif
