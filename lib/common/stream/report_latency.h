/* The latency part of a report: a row for each model and shape of request. Private to stream/. */
#ifndef QP_STREAM_REPORT_LATENCY_H
#define QP_STREAM_REPORT_LATENCY_H

#include "base/table.h"
#include "stream/stream.h"

enum {
    QP_ROW_TTFT_P50, QP_ROW_TTFT_P95, QP_ROW_ITL_P50, QP_ROW_ITL_P99, QP_ROW_E2E_P50, QP_ROW_PREFILL, QP_ROW_DECODE, QP_ROW_DECODE_P5, QP_ROW_PEAK, QP_ROW_KV,
    QP_ROW_THROUGHPUT, QP_ROW_OUTPUT, QP_ROW_REQUEST_P50, QP_ROW_REQUEST_P95, QP_ROW_RATIO, QP_ROW_VALUES
};

struct qp_latency_row {
    char *model, *shape, *status; /* status NULL: all went well */
    bool doubtful;
    double v[QP_ROW_VALUES];      /* NaN: not there */
    double prefill_reached, decode_reached; /* percent of the machine's limit */
};
struct qp_latency_rows { /* zero-initialize */
    struct qp_latency_row *v;
    size_t n, cap;
};

/* True for metrics that belong here. */
bool qp_latency_is(const char *metric);
int qp_latency_rows_add(struct qp_latency_rows *r, const struct qp_record *rec, const char *model, const char *metric, struct qp_err *err) QP_MUST_USE;
void qp_latency_rows_print(const struct qp_latency_rows *r, enum qp_table_format format, struct qp_buf *out);
void qp_latency_rows_release(struct qp_latency_rows *r);

#endif
