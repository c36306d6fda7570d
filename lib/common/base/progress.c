#include "base/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct qp_progress {
    char tool[32], what[64], unit[32];
    int64_t total;
    double start, last;
    bool drawn;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct qp_progress *qp_progress_new(const char *tool, bool enabled)
{
    if (!enabled || !isatty(STDERR_FILENO))
        return NULL;
    struct qp_progress *p = calloc(1, sizeof *p);
    if (p)
        snprintf(p->tool, sizeof p->tool, "%s", tool);
    return p;
}

void qp_progress_begin(struct qp_progress *p, const char *what, const char *unit, int64_t total)
{
    if (!p)
        return;
    qp_progress_end(p);
    snprintf(p->what, sizeof p->what, "%s", what);
    snprintf(p->unit, sizeof p->unit, "%s", unit);
    p->total = total;
    p->start = now();
    p->last = 0;
}

void qp_progress_update(struct qp_progress *p, int64_t done, const char *detail)
{
    if (!p || p->total <= 0)
        return;
    double t = now();
    if (t - p->last < 0.1)
        return;
    p->last = t;
    double elapsed = t - p->start, left = done > 0 ? elapsed / (double)done * (double)(p->total - done) : 0;
    char eta[32] = "-:--";
    if (done > 0)
        snprintf(eta, sizeof eta, "%d:%02d", (int)left / 60, (int)left % 60);
    fprintf(stderr, "\r\033[K%s: %s %lld/%lld %s  %.0f%%  ETA %s  %s", p->tool, p->what, (long long)done,
            (long long)p->total, p->unit, 100.0 * (double)done / (double)p->total, eta, detail ? detail : "");
    p->drawn = true;
}

void qp_progress_end(struct qp_progress *p)
{
    if (p && p->drawn)
        fputs("\r\033[K", stderr);
    if (p)
        p->drawn = false;
}

void qp_progress_free(struct qp_progress *p)
{
    qp_progress_end(p);
    free(p);
}
