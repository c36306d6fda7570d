/* What a measurement ran on and beside: processor, frequency governor, load, stolen time, the clock's steadiness; and this process's own memory.
 * Read from /proc and /sys; what a system does not tell is NaN, 0 or an empty text. */
#ifndef QP_BASE_MACHINE_H
#define QP_BASE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* The processor's name; empty when unknown. */
void qp_cpu_name(char *out, size_t n);
/* The first processor's frequency governor ("performance", "powersave"); empty where the system has none (many virtual machines). */
void qp_cpu_governor(char *out, size_t n);

double qp_now(void); /* seconds, monotonic */

/* Counters since boot and of this process. Two readings make an interval. */
struct qp_activity {
    double at;          /* qp_now() */
    double load1;       /* load average of the last minute; NaN: unknown */
    double busy, steal; /* processor seconds, all processors together: worked, taken by the host */
    double own;         /* processor seconds of this process and the children it has waited for */
    int processors;     /* of the whole machine */
};
void qp_activity_read(struct qp_activity *out);
/* Shares of all processors' time between two readings, 0 to 1: what the host took, and what other processes used. NaN: unknown. */
double qp_activity_steal(const struct qp_activity *from, const struct qp_activity *to);
double qp_activity_others(const struct qp_activity *from, const struct qp_activity *to);

/* The processor's speed: steps per second of a loop of integer operations that fills its units, best of some loops of a fraction of a millisecond on
 * each of the processors that this process may run on (eight at most), the slowest of them: a pool is as fast as its slowest thread. Interruptions only ever lower a loop, so the best one follows the frequency, and what a neighbour on the same core leaves. Compared with itself alone. */
double qp_spin_rate(void);

struct qp_resident { /* of this process, bytes */
    size_t now, peak, anonymous, file;
};
/* False where /proc does not tell. */
bool qp_resident_read(struct qp_resident *out);
/* The peak starts again at what is resident now; false where the system does not allow it. */
bool qp_resident_reset_peak(void);

/* Bytes that can be taken without swapping; 0: unknown. */
size_t qp_memory_available(void);

#endif
