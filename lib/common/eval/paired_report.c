#include "eval/paired_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WORST_SHOWN 5

/* ---- records ---- */

static void begin(struct qp_writer *w, const char *model, const char *metric, double value, double se, size_t n)
{
    qp_w_begin(w, "result");
    qp_w_str(w, "model", model);
    qp_w_str(w, "metric", metric);
    qp_w_f64(w, "value", value);
    qp_w_f64(w, "stderr", se);
    qp_w_i64(w, "n", (int64_t)n);
    qp_w_bool(w, "higher_is_better", true);
    qp_w_map_begin(w, "detail");
}

static void finish(struct qp_writer *w)
{
    qp_w_map_end(w);
    qp_w_end(w);
}

static void interval(struct qp_writer *w, const struct qp_estimate *e)
{
    qp_w_f64s(w, "interval", (double[]){e->lo, e->hi}, 2);
}

static void resampling(struct qp_writer *w, const struct qp_paired_part *p, const struct qp_paired_options *o)
{
    qp_w_map_begin(w, "bootstrap");
    qp_w_str(w, "units", p->n_clusters ? "groups" : "items");
    qp_w_i64(w, "n_units", (int64_t)(p->n_clusters ? p->n_clusters : p->n));
    qp_w_i64(w, "resamples", (int64_t)o->resamples);
    qp_w_u64(w, "seed", o->seed);
    qp_w_map_end(w);
}

static void scores_and_flips(struct qp_writer *w, const struct qp_paired_part *p)
{
    qp_w_f64(w, "baseline_value", p->base);
    qp_w_f64(w, "value", p->quant);
    qp_w_bool(w, "significant", p->significant);
    if (!p->binary)
        return;
    qp_w_i64(w, "both", (int64_t)p->both);
    qp_w_i64(w, "neither", (int64_t)p->neither);
    qp_w_i64(w, "lost", (int64_t)p->lost);
    qp_w_i64(w, "gained", (int64_t)p->gained);
    qp_w_f64(w, "p_mcnemar", p->p);
    if (!isnan(p->p_holm))
        qp_w_f64(w, "p_holm", p->p_holm);
}

static void groups(struct qp_writer *w, const struct qp_paired_task *t)
{
    if (!t->n_groups)
        return;
    qp_w_array_begin(w, "groups");
    for (size_t g = 0; g < t->n_groups; g++) {
        const struct qp_paired_group *x = &t->groups[g];
        qp_w_map_begin(w, NULL);
        qp_w_str(w, "group", x->name);
        qp_w_i64(w, "n", (int64_t)x->n);
        qp_w_f64(w, "baseline_value", x->base);
        qp_w_f64(w, "value", x->quant);
        qp_w_f64(w, "diff", x->diff);
        qp_w_f64(w, "stderr", x->stderr_);
        qp_w_i64(w, "lost", (int64_t)x->lost);
        qp_w_i64(w, "gained", (int64_t)x->gained);
        qp_w_bool(w, "significant", x->significant);
        if (!isnan(x->p)) {
            qp_w_f64(w, "p_mcnemar", x->p);
            qp_w_f64(w, "p_holm", x->p_holm);
        }
        qp_w_map_end(w);
    }
    qp_w_array_end(w);
}

static void write_difference(struct qp_writer *w, const struct qp_paired *p, const struct qp_paired_task *t, const char *model, const char *baseline)
{
    char metric[256];
    snprintf(metric, sizeof metric, "d%s/%s", t->items->metric, t->items->task);
    begin(w, model, metric, t->all.diff.value, t->all.diff.stderr_, t->all.n);
    qp_w_str(w, "baseline", baseline);
    qp_w_f64(w, "confidence", p->options.confidence);
    interval(w, &t->all.diff);
    resampling(w, &t->all, &p->options);
    scores_and_flips(w, &t->all);
    if (t->marked) {
        qp_w_map_begin(w, "without_overlap");
        qp_w_i64(w, "n", (int64_t)t->clean.n);
        if (t->clean.n) {
            qp_w_f64(w, "diff", t->clean.diff.value);
            qp_w_f64(w, "stderr", t->clean.diff.stderr_);
            interval(w, &t->clean.diff);
            scores_and_flips(w, &t->clean);
        }
        qp_w_map_end(w);
    }
    groups(w, t);
}

static void write_retained(struct qp_writer *w, const struct qp_paired *p, const struct qp_paired_task *t, const char *model, const char *baseline)
{
    char metric[256];
    const char *kind = t->items->metric; /* "acc_norm": its "_norm" tells it from the accuracy's */
    snprintf(metric, sizeof metric, "retained%s/%s", strncmp(kind, "acc", 3) ? "" : kind + 3, t->items->task);
    begin(w, model, metric, t->all.retained.value, t->all.retained.stderr_, t->all.n);
    qp_w_str(w, "baseline", baseline);
    qp_w_str(w, "unit", "percent");
    qp_w_str(w, "of", kind);
    qp_w_f64(w, "confidence", p->options.confidence);
    interval(w, &t->all.retained);
    resampling(w, &t->all, &p->options);
    if (!t->marked || !t->clean.n)
        return;
    qp_w_map_begin(w, "without_overlap");
    qp_w_i64(w, "n", (int64_t)t->clean.n);
    qp_w_f64(w, "value", t->clean.retained.value);
    qp_w_f64(w, "stderr", t->clean.retained.stderr_);
    interval(w, &t->clean.retained);
    qp_w_map_end(w);
}

static void write_quality(struct qp_writer *w, const struct qp_paired *p, const struct qp_quality *q, const char *metric, const char *model, const char *baseline)
{
    if (!q->n_tasks)
        return;
    begin(w, model, metric, q->score.value, q->score.stderr_, q->n_tasks);
    qp_w_str(w, "baseline", baseline);
    qp_w_f64(w, "confidence", p->options.confidence);
    interval(w, &q->score);
    qp_w_i64(w, "tasks", (int64_t)q->n_tasks);
    qp_w_i64(w, "left_out", (int64_t)q->n_left_out);
    finish(w);
}

void qp_paired_write(struct qp_writer *w, const struct qp_paired *p, const char *model, const char *baseline,
                     void (*protocol)(struct qp_writer *w, void *ctx, const struct qp_paired_items *items), void *ctx)
{
    for (size_t k = 0; k < p->n_tasks; k++) {
        const struct qp_paired_task *t = &p->tasks[k];
        write_difference(w, p, t, model, baseline);
        if (protocol)
            protocol(w, ctx, t->items);
        finish(w);
        write_retained(w, p, t, model, baseline);
        if (protocol)
            protocol(w, ctx, t->items);
        finish(w);
    }
    write_quality(w, p, &p->all, "quality/all", model, baseline);
    if (p->marked)
        write_quality(w, p, &p->clean, "quality/without_overlap", model, baseline);
}

/* ---- lines ---- */

static void print_part(const struct qp_paired_part *p, double confidence, struct qp_buf *out)
{
    qp_buf_addf(out, "%.1f %% to %.1f %%: %+.1f points +- %.1f (%.0f %%: %+.1f to %+.1f)%s", 100 * p->base, 100 * p->quant, 100 * p->diff.value,
                100 * p->diff.stderr_, 100 * confidence, 100 * p->diff.lo, 100 * p->diff.hi, p->significant ? "" : ", not significant");
    if (p->binary) {
        qp_buf_addf(out, ", lost %zu, gained %zu, p %.3g", p->lost, p->gained, p->p);
        if (!isnan(p->p_holm))
            qp_buf_addf(out, " (Holm %.3g)", p->p_holm);
    }
    if (!isnan(p->retained.value))
        qp_buf_addf(out, "; retained %.1f %% (%.1f to %.1f)", p->retained.value, p->retained.lo, p->retained.hi);
}

static void print_worst(const struct qp_paired_task *t, const char *prefix, struct qp_buf *out)
{
    for (size_t g = 0; g < t->n_groups && g < WORST_SHOWN && t->groups[g].diff < 0; g++) {
        const struct qp_paired_group *x = &t->groups[g];
        qp_buf_addf(out, "%s  %+.1f points  ", prefix, 100 * x->diff);
        qp_buf_add_clean(out, x->name);
        qp_buf_addf(out, ", %zu items, lost %zu, gained %zu%s\n", x->n, x->lost, x->gained, x->significant ? "" : ", not significant");
    }
}

void qp_paired_print(const struct qp_paired *p, const char *prefix, struct qp_buf *out)
{
    for (size_t k = 0; k < p->n_tasks; k++) {
        const struct qp_paired_task *t = &p->tasks[k];
        qp_buf_addf(out, "%s%s %s ", prefix, t->items->task, t->items->metric);
        print_part(&t->all, p->options.confidence, out);
        qp_buf_adds(out, "\n");
        if (t->marked && t->clean.n < t->all.n) {
            qp_buf_addf(out, "%s  without %zu items that calibration has seen: ", prefix, t->all.n - t->clean.n);
            if (t->clean.n)
                print_part(&t->clean, p->options.confidence, out);
            else
                qp_buf_adds(out, "none is left");
            qp_buf_adds(out, "\n");
        }
        print_worst(t, prefix, out);
    }
    if (p->n_tasks > 1 && p->all.n_tasks)
        qp_buf_addf(out, "%squality %.4f +- %.4f (%.4f to %.4f), mean share of the baseline's score over %zu task%s\n", prefix, p->all.score.value,
                    p->all.score.stderr_, p->all.score.lo, p->all.score.hi, p->all.n_tasks, p->all.n_tasks == 1 ? "" : "s");
}
