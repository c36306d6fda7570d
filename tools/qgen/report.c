/* Item records, results, lines for people. No record holds a time. */
#include <stdio.h>

#include "eval/item_report.h"
#include "qgen.h"

static void write_protocol(struct qp_writer *w, void *ctx, const char *task)
{
    static const char *const names[] = {"contains", "exact", "regex", "number"};
    const struct qgen *a = ctx;
    (void)task;
    qp_w_map_begin(w, "protocol");
    qp_w_str(w, "template", a->template);
    if (a->text.data)
        qp_w_str(w, "prompt", a->text.data);
    if (a->system)
        qp_w_str(w, "system", a->system);
    qp_w_str(w, "match", names[a->match]);
    qp_w_bool(w, "ignore_case", a->ignore_case);
    if (a->match == QP_MATCH_CONTAINS)
        qp_w_bool(w, "whole_words", a->whole_words);
    if (a->extract)
        qp_w_str(w, "extract", a->extract);
    if (a->match == QP_MATCH_NUMBER) {
        qp_w_str(w, "number", a->number ? "first" : "last");
        qp_w_f64(w, "tolerance", a->tolerance);
    }
    qp_w_i64(w, "max_new_tokens", a->max_new);
    qp_w_strs(w, "stop", (const char *const *)a->stop_texts, (size_t)a->stops.n);
    qp_w_i64(w, "examples", (int64_t)a->n);
    qp_w_i64(w, "cut", (int64_t)a->n_cut);
    qp_w_str(w, "compute", qp_compute_name(a->compute_used));
    qp_w_str(w, "kv", qp_kv_name(a->kv_used));
    if (a->shards > 1) {
        qp_w_i64(w, "shard", a->shard);
        qp_w_i64(w, "shards", a->shards);
    }
    qp_w_map_end(w);
}

static int report_results(struct qgen *a, struct qp_tool_run *run, struct qp_buf *lines)
{
    struct qp_item_model models[QGEN_MAX_MODELS];
    struct qp_item_task task = {.name = a->name};
    size_t n = qp_model_set_count(a->models);
    for (size_t m = 0; m < n; m++) {
        const struct qp_model_entry *e = qp_model_set_at(a->models, m);
        models[m] = (struct qp_item_model){.id = e->id, .base = e->base};
    }
    const struct qp_item_report r = {.items = &a->items, .models = models, .n_models = n, .tasks = &task, .n_tasks = 1, .seed = 42, .protocol = write_protocol, .ctx = a};
    return qp_items_report(run->out, &r, "qgen: ", lines, &run->err);
}

int qgen_report(struct qgen *a, struct qp_tool_run *run)
{
    struct qp_buf lines = QP_BUF_INIT;
    int r = 0;
    for (size_t i = 0; i < a->items.n; i++)
        qp_item_write(run->out, &a->items.v[i]);
    if (a->complete) /* else the models may have answered different examples */
        r = report_results(a, run, &lines);
    if (!run->quiet && lines.data)
        fputs(lines.data, stderr);
    if (!run->quiet && a->n_cut)
        fprintf(stderr, "qgen: %zu of %zu prompts were longer than the context of %lld tokens less %lld to answer; their beginnings were cut off\n", a->n_cut, a->n,
                (long long)a->longest, (long long)a->max_new);
    if (!run->quiet)
        fprintf(stderr, "qgen: %lld tokens written in %.1f s, %.0f tokens/s; %lld of prompts computed, %lld shared\n", (long long)a->new_tokens, a->seconds,
                (double)a->new_tokens / a->seconds, (long long)a->fed, (long long)a->reused);
    qp_buf_release(&lines);
    return r;
}
