/* The transformer's forward pass over the ops of a backend: written once, knows no instruction set, no thread and no device.
 *
 * An engine holds a model's weights packed for one compute type. A sequence (struct qp_seq) holds a KV cache. Forward passes take a batch of
 * segments, one per sequence, of any lengths: prefill, decode and mixed batches are the same call. Big inputs are cut into blocks
 * of QP_ENGINE_BLOCK tokens, so activations take bounded memory.
 *
 *     qp_engine_new(&e, model, &ops, pool, QP_COMPUTE_BF16, &err);
 *     qp_seq_new(&s, e, 2048, &err);
 *     struct qp_segment seg = {.seq = s, .ids = ids, .n = n, .want_from = n - 1};
 *     qp_engine_forward(e, &seg, 1, hidden, &err);        // hidden [1, D], after the final norm
 *     qp_engine_logits(e, hidden, 1, logits, &err);
 */
#ifndef QP_ENGINE_ENGINE_H
#define QP_ENGINE_ENGINE_H

#include "backend/ops.h"
#include "model/model.h"

#define QP_ENGINE_BLOCK 2048

/* An evaluator's --compute: the names of its choices, "auto" first, and what was chosen. auto: bf16 where the machine has its instructions, else f32. */
extern const char *const qp_compute_choices[];
#define QP_COMPUTE_HELP "auto: bf16 where the machine has its instructions, else f32; int8: activations and output layer in 8 bits for weights of integer codes"
enum qp_compute qp_compute_chosen(int choice, const struct qp_ops *ops);
const char *qp_compute_name(enum qp_compute compute); /* "f32", "bf16", "int8" */

/* An evaluator's --kv, in the same way. auto: f32 for QP_COMPUTE_F32, else bf16. */
extern const char *const qp_kv_choices[];
#define QP_KV_HELP "how keys and values are kept: auto is --compute's type; int8 has a scale per token and head"
enum qp_kv qp_kv_chosen(int choice, enum qp_compute compute);
const char *qp_kv_name(enum qp_kv kv); /* "f32", "bf16", "f16", "int8" */

struct qp_engine;
struct qp_seq;

/* Packs all weights; embeddings are read from the model's mapping as needed, so the engine keeps a reference to the model. NaN or infinite weights are QP_E_INPUT naming the tensor.
 * ops and pool are borrowed and must outlive the engine. */
int qp_engine_new(struct qp_engine **out, struct qp_model *m, const struct qp_ops *ops, struct qp_pool *pool, enum qp_compute compute,
                  struct qp_err *err) QP_MUST_USE;
/* The same with blocks whose linear layers may be replaced: no codes, nothing compacted. */
int qp_engine_new_editable(struct qp_engine **out, struct qp_model *m, const struct qp_ops *ops, struct qp_pool *pool, enum qp_compute compute,
                           struct qp_err *err) QP_MUST_USE;
void qp_engine_free(struct qp_engine *e);
const struct qp_model_config *qp_engine_config(const struct qp_engine *e);
struct qp_exec *qp_engine_exec(struct qp_engine *e);
const struct qp_ops *qp_engine_ops(const struct qp_engine *e);
/* A block of it (engine/block.h); of an editable engine, quantizers replace a layer's weights and put them back. */
struct qp_block;
struct qp_block *qp_engine_block(struct qp_engine *e, int64_t layer);
size_t qp_engine_weight_bytes(const struct qp_engine *e);

/* What the passes so far have needed beside weights and caches: activations, scratch of the ops, the rotary table. */
size_t qp_engine_scratch_bytes(const struct qp_engine *e);

/* The type of KV caches of sequences made from now on. At first that of "auto". */
void qp_engine_set_kv(struct qp_engine *e, enum qp_kv kv);
enum qp_kv qp_engine_kv(const struct qp_engine *e);
/* Bytes of a sequence's cache; SIZE_MAX when they are too many to count. */
size_t qp_kv_cache_bytes(const struct qp_model_config *c, const struct qp_ops *ops, enum qp_kv kv, int64_t capacity);

int qp_seq_new(struct qp_seq **out, struct qp_engine *e, int64_t capacity, struct qp_err *err) QP_MUST_USE;
void qp_seq_free(struct qp_seq *s);
int64_t qp_seq_length(const struct qp_seq *s);
/* Forgets the tokens from position n on (n <= length): reuse of a shared prefix, or 0 for a new text. */
void qp_seq_truncate(struct qp_seq *s, int64_t n);
/* to becomes what from is, tokens and cache: a prefix that several texts share is computed once. Both are of one engine, one capacity and one type of
 * cache, else QP_E_INTERNAL. The caches are copied whole, whatever their layout: make them no longer than the texts. */
int qp_seq_copy(struct qp_seq *to, const struct qp_seq *from, struct qp_err *err) QP_MUST_USE;

struct qp_segment {
    struct qp_seq *seq;
    const int32_t *ids; /* [n], each in [0, vocab): checked */
    int64_t n;
    int64_t want_from;  /* hidden rows are produced for tokens want_from .. n-1 of this segment; n: none. The last layer works on those alone */
};
/* Appends each segment's tokens to its sequence. hidden [sum of wanted, D], segment after segment, after the final norm. */
int qp_engine_forward(struct qp_engine *e, const struct qp_segment *seg, int64_t n_seg, float *hidden, struct qp_err *err) QP_MUST_USE;

/* logits [n, vocab] of n hidden rows. Callers slice n so that logits fit (qp_engine_logit_rows gives how many rows fit in 64 MiB). */
int qp_engine_logits(struct qp_engine *e, const float *hidden, int64_t n, float *logits, struct qp_err *err) QP_MUST_USE;
int64_t qp_engine_logit_rows(const struct qp_engine *e);

/* Greedy decoding: appends up to max_new ids after the prompt, stops after eos (which is not appended) when eos >= 0. Ties: lowest id. */
struct qp_ids;
int qp_engine_greedy(struct qp_engine *e, struct qp_seq *s, const int32_t *prompt, int64_t n, int64_t max_new, int32_t eos, struct qp_ids *out,
                     struct qp_err *err) QP_MUST_USE;

#endif
