#include "stream/report_latency.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define MAX_ROWS 4096

static const char *const metrics[QP_ROW_VALUES] = {"ttft_p50_ms",      "ttft_p95_ms",     "itl_p50_ms",     "itl_p99_ms", "e2e_p50_ms", "prefill_p50_tok_s",
                                                   "decode_p50_tok_s", "decode_p5_tok_s", "peak_rss_bytes", "kv_bytes",
                                                   "throughput_p50_req_s", "output_p50_tok_s", "request_p50_ms", "request_p95_ms", "decode"};

bool qp_latency_is(const char *metric)
{
    return !strncmp(metric, "latency/", 8) || !strncmp(metric, "latency_ratio/", 14);
}

void qp_latency_rows_release(struct qp_latency_rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        qp_free(r->v[i].model);
        qp_free(r->v[i].shape);
        qp_free(r->v[i].status);
    }
    qp_free(r->v);
    *r = (struct qp_latency_rows){0};
}

static struct qp_latency_row *row_of(struct qp_latency_rows *r, const char *model, const char *shape, size_t n, struct qp_err *err)
{
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->v[i].model, model) && !strncmp(r->v[i].shape, shape, n) && !r->v[i].shape[n])
            return &r->v[i];
    if (r->n == MAX_ROWS) {
        qp_err_set(err, QP_E_INPUT, "latencies of more than %d models and shapes", MAX_ROWS);
        return NULL;
    }
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16;
        struct qp_latency_row *grown = qp_alloc_n(cap, sizeof *grown, "latencies", err);
        if (!grown)
            return NULL;
        if (r->n)
            memcpy(grown, r->v, r->n * sizeof *grown);
        qp_free(r->v);
        r->v = grown;
        r->cap = cap;
    }
    struct qp_latency_row *row = &r->v[r->n];
    *row = (struct qp_latency_row){.model = qp_strdup(model, err), .shape = qp_strdup(shape, err), .prefill_reached = NAN, .decode_reached = NAN};
    if (row->shape)
        row->shape[n] = 0;
    for (int i = 0; i < QP_ROW_VALUES; i++)
        row->v[i] = NAN;
    r->n++;
    return row->model && row->shape ? row : NULL;
}

static int take_status(struct qp_latency_row *row, const struct qp_record *detail, double value, struct qp_err *err)
{
    const char *status = "failed";
    if (detail && (qp_record_str(detail, "status", &status, err) < 0 || qp_record_bool(detail, "doubtful", &row->doubtful, err) < 0))
        return err->code;
    if (value == 1 || row->status)
        return 0;
    row->status = qp_strdup(status, err);
    return row->status ? 0 : QP_E_RESOURCE;
}

int qp_latency_rows_add(struct qp_latency_rows *r, const struct qp_record *rec, const char *model, const char *metric, struct qp_err *err)
{
    struct qp_record detail, limit;
    bool ratio = metric[7] == '_';
    const char *shape = metric + (ratio ? 14 : 8), *slash = strchr(shape, '/');
    double value = NAN, reached = NAN;
    if (!slash || qp_record_f64(rec, "value", &value, err) < 0)
        return err->code;
    int has = qp_record_map(rec, "detail", &detail, err), limited = has == 1 ? qp_record_map(&detail, "limit", &limit, err) : 0;
    if (has < 0 || limited < 0 || (limited && qp_record_f64(&limit, "reached_pct", &reached, err) < 0))
        return err->code;
    struct qp_latency_row *row = row_of(r, model, shape, (size_t)(slash - shape), err);
    if (!row)
        return err->code;
    if (!ratio && !strcmp(slash + 1, "status"))
        return take_status(row, has ? &detail : NULL, value, err);
    for (int i = 0; i < QP_ROW_VALUES; i++)
        if (ratio == (i == QP_ROW_RATIO) && !strcmp(slash + 1, metrics[i]))
            row->v[i] = value;
    if (!ratio && !strcmp(slash + 1, metrics[QP_ROW_PREFILL]))
        row->prefill_reached = reached;
    if (!ratio && !strcmp(slash + 1, metrics[QP_ROW_DECODE]))
        row->decode_reached = reached;
    return 0;
}

static void cell(struct qp_table *t, double v, const char *unit, int digits)
{
    if (isfinite(v))
        qp_table_cell(t, "%.*f%s", digits, v, unit);
    else
        qp_table_cell(t, "%s", "");
}

static void rate_cell(struct qp_table *t, double v, double reached)
{
    if (isfinite(v) && isfinite(reached))
        qp_table_cell(t, "%.0f (%.0f %%)", v, reached);
    else
        cell(t, v, "", 0);
}

void qp_latency_rows_print(const struct qp_latency_rows *r, enum qp_table_format format, struct qp_buf *out)
{
    static const char *const names[] = {"model", "shape", "TTFT p50 ms", "p95", "ITL p50 ms", "p99", "e2e p50 ms", "prefill tok/s (of limit)", "decode tok/s (of limit)", "p5",
                                        "decode, of baseline", "peak MB", "KV MB"};
    static const char *const queued[] = {"requests/s", "output tok/s", "request p50 ms", "p95"};
    struct qp_table t = {0};
    bool any = false; /* requests that queued for the batch */
    for (size_t i = 0; i < r->n; i++)
        any = any || isfinite(r->v[i].v[QP_ROW_THROUGHPUT]);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        qp_table_column(&t, names[i], i > 1);
    for (size_t i = 0; any && i < sizeof queued / sizeof *queued; i++)
        qp_table_column(&t, queued[i], true);
    for (size_t i = 0; i < r->n; i++) {
        const struct qp_latency_row *x = &r->v[i];
        qp_table_cell(&t, "%s", x->model);
        qp_table_cell(&t, "%s%s%s%s", x->shape, x->status ? ": " : "", x->status ? x->status : "", x->doubtful && !x->status ? ": doubtful" : "");
        for (int k = QP_ROW_TTFT_P50; k <= QP_ROW_E2E_P50; k++)
            cell(&t, x->v[k], "", 2);
        rate_cell(&t, x->v[QP_ROW_PREFILL], x->prefill_reached);
        rate_cell(&t, x->v[QP_ROW_DECODE], x->decode_reached);
        cell(&t, x->v[QP_ROW_DECODE_P5], "", 0);
        cell(&t, x->v[QP_ROW_RATIO], " x", 2);
        cell(&t, x->v[QP_ROW_PEAK] / 1e6, "", 0);
        cell(&t, x->v[QP_ROW_KV] / 1e6, "", 1);
        for (int k = QP_ROW_THROUGHPUT; any && k <= QP_ROW_REQUEST_P95; k++)
            cell(&t, x->v[k], "", k == QP_ROW_OUTPUT ? 0 : 2);
    }
    qp_table_print(&t, format, out);
    qp_table_release(&t);
}
