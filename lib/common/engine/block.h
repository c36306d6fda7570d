/* One transformer block as steps, for the quantizers: they need the inputs of each linear layer and the right to replace its weights
 * before the next step runs. qp_engine_forward is built from the same steps, so what is calibrated is what runs.
 *
 *     qp_block_load(&b, model, layer, ops, ex, compute, &err);      // one block's weights alone: memory of one block
 *     h  = qp_block_attn_in(b, x, T, h)          inputs [T, D] of q_proj, k_proj, v_proj
 *     a  = qp_block_attn(b, h, ...)              inputs [T, H*hd] of o_proj (rotation, attention within each sequence)
 *     x += qp_block_attn_out(b, a)
 *     h  = qp_block_mlp_in(b, x, T, h)           inputs [T, D] of gate_proj, up_proj
 *     m  = qp_block_mlp(b, h)                    inputs [T, F] of down_proj
 *     x += qp_block_mlp_out(b, m)
 */
#ifndef QP_ENGINE_BLOCK_H
#define QP_ENGINE_BLOCK_H

#include "backend/ops.h"
#include "model/model.h"

enum qp_linear_slot { QP_LIN_Q, QP_LIN_K, QP_LIN_V, QP_LIN_O, QP_LIN_GATE, QP_LIN_UP, QP_LIN_DOWN, QP_LIN_COUNT };

struct qp_block;

int qp_block_load(struct qp_block **out, const struct qp_model *m, int64_t layer, const struct qp_ops *ops, struct qp_exec *ex,
                  enum qp_compute compute, struct qp_err *err) QP_MUST_USE;
void qp_block_free(struct qp_block *b);
/* Canonical name of a slot's weight in layer l, "model.layers.L.self_attn.q_proj.weight"; its shape. */
void qp_block_linear_name(char out[128], int64_t layer, enum qp_linear_slot slot);
void qp_block_linear_shape(const struct qp_model_config *c, enum qp_linear_slot slot, int64_t *rows, int64_t *cols);
/* Replaces a slot's weights (float32 [rows, cols]); they are packed at once, w may be freed. */
int qp_block_set_linear(struct qp_block *b, enum qp_linear_slot slot, const float *w, struct qp_err *err) QP_MUST_USE;

/* The steps, on T = n_seq * len tokens: n_seq sequences of equal length len, each from position 0. All arrays float32 row-major.
 * h may not be x. Step results are plain functions of the arguments; nothing is kept. */
int qp_block_attn_in(struct qp_block *b, const float *x, int64_t T, float *h, struct qp_err *err) QP_MUST_USE;
int qp_block_attn(struct qp_block *b, const float *h, int64_t n_seq, int64_t len, float *a, struct qp_err *err) QP_MUST_USE;
int qp_block_attn_out(struct qp_block *b, const float *a, int64_t T, float *x, struct qp_err *err) QP_MUST_USE;
int qp_block_mlp_in(struct qp_block *b, const float *x, int64_t T, float *h, struct qp_err *err) QP_MUST_USE;
int qp_block_mlp(struct qp_block *b, const float *h, int64_t T, float *m, struct qp_err *err) QP_MUST_USE;
int qp_block_mlp_out(struct qp_block *b, const float *m, int64_t T, float *x, struct qp_err *err) QP_MUST_USE;
/* x [n, D] = embeddings of ids, decoded from the model. */
int qp_embed(const struct qp_model *m, const int32_t *ids, int64_t n, float *x, struct qp_err *err) QP_MUST_USE;

#endif
