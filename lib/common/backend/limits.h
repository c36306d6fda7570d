/* What this machine can do at best, measured: multiply-add loops that live in registers, and a read of more memory than the caches hold.
 * Each runs on all threads of a pool; the best of several runs counts, since other programs can only slow it down. What a kernel reaches is
 * stated as a share of these. */
#ifndef QP_BACKEND_LIMITS_H
#define QP_BACKEND_LIMITS_H

#include <time.h>

#include "base/pool.h"

enum { QP_LIMIT_NONE, QP_LIMIT_F32_AVX2, QP_LIMIT_F32_AVX512, QP_LIMIT_BF16, QP_LIMIT_INT8, QP_LIMIT_READ, QP_LIMIT_COUNT };

/* GFLOP/s (of int8: products of bytes added in 32 bits), and GB/s for QP_LIMIT_READ; 0 where the processor lacks the instructions, or there is no memory. Takes about a second and, for that time, 512 MiB.
 * clock: CLOCK_MONOTONIC, or with a pool of one thread CLOCK_THREAD_CPUTIME_ID, which means something on a busy machine, too. */
void qp_limits_measure(double out[QP_LIMIT_COUNT], struct qp_pool *pool, clockid_t clock);

#endif
