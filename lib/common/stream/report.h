/* A stream summed up for people: a row for each model, its size and what was measured, and the verdicts below. What qreport prints, and what every tool
 * prints when its standard output is a terminal. */
#ifndef QP_STREAM_REPORT_H
#define QP_STREAM_REPORT_H

#include "base/table.h"
#include "stream/stream.h"

struct qp_report;
int qp_report_new(struct qp_report **out, struct qp_err *err) QP_MUST_USE;
void qp_report_free(struct qp_report *r);
/* Takes model, result, layer and verdict records; ignores others. */
int qp_report_record(struct qp_report *r, const struct qp_record *rec, struct qp_err *err) QP_MUST_USE;
bool qp_report_empty(const struct qp_report *r);
/* The table, then (text and Markdown) the verdicts. */
void qp_report_print(const struct qp_report *r, enum qp_table_format format, struct qp_buf *out);
/* One self-contained page: tables, verdicts, plots of every metric with intervals, of bits against quality, and of each weight's signal to noise. */
void qp_report_html(const struct qp_report *r, struct qp_buf *out);
/* All as one JSON object: {"models": [...], "verdicts": [...]}, records as they came. */
void qp_report_json(const struct qp_report *r, struct qp_buf *out);

#endif
