/* The gate: thresholds over the results of a stream, each check decided as pass, fail or undecided.
 *
 * A gate file is JSON: {"name": "...", "confidence": 0.95, "checks": [{"metric": "ppl/wikitext2", "max_increase_pct": 5}, ...]}. A check has one limit:
 *   max_increase_pct   100 * (quantized / baseline - 1) may not exceed it (metrics where lower is better: perplexity)
 *   min_retained_pct   100 * quantized / baseline may not fall below it (metrics where higher is better: accuracies)
 *   max_value, min_value   bounds of the value itself
 * "against": "last-pass" compares an increase or a share not with the baseline but with the same model's value in the last verdict that passed (qgate
 * --history); where there is none yet the check passes and says so.
 * Without "confidence" (of the check or the file) the value decides. With it, the two-sided interval of that confidence must lie on the right side to pass,
 * on the wrong side to fail; else the check is undecided: there are too few items. A limit that is met exactly passes.
 * A metric that the stream lacks fails. Increases of ppl/X use the paired difference dlogppl/X where the stream has it, shares of acc/X and acc_norm/X the paired
 * retained/X and retained_norm/X.
 */
#ifndef QP_EVAL_GATE_H
#define QP_EVAL_GATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum qp_outcome { QP_PASS, QP_FAIL, QP_UNDECIDED };
const char *qp_outcome_name(enum qp_outcome o); /* "pass", "fail", "undecided" */

enum qp_limit { QP_MAX_INCREASE_PCT, QP_MIN_RETAINED_PCT, QP_MAX_VALUE, QP_MIN_VALUE };

struct qp_check {
    char *metric;       /* may be a glob: every metric that matches is judged, one at least must be there */
    enum qp_limit kind;
    double limit, confidence; /* confidence 0: the value decides */
    bool last_pass;           /* against the last verdict that passed, not the baseline */
};

struct qp_gate {
    char *name;
    struct qp_check *checks;
    size_t n;
};

/* Unknown keys are errors: a typo may not silently pass. Messages name the file and the check. */
int qp_gate_open(struct qp_gate *out, const char *path, struct qp_err *err) QP_MUST_USE;
/* Whether any check is against the last pass. */
bool qp_gate_needs_history(const struct qp_gate *g);
void qp_gate_release(struct qp_gate *g);

struct qp_result { /* one result record; strings owned by the caller's list */
    char *model, *metric;
    double value, stderr_; /* stderr_ NaN: none */
};
struct qp_results { /* zero-initialize */
    struct qp_result *v;
    size_t n;
};
int qp_results_add(struct qp_results *r, const char *model, const char *metric, double value, double stderr_, struct qp_err *err) QP_MUST_USE;
void qp_results_release(struct qp_results *r);
/* NULL: none. */
const struct qp_result *qp_results_find(const struct qp_results *r, const char *model, const char *metric);

struct qp_judged {
    const struct qp_check *check;
    const char *metric;      /* the metric that was judged, or the gate's own name when it is missing */
    enum qp_outcome outcome;
    bool missing, paired, has_interval;
    bool first;              /* against the last pass, of which there is none: passes */
    double value, stderr_, baseline; /* as measured; baseline NaN for bounds of the value, else what it was compared with */
    double measure, lo, hi;  /* what is compared with the limit: an increase in percent, a retained percentage, a value; and its interval */
    char reason[160];
};

struct qp_verdict { /* zero-initialize */
    struct qp_judged *v;
    size_t n;
    enum qp_outcome outcome; /* fail if any failed, else undecided if any is, else pass */
};
/* Judges one quantized model against its baseline (ids; baseline may be NULL when only values are bounded) and against its own results when it last passed
 * (NULL: none). */
int qp_gate_judge(struct qp_verdict *out, const struct qp_gate *g, const struct qp_results *r, const char *model, const char *baseline, const struct qp_results *last_pass,
                  struct qp_err *err) QP_MUST_USE;
void qp_verdict_release(struct qp_verdict *v);
/* "max_increase_pct", ... */
const char *qp_limit_name(enum qp_limit kind);

#endif
