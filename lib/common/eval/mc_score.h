/* Log-likelihoods of choices. Contexts and continuations are tokenized together as lm-evaluation-harness does; what texts share is computed once:
 * the examples that all questions of a subject begin with stay in one KV cache and are copied, the choices of a question follow one another in the cache of its
 * context, and a choice of one token costs no pass of its own. Only rows that predict a scored token pass the last layer and the output layer.
 *
 *     qp_mc_tokenize(&in[i], tok, &prompt, max_length, &err);         // for a few dozen questions of one subtask
 *     qp_mc_scorer_new(&s, engine, &err);
 *     qp_mc_score(s, in, n, out, &err);                               // out[i].score[c]
 *
 * A score does not depend on which questions were scored together.
 */
#ifndef QP_EVAL_MC_SCORE_H
#define QP_EVAL_MC_SCORE_H

#include "engine/engine.h"
#include "eval/mc_task.h"
#include "text/tokenizer.h"

struct qp_mc_seq {
    size_t at;          /* in ids: context and continuation */
    int64_t n, first;   /* tokens; those from `first` on are scored */
};

struct qp_mc_input {    /* zero-initialize; a question's tokens */
    struct qp_ids ids;
    struct qp_mc_seq seq[QP_MC_CHOICES];
    int n;
    int64_t cut;        /* tokens left out at the beginning of the longest choice's text, 0: none */
};

struct qp_mc_scores {
    double score[QP_MC_CHOICES]; /* log-likelihood, nats */
    uint64_t greedy;    /* bit c: each token of choice c has the greatest logit */
};

/* White space at a context's end goes to the continuation; both are encoded as one text, and what follows as many tokens as the context alone has is the
 * continuation. A text longer than max_length + 1 tokens loses its first ones. QP_E_INPUT: a context of nothing, a choice that adds no token or has more than
 * max_length, naming the choice. */
int qp_mc_tokenize(struct qp_mc_input *in, const struct qp_tokenizer *tok, const struct qp_mc_prompt *p, int64_t max_length, struct qp_err *err) QP_MUST_USE;
void qp_mc_input_release(struct qp_mc_input *in);

struct qp_mc_scorer;
int qp_mc_scorer_new(struct qp_mc_scorer **out, struct qp_engine *e, struct qp_err *err) QP_MUST_USE;
void qp_mc_scorer_free(struct qp_mc_scorer *s);
/* Every sequence has two tokens or more. QP_E_INPUT when a score is not finite. */
int qp_mc_score(struct qp_mc_scorer *s, const struct qp_mc_input *in, size_t n, struct qp_mc_scores *out, struct qp_err *err) QP_MUST_USE;
/* Tokens that have passed the engine, and that would have if nothing were shared. */
void qp_mc_scorer_tokens(const struct qp_mc_scorer *s, int64_t *fed, int64_t *asked);

#endif
