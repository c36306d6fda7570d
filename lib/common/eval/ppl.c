#include "eval/ppl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SLICE_ROWS 96 /* rows of logits at a time: they stay in the last-level cache between the product and the sums */
#define ERROR_BLOCK 512

struct window {
    int64_t begin, end; /* tokens [begin, end) */
    int64_t first;      /* the first scored token: after those of earlier windows, and after begin, which nothing predicts */
};

struct run {
    struct qp_ppl_result *r;
    struct qp_engine *const *engines;
    struct qp_seq **seqs;
    const int32_t *ids;
    float **hidden, **logits; /* [n_models] */
    double *lse[2];
    int32_t *top[2];
    int64_t slice;
};

/* The windows of a shard; returns how many, w may be NULL. */
static int64_t plan(struct window *w, int64_t n, const struct qp_ppl_options *o)
{
    int64_t count = 0, index = 0, prev = 0, shards = o->shards > 1 ? o->shards : 1;
    for (int64_t begin = 0;; begin += o->stride, index++) {
        int64_t end = begin + o->window < n ? begin + o->window : n;
        int64_t first = prev > begin ? prev : begin + 1;
        if (index % shards == (shards > 1 ? o->shard : 0) && end > first) {
            if (w)
                w[count] = (struct window){begin, end, first};
            count++;
        }
        prev = end;
        if (end == n)
            return count;
    }
}

static int score_slice(struct run *u, int64_t row0, int64_t rows, int64_t first, size_t at, struct qp_err *err)
{
    struct qp_ppl_result *r = u->r;
    int64_t V = qp_engine_config(u->engines[0])->vocab_size, D = qp_engine_config(u->engines[0])->d_model;
    for (size_t m = 0; m < r->n_models; m++) {
        const struct qp_ops *ops = qp_engine_ops(u->engines[m]);
        struct qp_exec *ex = qp_engine_exec(u->engines[m]);
        int which = m > 0;
        D = qp_engine_config(u->engines[m])->d_model;
        if (qp_engine_logits(u->engines[m], u->hidden[m] + row0 * D, rows, u->logits[which], err))
            return err->code;
        ops->log_sum_exp(ex, u->lse[which], r->n_models > 1 ? u->top[which] : NULL, u->logits[which], V, rows, V);
        for (int64_t i = 0; i < rows; i++) {
            double loss = u->lse[which][i] - (double)u->logits[which][i * V + u->ids[first + row0 + i]];
            if (!isfinite(loss))
                return qp_err_set(err, QP_E_INPUT, "the loss of token %lld is not finite: the model's outputs are broken", (long long)(first + row0 + i));
            r->nll[m][at + (size_t)i] = loss;
        }
        if (!m)
            continue;
        ops->kl_div(ex, r->kl[m] + at, u->logits[0], V, u->lse[0], u->logits[1], V, u->lse[1], rows, V);
        for (int64_t i = 0; i < rows; i++)
            r->agree[m][at + (size_t)i] = u->top[0][i] == u->top[1][i];
    }
    return 0;
}

static int score_window(struct run *u, const struct window *w, struct qp_err *err)
{
    struct qp_ppl_result *r = u->r;
    int64_t fed = w->end - 1 - w->begin, scored = w->end - w->first; /* the last token is only predicted */
    for (size_t m = 0; m < r->n_models; m++) {
        struct qp_segment seg = {.seq = u->seqs[m], .ids = u->ids + w->begin, .n = fed, .want_from = fed - scored};
        qp_seq_truncate(u->seqs[m], 0);
        if (qp_engine_forward(u->engines[m], &seg, 1, u->hidden[m], err))
            return err->code;
    }
    for (int64_t at = 0; at < scored; at += u->slice)
        if (score_slice(u, at, scored - at < u->slice ? scored - at : u->slice, w->first, r->n + (size_t)at, err))
            return err->code;
    for (int64_t i = 0; i < scored; i++)
        r->position[r->n + (size_t)i] = w->first + i;
    r->n += (size_t)scored;
    r->window_start[++r->n_windows] = r->n;
    r->tokens_fed += fed;
    return 0;
}

static int alloc_result(struct qp_ppl_result *r, size_t n_models, size_t n, int64_t n_windows, struct qp_err *err)
{
    *r = (struct qp_ppl_result){.n_models = n_models};
    r->nll = qp_zalloc(n_models * sizeof *r->nll, "losses", err);
    r->kl = qp_zalloc(n_models * sizeof *r->kl, "losses", err);
    r->agree = qp_zalloc(n_models * sizeof *r->agree, "losses", err);
    r->position = qp_alloc_n(n, sizeof *r->position, "losses", err);
    r->window_start = qp_zalloc((size_t)(n_windows + 1) * sizeof *r->window_start, "losses", err);
    if (!r->nll || !r->kl || !r->agree || !r->position || !r->window_start)
        return QP_E_RESOURCE;
    for (size_t m = 0; m < n_models; m++) {
        r->nll[m] = qp_alloc_n(n, sizeof **r->nll, "losses", err);
        r->kl[m] = m ? qp_alloc_n(n, sizeof **r->kl, "losses", err) : NULL;
        r->agree[m] = m ? qp_alloc_n(n, sizeof **r->agree, "losses", err) : NULL;
        if (!r->nll[m] || (m && (!r->kl[m] || !r->agree[m])))
            return QP_E_RESOURCE;
    }
    return 0;
}

static int alloc_run(struct run *u, const struct qp_ppl_options *o, int64_t longest, struct qp_err *err)
{
    size_t models = u->r->n_models;
    int64_t V = qp_engine_config(u->engines[0])->vocab_size;
    u->slice = qp_engine_logit_rows(u->engines[0]) < SLICE_ROWS ? qp_engine_logit_rows(u->engines[0]) : SLICE_ROWS;
    u->seqs = qp_zalloc(models * sizeof *u->seqs, "sequences", err);
    u->hidden = qp_zalloc(models * sizeof *u->hidden, "hidden states", err);
    u->logits = qp_zalloc(2 * sizeof *u->logits, "logits", err);
    if (!u->seqs || !u->hidden || !u->logits)
        return QP_E_RESOURCE;
    for (size_t m = 0; m < models; m++) {
        u->hidden[m] = qp_alloc_n((size_t)longest, (size_t)qp_engine_config(u->engines[m])->d_model * sizeof(float), "hidden states", err);
        if (!u->hidden[m] || qp_seq_new(&u->seqs[m], u->engines[m], o->window, err))
            return QP_E_RESOURCE;
    }
    for (int i = 0; i < (models > 1 ? 2 : 1); i++) {
        u->logits[i] = qp_alloc_n((size_t)u->slice, (size_t)V * sizeof(float), "logits", err);
        u->lse[i] = qp_alloc_n((size_t)u->slice, sizeof *u->lse[i], "logits", err);
        u->top[i] = qp_alloc_n((size_t)u->slice, sizeof *u->top[i], "logits", err);
        if (!u->logits[i] || !u->lse[i] || !u->top[i])
            return QP_E_RESOURCE;
    }
    return 0;
}

static void free_run(struct run *u)
{
    for (size_t m = 0; m < u->r->n_models; m++) {
        if (u->hidden)
            qp_free(u->hidden[m]);
        if (u->seqs)
            qp_seq_free(u->seqs[m]);
    }
    for (int i = 0; i < 2; i++) {
        if (u->logits)
            qp_free(u->logits[i]);
        qp_free(u->lse[i]);
        qp_free(u->top[i]);
    }
    qp_free(u->hidden);
    qp_free(u->logits);
    qp_free(u->seqs);
}

static int check(struct qp_engine *const *engines, size_t n_models, const int32_t *ids, size_t n_ids, const struct qp_ppl_options *o, struct qp_err *err)
{
    if (o->window < 2 || o->stride < 1 || o->stride > o->window)
        return qp_err_set(err, QP_E_USAGE, "window %lld and stride %lld: expected window >= 2 and 1 <= stride <= window", (long long)o->window, (long long)o->stride);
    if (n_ids < 2)
        return qp_err_set(err, QP_E_INPUT, "the text has %zu tokens; perplexity needs two at least", n_ids);
    for (size_t m = 1; m < n_models; m++)
        if (qp_engine_config(engines[m])->vocab_size != qp_engine_config(engines[0])->vocab_size)
            return qp_err_set(err, QP_E_INPUT, "models with vocabularies of %lld and %lld tokens cannot be compared", (long long)qp_engine_config(engines[0])->vocab_size,
                              (long long)qp_engine_config(engines[m])->vocab_size);
    for (size_t i = 0; i < n_ids; i++) /* a window's last token indexes the logits without passing the engine */
        if (ids[i] < 0 || ids[i] >= qp_engine_config(engines[0])->vocab_size)
            return qp_err_set(err, QP_E_INPUT, "token id %d is outside of the vocabulary of %lld", ids[i], (long long)qp_engine_config(engines[0])->vocab_size);
    return 0;
}

int qp_ppl_run(struct qp_ppl_result *out, struct qp_engine *const *engines, size_t n_models, const int32_t *ids, size_t n_ids,
               const struct qp_ppl_options *opt, qp_ppl_progress *progress, void *ctx, struct qp_err *err)
{
    struct run u = {.r = out, .engines = engines, .ids = ids};
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = (struct qp_ppl_result){0};
    if (check(engines, n_models, ids, n_ids, opt, err))
        return err->code;
    int64_t count = plan(NULL, (int64_t)n_ids, opt), longest = 0;
    size_t scored = 0;
    struct window *w = qp_alloc_n((size_t)count + 1, sizeof *w, "windows", err);
    if (!w)
        return QP_E_RESOURCE;
    plan(w, (int64_t)n_ids, opt);
    for (int64_t i = 0; i < count; i++) {
        int64_t n = w[i].end - w[i].first;
        scored += (size_t)n;
        longest = n > longest ? n : longest;
    }
    int r = scored ? alloc_result(out, n_models, scored, count, err) : qp_err_set(err, QP_E_INPUT, "the shard has no window: the text has too few");
    r = r ? r : alloc_run(&u, opt, longest, err);
    for (int64_t i = 0; i < count && !r; i++) {
        r = score_window(&u, &w[i], err);
        if (!r && progress && progress(ctx, i + 1, count))
            break;
    }
    free_run(&u);
    qp_free(w);
    if (r)
        qp_ppl_release(out);
    return r;
}

void qp_ppl_release(struct qp_ppl_result *r)
{
    for (size_t m = 0; m < r->n_models; m++) {
        if (r->nll)
            qp_free(r->nll[m]);
        if (r->kl)
            qp_free(r->kl[m]);
        if (r->agree)
            qp_free(r->agree[m]);
    }
    qp_free(r->nll);
    qp_free(r->kl);
    qp_free(r->agree);
    qp_free(r->position);
    qp_free(r->window_start);
    *r = (struct qp_ppl_result){0};
}

static double greater_error(double plain, double blocks)
{
    return blocks > plain ? blocks : plain;
}

struct qp_mean qp_ppl_of(const struct qp_ppl_result *r, size_t m)
{
    struct qp_mean loss = qp_mean_of(r->nll[m], r->n);
    double ppl = exp(loss.mean);
    return (struct qp_mean){ppl, ppl * greater_error(loss.stderr_, qp_block_stderr(r->nll[m], r->n, ERROR_BLOCK)), r->n};
}

double qp_ppl_window_mean(const struct qp_ppl_result *r, size_t m)
{
    double sum = 0;
    for (int64_t w = 0; w < r->n_windows; w++) {
        size_t n = r->window_start[w + 1] - r->window_start[w];
        sum += qp_sum(r->nll[m] + r->window_start[w], n) / (double)n;
    }
    return exp(sum / (double)r->n_windows);
}

struct qp_mean qp_ppl_paired(const struct qp_ppl_result *r, size_t m)
{
    struct qp_mean d = qp_paired_diff(r->nll[m], r->nll[0], r->n);
    double *diff = malloc(r->n * sizeof *diff);
    for (size_t i = 0; diff && i < r->n; i++)
        diff[i] = r->nll[m][i] - r->nll[0][i];
    if (diff)
        d.stderr_ = greater_error(d.stderr_, qp_block_stderr(diff, r->n, ERROR_BLOCK));
    free(diff);
    return d;
}
