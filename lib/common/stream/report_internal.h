/* What a report has taken from a stream, for the files that print it. Private to stream/. */
#ifndef QP_STREAM_REPORT_INTERNAL_H
#define QP_STREAM_REPORT_INTERNAL_H

#include "stream/report.h"
#include "stream/report_latency.h"

#define QP_REPORT_MODELS 64
#define QP_REPORT_VERDICTS 64

struct qp_report_result {
    char *metric;
    double value, se, p99, lo, hi;
    bool higher;
};

struct qp_report_model {
    char *id;
    double bpw;
    int64_t bytes, layers, fallbacks;
    struct qp_report_result *r;
    size_t n, cap;
    double *snr; /* [n_snr] of the quantized weights, in the stream's order; NaN: not known */
    size_t n_snr, snr_cap;
};

struct qp_report {
    struct qp_report_model m[QP_REPORT_MODELS];
    size_t n;
    char *verdict[QP_REPORT_VERDICTS]; /* lines of text */
    size_t n_verdicts;
    struct qp_latency_rows latency;
    struct qp_buf json_models, json_results, json_verdicts;
};

/* The last result of that metric; NULL: none. */
const struct qp_report_result *qp_report_find(const struct qp_report_model *m, const char *metric);
/* Names of all metrics that any model has, in order of appearance, at most max; returns how many. Borrowed. */
size_t qp_report_metrics(const struct qp_report *r, const char **names, size_t max);
/* The tables of models and of latencies. */
void qp_report_tables(const struct qp_report *r, enum qp_table_format format, struct qp_buf *out);

#endif
