/* Lines for people, on standard error. */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "qlat.h"
#include "stats/stats.h"

void qlat_print_machine(const struct qlat *a)
{
    struct qp_activity now;
    qp_activity_read(&now);
    fprintf(stderr, "qlat: measuring %zu model%s%s; %s%s%s, load %.2f\n", a->n_models, a->n_models == 1 ? "" : "s", a->model ? "" : " now that the stream has ended",
            a->cpu[0] ? a->cpu : "unknown processor", a->governor[0] ? ", governor " : "", a->governor, now.load1);
}

static double value_at(double *values, size_t n, double q)
{
    qp_sort(values, n);
    return qp_quantile_of(values, n, q, QLAT_CONFIDENCE).value;
}

static void print_series(const struct qlat *a, const struct qlat_series *s, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape, double *values)
{
    bool memory;
    double best = qlat_limit(s, a, o, shape, &memory);
    qlat_values(s, o, shape, values);
    double p50 = value_at(values, o->n_runs, 0.5), other = value_at(values, o->n_runs, s->higher ? 0.05 : 0.95);
    if (isnan(p50))
        return;
    int digits = s->higher && s->unit[0] == 't' ? 0 : 2; /* of tokens, of the others */
    fprintf(stderr, "  %s %.*f %.3s%s", s->name, digits, p50, s->unit, s->higher ? "/s" : "");
    if (isfinite(other))
        fprintf(stderr, s->higher ? " (p5 %.*f)" : " (p95 %.*f)", digits, other);
    if (best > 0 && s->higher)
        fprintf(stderr, ", %.0f %% of %s", 100 * p50 / best, memory ? "memory" : "compute");
}

static void print_model(const struct qlat *a, size_t i, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape)
{
    double *values = qp_alloc_n(o->n_runs + 1, sizeof *values, "figures", NULL);
    fprintf(stderr, "qlat: %s  %s", a->list[i].id, a->tag);
    if (o->status != QP_SWEEP_OK)
        fprintf(stderr, "  %s%s%s", qp_sweep_status_name(o->status), o->reason[0] ? ": " : "", o->reason);
    bool measured = o->status == QP_SWEEP_OK || o->status == QP_SWEEP_INTERRUPTED;
    for (const struct qlat_series *s = qlat_series; values && measured && o->n_runs && s < qlat_series + QLAT_SERIES; s++)
        if (s->shown && qlat_has(s, shape))
            print_series(a, s, o, shape, values);
    if (measured && o->facts.peak)
        fprintf(stderr, "  peak %.0f MB", (double)o->facts.peak / 1e6);
    fputc('\n', stderr);
    qp_free(values);
}

static void print_lengths(const struct qlat *a, const char *what, const struct qlat_spread *s)
{
    if (s->most > s->least)
        fprintf(stderr, "qlat: %s  %s of %lld to %lld tokens (median %.0f), %lld in all\n", a->tag, what, (long long)s->least, (long long)s->most, s->median, (long long)s->total);
}

void qlat_print(const struct qlat *a, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *out, const struct qp_sweep_setting *setting)
{
    char flags[QP_SWEEP_FLAGS][96];
    print_lengths(a, "prompts", &a->of_prompts);
    print_lengths(a, "answers", &a->of_answers);
    if (a->measure_limits)
        fprintf(stderr, "qlat: %s  limits of this machine: matrix peak %.0f (f32), %.0f (bf16), %.0f (int8) GFLOP/s, memory read %.1f GB/s\n", a->tag,
                qp_machine_limits_of(a->limits, QP_COMPUTE_F32).gflops, qp_machine_limits_of(a->limits, QP_COMPUTE_BF16).gflops, qp_machine_limits_of(a->limits, QP_COMPUTE_INT8).gflops,
                a->limits[QP_LIMIT_READ]);
    for (size_t i = 0; i < a->n_models; i++)
        print_model(a, i, &out[i], shape);
    for (size_t i = 0, n = qp_sweep_flags(setting, flags); i < n; i++)
        fprintf(stderr, "qlat: %s  doubtful: %s\n", a->tag, flags[i]);
}
