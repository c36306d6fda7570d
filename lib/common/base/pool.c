#include "base/pool.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

/* Some tens of microseconds of spinning bridge the gaps between the layers of a forward pass; longer would steal the processor from other stages. */
#define SPINS 4000

/* The gate: OPEN while a loop has chunks to give, SLEEPS while the caller waits in the kernel, and the number of workers inside. Only workers inside
 * can hold up a loop's end, so one that the system has not scheduled, or that wakes late, costs nothing. */
#define OPEN (1u << 31)
#define SLEEPS (1u << 30)

struct worker {
    struct qp_pool *pool;
    pthread_t thread;
    int index;
};

struct qp_pool {
    int n_threads, n_started;
    struct worker *workers;
    /* The job: written while the gate is closed and empty, read by those who have come through it. */
    qp_pool_fn *fn;
    void *arg;
    int64_t n, grain;
    _Atomic bool stop;
    _Alignas(64) atomic_int_fast64_t next;
    _Alignas(64) _Atomic uint32_t epoch; /* counts the loops: what workers wait for */
    _Atomic uint32_t asleep;             /* workers that wait for it in the kernel */
    _Alignas(64) _Atomic uint32_t gate;
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Spins until *word differs from value; false when it gave up. */
static bool spin_while(_Atomic uint32_t *word, uint32_t value)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value)
            return true;
        pause_cpu();
    }
    return false;
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

static void run_chunks(struct qp_pool *p, int thread)
{
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->grain, memory_order_relaxed);
        if (begin >= p->n)
            return;
        int64_t end = begin + p->grain < p->n ? begin + p->grain : p->n;
        p->fn(p->arg, begin, end, thread);
    }
}

static bool enter(struct qp_pool *p)
{
    uint32_t g = atomic_load_explicit(&p->gate, memory_order_relaxed);
    while (g & OPEN)
        if (atomic_compare_exchange_weak_explicit(&p->gate, &g, g + 1, memory_order_acquire, memory_order_relaxed))
            return true;
    return false;
}

static void leave(struct qp_pool *p)
{
    if (atomic_fetch_sub_explicit(&p->gate, 1, memory_order_release) == (SLEEPS | 1))
        wake_all(&p->gate);
}

/* Closes the gate and waits for those inside. */
static void close_gate(struct qp_pool *p)
{
    uint32_t g = atomic_fetch_and_explicit(&p->gate, ~OPEN, memory_order_acq_rel) & ~OPEN;
    while (g && spin_while(&p->gate, g))
        g = atomic_load_explicit(&p->gate, memory_order_acquire);
    if (!g)
        return;
    g = atomic_fetch_or_explicit(&p->gate, SLEEPS, memory_order_acq_rel) | SLEEPS;
    while (g != SLEEPS) {
        sleep_while(&p->gate, g);
        g = atomic_load_explicit(&p->gate, memory_order_acquire);
    }
    atomic_store_explicit(&p->gate, 0, memory_order_relaxed);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct qp_pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        if (!spin_while(&p->epoch, seen)) {
            atomic_fetch_add(&p->asleep, 1);
            while (atomic_load(&p->epoch) == seen)
                sleep_while(&p->epoch, seen);
            atomic_fetch_sub(&p->asleep, 1);
        }
        seen = atomic_load_explicit(&p->epoch, memory_order_acquire);
        if (p->stop)
            return NULL;
        if (enter(p)) {
            run_chunks(p, w->index);
            leave(p);
        }
    }
}

static int processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

int qp_pool_new(struct qp_pool **out, int n_threads, struct qp_err *err)
{
    *out = NULL;
    if (n_threads <= 0)
        n_threads = processors();
    if (n_threads > 256)
        n_threads = 256;
    struct qp_pool *p = qp_zalloc(sizeof *p, "thread pool", err);
    if (!p)
        return QP_E_RESOURCE;
    p->n_threads = n_threads;
    p->workers = qp_zalloc(sizeof *p->workers * (size_t)n_threads, "thread pool", err);
    if (!p->workers) {
        qp_free(p);
        return QP_E_RESOURCE;
    }
    for (int i = 1; i < n_threads; i++) {
        p->workers[i] = (struct worker){.pool = p, .index = i};
        int e = pthread_create(&p->workers[i].thread, NULL, work, &p->workers[i]);
        if (e) {
            qp_err_set(err, QP_E_RESOURCE, "cannot start thread %d of %d: %s", i + 1, n_threads, strerror(e));
            qp_pool_free(p);
            return QP_E_RESOURCE;
        }
        p->n_started++;
    }
    *out = p;
    return 0;
}

void qp_pool_free(struct qp_pool *p)
{
    if (!p)
        return;
    p->stop = true;
    atomic_fetch_add_explicit(&p->epoch, 1, memory_order_release);
    wake_all(&p->epoch);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    qp_free(p->workers);
    qp_free(p);
}

int qp_pool_pin(struct qp_pool *p, struct qp_err *err)
{
    cpu_set_t all, one;
    int e = sched_getaffinity(0, sizeof all, &all) ? errno : 0, cpu = -1;
    for (int i = 0; !e && i <= p->n_started; i++) {
        do
            cpu = (cpu + 1) % CPU_SETSIZE;
        while (!CPU_ISSET(cpu, &all));
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        e = pthread_setaffinity_np(i ? p->workers[i].thread : pthread_self(), sizeof one, &one);
    }
    return e ? qp_err_set(err, QP_E_RESOURCE, "cannot tie threads to processors: %s", strerror(e)) : 0;
}

int qp_pool_threads(const struct qp_pool *p)
{
    return p ? p->n_threads : 1;
}

void qp_pool_for(struct qp_pool *p, int64_t n, int64_t grain, qp_pool_fn *fn, void *arg)
{
    if (n <= 0)
        return;
    if (grain < 1)
        grain = 1;
    if (!p || p->n_started == 0 || n <= grain) {
        for (int64_t b = 0; b < n; b += grain)
            fn(arg, b, b + grain < n ? b + grain : n, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->grain = grain;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->gate, OPEN, memory_order_release);
    atomic_fetch_add(&p->epoch, 1);
    if (atomic_load(&p->asleep))
        wake_all(&p->epoch);
    run_chunks(p, 0);
    close_gate(p);
}
