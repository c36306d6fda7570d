/* Reading the streams that a command line names: files in order, or standard input. */
#ifndef QP_STREAM_INPUTS_H
#define QP_STREAM_INPUTS_H

#include "base/opt.h"
#include "stream/stream.h"

/* Calls fn for every record of every file (none: standard input, which must not be a terminal). Stops at the first error; fn < 0 is one. */
typedef int qp_record_fn(void *ctx, const struct qp_record *rec, struct qp_err *err);
int qp_inputs_read(const struct qp_strs *files, const char *tool, qp_record_fn *fn, void *ctx, struct qp_err *err) QP_MUST_USE;

#endif
