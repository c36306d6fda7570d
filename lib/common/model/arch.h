/* Architectures as tables: which model families are known, where their files keep each hyperparameter, and which tensors a layer has.
 * A new family of the Llama kind is a row here. */
#ifndef QP_MODEL_ARCH_H
#define QP_MODEL_ARCH_H

#include "model/model.h"

struct qp_arch {
    const char *hf, *gguf;  /* config.json's model_type; general.architecture */
    bool qkv_bias, qk_norm; /* what the family always has */
    bool gguf_rotated;      /* GGUF converters reorder the rows of q and k from halves to pairs */
};
/* NULL: unknown. */
const struct qp_arch *qp_arch_by_hf(const char *model_type);
const struct qp_arch *qp_arch_by_gguf(const char *architecture);
/* "llama, mistral, qwen2, qwen3": for messages. */
const char *qp_arch_list(void);

/* Sizes in terms of the configuration. */
enum qp_dim { QP_DIM_1, QP_DIM_D, QP_DIM_F, QP_DIM_V, QP_DIM_Q /* heads x head_dim */, QP_DIM_KV, QP_DIM_HD };
int64_t qp_dim(const struct qp_model_config *c, enum qp_dim d);

enum qp_need { QP_NEED_ALWAYS, QP_NEED_QKV_BIAS, QP_NEED_O_BIAS, QP_NEED_MLP_BIAS, QP_NEED_QK_NORM, QP_NEED_UNTIED };

struct qp_part {
    const char *hf, *gguf; /* names; in a layer: behind "model.layers.N." and "blk.N." */
    enum qp_dim rows, cols;
    enum qp_need need;
    bool linear;           /* a linear layer of a block: what quantizers work on */
    enum qp_dim rotated;   /* QP_DIM_Q or QP_DIM_KV: rows that gguf_rotated reorders; QP_DIM_1: none */
};
extern const struct qp_part qp_layer_parts[], qp_model_parts[]; /* end with hf == NULL */

bool qp_part_needed(const struct qp_part *p, const struct qp_model_config *c);

#endif
