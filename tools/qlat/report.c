/* Result records: figures with their intervals, memory, ratios to the baseline, and one record that says how the shape went. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "qlat.h"
#include "stats/stats.h"

/* The shape under report. */
struct page {
    struct qlat *a;
    const struct qp_latency_shape *shape;
    const struct qp_sweep_outcome *o;
    size_t model;
    double *values, *sorted, *scratch; /* of a series: as they came, ascending; room for clusters */
    size_t n;
};

/* One number where all are equal. */
static void write_lengths(struct qp_writer *w, const char *one, const char *many, const struct qlat_spread *s)
{
    if (s->least == s->most) {
        qp_w_i64(w, one, s->most);
        return;
    }
    qp_w_map_begin(w, many);
    qp_w_i64(w, "min", s->least);
    qp_w_f64(w, "median", s->median);
    qp_w_i64(w, "max", s->most);
    qp_w_i64(w, "total", s->total);
    qp_w_map_end(w);
}

static void write_protocol(const struct page *p)
{
    struct qp_writer *w = p->a->run->out;
    const struct qp_sweep_facts *f = &p->o->facts;
    qp_w_map_begin(w, "protocol");
    qp_w_i64(w, "batch", p->shape->batch);
    if (p->shape->requests)
        qp_w_i64(w, "requests", p->shape->requests);
    write_lengths(w, "prompt_len", "prompt_lens", &p->a->of_prompts);
    qp_w_str(w, "prompt", p->a->prompt_path ? p->a->prompt_path : "synthetic");
    if (p->a->n_prompts > 1)
        qp_w_i64(w, "prompts", (int64_t)p->a->n_prompts);
    write_lengths(w, "new_tokens", "new_lens", &p->a->of_answers);
    qp_w_i64(w, "context_depth", p->shape->depth);
    qp_w_i64(w, "cache", p->shape->capacity);
    if (f->threads) {
        qp_w_str(w, "compute", qp_compute_name(f->compute));
        qp_w_str(w, "kv", qp_kv_name(f->kv));
        qp_w_str(w, "isa", f->isa);
        qp_w_i64(w, "threads", f->threads);
    }
    qp_w_bool(w, "pinned", p->a->pin);
    qp_w_i64(w, "warmup", p->a->warmup);
    qp_w_i64(w, "runs", (int64_t)p->o->n_runs);
    qp_w_bool(w, "in_turns", !p->a->one_by_one);
    qp_w_map_end(w);
}

static void begin(const struct page *p, const char *prefix, const char *name, double value, double se, size_t n, bool higher)
{
    struct qp_writer *w = p->a->run->out;
    char metric[192];
    snprintf(metric, sizeof metric, "%s/%s/%s", prefix, p->a->tag, name);
    qp_w_begin(w, "result");
    qp_w_str(w, "model", p->a->list[p->model].id);
    qp_w_str(w, "metric", metric);
    qp_w_f64(w, "value", value);
    qp_w_f64(w, "stderr", se);
    if (n)
        qp_w_i64(w, "n", (int64_t)n);
    qp_w_bool(w, "higher_is_better", higher);
    qp_w_map_begin(w, "detail");
}

static void finish(const struct page *p)
{
    write_protocol(p);
    qp_w_map_end(p->a->run->out);
    qp_w_end(p->a->run->out);
}

/* The longer half of the interval as a multiple of the normal one, so that an interval made of it holds the exact one. */
static double error_of(const struct qp_quantile *q)
{
    return fmax(q->hi - q->value, q->value - q->lo) / qp_normal_quantile(0.5 + QLAT_CONFIDENCE / 2);
}

static void write_interval(struct qp_writer *w, const struct qp_quantile *q)
{
    qp_w_f64(w, "confidence", QLAT_CONFIDENCE);
    qp_w_f64s(w, "interval", (double[]){q->lo, q->hi}, 2);
}

/* ---- figures ---- */

static void take_series(struct page *p, const struct qlat_series *s)
{
    p->n = s->steps ? p->o->n_runs * (size_t)p->o->n_steps : p->o->n_runs;
    if (s->steps)
        for (size_t i = 0; i < p->n; i++)
            p->values[i] = 1e3 * p->o->steps[i];
    else
        qlat_values(s, p->o, p->shape, p->values);
    memcpy(p->sorted, p->values, p->n * sizeof *p->sorted);
    qp_sort(p->sorted, p->n);
}

static struct qp_quantile quantile(const struct page *p, const struct qlat_series *s, double q)
{
    if (s->steps)
        return qp_quantile_clustered(p->values, p->sorted, p->o->n_runs, (size_t)p->o->n_steps, q, QLAT_CONFIDENCE, p->scratch);
    return qp_quantile_of(p->sorted, p->n, q, QLAT_CONFIDENCE);
}

static void write_limit(const struct page *p, const struct qlat_series *s, double value)
{
    struct qp_writer *w = p->a->run->out;
    struct qp_machine_limits limits = qp_machine_limits_of(p->a->limits, p->o->facts.compute);
    bool memory;
    double best = qlat_limit(s, p->a, p->o, p->shape, &memory);
    if (!(best > 0))
        return;
    qp_w_map_begin(w, "limit");
    qp_w_str(w, "bound", memory ? "memory" : "compute");
    qp_w_f64(w, "read_gb_s", limits.gbytes);
    qp_w_f64(w, "matrix_gflop_s", limits.gflops);
    qp_w_f64(w, "value", best);
    qp_w_f64(w, "reached_pct", 100 * (s->higher ? value / best : best / value));
    if (s->decode && !s->prefill && s->higher) /* how fast the weights alone went by */
        qp_w_f64(w, "weights_gb_s", (double)p->o->facts.weights * value / (s->seq ? 1 : (double)p->shape->batch) / 1e9);
    qp_w_map_end(w);
}

static void write_series(struct page *p, const struct qlat_series *s)
{
    struct qp_writer *w = p->a->run->out;
    const struct qlat_point *points;
    char name[64];
    take_series(p, s);
    size_t n = qlat_points(s, &points);
    for (size_t i = 0; i < n; i++) {
        struct qp_quantile q = quantile(p, s, points[i].q);
        if (!q.shown)
            continue;
        snprintf(name, sizeof name, "%s_%s_%s", s->name, points[i].name, s->unit);
        begin(p, "latency", name, q.value, error_of(&q), p->n, s->higher);
        write_interval(w, &q);
        qp_w_str(w, "of", qlat_of(s));
        if (points[i].q == 0.5)
            write_limit(p, s, q.value);
        finish(p);
    }
    for (int top = 0; top < 2; top++) {
        snprintf(name, sizeof name, "%s_%s_%s", s->name, top ? "max" : "min", s->unit);
        begin(p, "latency", name, p->sorted[top ? p->n - 1 : 0], NAN, p->n, s->higher);
        qp_w_str(w, "of", qlat_of(s));
        finish(p);
    }
}

/* Which percentiles are absent, and why. */
static void write_hidden(struct page *p)
{
    struct qp_writer *w = p->a->run->out;
    qp_w_map_begin(w, "hidden");
    for (const struct qlat_series *s = qlat_series; s < qlat_series + QLAT_SERIES; s++) {
        const struct qlat_point *points;
        if (!qlat_has(s, p->shape))
            continue;
        take_series(p, s);
        for (size_t i = 0, n = qlat_points(s, &points); i < n; i++) {
            struct qp_quantile q = quantile(p, s, points[i].q);
            char name[64], why[96];
            if (q.shown)
                continue;
            snprintf(name, sizeof name, "%s_%s_%s", s->name, points[i].name, s->unit);
            if (q.n < q.needs)
                snprintf(why, sizeof why, "takes %zu %s, there are %zu", q.needs, qlat_of(s), q.n);
            else
                snprintf(why, sizeof why, "runs differ too much for %zu of them", p->o->n_runs);
            qp_w_str(w, name, why);
        }
    }
    qp_w_map_end(w);
}

/* ---- memory ---- */

static void write_bytes(const struct page *p, const char *name, size_t bytes)
{
    if (!bytes)
        return;
    begin(p, "latency", name, (double)bytes, NAN, 0, false);
    finish(p);
}

static void write_memory(const struct page *p)
{
    struct qp_writer *w = p->a->run->out;
    const struct qp_sweep_facts *f = &p->o->facts;
    write_bytes(p, "weights_bytes", f->weights);
    begin(p, "latency", "kv_bytes", (double)(f->cache.allocated ? f->cache.allocated : f->cache.computed), NAN, 0, false);
    qp_w_i64(w, "computed", (int64_t)f->cache.computed);
    qp_w_i64(w, "allocated", (int64_t)f->cache.allocated);
    qp_w_i64(w, "resident", (int64_t)f->cache.resident);
    finish(p);
    write_bytes(p, "scratch_bytes", f->scratch);
    if (f->peak) {
        begin(p, "latency", "peak_rss_bytes", (double)f->peak, NAN, 0, false);
        qp_w_str(w, "of", f->peak_is_runs ? "runs" : "process");
        qp_w_i64(w, "load_peak", (int64_t)f->load_peak);
        qp_w_i64(w, "anonymous", (int64_t)f->anonymous);
        qp_w_i64(w, "file", (int64_t)f->file);
        finish(p);
    }
    if (f->has_device) {
        write_bytes(p, "device_allocated_bytes", f->device.allocated);
        write_bytes(p, "device_reserved_bytes", f->device.reserved);
        write_bytes(p, "device_peak_bytes", f->device.peak);
        write_bytes(p, "device_process_bytes", f->device.process);
    }
}

/* ---- how it went ---- */

static void write_machine(const struct page *p, const struct qp_sweep_setting *t)
{
    struct qp_writer *w = p->a->run->out;
    char flags[QP_SWEEP_FLAGS][96];
    const char *list[QP_SWEEP_FLAGS];
    size_t n = qp_sweep_flags(t, flags);
    for (size_t i = 0; i < n; i++)
        list[i] = flags[i];
    qp_w_map_begin(w, "machine");
    qp_w_str(w, "cpu", p->a->cpu);
    if (p->a->governor[0])
        qp_w_str(w, "governor", p->a->governor);
    qp_w_f64s(w, "load", (double[]){t->before.load1, t->after.load1}, 2);
    qp_w_f64(w, "steal", t->steal);
    qp_w_f64(w, "others", t->others);
    qp_w_f64s(w, "clock", (double[]){t->clock_first, t->clock_last, t->clock_min, t->clock_max}, 4);
    if (p->a->measure_limits) {
        qp_w_f64(w, "read_gb_s", p->a->limits[QP_LIMIT_READ]);
        qp_w_f64(w, "matrix_f32_gflop_s", qp_machine_limits_of(p->a->limits, QP_COMPUTE_F32).gflops);
        qp_w_f64(w, "matrix_bf16_gflop_s", qp_machine_limits_of(p->a->limits, QP_COMPUTE_BF16).gflops);
        qp_w_f64(w, "matrix_int8_gflop_s", qp_machine_limits_of(p->a->limits, QP_COMPUTE_INT8).gflops);
    }
    qp_w_strs(w, "flags", list, n);
    qp_w_map_end(w);
}

static void write_status(struct page *p, const struct qp_sweep_setting *t)
{
    struct qp_writer *w = p->a->run->out;
    begin(p, "latency", "status", p->o->status == QP_SWEEP_OK, NAN, p->o->n_runs, true);
    qp_w_str(w, "status", qp_sweep_status_name(p->o->status));
    if (p->o->reason[0])
        qp_w_str(w, "reason", p->o->reason);
    qp_w_bool(w, "doubtful", qp_sweep_flags(t, (char[QP_SWEEP_FLAGS][96]){{0}}) > 0);
    if (p->n)
        write_hidden(p);
    write_machine(p, t);
    finish(p);
}

/* ---- against the baseline ---- */

static void write_ratios(struct page *p, const struct qp_sweep_outcome *base)
{
    struct qp_writer *w = p->a->run->out;
    size_t n = p->o->n_runs < base->n_runs ? p->o->n_runs : base->n_runs;
    for (const struct qlat_series *s = qlat_series; s < qlat_series + QLAT_SERIES; s++) {
        if (!qlat_has(s, p->shape) || s->seq) /* of a sequence: the same ratio */
            continue;
        qlat_values(s, p->o, p->shape, p->values);
        qlat_values(s, base, p->shape, p->sorted);
        struct qp_quantile q = qp_paired_ratio(p->values, p->sorted, n, QLAT_CONFIDENCE, p->scratch);
        if (!q.shown)
            continue;
        begin(p, "latency_ratio", s->name, q.value, error_of(&q), n, s->higher);
        qp_w_str(w, "baseline", p->a->list[0].id);
        write_interval(w, &q);
        finish(p);
    }
}

static int report_model(struct page *p, const struct qp_sweep_outcome *base, const struct qp_sweep_setting *t)
{
    struct qp_err *err = &p->a->run->err;
    bool measured = (p->o->status == QP_SWEEP_OK || p->o->status == QP_SWEEP_INTERRUPTED) && p->o->n_runs;
    size_t room = p->o->n_runs * (size_t)(p->o->n_steps > 2 ? p->o->n_steps : 2) + 1;
    p->values = qp_alloc_n(room, sizeof *p->values, "figures", err);
    p->sorted = qp_alloc_n(room, sizeof *p->sorted, "figures", err);
    p->scratch = qp_alloc_n(room, sizeof *p->scratch, "figures", err);
    int r = p->values && p->sorted && p->scratch ? 0 : QP_E_RESOURCE;
    p->n = 0;
    for (const struct qlat_series *s = qlat_series; !r && measured && s < qlat_series + QLAT_SERIES; s++)
        if (qlat_has(s, p->shape))
            write_series(p, s);
    if (!r && measured) {
        write_memory(p);
        if (p->model && base->n_runs && !p->a->one_by_one)
            write_ratios(p, base);
    }
    if (!r)
        write_status(p, t);
    qp_free(p->values);
    qp_free(p->sorted);
    qp_free(p->scratch);
    return r;
}

int qlat_report(struct qlat *a, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *out, const struct qp_sweep_setting *setting)
{
    for (size_t i = 0; i < a->n_models; i++) {
        struct page p = {.a = a, .shape = shape, .o = &out[i], .model = i};
        if (report_model(&p, &out[0], setting))
            return a->run->err.code;
    }
    return qp_writer_flush(a->run->out, &a->run->err);
}
