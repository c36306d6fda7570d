/* Result records, and a few lines for people on standard error. */
#include <stdio.h>
#include <string.h>

#include "qmc.h"

static const struct qmc_task *task_named(const struct qmc *a, const char *name)
{
    size_t i = 0;
    while (strcmp(qp_mc_task_spec(a->task[i].t)->name, name))
        i++;
    return &a->task[i];
}

static void write_protocol(struct qp_writer *w, void *ctx, const char *name)
{
    const struct qmc *a = ctx;
    const struct qmc_task *t = task_named(a, name);
    const struct qp_mc_spec *s = qp_mc_task_spec(t->t);
    if (a->options.shards > 1) {
        qp_w_i64(w, "shard", a->options.shard);
        qp_w_i64(w, "shards", a->options.shards);
    }
    qp_w_map_begin(w, "protocol");
    qp_w_i64(w, "num_fewshot", s->n_shots);
    qp_w_str(w, "sampler", s->first_n ? "first_n" : "default");
    qp_w_i64(w, "seed", a->seed);
    qp_w_i64(w, "questions", qp_mc_task_total(t->t, SIZE_MAX));
    if (a->limit_text)
        qp_w_str(w, "limit", a->limit_text);
    qp_w_i64(w, "max_length", a->max_length);
    qp_w_str(w, "compute", qp_compute_name(a->compute_used));
    qp_w_str(w, "kv", qp_kv_name(a->kv_used));
    qp_w_map_end(w);
}

struct qp_item_task qmc_item_task(const struct qmc_task *t)
{
    const struct qp_mc_spec *s = qp_mc_task_spec(t->t);
    return (struct qp_item_task){.name = s->name, .pooled = s->subtasks, .section = s->subtasks && !s->only ? s->section : NULL};
}

static void print_speed(const struct qmc *a)
{
    size_t cut = 0, seen = 0;
    for (size_t i = 0; i < a->items.n; i++) {
        cut += a->items.v[i].cut > 0;
        seen += a->items.v[i].overlap > 0;
    }
    if (cut)
        fprintf(stderr, "qmc: %zu items are longer than the model's %lld tokens and lost their beginning\n", cut, (long long)a->max_length);
    if (seen)
        fprintf(stderr, "qmc: %zu items share 13 tokens in a row with the calibration text\n", seen);
    if (a->reused)
        fprintf(stderr, "qmc: %zu items taken from runs before\n", a->reused);
    if (a->fresh)
        fprintf(stderr, "qmc: %zu items in %.1f s; %lld tokens fed in place of %lld, %.0f tokens/s\n", a->fresh, a->seconds, (long long)a->fed, (long long)a->asked,
                (double)a->fed / a->seconds);
}

int qmc_report(struct qmc *a, struct qp_tool_run *run)
{
    struct qp_item_model models[QMC_MAX_MODELS];
    struct qp_item_task tasks[QMC_MAX_TASKS];
    struct qp_buf lines = QP_BUF_INIT;
    for (size_t i = 0; i < a->n_models; i++)
        models[i] = (struct qp_item_model){a->m[i].entry->id, a->m[i].base};
    for (size_t i = 0; i < a->n_tasks; i++)
        tasks[i] = qmc_item_task(&a->task[i]);
    const struct qp_item_report r = {.items = &a->items, .models = models, .n_models = a->n_models, .tasks = tasks, .n_tasks = a->n_tasks, .seed = 42,
                                     .protocol = write_protocol, .ctx = a};
    int status = qp_items_sort(&a->items, &run->err);
    status = status ? status : qp_items_report(run->out, &r, "qmc: ", &lines, &run->err);
    if (!status && !run->quiet) {
        if (lines.data)
            fputs(lines.data, stderr);
        print_speed(a);
    }
    qp_buf_release(&lines);
    return status;
}
