/* Perplexity by a sliding window, KL divergence and top-1 agreement: several models over the same windows in one pass.
 *
 * Windows follow the Hugging Face guide: they begin every `stride` tokens and hold `window`; each scores the tokens that no earlier window scored (a
 * window's first token has no prediction). Perplexity is token-weighted, exp(sum of losses / tokens scored). Only the scored tokens pass the last
 * layer and the output layer, in slices, so that no logits are kept: memory does not grow with window x vocabulary.
 *
 *     struct qp_ppl_result r;
 *     qp_ppl_run(&r, engines, 2, ids, n, &(struct qp_ppl_options){.window = 2048, .stride = 512}, NULL, NULL, &err);
 *     qp_ppl_of(&r, 0) ...        // engines[0] is the baseline of KL divergence and agreement
 *     qp_ppl_release(&r);
 */
#ifndef QP_EVAL_PPL_H
#define QP_EVAL_PPL_H

#include <stdbool.h>

#include "engine/engine.h"
#include "stats/stats.h"

struct qp_ppl_options {
    int64_t window, stride;            /* window >= 2, 1 <= stride <= window (equal: windows that do not overlap, as the GPTQ papers use) */
    int64_t shard, shards;             /* windows with index % shards == shard; shards 0 or 1: all */
};

struct qp_ppl_result {
    size_t n_models;
    size_t n;         /* tokens scored */
    double **nll;     /* [n_models][n] loss of each scored token, natural logarithm */
    double **kl;      /* [n_models][n] KL(baseline || model) at each scored token; kl[0] is NULL */
    double **agree;   /* [n_models][n] 1 where the greatest logit is the baseline's; agree[0] is NULL */
    int64_t *position; /* [n] index of the scored token in ids */
    size_t *window_start; /* [n_windows + 1] index of each window's first scored token */
    int64_t n_windows, tokens_fed;
};

/* Called after each window with windows done and in all; non-zero stops the run (status QP_OK, the result so far). */
typedef int qp_ppl_progress(void *ctx, int64_t done, int64_t total);

/* All engines share the vocabulary's size (checked). QP_E_INPUT for fewer than two tokens. */
int qp_ppl_run(struct qp_ppl_result *out, struct qp_engine *const *engines, size_t n_models, const int32_t *ids, size_t n_ids,
               const struct qp_ppl_options *opt, qp_ppl_progress *progress, void *ctx, struct qp_err *err) QP_MUST_USE;
void qp_ppl_release(struct qp_ppl_result *r);

/* Token-weighted perplexity of model m; its standard error by the delta method, the greater of the plain error of the mean loss and that over
 * blocks of 512 neighbouring tokens (losses within a text are correlated). */
struct qp_mean qp_ppl_of(const struct qp_ppl_result *r, size_t m);
/* exp(mean over windows of the window's mean loss): wrong when windows score unequal counts, but what many scripts print. */
double qp_ppl_window_mean(const struct qp_ppl_result *r, size_t m);
/* Mean loss difference of model m to the baseline, token by token; the error as in qp_ppl_of. */
struct qp_mean qp_ppl_paired(const struct qp_ppl_result *r, size_t m);

#endif
