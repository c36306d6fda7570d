/* Totals from items: accuracies with standard errors, subjects pooled as lm-evaluation-harness pools them, baselines and quantized models compared item by
 * item; as `result` records and as lines for people. qmc, qgen and qcat --merge all end here, so numbers do not depend on who added them up.
 */
#ifndef QP_EVAL_ITEM_REPORT_H
#define QP_EVAL_ITEM_REPORT_H

#include "eval/items.h"
#include "stats/stats.h"

struct qp_item_model {
    const char *id, *base; /* base NULL: a baseline, compared with nothing */
};

struct qp_item_task {      /* all borrowed */
    const char *name;
    bool pooled;           /* groups are tasks of their own (MMLU's subjects): see qp_items_accuracy; and the bootstrap resamples them whole */
    const char *(*section)(const char *group); /* the part of the task that a group belongs to ("stem"), each with a result acc/TASK_SECTION; NULL: no parts */
};

/* Accuracy of one model's items of one task, of those in one section (NULL: all), with or without items that overlap. norm: acc_norm.
 * Not pooled: mean, and sqrt(sum (x - mean)² / (n - 1) / n). Pooled over k groups of n_g items and error se_g: the mean over all N items, and
 * sqrt(V / N), V = sum (n_g - 1) n_g se_g² / (N - k): what differs between groups is left out. A group of one item has no error, so the sum has none (NaN). */
struct qp_mean qp_items_accuracy(const struct qp_items *items, const char *model, const struct qp_item_task *task, const char *section, bool norm, bool clean);

struct qp_item_report {
    const struct qp_items *items;
    const struct qp_item_model *models; /* baselines first */
    size_t n_models;
    const struct qp_item_task *tasks;
    size_t n_tasks;
    uint64_t seed;                      /* of the bootstrap */
    void (*protocol)(struct qp_writer *w, void *ctx, const char *task); /* writes fields into each `detail`; may be NULL */
    void *ctx;
};
/* For each model and task acc/TASK, acc_norm/TASK where items have it, and the sections'; then for each quantized model eval/paired_report.h's records over the
 * items that its baseline has too (QP_E_INPUT where they have not the same items). lines (may be NULL): the same for people, each after `prefix`.
 * The items of a task and model must be in the order of i. */
int qp_items_report(struct qp_writer *w, const struct qp_item_report *r, const char *prefix, struct qp_buf *lines, struct qp_err *err) QP_MUST_USE;

#endif
