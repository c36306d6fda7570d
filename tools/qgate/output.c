/* The verdict as a record, as lines for people, as JSON, as JUnit XML. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "qgate.h"

static void write_check(const struct qp_judged *j, struct qp_writer *w)
{
    qp_w_map_begin(w, NULL);
    qp_w_str(w, "metric", j->metric);
    qp_w_str(w, "limit_kind", qp_limit_name(j->check->kind));
    qp_w_f64(w, "limit", j->check->limit);
    qp_w_f64(w, "value", j->value);
    qp_w_f64(w, "baseline", j->baseline);
    qp_w_f64(w, "measure", j->measure);
    if (j->check->last_pass)
        qp_w_str(w, "against", "last-pass");
    if (j->has_interval)
        qp_w_f64s(w, "interval", (double[]){j->lo, j->hi}, 2);
    if (j->check->confidence > 0)
        qp_w_f64(w, "confidence", j->check->confidence);
    qp_w_bool(w, "paired", j->paired);
    qp_w_bool(w, "missing", j->missing);
    qp_w_str(w, "outcome", qp_outcome_name(j->outcome));
    if (j->reason[0])
        qp_w_str(w, "reason", j->reason);
    qp_w_map_end(w);
}

void qgate_write(const struct qgate *a, const struct qgate_model *m, struct qp_writer *w)
{
    const char *chain[QGATE_MAX_CHAIN];
    for (size_t i = 0; i < a->n_chain; i++)
        chain[i] = a->chain[i];
    qp_w_begin(w, "verdict");
    qp_w_str(w, "outcome", qp_outcome_name(m->verdict.outcome));
    qp_w_str(w, "gate", a->gate.name);
    qp_w_str(w, "gate_sha256", a->gate_sha);
    qp_w_str(w, "model", m->id);
    qp_w_array_begin(w, "checks");
    for (size_t i = 0; i < m->verdict.n; i++)
        write_check(&m->verdict.v[i], w);
    qp_w_array_end(w);
    qp_w_strs(w, "chain", chain, a->n_chain);
    qp_w_end(w);
}

/* ---- for people ---- */

static const char *shout(enum qp_outcome o)
{
    return o == QP_PASS ? "PASS" : o == QP_FAIL ? "FAIL" : "UNDECIDED";
}

static void describe(const struct qp_judged *j, char *out, size_t n)
{
    const struct qp_check *c = j->check;
    static const char *const what[] = {"increase", "retained", "value", "value"}, *const unit[] = {" %", " %", "", ""};
    if (j->missing || j->first) {
        snprintf(out, n, "%s", j->reason);
        return;
    }
    int at = snprintf(out, n, "%s %.4g%s (%s %.4g%s)", what[c->kind], j->measure, unit[c->kind], c->kind == QP_MAX_INCREASE_PCT || c->kind == QP_MAX_VALUE ? "at most" : "at least",
                      c->limit, unit[c->kind]);
    if (j->has_interval && at > 0 && (size_t)at < n)
        at += snprintf(out + at, n - (size_t)at, ", %g %% interval %.4g to %.4g", 100 * (c->confidence > 0 ? c->confidence : 0.95), j->lo, j->hi);
    if (isfinite(j->baseline) && at > 0 && (size_t)at < n)
        at += snprintf(out + at, n - (size_t)at, ", %.6g against %.6g%s", j->value, j->baseline, c->last_pass ? " of the last pass" : "");
    if (j->reason[0] && at > 0 && (size_t)at < n)
        snprintf(out + at, n - (size_t)at, "; %s", j->reason);
}

static const char *colour(enum qp_outcome o)
{
    const char *no = getenv("NO_COLOR");
    if (!isatty(STDERR_FILENO) || (no && *no))
        return "";
    return o == QP_PASS ? "\033[1;32m" : o == QP_FAIL ? "\033[1;31m" : "\033[1;33m";
}

void qgate_print(const struct qgate *a, const struct qgate_model *m)
{
    const char *on = colour(m->verdict.outcome);
    fprintf(stderr, "qgate: %s%s%s  %s by gate '%s'\n", on, shout(m->verdict.outcome), *on ? "\033[0m" : "", m->id, a->gate.name);
    for (size_t i = 0; i < m->verdict.n; i++) {
        const struct qp_judged *j = &m->verdict.v[i];
        char text[512];
        describe(j, text, sizeof text);
        fprintf(stderr, "qgate:   %-9s %-24s %s\n", qp_outcome_name(j->outcome), j->metric, text);
    }
}

/* ---- files ---- */

static int write_file(const char *path, const char *text, struct qp_err *err)
{
    struct qp_outfile out;
    if (qp_outfile_open(&out, path, err))
        return err->code;
    fputs(text, out.file); /* commit reports errors */
    return qp_outfile_commit(&out, err);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

int qgate_write_json(const struct qgate *a, const char *path, struct qp_err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->n_models; i++) {
        const struct qgate_model *m = &a->models[i];
        json_t *checks = json_array();
        for (size_t k = 0; k < m->verdict.n; k++) {
            const struct qp_judged *j = &m->verdict.v[k];
            json_array_append_new(checks, json_pack("{s:s, s:s*, s:s, s:f, s:o, s:o, s:o, s:[o,o], s:b, s:s, s:s}", "metric", j->metric, "against",
                                                    j->check->last_pass ? "last-pass" : NULL, "limit_kind", qp_limit_name(j->check->kind), "limit",
                                                    j->check->limit, "value", number(j->value), "baseline", number(j->baseline), "measure", number(j->measure), "interval",
                                                    number(j->lo), number(j->hi), "missing", j->missing, "outcome", qp_outcome_name(j->outcome), "reason", j->reason));
        }
        if (m->judged)
            json_array_append(list, json_pack("{s:s, s:s, s:O}", "model", m->id, "outcome", qp_outcome_name(m->verdict.outcome), "checks", checks));
        json_decref(checks);
    }
    json_t *root = json_pack("{s:s, s:s, s:o}", "gate", a->gate.name, "gate_sha256", a->gate_sha, "verdicts", list);
    char *text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    int r = text ? write_file(path, text, err) : qp_err_set(err, QP_E_RESOURCE, "no memory for '%s'", path);
    free(text);
    return r;
}

static void xml(struct qp_buf *b, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '<': qp_buf_adds(b, "&lt;"); break;
        case '>': qp_buf_adds(b, "&gt;"); break;
        case '&': qp_buf_adds(b, "&amp;"); break;
        case '"': qp_buf_adds(b, "&quot;"); break;
        default: qp_buf_add(b, s, 1);
        }
}

static void junit_suite(struct qp_buf *b, const struct qgate_model *m)
{
    size_t failed = 0, skipped = 0;
    for (size_t k = 0; k < m->verdict.n; k++) {
        failed += m->verdict.v[k].outcome == QP_FAIL;
        skipped += m->verdict.v[k].outcome == QP_UNDECIDED;
    }
    qp_buf_adds(b, "  <testsuite name=\"");
    xml(b, m->id);
    qp_buf_addf(b, "\" tests=\"%zu\" failures=\"%zu\" skipped=\"%zu\">\n", m->verdict.n, failed, skipped);
    for (size_t k = 0; k < m->verdict.n; k++) {
        const struct qp_judged *j = &m->verdict.v[k];
        char text[512];
        describe(j, text, sizeof text);
        qp_buf_adds(b, "    <testcase classname=\"qgate\" name=\"");
        xml(b, j->metric);
        qp_buf_adds(b, "\">");
        if (j->outcome != QP_PASS) {
            qp_buf_addf(b, "<%s message=\"", j->outcome == QP_FAIL ? "failure" : "skipped");
            xml(b, text);
            qp_buf_adds(b, "\"/>");
        }
        qp_buf_adds(b, "</testcase>\n");
    }
    qp_buf_adds(b, "  </testsuite>\n");
}

int qgate_write_junit(const struct qgate *a, const char *path, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    qp_buf_adds(&b, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for (size_t i = 0; i < a->n_models; i++)
        if (a->models[i].judged)
            junit_suite(&b, &a->models[i]);
    qp_buf_adds(&b, "</testsuites>\n");
    int r = qp_buf_check(&b, err) ? QP_E_RESOURCE : write_file(path, b.data, err);
    qp_buf_release(&b);
    return r;
}
