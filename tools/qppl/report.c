/* Result records: each carries the protocol that makes its value comparable. Nothing in them depends on time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qppl.h"

#define CONFIDENCE 0.95

static void write_protocol(const struct qppl *a, struct qp_writer *w)
{
    qp_w_map_begin(w, "protocol");
    qp_w_i64(w, "window", a->window);
    qp_w_i64(w, "stride", a->stride);
    qp_w_str(w, "weighting", a->compat == COMPAT_WINDOWS ? "window-mean" : "token");
    qp_w_bool(w, "bos", a->bos_added);
    qp_w_str(w, "joined", a->joined ? "two newlines" : "as is");
    qp_w_i64(w, "tokens", (int64_t)a->ids.n);
    qp_w_i64(w, "scored", (int64_t)a->result.n);
    qp_w_i64(w, "windows", a->result.n_windows);
    qp_w_str(w, "compute", qp_compute_name(a->compute_used));
    qp_w_str(w, "kv", qp_kv_name(qp_engine_kv(a->engines[0])));
    if (a->shards > 1) {
        qp_w_i64(w, "shard", a->shard);
        qp_w_i64(w, "shards", a->shards);
    }
    qp_w_map_end(w);
}

static void begin(const struct qppl *a, struct qp_writer *w, size_t m, const char *metric, double value, double se, bool higher)
{
    char full[192];
    snprintf(full, sizeof full, "%s/%s", metric, a->name);
    qp_w_begin(w, "result");
    qp_w_str(w, "model", qp_model_set_at(a->models, m)->id);
    qp_w_str(w, "metric", full);
    qp_w_f64(w, "value", value);
    qp_w_f64(w, "stderr", se);
    qp_w_i64(w, "n", (int64_t)a->result.n);
    qp_w_bool(w, "higher_is_better", higher);
    qp_w_map_begin(w, "detail");
}

static void finish(struct qp_writer *w)
{
    qp_w_map_end(w);
    qp_w_end(w);
}

/* Which scored tokens lie in a run of 13 that calibration has seen; returns how many. */
static int64_t mark_seen(const struct qppl *a, bool *seen)
{
    const struct qp_ppl_result *r = &a->result;
    bool *token = calloc(a->ids.n, sizeof *token);
    int64_t count = 0;
    for (size_t i = 0; token && i + QP_NGRAM <= a->ids.n; i++)
        if (qp_ngrams_has(&a->calibration, qp_ngram_hash(a->ids.v + i)))
            memset(token + i, true, QP_NGRAM);
    for (size_t i = 0; token && i < r->n; i++) {
        seen[i] = token[r->position[i]];
        count += seen[i];
    }
    free(token);
    return count;
}

/* The perplexity without the tokens that calibration has seen. */
static void write_overlap(const struct qppl *a, struct qp_writer *w, size_t m, const bool *seen, int64_t count)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < a->result.n; i++)
        if (!seen[i]) {
            sum += a->result.nll[m][i];
            n++;
        }
    qp_w_map_begin(w, "overlap");
    qp_w_i64(w, "tokens", count);
    if (n)
        qp_w_f64(w, "ppl_without", exp(sum / (double)n));
    qp_w_map_end(w);
}

static void report_ppl(struct qppl *a, struct qp_tool_run *run, size_t m, const bool *seen, int64_t n_seen)
{
    struct qp_writer *w = run->out;
    struct qp_mean ppl = qp_ppl_of(&a->result, m);
    double windows = qp_ppl_window_mean(&a->result, m);
    begin(a, w, m, "ppl", a->compat == COMPAT_WINDOWS ? windows : ppl.mean, ppl.stderr_, false);
    qp_w_f64(w, "nll_sum", qp_sum(a->result.nll[m], a->result.n));
    qp_w_f64(w, "nll", log(ppl.mean));
    qp_w_f64(w, "token_weighted", ppl.mean);
    qp_w_f64(w, "window_mean", windows);
    write_protocol(a, w);
    if (a->calibration.n)
        write_overlap(a, w, m, seen, n_seen);
    finish(w);
}

static void report_difference(struct qppl *a, struct qp_tool_run *run, size_t m)
{
    struct qp_writer *w = run->out;
    struct qp_mean d = qp_ppl_paired(&a->result, m);
    double lo, hi;
    qp_normal_interval(d.mean, d.stderr_, CONFIDENCE, &lo, &hi);
    begin(a, w, m, "dlogppl", d.mean, d.stderr_, false);
    qp_w_str(w, "baseline", qp_model_set_at(a->models, 0)->id);
    qp_w_f64(w, "confidence", CONFIDENCE);
    qp_w_f64s(w, "interval", (double[]){lo, hi}, 2);
    qp_w_f64(w, "increase_pct", 100 * expm1(d.mean));
    qp_w_f64s(w, "increase_pct_interval", (double[]){100 * expm1(lo), 100 * expm1(hi)}, 2);
    qp_w_bool(w, "significant", d.mean != 0 && fabs(d.mean) >= 2 * d.stderr_);
    write_protocol(a, w);
    finish(w);
}

static void report_kld(struct qppl *a, struct qp_tool_run *run, size_t m)
{
    struct qp_writer *w = run->out;
    size_t n = a->result.n;
    struct qp_mean kl = qp_mean_of(a->result.kl[m], n), same = qp_mean_of(a->result.agree[m], n);
    qp_sort(a->result.kl[m], n);
    begin(a, w, m, "kld", kl.mean, kl.stderr_, false);
    qp_w_str(w, "baseline", qp_model_set_at(a->models, 0)->id);
    qp_w_str(w, "unit", "nats");
    qp_w_f64(w, "median", qp_quantile_sorted(a->result.kl[m], n, 0.5));
    qp_w_f64(w, "p99", qp_quantile_sorted(a->result.kl[m], n, 0.99));
    qp_w_f64(w, "max", a->result.kl[m][n - 1]);
    write_protocol(a, w);
    finish(w);
    begin(a, w, m, "top1", same.mean, same.stderr_, true);
    qp_w_str(w, "baseline", qp_model_set_at(a->models, 0)->id);
    write_protocol(a, w);
    finish(w);
}

static void print_model(const struct qppl *a, size_t m)
{
    struct qp_mean ppl = qp_ppl_of(&a->result, m);
    double value = a->compat == COMPAT_WINDOWS ? qp_ppl_window_mean(&a->result, m) : ppl.mean;
    fprintf(stderr, "qppl: %s  ppl/%s %.4f +- %.4f", qp_model_set_at(a->models, m)->id, a->name, value, ppl.stderr_);
    if (m) {
        struct qp_mean d = qp_ppl_paired(&a->result, m), kl = qp_mean_of(a->result.kl[m], a->result.n), same = qp_mean_of(a->result.agree[m], a->result.n);
        fprintf(stderr, "  %+.2f %% +- %.2f  KL %.4f  top-1 %.2f %%", 100 * expm1(d.mean), 100 * exp(d.mean) * d.stderr_, kl.mean, 100 * same.mean);
    }
    fputc('\n', stderr);
}

void qppl_report(struct qppl *a, struct qp_tool_run *run)
{
    bool *seen = calloc(a->result.n, sizeof *seen);
    qp_ngrams_sort(&a->calibration);
    int64_t n_seen = seen && a->calibration.n ? mark_seen(a, seen) : 0;
    for (size_t m = 0; m < a->n_models && seen; m++) {
        if (!run->quiet)
            print_model(a, m);
        report_ppl(a, run, m, seen, n_seen);
        if (m) {
            report_difference(a, run, m);
            report_kld(a, run, m);
        }
    }
    if (!seen)
        qp_err_set(&run->err, QP_E_RESOURCE, "no memory to mark %zu tokens", a->result.n);
    if (!run->quiet) {
        double fed = (double)a->result.tokens_fed * (double)a->n_models;
        fprintf(stderr, "qppl: %.0f tokens fed in %.1f s, %.0f tokens/s\n", fed, a->seconds, fed / a->seconds);
    }
    free(seen);
}
