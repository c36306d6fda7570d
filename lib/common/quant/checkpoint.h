/* Writing a checkpoint: a Hugging Face folder with config.json, the weights in one safetensors file or several with an index, and the tokenizer's files; or one
 * GGUF file. All tensors are declared when it is opened; their data comes in any order. It is written under a temporary name, read back and compared, renamed.
 *
 *     qp_checkpoint_open(&ck, "out", model, &(struct qp_checkpoint_options){.layout = &qp_layout_gptq, .quant = {.format = format}}, &err);
 *     for (l = qp_checkpoint_blocks(ck); l < n_layers; l++) {
 *         qp_checkpoint_add(ck, "model.layers.0.mlp.up_proj.weight", &q, NULL, 0, &err); // each quantized layer once
 *         qp_checkpoint_set_dense(ck, "model.layers.0.input_layernorm.weight", v, &err); // where a weight that stays dense has changed
 *         qp_checkpoint_end_block(ck, l, NULL, 0, 0, &err);
 *     }
 *     qp_checkpoint_commit(ck, NULL, &err);
 *
 * Until the commit all lies in PATH.part: files/, which becomes PATH (or the file in it does); journal; and state-0, state-1, the residual streams behind the last block and the one
 * before it. A run that is cut off, by whatever, is gone on with behind the last block that was ended, if `setup` is the same: the data of a block is on the
 * disk before the journal says so. */
#ifndef QP_QUANT_CHECKPOINT_H
#define QP_QUANT_CHECKPOINT_H

#include "quant/layout.h"

struct qp_checkpoint;

struct qp_checkpoint_options {
    const struct qp_layout *layout; /* NULL: no quantization, all weights in float16 (a conversion) */
    bool gguf;                      /* PATH is a GGUF file; layout is qp_layout_gguf or NULL. What is not quantized keeps its type (a conversion: where it is one of 16
                                     * or 32 bits, else float16); vectors are float32. From a GGUF file all its metadata and tensors are taken over */
    struct qp_layout_options quant;
    size_t shard_bytes;             /* greatest size of a weight file of more than one tensor; 0: 4 GB */
    const struct qp_spool *spool;   /* where the streams are; NULL: in memory */
    /* All that the result depends on, by name. An unfinished run of another setup is refused (QP_E_INPUT), and the first name that differs is said. */
    const struct qp_setup {
        const char *name, *value;
    } *setup;
    size_t n_setup;
};

/* Bytes of what such a checkpoint does not quantize; and whether it can be written at all, from this model: QP_E_INPUT if not. Before the work. */
int qp_checkpoint_check(size_t *dense_bytes, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err) QP_MUST_USE;
/* path must not exist, or be an empty folder. What stays dense is written at once, in float16; or an unfinished run is gone on with. */
int qp_checkpoint_open(struct qp_checkpoint **out, const char *path, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err) QP_MUST_USE;
/* Blocks that are ended: 0 at first, more when an unfinished run was found. */
int64_t qp_checkpoint_blocks(const struct qp_checkpoint *ck);
const char *qp_checkpoint_part(const struct qp_checkpoint *ck); /* "PATH.part" */
/* Writes a layer, reads it from the file again and compares (QP_E_INTERNAL). note: bytes of the caller's, which a run that goes on gets back. */
int qp_checkpoint_add(struct qp_checkpoint *ck, const char *weight, const struct qp_qweight *q, const void *note, size_t note_bytes, struct qp_err *err) QP_MUST_USE;
/* values [rows, cols] of a weight that stays dense; float16 must hold them. */
int qp_checkpoint_set_dense(struct qp_checkpoint *ck, const char *weight, const float *values, struct qp_err *err) QP_MUST_USE;
/* Block l is done: its layers, and streams [n_streams][n], what the next one gets. */
int qp_checkpoint_end_block(struct qp_checkpoint *ck, int64_t layer, const float *const *streams, int n_streams, size_t n, struct qp_err *err) QP_MUST_USE;
/* The streams that the last block ended with; and the notes of all layers that were added before, in their order. */
int qp_checkpoint_load_streams(const struct qp_checkpoint *ck, float *const *streams, int n_streams, size_t n, struct qp_err *err) QP_MUST_USE;
typedef int qp_note_fn(void *ctx, const void *note, size_t bytes);
int qp_checkpoint_notes(const struct qp_checkpoint *ck, qp_note_fn *fn, void *ctx) QP_MUST_USE;
/* Reads the folder back (a mismatch is QP_E_INTERNAL), renames it. Frees ck in any case. *max_diff (NULL: not wanted): the greatest absolute difference between
 * a quantized weight and what the files say it is, measured when it was added; 0, because another one is a failure. */
int qp_checkpoint_commit(struct qp_checkpoint *ck, double *max_diff, struct qp_err *err) QP_MUST_USE;
/* Frees ck (may be NULL). keep: what is done stays in PATH.part, where a later run goes on; else it is removed. */
void qp_checkpoint_close(struct qp_checkpoint *ck, bool keep);

#endif
