/* Joining shards: see merge.c. */
#ifndef QP_TOOLS_QCAT_MERGE_H
#define QP_TOOLS_QCAT_MERGE_H

#include "stream/tool.h"

struct merge;
int merge_new(struct merge **out, struct qp_err *err);
void merge_free(struct merge *m);
/* Every record of every file. */
int merge_record(struct merge *m, const struct qp_record *rec, struct qp_err *err);
/* Checks that the shards are complete and fit each other, and writes the joined stream to standard output. */
int merge_write(struct merge *m, int argc, char **argv, struct qp_err *err);

#endif
