/* How long one engine takes for one request: a batch of prompts of any lengths that arrive together, each answered by the same number of tokens, and what the
 * machine would need at its best. Sweeps over models and shapes: eval/latency_sweep.h.
 *
 *     qp_latency_new(&l, engine, tokenizer, &shape, NULL, 42, &err);
 *     for (i = 0; i < runs; i++)
 *         qp_latency_once(l, &run, steps, &err);          // run.first, run.total, steps[0 .. new_tokens-2]
 */
#ifndef QP_EVAL_LATENCY_H
#define QP_EVAL_LATENCY_H

#include "backend/limits.h"
#include "engine/engine.h"

struct qp_tokenizer;

struct qp_latency_shape {
    int64_t batch;
    int64_t requests;           /* prompts that wait for a place in the batch and take it as soon as another has its answer; 0: as many as the batch, in step */
    const int64_t *prompt_lens; /* [requests or batch] tokens of each prompt, borrowed */
    const int64_t *new_lens;    /* [requests] tokens of each answer, borrowed; NULL: new_tokens each */
    int64_t new_tokens;         /* of the longest answer */
    int64_t depth;              /* tokens in the KV cache before the prompt */
    int64_t capacity;           /* tokens that a sequence's cache holds; 0: depth + the longest prompt + new_tokens */
    int kv;                     /* of qp_kv_choices; sweeps set the engine's */
};
int64_t qp_latency_requests(const struct qp_latency_shape *s);      /* requests or batch */
int64_t qp_latency_prompt_tokens(const struct qp_latency_shape *s); /* of all prompts */
int64_t qp_latency_new_tokens(const struct qp_latency_shape *s);    /* of all answers */
int64_t qp_latency_longest(const struct qp_latency_shape *s);       /* the first of the longest prompts: its index */
int64_t qp_latency_steps(const struct qp_latency_shape *s);         /* numbers that a run fills beside its struct: new_tokens - 1, or requests */

/* Texts that the prompts take in turn, the first after the last. */
struct qp_latency_prompts {
    const char *const *texts; /* [n] borrowed; 0 of them: synthetic */
    size_t n;
    const char *path;         /* of the file with the texts, for messages */
};

/* Seconds of one request, in the order in which they pass. total is their sum. Where more requests wait than the batch takes, a run is all of them, total is
 * until the last has its answer, and prefill, decode, detokenize and first, which mix, are 0. */
struct qp_latency_run {
    double tokenize;   /* all prompts' texts to ids */
    double allocate;   /* all sequences' KV caches, zeroed; 0 with a depth, where caches are kept */
    double prefill;    /* one pass over all prompts, logits and choice of each sequence's first token */
    double decode;     /* the other new_tokens - 1 steps; each a pass, logits and choice for every sequence */
    double detokenize; /* all answers' ids to texts */
    double first;      /* tokenize + allocate + prefill: time to first token (TTFT) */
    double total;      /* end to end */
};

struct qp_latency;

/* Of each text the first tokens count, as many as the shape says (the whole text: ask qp_latency_prompt_len); fewer are QP_E_INPUT. prompts NULL or none: texts of
 * common English words, another for each sequence and the same for every call and model, of as many tokens or a few more. KV caches are of the engine's
 * type. Everything is borrowed and must outlive *out. Free with qp_latency_free. */
int qp_latency_new(struct qp_latency **out, struct qp_engine *e, const struct qp_tokenizer *tok, const struct qp_latency_shape *shape,
                   const struct qp_latency_prompts *prompts, uint64_t seed, struct qp_err *err) QP_MUST_USE;
void qp_latency_free(struct qp_latency *l);
/* One run. steps [new_tokens - 1]: seconds from each token to the next (the same for all sequences of the batch, which go in step); or [requests]: seconds
 * from the pass over each prompt to the end of its answer, without the wait before. Answers go on to their full length whatever the tokens are. */
int qp_latency_once(struct qp_latency *l, struct qp_latency_run *out, double *steps, struct qp_err *err) QP_MUST_USE;

/* Tokens of a text as a prompt, special tokens that the tokenizer adds included; negative on an error. */
int64_t qp_latency_prompt_len(const struct qp_tokenizer *tok, const char *prompt, struct qp_err *err);

/* KV caches of all sequences: bytes that the ops ask for, bytes that the allocator gave (0: it does not tell), and by how much the resident set
 * grew, both in the first request. */
struct qp_latency_kv {
    size_t computed, allocated, resident;
};
struct qp_latency_kv qp_latency_kv(const struct qp_latency *l);

/* ---- what the machine would need ---- */

/* Work of a pass: multiply-adds times two, and bytes that must come from memory. */
struct qp_work {
    double flops, bytes;
};
/* Linear layers, attention (in the last layer for each sequence's last token alone, as the engine does) and the output matrix, each sequence at its own length.
 * Bytes: the weights once (of experts, the share that a batch is expected to touch when it chooses uniformly), and the keys and values of the tokens there
 * are (a sliding window reads fewer). Decode: one step of the whole batch in the middle of the answer. */
struct qp_work qp_latency_prefill_work(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *shape);
struct qp_work qp_latency_decode_work(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *shape);

struct qp_machine_limits {
    double gflops; /* matrix peak in the compute type; 0: unknown */
    double gbytes; /* read bandwidth; 0: unknown */
};
struct qp_machine_limits qp_machine_limits_of(const double limits[QP_LIMIT_COUNT], enum qp_compute compute);
/* Seconds that the work takes at the limits: the greater of arithmetic and memory; *memory says which. 0 where a limit is unknown. */
double qp_work_seconds(struct qp_work w, struct qp_machine_limits limits, bool *memory);

#endif
