/* Baseline and quantized model on the same items of one or more tasks: what was lost, whether the loss is real, and how much is retained.
 *
 *     struct qp_paired_items t = {.task = "mmlu", .metric = "acc", .primary = true, .clustered = true, .n = n, .base = a, .quant = b, .groups = subjects};
 *     struct qp_paired p;
 *     qp_paired_run(&p, &t, 1, &QP_PAIRED_DEFAULTS, &err);
 *     p.tasks[0].all.diff ...                       // eval/paired_report.h writes the records
 *     qp_paired_release(&p);
 *
 * Standard errors: of the paired differences, for the retained share by the delta method (residuals q - r·b over the baseline's mean); where items come in
 * clusters, the greater of that over items and the cluster-robust one. Intervals: percentile bootstrap, resampling items; where there are ten clusters or
 * more, whole clusters; with two to nine clusters, too few to stand for all subjects, the wider of the two. Both scores of an item are drawn together.
 */
#ifndef QP_EVAL_PAIRED_H
#define QP_EVAL_PAIRED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct qp_paired_items {        /* all borrowed */
    const char *task;           /* "mmlu" */
    const char *metric;         /* what the scores are: "acc", "acc_norm" */
    bool primary;               /* the task's own metric: a member of Holm's family and of the quality score. One metric a task */
    bool clustered;             /* the groups are a sample of subjects, so they are resampled whole; false: fixed categories */
    size_t n;                   /* 1 at least, less than 2^32 */
    const double *base, *quant; /* [n] scores, finite and not negative; all 0 or 1: flips and McNemar's test too */
    const char *const *groups;  /* [n] subject or category of each item; NULL: none */
    const bool *overlap;        /* [n] items that calibration text has seen; NULL: not known */
};

struct qp_paired_options {
    double confidence;
    size_t resamples;
    uint64_t seed; /* a task's draws depend on it and on the task's name alone */
};
#define QP_PAIRED_DEFAULTS ((struct qp_paired_options){0.95, 10000, 42})

struct qp_estimate {
    double value, stderr_, lo, hi; /* NaN where undefined */
};

struct qp_paired_part {             /* all items, or those without overlap */
    size_t n;
    double base, quant;             /* mean scores */
    bool binary;                    /* the six below are defined */
    size_t both, neither, lost, gained; /* lost: only the baseline was right; gained: only the quantized model */
    double p, p_holm;               /* McNemar's exact test; corrected over the primary metrics of all tasks (NaN: not one of them) */
    struct qp_estimate diff;        /* quant - base */
    bool significant;               /* |diff| of two standard errors or more, and not 0 */
    struct qp_estimate retained;    /* 100 quant / base, percent; NaN where the baseline scored 0 */
    size_t n_clusters;              /* 0: the interval resampled items */
};

struct qp_paired_group {
    const char *name; /* borrowed from the items */
    size_t n, lost, gained;
    double base, quant, diff, stderr_;
    bool significant;
    double p, p_holm; /* corrected over the task's groups; NaN where scores are not 0 or 1 */
};

struct qp_paired_task {
    const struct qp_paired_items *items;
    bool marked;                      /* overlap was known: clean is defined unless every item overlaps (clean.n == 0) */
    struct qp_paired_part all, clean; /* clean: without the items that overlap */
    struct qp_paired_group *groups;   /* worst first: by diff, then by name */
    size_t n_groups;
};

struct qp_quality {
    struct qp_estimate score; /* mean over tasks of quant / base; tasks are drawn independently */
    size_t n_tasks, n_left_out; /* tasks whose baseline scored 0 have no ratio */
};

struct qp_paired {
    struct qp_paired_task *tasks;
    size_t n_tasks;
    struct qp_paired_options options;
    bool marked;                   /* some task's overlap was known */
    struct qp_quality all, clean;
};

/* items [n_tasks] must outlive *out. QP_E_INPUT for scores that are negative or not finite, naming task and item. */
int qp_paired_run(struct qp_paired *out, const struct qp_paired_items *items, size_t n_tasks, const struct qp_paired_options *options,
                  struct qp_err *err) QP_MUST_USE;
void qp_paired_release(struct qp_paired *p);

#endif
