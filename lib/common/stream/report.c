#include "stream/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "stream/report_internal.h"

#define MAX_RESULTS 4096
#define MAX_LAYERS 65536
#define MAX_METRICS 1024
#define WIDE_METRICS 8 /* columns beside a model that a line holds */

int qp_report_new(struct qp_report **out, struct qp_err *err)
{
    *out = qp_zalloc(sizeof **out, "report", err);
    return *out ? 0 : QP_E_RESOURCE;
}

void qp_report_free(struct qp_report *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++) {
        for (size_t k = 0; k < r->m[i].n; k++)
            qp_free(r->m[i].r[k].metric);
        qp_free(r->m[i].r);
        qp_free(r->m[i].snr);
        qp_free(r->m[i].id);
    }
    for (size_t i = 0; i < r->n_verdicts; i++)
        qp_free(r->verdict[i]);
    qp_latency_rows_release(&r->latency);
    qp_buf_release(&r->json_models);
    qp_buf_release(&r->json_results);
    qp_buf_release(&r->json_verdicts);
    qp_free(r);
}

bool qp_report_empty(const struct qp_report *r)
{
    return !r->n && !r->n_verdicts && !r->latency.n;
}

static struct qp_report_model *model_of(struct qp_report *r, const char *id, struct qp_err *err)
{
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->m[i].id, id))
            return &r->m[i];
    if (r->n == QP_REPORT_MODELS) {
        qp_err_set(err, QP_E_INPUT, "more than %d models", QP_REPORT_MODELS);
        return NULL;
    }
    struct qp_report_model *m = &r->m[r->n];
    *m = (struct qp_report_model){.id = qp_strdup(id, err), .bpw = NAN};
    r->n += m->id != NULL;
    return m->id ? m : NULL;
}

static void keep_json(struct qp_buf *list, const struct qp_record *rec)
{
    qp_buf_adds(list, list->len ? ",\n    " : "\n    ");
    qp_record_json(rec, 64, list);
}

static int take_model(struct qp_report *r, const struct qp_record *rec, struct qp_err *err)
{
    const char *id;
    if (qp_record_need_str(rec, "id", &id, err))
        return err->code;
    struct qp_report_model *m = model_of(r, id, err);
    if (!m || qp_record_f64(rec, "bpw", &m->bpw, err) < 0 || qp_record_i64(rec, "bytes", &m->bytes, err) < 0)
        return err->code;
    keep_json(&r->json_models, rec);
    return 0;
}

static int take_result(struct qp_report *r, const struct qp_record *rec, struct qp_err *err)
{
    const char *id, *metric;
    struct qp_report_result x = {.value = NAN, .se = NAN, .p99 = NAN};
    struct qp_record detail;
    if (qp_record_need_str(rec, "model", &id, err) || qp_record_need_str(rec, "metric", &metric, err) || qp_record_f64(rec, "value", &x.value, err) < 0 ||
        qp_record_f64(rec, "stderr", &x.se, err) < 0 || qp_record_bool(rec, "higher_is_better", &x.higher, err) < 0)
        return err->code;
    if (qp_latency_is(metric)) {
        keep_json(&r->json_results, rec);
        return qp_latency_rows_add(&r->latency, rec, id, metric, err);
    }
    int has = qp_record_map(rec, "detail", &detail, err);
    if (has < 0 || (has && qp_record_f64(&detail, "p99", &x.p99, err) < 0))
        return err->code;
    struct qp_report_model *m = model_of(r, id, err);
    if (!m)
        return err->code;
    if (m->n == MAX_RESULTS)
        return qp_err_set(err, QP_E_INPUT, "more than %d results of model '%s'", MAX_RESULTS, id);
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 16;
        struct qp_report_result *grown = qp_alloc_n(cap, sizeof *grown, "results", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (m->n)
            memcpy(grown, m->r, m->n * sizeof *grown);
        qp_free(m->r);
        m->r = grown;
        m->cap = cap;
    }
    if (!(x.metric = qp_strdup(metric, err)))
        return QP_E_RESOURCE;
    m->r[m->n++] = x;
    keep_json(&r->json_results, rec);
    return 0;
}

static int keep_snr(struct qp_report_model *m, double snr, struct qp_err *err)
{
    if (m->n_snr == MAX_LAYERS)
        return 0;
    if (m->n_snr == m->snr_cap) {
        size_t cap = m->snr_cap ? 2 * m->snr_cap : 256;
        double *grown = qp_alloc_n(cap, sizeof *grown, "layers", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (m->n_snr)
            memcpy(grown, m->snr, m->n_snr * sizeof *grown);
        qp_free(m->snr);
        m->snr = grown;
        m->snr_cap = cap;
    }
    m->snr[m->n_snr++] = snr;
    return 0;
}

static int take_layer(struct qp_report *r, const struct qp_record *rec, struct qp_err *err)
{
    const char *id;
    bool fallback = false;
    double snr = NAN;
    if (qp_record_need_str(rec, "model", &id, err) || qp_record_bool(rec, "fallback", &fallback, err) < 0 || qp_record_f64(rec, "snr_db", &snr, err) < 0)
        return err->code;
    struct qp_report_model *m = model_of(r, id, err);
    if (!m)
        return err->code;
    m->layers++;
    m->fallbacks += fallback;
    return keep_snr(m, snr, err);
}

static int take_verdict(struct qp_report *r, const struct qp_record *rec, struct qp_err *err)
{
    const char *outcome, *model = "", *gate = "";
    struct qp_record check;
    struct qp_buf line = QP_BUF_INIT;
    if (qp_record_need_str(rec, "outcome", &outcome, err) || qp_record_str(rec, "model", &model, err) < 0 || qp_record_str(rec, "gate", &gate, err) < 0)
        return err->code;
    qp_buf_add_clean(&line, outcome);
    for (size_t i = 0; i < line.len; i++)
        line.data[i] = (char)(line.data[i] >= 'a' && line.data[i] <= 'z' ? line.data[i] - 32 : line.data[i]);
    qp_buf_adds(&line, "  ");
    qp_buf_add_clean(&line, model);
    qp_buf_adds(&line, " by gate '");
    qp_buf_add_clean(&line, gate);
    qp_buf_adds(&line, "'");
    for (size_t i = 0; qp_record_at(rec, "checks", i, &check, err) == 1; i++) {
        const char *what = "", *how = "", *reason = "";
        if (qp_record_str(&check, "outcome", &how, err) < 0 || qp_record_str(&check, "metric", &what, err) < 0 || qp_record_str(&check, "reason", &reason, err) < 0)
            break;
        if (!strcmp(how, "pass"))
            continue;
        const char *const words[] = {how, ": ", what, *reason ? ": " : "", reason};
        qp_buf_adds(&line, "\n  ");
        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
            qp_buf_add_clean(&line, words[k]);
    }
    if (!err->code && r->n_verdicts < QP_REPORT_VERDICTS && !qp_buf_check(&line, err) && (r->verdict[r->n_verdicts] = qp_strdup(line.data, err)))
        r->n_verdicts++;
    qp_buf_release(&line);
    keep_json(&r->json_verdicts, rec);
    return err->code;
}

int qp_report_record(struct qp_report *r, const struct qp_record *rec, struct qp_err *err)
{
    if (qp_record_is(rec, "model"))
        return take_model(r, rec, err);
    if (qp_record_is(rec, "result"))
        return take_result(r, rec, err);
    if (qp_record_is(rec, "layer"))
        return take_layer(r, rec, err);
    return qp_record_is(rec, "verdict") ? take_verdict(r, rec, err) : 0;
}

/* ---- printing ---- */

const struct qp_report_result *qp_report_find(const struct qp_report_model *m, const char *metric)
{
    for (size_t i = m->n; i-- > 0;)
        if (!strcmp(m->r[i].metric, metric))
            return &m->r[i];
    return NULL;
}

/* Every metric that any model has, in order of appearance; dlogppl is shown as a percentage. */
size_t qp_report_metrics(const struct qp_report *r, const char **names, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++)
        for (size_t k = 0; k < r->m[i].n && n < max; k++) {
            size_t c = 0;
            while (c < n && strcmp(names[c], r->m[i].r[k].metric))
                c++;
            if (c == n)
                names[n++] = r->m[i].r[k].metric;
        }
    return n;
}

static void metric_cell(struct qp_table *t, const struct qp_report_result *x, const char *name)
{
    if (!x)
        qp_table_cell(t, "%s", "");
    else if (!isfinite(x->value))
        qp_table_cell(t, "not a number");
    else if (!strncmp(name, "dlogppl/", 8))
        qp_table_cell(t, "%+.2f %% ± %.2f", 100 * expm1(x->value), 100 * exp(x->value) * x->se);
    else if (!strncmp(name, "dacc", 4))
        qp_table_cell(t, "%+.2f ± %.2f", 100 * x->value, 100 * x->se);
    else if (!strncmp(name, "retained", 8))
        qp_table_cell(t, "%.1f %% ± %.1f", x->value, x->se);
    else if (!strncmp(name, "top1/", 5) || !strncmp(name, "acc", 3))
        qp_table_cell(t, "%.2f %% ± %.2f", 100 * x->value, 100 * x->se);
    else if (isfinite(x->p99))
        qp_table_cell(t, "%.4f ± %.4f (p99 %.2f)", x->value, x->se, x->p99);
    else if (isfinite(x->se))
        qp_table_cell(t, "%.4f ± %.4f", x->value, x->se);
    else
        qp_table_cell(t, "%.4f", x->value);
}

static void heading(char *out, size_t n, const char *metric)
{
    if (!strncmp(metric, "dlogppl/", 8))
        snprintf(out, n, "delta ppl/%s", metric + 8);
    else
        snprintf(out, n, "%s", metric);
}

static void name_cell(struct qp_table *t, const struct qp_report_model *m)
{
    if (m->fallbacks)
        qp_table_cell(t, "%s (%lld of %lld layers fell back)", m->id, (long long)m->fallbacks, (long long)m->layers);
    else
        qp_table_cell(t, "%s", m->id);
}

static void size_cell(struct qp_table *t, const struct qp_report_model *m)
{
    if (m->bytes)
        qp_table_cell(t, "%.1f MB", (double)m->bytes / 1e6);
    else
        qp_table_cell(t, "%s", "");
}

static void bits_cell(struct qp_table *t, const struct qp_report_model *m)
{
    if (isfinite(m->bpw))
        qp_table_cell(t, "%.2f", m->bpw);
    else
        qp_table_cell(t, "%s", "");
}

/* A row for each model. */
static void fill(const struct qp_report *r, struct qp_table *t, const char *const *names, size_t n, char (*titles)[96])
{
    qp_table_column(t, "model", false);
    qp_table_column(t, "size", true);
    qp_table_column(t, "bits/weight", true);
    for (size_t c = 0; c < n; c++) {
        heading(titles[c], sizeof titles[c], names[c]);
        qp_table_column(t, titles[c], true);
    }
    for (size_t i = 0; i < r->n; i++) {
        name_cell(t, &r->m[i]);
        size_cell(t, &r->m[i]);
        bits_cell(t, &r->m[i]);
        for (size_t c = 0; c < n; c++)
            metric_cell(t, qp_report_find(&r->m[i], names[c]), names[c]);
    }
}

/* A row for each metric: for those of a page that would be too wide. */
static void fill_turned(const struct qp_report *r, struct qp_table *t, const char *const *names, size_t n)
{
    char title[96];
    qp_table_column(t, "", false);
    for (size_t i = 0; i < r->n; i++)
        qp_table_column(t, r->m[i].id, true);
    qp_table_cell(t, "size");
    for (size_t i = 0; i < r->n; i++)
        size_cell(t, &r->m[i]);
    qp_table_cell(t, "bits/weight");
    for (size_t i = 0; i < r->n; i++)
        bits_cell(t, &r->m[i]);
    for (size_t c = 0; c < n; c++) {
        heading(title, sizeof title, names[c]);
        qp_table_cell(t, "%s", title);
        for (size_t i = 0; i < r->n; i++)
            metric_cell(t, qp_report_find(&r->m[i], names[c]), names[c]);
    }
}

void qp_report_tables(const struct qp_report *r, enum qp_table_format format, struct qp_buf *out)
{
    const char *names[MAX_METRICS];
    char titles[QP_TABLE_COLUMNS][96];
    struct qp_table t = {0};
    size_t n = qp_report_metrics(r, names, MAX_METRICS), most = format == QP_TABLE_CSV ? QP_TABLE_COLUMNS - 3 : WIDE_METRICS;
    if (n > most && r->n < QP_TABLE_COLUMNS)
        fill_turned(r, &t, names, n);
    else
        fill(r, &t, names, n < QP_TABLE_COLUMNS - 3 ? n : QP_TABLE_COLUMNS - 3, titles);
    if (r->n)
        qp_table_print(&t, format, out);
    qp_table_release(&t);
    if (r->latency.n) {
        qp_buf_adds(out, r->n ? "\n" : "");
        qp_latency_rows_print(&r->latency, format, out);
    }
}

void qp_report_print(const struct qp_report *r, enum qp_table_format format, struct qp_buf *out)
{
    qp_report_tables(r, format, out);
    for (size_t i = 0; i < r->n_verdicts && format != QP_TABLE_CSV; i++)
        qp_buf_addf(out, "%s%s\n", i ? "" : "\n", r->verdict[i]);
}

void qp_report_json(const struct qp_report *r, struct qp_buf *out)
{
    qp_buf_addf(out, "{\n  \"models\": [%s],\n  \"results\": [%s],\n  \"verdicts\": [%s]\n}\n", r->json_models.data ? r->json_models.data : "",
                r->json_results.data ? r->json_results.data : "", r->json_verdicts.data ? r->json_verdicts.data : "");
}
