#include "eval/gate.h"

#include <fnmatch.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "stats/stats.h"

static const char *const limit_names[] = {"max_increase_pct", "min_retained_pct", "max_value", "min_value"};

const char *qp_limit_name(enum qp_limit kind)
{
    return limit_names[kind];
}

const char *qp_outcome_name(enum qp_outcome o)
{
    return o == QP_PASS ? "pass" : o == QP_FAIL ? "fail" : "undecided";
}

/* ---- gate files ---- */

static bool is_confidence(const json_t *v)
{
    return json_is_number(v) && json_number_value(v) > 0 && json_number_value(v) < 1;
}

static bool is_relative(const struct qp_check *c)
{
    return c->kind == QP_MAX_INCREASE_PCT || c->kind == QP_MIN_RETAINED_PCT;
}

static int parse_check(struct qp_check *c, json_t *o, const char *path, size_t i, double confidence, struct qp_err *err)
{
    const char *key, *metric = json_string_value(json_object_get(o, "metric"));
    json_t *v;
    int limits = 0;
    *c = (struct qp_check){.confidence = confidence};
    if (!json_is_object(o) || !metric || !*metric)
        return qp_err_set(err, QP_E_INPUT, "'%s': checks[%zu] has no 'metric'", path, i);
    json_object_foreach(o, key, v)
    {
        int kind = 0;
        while (kind < 4 && strcmp(limit_names[kind], key))
            kind++;
        if (!strcmp(key, "metric") || !strcmp(key, "comment"))
            continue;
        if (!strcmp(key, "confidence")) {
            if (!is_confidence(v))
                return qp_err_set(err, QP_E_INPUT, "'%s': checks[%zu] (%s): 'confidence' is not a number between 0 and 1", path, i, metric);
            c->confidence = json_number_value(v);
        } else if (!strcmp(key, "against")) {
            if (!json_is_string(v) || (strcmp(json_string_value(v), "baseline") && strcmp(json_string_value(v), "last-pass")))
                return qp_err_set(err, QP_E_INPUT, "'%s': checks[%zu] (%s): 'against' is neither \"baseline\" nor \"last-pass\"", path, i, metric);
            c->last_pass = !strcmp(json_string_value(v), "last-pass");
        } else if (kind == 4)
            return qp_err_set(err, QP_E_INPUT,
                              "'%s': checks[%zu] (%s): unknown key '%s'; known: metric, max_increase_pct, min_retained_pct, max_value, min_value, against, confidence, comment", path, i,
                              metric, key);
        else if (!json_is_number(v) || !isfinite(json_number_value(v)))
            return qp_err_set(err, QP_E_INPUT, "'%s': checks[%zu] (%s): '%s' is not a number", path, i, metric, key);
        else {
            c->kind = (enum qp_limit)kind;
            c->limit = json_number_value(v);
            limits++;
        }
    }
    if (limits != 1)
        return qp_err_set(err, QP_E_INPUT, "'%s': checks[%zu] (%s) has %d limits, expected one of max_increase_pct, min_retained_pct, max_value, min_value", path, i, metric, limits);
    if (c->last_pass && !is_relative(c))
        return qp_err_set(err, QP_E_INPUT, "'%s': checks[%zu] (%s): 'against' goes with max_increase_pct and min_retained_pct, not with %s", path, i, metric, limit_names[c->kind]);
    c->metric = qp_strdup(metric, err);
    return c->metric ? 0 : QP_E_RESOURCE;
}

static int parse_gate(struct qp_gate *g, json_t *root, const char *path, struct qp_err *err)
{
    json_t *v, *checks = json_object_get(root, "checks"), *conf = json_object_get(root, "confidence"), *name = json_object_get(root, "name");
    const char *key;
    size_t i;
    json_object_foreach(root, key, v)
        if (strcmp(key, "name") && strcmp(key, "confidence") && strcmp(key, "checks") && strcmp(key, "comment"))
            return qp_err_set(err, QP_E_INPUT, "'%s': unknown key '%s'; known: name, confidence, checks, comment", path, key);
    if (!json_array_size(checks))
        return qp_err_set(err, QP_E_INPUT, "'%s': 'checks' is not an array of checks", path);
    if (conf && !is_confidence(conf))
        return qp_err_set(err, QP_E_INPUT, "'%s': 'confidence' is not a number between 0 and 1", path);
    g->name = qp_strdup(json_is_string(name) ? json_string_value(name) : "gate", err);
    g->checks = qp_zalloc(json_array_size(checks) * sizeof *g->checks, "checks", err);
    if (!g->name || !g->checks)
        return QP_E_RESOURCE;
    json_array_foreach(checks, i, v)
    {
        if (parse_check(&g->checks[i], v, path, i, conf ? json_number_value(conf) : 0, err))
            return err->code;
        g->n++;
    }
    return 0;
}

int qp_gate_open(struct qp_gate *out, const char *path, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = (struct qp_gate){0};
    json_error_t je;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
    int r;
    if (!json_is_object(root))
        r = root || je.line > 0 ? qp_err_set(err, QP_E_INPUT, "'%s' line %d: %s", path, je.line, root ? "not a JSON object" : je.text)
                                : qp_err_set(err, QP_E_INPUT, "cannot read '%s': %s", path, je.text);
    else
        r = parse_gate(out, root, path, err);
    json_decref(root);
    if (r)
        qp_gate_release(out);
    return r;
}

bool qp_gate_needs_history(const struct qp_gate *g)
{
    for (size_t i = 0; i < g->n; i++)
        if (g->checks[i].last_pass)
            return true;
    return false;
}

void qp_gate_release(struct qp_gate *g)
{
    for (size_t i = 0; i < g->n; i++)
        qp_free(g->checks[i].metric);
    qp_free(g->checks);
    qp_free(g->name);
    *g = (struct qp_gate){0};
}

/* ---- results ---- */

int qp_results_add(struct qp_results *r, const char *model, const char *metric, double value, double stderr_, struct qp_err *err)
{
    if ((r->n & (r->n - 1)) == 0) { /* full at each power of two */
        struct qp_result *grown = qp_alloc_n(r->n ? 2 * r->n : 1, sizeof *grown, "results", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (r->n)
            memcpy(grown, r->v, r->n * sizeof *grown);
        qp_free(r->v);
        r->v = grown;
    }
    struct qp_result *x = &r->v[r->n];
    *x = (struct qp_result){qp_strdup(model, err), qp_strdup(metric, err), value, stderr_};
    r->n++;
    return x->model && x->metric ? 0 : QP_E_RESOURCE;
}

void qp_results_release(struct qp_results *r)
{
    for (size_t i = 0; i < r->n; i++) {
        qp_free(r->v[i].model);
        qp_free(r->v[i].metric);
    }
    qp_free(r->v);
    *r = (struct qp_results){0};
}

/* The last one counts: a stage that was run again replaces what stood before. */
const struct qp_result *qp_results_find(const struct qp_results *r, const char *model, const char *metric)
{
    for (size_t i = r->n; i-- > 0;)
        if (!strcmp(r->v[i].model, model) && !strcmp(r->v[i].metric, metric))
            return &r->v[i];
    return NULL;
}

/* ---- judging ---- */

static void decide(struct qp_judged *j)
{
    const struct qp_check *c = j->check;
    bool upper = c->kind == QP_MAX_INCREASE_PCT || c->kind == QP_MAX_VALUE;
    double best = upper ? j->hi : j->lo, worst = upper ? j->lo : j->hi; /* the interval's ends that must pass, and that must fail */
    if (!isfinite(j->measure)) {
        j->outcome = QP_FAIL;
        snprintf(j->reason, sizeof j->reason, "the value is not a finite number");
        return;
    }
    if (!(c->confidence > 0)) {
        j->outcome = (upper ? j->measure <= c->limit : j->measure >= c->limit) ? QP_PASS : QP_FAIL;
        return;
    }
    if (!j->has_interval) {
        j->outcome = QP_UNDECIDED;
        snprintf(j->reason, sizeof j->reason, "the result has no standard error, which confidence %g needs", c->confidence);
        return;
    }
    bool pass = upper ? best <= c->limit : best >= c->limit, fail = upper ? worst > c->limit : worst < c->limit;
    j->outcome = pass ? QP_PASS : fail ? QP_FAIL : QP_UNDECIDED;
    if (j->outcome == QP_UNDECIDED)
        snprintf(j->reason, sizeof j->reason, "the %g %% interval holds the limit: too few items to decide", 100 * c->confidence);
}

static void interval(struct qp_judged *j, double center, double se)
{
    j->has_interval = isfinite(se);
    if (j->has_interval)
        qp_normal_interval(center, se, j->check->confidence > 0 ? j->check->confidence : 0.95, &j->lo, &j->hi);
}

/* 100 * q / b with the delta method for independent errors. */
static void ratio(struct qp_judged *j, const struct qp_result *q, const struct qp_result *b)
{
    double r = q->value / b->value;
    double se = hypot(q->stderr_ / b->value, r * b->stderr_ / b->value); /* defined for a value of 0 too */
    j->measure = 100 * r;
    interval(j, 100 * r, 100 * se);
}

static void measure_increase(struct qp_judged *j, const struct qp_results *r, const struct qp_result *q, const struct qp_result *b)
{
    char paired[192];
    if (!j->check->last_pass && !strncmp(q->metric, "ppl/", 4)) {
        snprintf(paired, sizeof paired, "dlogppl/%s", q->metric + 4);
        const struct qp_result *d = qp_results_find(r, q->model, paired);
        if (d) {
            j->paired = true;
            j->measure = 100 * expm1(d->value);
            interval(j, d->value, d->stderr_);
            j->lo = 100 * expm1(j->lo);
            j->hi = 100 * expm1(j->hi);
            return;
        }
    }
    ratio(j, q, b);
    j->measure -= 100;
    j->lo -= 100;
    j->hi -= 100;
}

/* 100 * q / b; accuracies whose items were paired bring the share and its error with them. */
static void measure_retained(struct qp_judged *j, const struct qp_results *r, const struct qp_result *q, const struct qp_result *b)
{
    char paired[192];
    const struct qp_result *p = NULL;
    if (!j->check->last_pass && !strncmp(q->metric, "acc", 3) && strchr(q->metric, '/')) { /* acc/X has retained/X, acc_norm/X has retained_norm/X */
        snprintf(paired, sizeof paired, "retained%s", q->metric + 3);
        p = qp_results_find(r, q->model, paired);
    }
    if (!p || !isfinite(p->value)) {
        ratio(j, q, b);
        return;
    }
    j->paired = true;
    j->measure = p->value;
    interval(j, p->value, p->stderr_);
}

/* There is no value to compare with. */
static void judge_alone(struct qp_judged *j)
{
    if (!j->check->last_pass) {
        j->outcome = QP_FAIL;
        j->missing = true;
        snprintf(j->reason, sizeof j->reason, "the stream has no %.60s of the baseline", j->metric);
    } else if (isfinite(j->value)) {
        j->outcome = QP_PASS;
        j->first = true;
        snprintf(j->reason, sizeof j->reason, "nothing to compare with: no verdict with this metric has passed yet");
    } else
        decide(j);
}

static void judge(struct qp_judged *j, const struct qp_results *r, const struct qp_result *q, const char *baseline, const struct qp_results *last_pass)
{
    const struct qp_check *c = j->check;
    const char *than = c->last_pass ? q->model : baseline;
    const struct qp_results *in = c->last_pass ? last_pass : r;
    const struct qp_result *b = is_relative(c) && than && in ? qp_results_find(in, than, q->metric) : NULL;
    j->metric = q->metric;
    j->value = q->value;
    j->stderr_ = q->stderr_;
    j->baseline = b ? b->value : NAN;
    if (is_relative(c) && !b) {
        judge_alone(j);
        return;
    }
    if (c->kind == QP_MAX_INCREASE_PCT)
        measure_increase(j, r, q, b);
    else if (c->kind == QP_MIN_RETAINED_PCT)
        measure_retained(j, r, q, b);
    else {
        j->measure = q->value;
        interval(j, q->value, q->stderr_);
    }
    decide(j);
}

static struct qp_judged *add(struct qp_verdict *v, const struct qp_check *c, struct qp_err *err)
{
    struct qp_judged *grown = qp_alloc_n(v->n + 1, sizeof *grown, "checks", err);
    if (!grown)
        return NULL;
    if (v->n)
        memcpy(grown, v->v, v->n * sizeof *grown);
    qp_free(v->v);
    v->v = grown;
    grown[v->n] = (struct qp_judged){.check = c, .metric = c->metric, .value = NAN, .stderr_ = NAN, .baseline = NAN, .measure = NAN, .lo = NAN, .hi = NAN};
    return &grown[v->n++];
}

int qp_gate_judge(struct qp_verdict *out, const struct qp_gate *g, const struct qp_results *r, const char *model, const char *baseline, const struct qp_results *last_pass,
                  struct qp_err *err)
{
    *out = (struct qp_verdict){0};
    for (size_t i = 0; i < g->n; i++) {
        size_t before = out->n;
        for (size_t k = 0; k < r->n; k++) {
            const struct qp_result *q = &r->v[k];
            if (strcmp(q->model, model) || fnmatch(g->checks[i].metric, q->metric, 0) || qp_results_find(r, model, q->metric) != q)
                continue;
            struct qp_judged *j = add(out, &g->checks[i], err);
            if (!j)
                return QP_E_RESOURCE;
            judge(j, r, q, baseline, last_pass);
        }
        if (out->n > before)
            continue;
        struct qp_judged *j = add(out, &g->checks[i], err);
        if (!j)
            return QP_E_RESOURCE;
        j->outcome = QP_FAIL;
        j->missing = true;
        snprintf(j->reason, sizeof j->reason, "the stream has no such result for this model");
    }
    for (size_t i = 0; i < out->n; i++)
        if (out->v[i].outcome == QP_FAIL || (out->v[i].outcome == QP_UNDECIDED && out->outcome == QP_PASS))
            out->outcome = out->v[i].outcome;
    return 0;
}

void qp_verdict_release(struct qp_verdict *v)
{
    qp_free(v->v);
    *v = (struct qp_verdict){0};
}
