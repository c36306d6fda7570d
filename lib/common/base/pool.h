/* A pool of threads for data-parallel loops. The caller's thread takes part, so a pool of 1 starts no thread.
 *
 * Work is cut into chunks whose bounds depend on n and grain alone, never on the number of threads; each chunk is run by
 * one thread. A kernel that writes disjoint outputs per chunk therefore gives the same bits for any thread count.
 *
 *     static void scale(void *arg, int64_t begin, int64_t end, int thread) { ... }
 *     qp_pool_for(pool, n_rows, 16, scale, &args);
 */
#ifndef QP_BASE_POOL_H
#define QP_BASE_POOL_H

#include <stdint.h>

#include "base/err.h"

struct qp_pool;

/* n_threads = 0: as many as the processors this process may run on (sched_getaffinity). At most 256. */
int qp_pool_new(struct qp_pool **out, int n_threads, struct qp_err *err) QP_MUST_USE;
void qp_pool_free(struct qp_pool *pool); /* NULL is fine */
int qp_pool_threads(const struct qp_pool *pool); /* pool NULL: 1 */
/* Ties thread i, the caller being thread 0, to the i-th of the processors that this process may run on (from the first again when there are fewer), so that
 * none is moved while something is measured. */
int qp_pool_pin(struct qp_pool *pool, struct qp_err *err) QP_MUST_USE;

typedef void qp_pool_fn(void *arg, int64_t begin, int64_t end, int thread);

/* Calls fn for [0,n) in chunks of `grain` (the last may be shorter); chunks are handed out dynamically.
 * thread is in [0, threads). Returns when all are done. Low latency: workers spin briefly before they sleep.
 * Not re-entrant: fn must not call qp_pool_for on the same pool. pool NULL: runs in the caller. */
void qp_pool_for(struct qp_pool *pool, int64_t n, int64_t grain, qp_pool_fn *fn, void *arg);

#endif
