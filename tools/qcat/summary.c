/* The summary: parts in order of their heads, records and bytes by type. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/table.h"
#include "qcat.h"

static void count_type(struct qcat *q, const struct qp_record *rec)
{
    int i = 0;
    while (i < q->n_types && strncmp(q->type[i].name, rec->type, sizeof q->type[i].name - 1))
        i++;
    if (i == QCAT_MAX_TYPES)
        return;
    if (i == q->n_types)
        snprintf(q->type[q->n_types++].name, sizeof q->type[0].name, "%s", rec->type);
    q->type[i].records++;
    q->type[i].bytes += (int64_t)rec->raw_bytes;
}

static int open_part(struct qcat *q, const struct qp_record *rec, struct qp_err *err)
{
    const char *tool = "", *version = "", *time = "";
    if (q->n_parts == QCAT_MAX_PARTS)
        return qp_err_set(err, QP_E_INPUT, "more than %d parts", QCAT_MAX_PARTS);
    if (qp_record_str(rec, "tool", &tool, err) < 0 || qp_record_str(rec, "version", &version, err) < 0 || qp_record_str(rec, "time", &time, err) < 0)
        return err->code;
    struct qcat_part *p = &q->part[q->n_parts];
    snprintf(p->tool, sizeof p->tool, "%s", tool);
    snprintf(p->version, sizeof p->version, "%s", version);
    snprintf(p->time, sizeof p->time, "%s", time);
    snprintf(p->status, sizeof p->status, "cut off");
    q->open[q->n_open++] = q->n_parts++;
    return 0;
}

int qcat_count(struct qcat *q, const struct qp_record *rec, struct qp_err *err)
{
    count_type(q, rec);
    if (qp_record_is(rec, "head"))
        return open_part(q, rec, err);
    if (!qp_record_is(rec, "end") || !q->n_open)
        return 0;
    const char *status = "";
    struct qcat_part *p = &q->part[q->open[--q->n_open]];
    if (qp_record_str(rec, "status", &status, err) < 0 || qp_record_i64(rec, "records", &p->records, err) < 0)
        return err->code;
    snprintf(p->status, sizeof p->status, "%s", status);
    return 0;
}

void qcat_print(const struct qcat *q, bool whole)
{
    struct qp_buf out = QP_BUF_INIT;
    struct qp_table parts = {0}, types = {0};
    qp_table_column(&parts, "part", false);
    qp_table_column(&parts, "version", false);
    qp_table_column(&parts, "started", false);
    qp_table_column(&parts, "records", true);
    qp_table_column(&parts, "status", false);
    for (int i = 0; i < q->n_parts; i++) {
        qp_table_cell(&parts, "%s", q->part[i].tool);
        qp_table_cell(&parts, "%s", q->part[i].version);
        qp_table_cell(&parts, "%s", q->part[i].time);
        qp_table_cell(&parts, "%" PRId64, q->part[i].records);
        qp_table_cell(&parts, "%s", q->part[i].status);
    }
    qp_table_column(&types, "type", false);
    qp_table_column(&types, "records", true);
    qp_table_column(&types, "bytes", true);
    for (int i = 0; i < q->n_types; i++) {
        qp_table_cell(&types, "%s", q->type[i].name);
        qp_table_cell(&types, "%" PRId64, q->type[i].records);
        qp_table_cell(&types, "%" PRId64, q->type[i].bytes);
    }
    qp_table_print(&parts, QP_TABLE_TEXT, &out);
    qp_buf_adds(&out, "\n");
    qp_table_print(&types, QP_TABLE_TEXT, &out);
    qp_buf_addf(&out, "\n%s\n", whole ? "whole: every part has its end record and the right checksum" : "NOT whole: see the message");
    if (out.data)
        fputs(out.data, stdout);
    qp_table_release(&parts);
    qp_table_release(&types);
    qp_buf_release(&out);
}
