/* Verdicts of the past, in an SQLite file: what every gate judged, when, and on what evidence. Any SQLite shell reads it; its tables, `verdicts` and `checks`,
 * are in docs/WIRE.md.
 *
 *     qp_history_open(&h, "history.db", true, &err);
 *     qp_history_last_pass(h, "ship", "llama-gptq-w4g64", &results, &err);   // what the next verdict may be compared with
 *     qp_history_add(h, &about, &verdict, &err);
 *     qp_history_print(h, 20, &text, &err);
 *     qp_history_close(h);
 *
 * Several processes may use a file at the same time: one that finds it locked waits for ten seconds.
 */
#ifndef QP_EVAL_HISTORY_H
#define QP_EVAL_HISTORY_H

#include <stdint.h>

#include "base/buf.h"
#include "eval/gate.h"

struct qp_history;

struct qp_history_about {
    const char *gate, *gate_sha256, *model;
    const char *chain; /* checksums of the stream's parts, spaces between */
};

/* create: an absent or empty file becomes a history. QP_E_INPUT for a file that is none, or is of a later version. */
int qp_history_open(struct qp_history **out, const char *path, bool create, struct qp_err *err) QP_MUST_USE;
void qp_history_close(struct qp_history *h);
/* One verdict with its checks, whole or not at all; the time is now. */
int qp_history_add(struct qp_history *h, const struct qp_history_about *about, const struct qp_verdict *v, struct qp_err *err) QP_MUST_USE;
/* Adds to out the model's result of each metric, as the last verdict by that gate that passed and judged the metric has it. */
int qp_history_last_pass(struct qp_history *h, const char *gate, const char *model, struct qp_results *out, struct qp_err *err) QP_MUST_USE;
/* The last n verdicts as a table, the newest at the end: a line for each check. */
int qp_history_print(struct qp_history *h, int64_t n, struct qp_buf *out, struct qp_err *err) QP_MUST_USE;

#endif
