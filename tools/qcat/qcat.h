/* What qcat's files share. */
#ifndef QP_TOOLS_QCAT_H
#define QP_TOOLS_QCAT_H

#include "stream/tool.h"

#define QCAT_MAX_TYPES 64
#define QCAT_MAX_PARTS 256

struct qcat_type {
    char name[32];
    int64_t records, bytes;
};

struct qcat_part {
    char tool[64], version[32], time[32], status[16];
    int64_t records;
};

struct qcat {
    bool json, summary, merge;
    int argc;
    char **argv;
    struct qp_strs types;
    int64_t max_bin;
    struct qcat_type type[QCAT_MAX_TYPES];
    struct qcat_part part[QCAT_MAX_PARTS];
    int n_types, n_parts, open[QCAT_MAX_PARTS], n_open;
};

int qcat_count(struct qcat *q, const struct qp_record *rec, struct qp_err *err);
void qcat_print(const struct qcat *q, bool whole);

#endif
