/* Jinja templates, the part of the language that chat templates and prompt templates of evaluations use: expressions with all operators, slices,
 * inline if, filters, tests and string methods; if, for (with loop, else, filters, break, continue), set (also as a block), namespace, macros, raw, comments,
 * and white space control. What is not supported is refused by name and line while reading, before anything is rendered.
 * Output equals that of jinja2 in the sandbox of transformers (tests/golden/make_templates.py). Rendering is bounded in steps, depth, memory and output,
 * reads no clock and no environment: the same template, values and date give the same bytes.
 *
 *     qp_template_open(&t, "chat template", text, n, QP_TEMPLATE_TRIM, &err);
 *     qp_template_render(t, values, date, &out, &err);        // values: a jansson object, one member a variable
 *     qp_template_free(t);
 */
#ifndef QP_TEXT_TEMPLATE_H
#define QP_TEXT_TEMPLATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct json_t;
struct qp_template;

enum qp_template_flags {
    QP_TEMPLATE_TRIM = 1,  /* trim_blocks and lstrip_blocks, as transformers sets them for chat templates */
    QP_TEMPLATE_STRICT = 2 /* an absent name that is used is an error (StrictUndefined), else it is empty text */
};

/* Copies text (UTF-8, at most 256 KiB). name is used in messages: "chat template line 3: ...". Threads: an open template is read-only. */
int qp_template_open(struct qp_template **out, const char *name, const char *text, size_t n, unsigned flags, struct qp_err *err) QP_MUST_USE;
void qp_template_free(struct qp_template *t);
/* Appends to out. values: object (NULL: none), borrowed. date: seconds since 1970, what strftime_now shows, in UTC. QP_E_INPUT with the line for errors of the
 * template and for its own raise_exception, QP_E_RESOURCE beyond the bounds (16 MiB of output, 64 MiB of values, 5 million steps). */
int qp_template_render(const struct qp_template *t, const struct json_t *values, int64_t date, struct qp_buf *out, struct qp_err *err) QP_MUST_USE;

#endif
