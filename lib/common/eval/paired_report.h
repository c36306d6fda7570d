/* A paired comparison as `result` records and as lines for people: one form for every tool that scores items. docs/WIRE.md has the fields. */
#ifndef QP_EVAL_PAIRED_REPORT_H
#define QP_EVAL_PAIRED_REPORT_H

#include "base/buf.h"
#include "eval/paired.h"
#include "stream/stream.h"

/* For each task d<METRIC>/TASK (dacc/mmlu, dacc_norm/hellaswag) and retained/TASK (retained_norm/TASK for acc_norm), then quality/all, and
 * quality/without_overlap where overlap is known. model: id of the quantized model; protocol writes further fields into each `detail` (may be NULL). */
void qp_paired_write(struct qp_writer *w, const struct qp_paired *p, const char *model, const char *baseline,
                     void (*protocol)(struct qp_writer *w, void *ctx, const struct qp_paired_items *items), void *ctx);

/* Lines such as
 *   mmlu acc 45.1 % to 43.2 %: -1.9 points +- 0.6 (95 %: -3.0 to -0.8), lost 40, gained 21, p 0.021 (Holm 0.042); retained 95.8 % (93.4 to 98.1)
 * one a task, each after `prefix`; "not significant" where it is not; then the worst groups (at most five that lost something), and the quality score. */
void qp_paired_print(const struct qp_paired *p, const char *prefix, struct qp_buf *out);

#endif
