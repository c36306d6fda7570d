/* One transformer block for the quantizers: they need the inputs of each linear layer and the right to replace its weights before what follows runs.
 * qp_engine_forward is built from the same functions, so what is calibrated is what runs.
 *
 * A block is a list of stages: linear layers that read the same inputs. A pass carries the tokens of many sequences through the stages of one block after
 * the other and hides what architectures differ in (residual streams in parallel, norms behind attention, experts):
 *
 *     qp_pass_new(&p, model, n_seq, len, &err);                        // activations of n_seq * len tokens
 *     qp_embed(model, ids, n_seq, len, qp_pass_stream(p), &err);
 *     for (l = 0; l < n_layers; l++) {
 *         qp_block_load(&b, model, l, ops, ex, compute, &err);         // one block's weights alone: memory of one block
 *         for (r = qp_pass_enter(p, b, &s, &err); r == 1; r = qp_pass_next(p, &s, &err))
 *             // s.inputs [s.n, s.width] are what s.linears[0 .. s.count) read; they may be replaced: qp_block_set_linear(b, &s.linears[i], w)
 *         qp_block_free(b);
 *     }
 */
#ifndef QP_ENGINE_BLOCK_H
#define QP_ENGINE_BLOCK_H

#include "backend/ops.h"
#include "model/model.h"

struct qp_block;
struct qp_pass;

/* Whether two neighbouring linear layers read the same inputs, so that one stage holds them. */
bool qp_same_stage(const struct qp_linear *a, const struct qp_linear *b);

struct qp_stage {
    const struct qp_linear *linears; /* [count], borrowed from the model */
    int count;
    const float *inputs;  /* [n, width], valid until the next call */
    int64_t n, width;     /* n: all tokens of the pass; of an expert: those that the router sent to it, maybe none */
    int64_t expert;       /* -1: none */
    bool writes_stream;   /* the output is added to the residual stream as it is: no norm and no weight of a router in between */
};

int qp_block_load(struct qp_block **out, const struct qp_model *m, int64_t layer, const struct qp_ops *ops, struct qp_exec *ex,
                  enum qp_compute compute, struct qp_err *err) QP_MUST_USE;
void qp_block_free(struct qp_block *b);
/* Replaces a linear layer's weights (float32 [rows, cols]); they are packed at once, w may be freed. */
int qp_block_set_linear(struct qp_block *b, const struct qp_linear *l, const float *w, struct qp_err *err) QP_MUST_USE;

/* T = n_seq * len tokens: n_seq sequences of equal length, each from position 0. Memory: T * (2 D + widest inputs) float32, and T * D more with experts. */
int qp_pass_new(struct qp_pass **out, const struct qp_model *m, int64_t n_seq, int64_t len, struct qp_err *err) QP_MUST_USE;
/* The same with its arrays in a spool, and what has been passed dropped from memory; the exec of the blocks shall name the same spool. */
int qp_pass_new_in(struct qp_pass **out, const struct qp_model *m, int64_t n_seq, int64_t len, struct qp_spool *spool, struct qp_err *err) QP_MUST_USE;
/* Floats of those arrays. */
size_t qp_pass_floats(const struct qp_model *m, int64_t n_seq, int64_t len);
void qp_pass_free(struct qp_pass *p);
/* The residual stream [T, D], borrowed: embeddings before the first block, a block's output once qp_pass_next has returned 0. */
float *qp_pass_stream(struct qp_pass *p);
/* Begins a block, which must outlive its stages. 1 with *s filled, or an error. */
int qp_pass_enter(struct qp_pass *p, struct qp_block *b, struct qp_stage *s, struct qp_err *err) QP_MUST_USE;
/* Runs the stage's linear layers, as they are now, up to the inputs of the next stage. 1: *s is the next one; 0: the block is done; or an error. */
int qp_pass_next(struct qp_pass *p, struct qp_stage *s, struct qp_err *err) QP_MUST_USE;

/* A part of a block as a plain function of its arguments. a [n_seq * len, heads * head_dim]: what o reads, from h, what q, k and v read. */
int qp_block_attn(struct qp_block *b, const float *h, int64_t n_seq, int64_t len, float *a, struct qp_err *err) QP_MUST_USE;
/* x [n_seq * len, D] = embeddings of ids, decoded from the model, as the first block reads them. */
int qp_embed(const struct qp_model *m, const int32_t *ids, int64_t n_seq, int64_t len, float *x, struct qp_err *err) QP_MUST_USE;
/* Final norm of T rows; y may be x. */
int qp_final_norm(const struct qp_model *m, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t T, struct qp_err *err) QP_MUST_USE;

#endif
