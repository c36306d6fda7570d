/* From runs to series: what each is, its unit, its limit. */
#include <math.h>

#include "qlat.h"

const struct qlat_series qlat_series[QLAT_SERIES] = {
    {"ttft", "ms", .prefill = true},
    {"itl", "ms", .steps = true, .decode = true},
    {"e2e", "ms", .prefill = true, .decode = true},
    {"prefill", "tok_s", .higher = true, .prefill = true},
    {"prefill_seq", "tok_s", .higher = true, .prefill = true},
    {"decode", "tok_s", .higher = true, .decode = true},
    {"decode_seq", "tok_s", .higher = true, .decode = true},
};
enum { TTFT, ITL, E2E, PREFILL, PREFILL_SEQ, DECODE, DECODE_SEQ };

static double value_of(size_t which, double prefill_seconds, double step_seconds, double first, double total, const struct qp_latency_shape *s)
{
    double tokens = (double)qp_latency_prompt_tokens(s), B = (double)s->batch;
    switch (which) {
    case TTFT:
        return 1e3 * first;
    case ITL:
        return 1e3 * step_seconds;
    case E2E:
        return 1e3 * total;
    case PREFILL:
        return tokens / prefill_seconds;
    case PREFILL_SEQ:
        return tokens / B / prefill_seconds;
    case DECODE:
        return B / step_seconds;
    default:
        return 1 / step_seconds;
    }
}

void qlat_values(const struct qlat_series *s, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape, double *out)
{
    for (size_t i = 0; i < o->n_runs; i++) {
        const struct qp_latency_run *r = &o->runs[i];
        out[i] = value_of((size_t)(s - qlat_series), r->prefill, r->decode / (double)(o->n_steps ? o->n_steps : 1), r->first, r->total, shape);
    }
}

double qlat_limit(const struct qlat_series *s, const struct qlat *a, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape, bool *memory)
{
    struct qp_machine_limits limits = qp_machine_limits_of(a->limits, o->facts.compute);
    bool of_prefill, of_steps;
    double prefill = qp_work_seconds(o->facts.prefill, limits, &of_prefill), step = qp_work_seconds(o->facts.decode, limits, &of_steps);
    double steps = (double)o->n_steps * step;
    *memory = s->prefill && (!s->decode || prefill >= steps) ? of_prefill : of_steps;
    if (!(prefill > 0 && step > 0))
        return 0;
    return value_of((size_t)(s - qlat_series), prefill, step, prefill, prefill + steps, shape);
}

size_t qlat_points(const struct qlat_series *s, const struct qlat_point **out)
{
    static const struct qlat_point latency[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}}, throughput[] = {{"p50", 0.5}, {"p5", 0.05}};
    *out = s->higher ? throughput : latency;
    return s->higher ? 2 : 4;
}
