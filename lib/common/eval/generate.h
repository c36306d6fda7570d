/* Greedy answers to many prompts: a continuous batch. Up to `batch` sequences are live; each step is one forward pass that feeds the whole prompt of those
 * that have just begun and one token of each of the others, so sequences of any lengths decode together and a slot that ends takes the next prompt at once.
 *
 *     struct qp_gen_request r[2] = {{.ids = a, .n = n_a}, {.ids = b, .n = n_b}};
 *     qp_gen_new(&g, engine, r, 2, &(struct qp_gen_options){.batch = 16, .max_new = 50, .eos = &eos, .n_eos = 1, .tok = tok}, &err);
 *     while ((s = qp_gen_step(g, &step, &err)) == 1) ...      // time each step, show progress, stop early
 *     qp_gen_answer(g, 0)->text.data ...
 *     qp_gen_free(g);
 *
 * Answers do not depend on the batch, on the order of requests or on the number of threads: rows of the engine do not depend on their neighbours.
 * A slot keeps its KV cache: what the next prompt shares with the tokens there (a system prompt, few-shot examples) is not computed again.
 * Caches take batch x (longest prompt + new tokens), bounded by kv_bytes. Those who measure (eval/latency.h) make them by hand, run the same requests again
 * (qp_gen_restart) and say what of a prompt is to be computed afresh.
 */
#ifndef QP_EVAL_GENERATE_H
#define QP_EVAL_GENERATE_H

#include <stdbool.h>

#include "engine/engine.h"
#include "text/tokenizer.h"

struct qp_gen_request {
    const int32_t *ids; /* [n] the prompt, borrowed until qp_gen_free or qp_gen_restart; 1 at least, fewer than the model's max_positions */
    int64_t n;
    int64_t max_new;    /* 0: that of the options */
    int64_t fresh;      /* tokens at its end that are computed even if the cache has them; 0: as few as can be, the last one */
};

struct qp_gen_options {
    int64_t batch;              /* live sequences at most */
    int64_t max_new;            /* tokens of an answer at most */
    const int32_t *eos;         /* [n_eos] ids that end an answer; they are not part of it */
    size_t n_eos;
    const struct qp_tokenizer *tok; /* NULL: answers are ids alone, no stop strings */
    const char *const *stops;   /* [n_stops] an answer ends before the first of them; control tokens count as their text */
    size_t n_stops;
    size_t kv_bytes;            /* fewer sequences are live where their caches would take more; 0: no bound */
    int64_t capacity;           /* tokens that each cache holds at least; 0: what the requests need */
};

enum qp_gen_end {
    QP_GEN_PENDING, /* not begun, or not finished */
    QP_GEN_EOS, QP_GEN_STOP, QP_GEN_LENGTH,
    QP_GEN_CONTEXT  /* the model's last position */
};
const char *qp_gen_end_name(enum qp_gen_end end); /* "pending", "eos", "stop", "length", "context" */

struct qp_gen_answer {
    struct qp_ids ids;   /* new tokens */
    struct qp_buf text;  /* of ids without control tokens, cut before a stop string, zero bytes as '?'; empty without tok */
    enum qp_gen_end end;
};

struct qp_gen_step {
    int64_t live;      /* sequences in this pass; each got one token */
    int64_t begun;     /* of them: prompts */
    int64_t fed;       /* tokens of prompts that were computed */
    int64_t reused;    /* tokens of prompts that were in the cache already */
    int64_t finished;  /* answers that ended */
};

struct qp_gen;
/* Checks all requests (QP_E_INPUT: empty, or no room in the context for one token; the message has the request's number from 1). The
 * first step makes the caches. */
int qp_gen_new(struct qp_gen **out, struct qp_engine *e, const struct qp_gen_request *r, size_t n, const struct qp_gen_options *o, struct qp_err *err) QP_MUST_USE;
void qp_gen_free(struct qp_gen *g);
/* As many requests as before, from the first on: answers are forgotten, also those under way, caches stay. QP_E_INPUT as above, and for a request that the
 * caches are too short for. */
int qp_gen_restart(struct qp_gen *g, const struct qp_gen_request *requests, struct qp_err *err) QP_MUST_USE;
/* All slots' caches, zeroed, where they are not there yet; and away with them: what was under way is computed again. */
int qp_gen_make_caches(struct qp_gen *g, struct qp_err *err) QP_MUST_USE;
void qp_gen_free_caches(struct qp_gen *g);
/* Every cache holds these n tokens, computed once: prompts that begin with them go on from there. For a batch of which no request has begun. */
int qp_gen_fill_caches(struct qp_gen *g, const int32_t *ids, int64_t n, struct qp_err *err) QP_MUST_USE;
/* One forward pass. 1: done, *step filled; 0: all answers are complete. Logits that are not finite are QP_E_INPUT. */
int qp_gen_step(struct qp_gen *g, struct qp_gen_step *step, struct qp_err *err) QP_MUST_USE;
/* Borrowed; complete when its end is not QP_GEN_PENDING. */
const struct qp_gen_answer *qp_gen_answer(const struct qp_gen *g, size_t i);
int64_t qp_gen_slots(const struct qp_gen *g);     /* sequences that can be live */
size_t qp_gen_kv_bytes(const struct qp_gen *g);   /* of all caches */

#endif
