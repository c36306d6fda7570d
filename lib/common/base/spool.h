/* Big arrays that lie in a file where memory shall not hold them: mapped, so that they are used as any others. The first arrays take memory, those beyond the
 * limit a temporary file of their own, which has no name and goes with the process. Values are the same in both.
 *
 *     qp_spool_new(&s, 1 << 30, "/var/tmp", &err);
 *     float *x = qp_spool_floats(s, n, "activations", &err);
 *     for (each slice) { use it; qp_spool_passed(s, slice, bytes); }
 *     qp_spool_free(s, x);
 */
#ifndef QP_BASE_SPOOL_H
#define QP_BASE_SPOOL_H

#include <stddef.h>

#include "base/err.h"

#define QP_SPOOL_ARRAYS 32

struct qp_spool;

/* memory: bytes that arrays may take there, all together. folder: where the files go. */
int qp_spool_new(struct qp_spool **out, size_t memory, const char *folder, struct qp_err *err) QP_MUST_USE;
/* All arrays must have been freed; s may be NULL. */
void qp_spool_close(struct qp_spool *s);
/* n uninitialized floats, 64-byte aligned; s NULL: in memory. At most QP_SPOOL_ARRAYS at a time. */
float *qp_spool_floats(struct qp_spool *s, size_t n, const char *what, struct qp_err *err) QP_MUST_USE;
void qp_spool_free(struct qp_spool *s, float *x);
/* These values will not be used for a while: what lies in a file leaves the process's memory. p: anywhere, s may be NULL. */
void qp_spool_passed(const struct qp_spool *s, const void *p, size_t bytes);
/* Bytes in files. */
size_t qp_spool_file_bytes(const struct qp_spool *s);

#endif
