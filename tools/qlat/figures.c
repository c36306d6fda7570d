/* From runs to series: what each is, its unit, its limit. */
#include <math.h>

#include "qlat.h"

const struct qlat_series qlat_series[QLAT_SERIES] = {
    {"ttft", "ms", .shown = true, .prefill = true},
    {"itl", "ms", .shown = true, .steps = true, .decode = true},
    {"e2e", "ms", .prefill = true, .decode = true, .either = true},
    {"prefill", "tok_s", .shown = true, .higher = true, .prefill = true},
    {"prefill_seq", "tok_s", .higher = true, .prefill = true, .seq = true},
    {"decode", "tok_s", .shown = true, .higher = true, .decode = true},
    {"decode_seq", "tok_s", .higher = true, .decode = true, .seq = true},
    {"request", "ms", .shown = true, .steps = true, .queued = true},
    {"throughput", "req_s", .shown = true, .higher = true, .queued = true},
    {"output", "tok_s", .shown = true, .higher = true, .queued = true},
    {"total", "tok_s", .higher = true, .queued = true},
};
enum { TTFT, ITL, E2E, PREFILL, PREFILL_SEQ, DECODE, DECODE_SEQ, REQUEST, THROUGHPUT, OUTPUT, TOTAL };

bool qlat_has(const struct qlat_series *s, const struct qp_latency_shape *shape)
{
    if (shape->requests)
        return s->queued || s->either;
    return !s->queued && (!s->decode || shape->new_tokens > 1);
}

const char *qlat_of(const struct qlat_series *s)
{
    return !s->steps ? "runs" : s->queued ? "requests" : "steps";
}

static double value_of(const struct qlat_series *series, const struct qp_latency_run *r, double step, const struct qp_latency_shape *s)
{
    double prompts = (double)qp_latency_prompt_tokens(s), answers = (double)qp_latency_new_tokens(s), B = (double)s->batch;
    switch (series - qlat_series) {
    case TTFT:
        return 1e3 * r->first;
    case ITL:
    case REQUEST:
        return 1e3 * step;
    case E2E:
        return 1e3 * r->total;
    case PREFILL:
        return prompts / r->prefill;
    case PREFILL_SEQ:
        return prompts / B / r->prefill;
    case DECODE:
        return B / step;
    case DECODE_SEQ:
        return 1 / step;
    case THROUGHPUT:
        return (double)s->requests / r->total;
    case OUTPUT:
        return answers / r->total;
    default:
        return (prompts + answers) / r->total;
    }
}

void qlat_values(const struct qlat_series *s, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape, double *out)
{
    for (size_t i = 0; i < o->n_runs; i++) {
        double sum = 0;
        for (int64_t k = 0; k < o->n_steps; k++)
            sum += o->steps[(int64_t)i * o->n_steps + k];
        out[i] = value_of(s, &o->runs[i], sum / (double)(o->n_steps ? o->n_steps : 1), shape);
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
    return value_of(s, &(struct qp_latency_run){.prefill = prefill, .first = prefill, .total = prefill + steps}, step, shape);
}

size_t qlat_points(const struct qlat_series *s, const struct qlat_point **out)
{
    static const struct qlat_point latency[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}}, throughput[] = {{"p50", 0.5}, {"p5", 0.05}};
    *out = s->higher ? throughput : latency;
    return s->higher ? 2 : 4;
}
