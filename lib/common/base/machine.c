#include "base/machine.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

void qp_cpu_name(char *out, size_t n)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    out[0] = 0;
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!strncmp(line, "model name", 10) && colon) {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, n, "%s", colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

void qp_cpu_governor(char *out, size_t n)
{
    FILE *f = fopen("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "r");
    if (!f || !fgets(out, (int)n, f))
        out[0] = 0;
    out[strcspn(out, "\n")] = 0;
    if (f)
        fclose(f);
}

double qp_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double seconds_of(int who)
{
    struct rusage u;
    if (getrusage(who, &u))
        return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* /proc/stat: "cpu  user nice system idle iowait irq softirq steal ...", in ticks. */
void qp_activity_read(struct qp_activity *out)
{
    unsigned long long user, nice_, system, idle, iowait, irq, softirq, steal;
    double tick = (double)sysconf(_SC_CLK_TCK);
    *out = (struct qp_activity){.at = qp_now(), .load1 = NAN, .busy = NAN, .steal = NAN, .processors = (int)sysconf(_SC_NPROCESSORS_ONLN)};
    FILE *f = fopen("/proc/stat", "r");
    if (f && fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice_, &system, &idle, &iowait, &irq, &softirq, &steal) == 8) {
        out->busy = (double)(user + nice_ + system + irq + softirq) / tick;
        out->steal = (double)steal / tick;
    }
    if (f)
        fclose(f);
    f = fopen("/proc/loadavg", "r");
    if (f && fscanf(f, "%lf", &out->load1) != 1)
        out->load1 = NAN;
    if (f)
        fclose(f);
    out->own = seconds_of(RUSAGE_SELF) + seconds_of(RUSAGE_CHILDREN);
}

static double share(const struct qp_activity *from, const struct qp_activity *to, double seconds)
{
    double all = (to->at - from->at) * to->processors;
    return all > 0 ? fmin(fmax(seconds / all, 0), 1) : NAN;
}

double qp_activity_steal(const struct qp_activity *from, const struct qp_activity *to)
{
    return isnan(to->steal) ? NAN : share(from, to, to->steal - from->steal);
}

double qp_activity_others(const struct qp_activity *from, const struct qp_activity *to)
{
    return isnan(to->busy) ? NAN : share(from, to, (to->busy - from->busy) - (to->own - from->own));
}

static double spin_here(void)
{
    enum { STEPS = 1 << 15, LOOPS = 8, CHAINS = 8 };
    double best = 0;
    uint64_t x[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        x[i] = 88172645463325252u + (uint64_t)i;
    for (int loop = 0; loop < LOOPS; loop++) {
        double start = qp_now();
        for (int i = 0; i < STEPS; i++)
            for (int k = 0; k < CHAINS; k++) {
                x[k] ^= x[k] << 13;
                x[k] ^= x[k] >> 7;
                x[k] ^= x[k] << 17;
                __asm__ volatile("" : "+r"(x[k])); /* each step is needed, and none is done together with its neighbours */
            }
        double rate = STEPS / (qp_now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

double qp_spin_rate(void)
{
    enum { MOST = 8 };
    cpu_set_t all, one;
    double slowest = spin_here();
    if (sched_getaffinity(0, sizeof all, &all))
        return slowest;
    for (int cpu = 0, n = 0; cpu < CPU_SETSIZE && n < MOST; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        n++;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof one, &one))
            continue;
        double rate = spin_here();
        slowest = n == 1 || rate < slowest ? rate : slowest;
    }
    sched_setaffinity(0, sizeof all, &all);
    return slowest;
}

/* The value of "NAME:  N kB" in a file of /proc; false when it is not there. */
static bool kilobytes(const char *text, const char *name, size_t *bytes)
{
    const char *at = strstr(text, name);
    unsigned long long kb;
    if (!at || sscanf(at + strlen(name), " %llu", &kb) != 1)
        return false;
    *bytes = (size_t)kb << 10;
    return true;
}

static size_t read_proc(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "r");
    size_t got = f ? fread(out, 1, n - 1, f) : 0;
    out[got] = 0;
    if (f)
        fclose(f);
    return got;
}

bool qp_resident_read(struct qp_resident *out)
{
    char text[8192];
    *out = (struct qp_resident){0};
    read_proc("/proc/self/status", text, sizeof text);
    kilobytes(text, "RssAnon:", &out->anonymous);
    kilobytes(text, "RssFile:", &out->file);
    return kilobytes(text, "VmRSS:", &out->now) && kilobytes(text, "VmHWM:", &out->peak);
}

bool qp_resident_reset_peak(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, "5", 1) == 1;
    if (fd >= 0)
        close(fd);
    return done;
}

size_t qp_memory_available(void)
{
    char text[8192];
    size_t bytes = 0;
    read_proc("/proc/meminfo", text, sizeof text);
    return kilobytes(text, "MemAvailable:", &bytes) ? bytes : 0;
}
