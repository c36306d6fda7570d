/* Writing a checkpoint: a Hugging Face folder with config.json, the weights in one safetensors file or several with an index, and the tokenizer's files.
 * All tensors are declared when it is opened; their data comes in any order. The folder is written under a temporary name, read back and compared, renamed.
 *
 *     qp_checkpoint_open(&ck, "out", model, &(struct qp_checkpoint_options){.layout = &qp_layout_gptq, .quant = {.grid = grid}}, &err);
 *     qp_checkpoint_add(ck, "model.layers.0.mlp.up_proj.weight", &q, &err);  // each quantized layer once
 *     qp_checkpoint_set_dense(ck, "model.norm.weight", values, &err);        // where a weight that stays dense has changed
 *     qp_checkpoint_commit(ck, &err);
 */
#ifndef QP_QUANT_CHECKPOINT_H
#define QP_QUANT_CHECKPOINT_H

#include "quant/layout.h"

struct qp_checkpoint;

struct qp_checkpoint_options {
    const struct qp_layout *layout; /* NULL: no quantization, all weights in float16 (a conversion) */
    struct qp_layout_options quant;
    size_t shard_bytes;             /* greatest size of a weight file of more than one tensor; 0: 4 GB */
};

/* path must not exist, or be an empty folder. What stays dense is written at once, in float16. */
int qp_checkpoint_open(struct qp_checkpoint **out, const char *path, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err) QP_MUST_USE;
int qp_checkpoint_add(struct qp_checkpoint *ck, const char *weight, const struct qp_qlinear *q, struct qp_err *err) QP_MUST_USE;
/* values [rows, cols] of a weight that stays dense; float16 must hold them. */
int qp_checkpoint_set_dense(struct qp_checkpoint *ck, const char *weight, const float *values, struct qp_err *err) QP_MUST_USE;
/* Reads the folder back (a mismatch is QP_E_INTERNAL), renames it. Frees ck in any case. */
int qp_checkpoint_commit(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* Removes the temporary folder, frees ck (may be NULL). */
void qp_checkpoint_abort(struct qp_checkpoint *ck);

#endif
