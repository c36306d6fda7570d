/* The sweep: shape after shape, all models of the stream on each. */
#include <stdio.h>
#include <string.h>

#include "qlat.h"

/* In the child. */
static void keep(void *ctx, size_t model)
{
    qp_model_set_keep(((struct qlat *)ctx)->models, model);
}

static void tick(void *ctx, size_t model, int64_t round, bool counts)
{
    struct qlat *a = ctx;
    (void)round;
    char what[QLAT_TAG + 128];
    snprintf(what, sizeof what, "%.100s%s", a->list[model].id, counts ? "" : " (warm-up)");
    qp_progress_update(a->run->progress, ++a->steps_done, what);
}

/* Threads must have ended before children are forked. */
static int measure_limits(struct qlat *a)
{
    struct qp_pool *pool;
    if (qp_pool_new(&pool, (int)a->run->threads, &a->run->err))
        return a->run->err.code;
    qp_limits_measure(a->limits, pool, CLOCK_MONOTONIC);
    qp_pool_free(pool);
    return 0;
}

/* What went wrong first is the tool's exit status in the end; everything goes into the records. */
static void note_failure(struct qlat *a, size_t model, const struct qp_sweep_outcome *o)
{
    if (o->code)
        qp_err_set(&a->run->unfinished, o->code, "model '%s', %s: %s", a->list[model].id, a->tag, o->reason);
}

/* A greater batch of what memory did not suffice for is not tried. */
static void skip_hopeless(const struct qp_latency_shape *no_memory, struct qp_sweep_outcome *out, size_t n, const struct qp_latency_shape *s)
{
    for (size_t i = 0; i < n; i++) {
        const struct qp_latency_shape *f = &no_memory[i];
        if (!f->batch || f->kv != s->kv || s->batch < f->batch || s->capacity < f->capacity)
            continue;
        out[i].status = QP_SWEEP_SKIPPED;
        snprintf(out[i].reason, sizeof out[i].reason, "memory did not suffice for a batch of %lld with caches of %lld tokens", (long long)f->batch, (long long)f->capacity);
    }
}

static int step(struct qlat *a, const struct qp_latency_shape *shape, struct qp_latency_shape *no_memory)
{
    struct qp_tool_run *run = a->run;
    struct qp_sweep_outcome out[QLAT_MAX_MODELS] = {0};
    struct qp_sweep_setting setting;
    struct qp_sweep_options o = {
        .warmup = a->warmup, .runs = a->runs, .seconds = a->seconds, .seed = (uint64_t)a->seed, .prompts = {a->texts, a->n_prompts, a->prompt_path}, .backend = run->backend, .threads = (int)run->threads,
        .compute = a->compute, .pin = a->pin, .in_turns = !a->one_by_one,
        .memory_limit = (size_t)(a->memory_limit_mb * 1e6), .keep = keep, .tick = tick, .stop = qp_tool_interrupted, .ctx = a};
    skip_hopeless(no_memory, out, a->n_models, shape);
    a->steps_done = 0;
    qp_progress_begin(run->progress, a->tag, "requests", (a->warmup + a->runs) * (int64_t)a->n_models);
    int r = a->measure_limits ? measure_limits(a) : 0;
    r = r ? r : qp_sweep_run(out, &setting, a->list, a->n_models, shape, &o, &run->err);
    qp_progress_end(run->progress);
    for (size_t i = 0; !r && i < a->n_models; i++) {
        note_failure(a, i, &out[i]);
        if (out[i].status == QP_SWEEP_NO_MEMORY)
            no_memory[i] = *shape;
    }
    if (!r && !run->quiet)
        qlat_print(a, shape, out, &setting);
    r = r ? r : qlat_report(a, shape, out, &setting);
    for (size_t i = 0; !r && a->llama_path && i < a->n_models; i++)
        r = qlat_llama_add(a, i, shape, &out[i]);
    qp_sweep_release(out, a->n_models);
    return r;
}

int qlat_measure(struct qlat *a)
{
    struct qp_latency_shape shape, no_memory[QLAT_MAX_MODELS] = {0};
    qp_cpu_name(a->cpu, sizeof a->cpu);
    qp_cpu_governor(a->governor, sizeof a->governor);
    int r = 0;
    if (!a->run->quiet)
        qlat_print_machine(a);
    for (int i = 0; !r && !qp_tool_interrupted() && qlat_shape(a, i, &shape); i++)
        r = step(a, &shape, no_memory);
    return r;
}
