/* Writing a Hugging Face directory with GPTQ tensors, as GPTQModel and transformers load it: config.json with quantization_config,
 * quantize_config.json, model.safetensors, tokenizer files. The folder is written under a temporary name, read back and compared, then renamed. */
#ifndef QP_QUANT_GPTQ_DIR_H
#define QP_QUANT_GPTQ_DIR_H

#include "model/model.h"
#include "quant/qlinear.h"

struct qp_gptq_dir;

struct qp_gptq_dir_options {
    struct qp_grid grid;
    bool desc_act, static_groups; /* for the config: groups follow the activation order */
    double damp;
    bool dense;                   /* no quantization: all weights in float16 (a conversion) */
};

/* path must not exist, or be an empty folder. Layers are added in the order of the forward pass (as qp_quantize_model calls back). Symmetric grids are
 * written as version 1 ("gptq"), asymmetric ones as version 2 ("gptq_v2"), because version 1 cannot hold a zero point of 0. */
int qp_gptq_dir_open(struct qp_gptq_dir **out, const char *path, const struct qp_model *m, const struct qp_gptq_dir_options *o, struct qp_err *err) QP_MUST_USE;
int qp_gptq_dir_add(struct qp_gptq_dir *d, const char *weight, const struct qp_qlinear *q, struct qp_err *err) QP_MUST_USE;
/* Closes the files, reads the folder back (a mismatch is QP_E_INTERNAL), renames it. Frees d in any case. */
int qp_gptq_dir_commit(struct qp_gptq_dir *d, struct qp_err *err) QP_MUST_USE;
/* Removes the temporary folder, frees d. */
void qp_gptq_dir_abort(struct qp_gptq_dir *d);

#endif
