/* What the benches' timings share: the clock, and the machine's limits (backend/limits.h). */
#ifndef QP_BENCH_LIMITS_H
#define QP_BENCH_LIMITS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "backend/limits.h"
#include "base/mem.h"

/* QP_BENCH_CPU=1: one thread and its processor time, which means something on a busy machine, too. */
static inline bool on_cpu_time(void)
{
    return getenv("QP_BENCH_CPU") != NULL;
}

static inline clockid_t bench_clock(void)
{
    return on_cpu_time() ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
}

static inline double now(void)
{
    struct timespec t;
    clock_gettime(bench_clock(), &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
