/* Architectures as tables: which model families are known, what their blocks are made of, and which tensors a layer has.
 * A new family is a row here, a table of tensors where its names differ, and code only for what is truly new. */
#ifndef QP_MODEL_ARCH_H
#define QP_MODEL_ARCH_H

#include "model/model.h"

/* Sizes in terms of the configuration. */
enum qp_dim {
    QP_DIM_1, QP_DIM_D, QP_DIM_F, QP_DIM_2F, QP_DIM_V, QP_DIM_Q /* heads x head_dim */, QP_DIM_KV, QP_DIM_QKV /* q, k and v together */, QP_DIM_HD,
    QP_DIM_P /* learned positions */, QP_DIM_E /* experts */, QP_DIM_FE /* an expert's width */, QP_DIM_FS /* the shared expert's */
};
int64_t qp_dim(const struct qp_model_config *c, enum qp_dim d);

enum qp_need {
    QP_NEED_ALWAYS, QP_NEED_QKV_BIAS, QP_NEED_O_BIAS, QP_NEED_MLP_BIAS, QP_NEED_QK_NORM, QP_NEED_UNTIED, QP_NEED_DENSE /* layers without experts */,
    QP_NEED_EXPERTS /* layers with them */, QP_NEED_SHARED /* and with an expert that all tokens pass */
};

enum qp_part_flags {
    QP_PART_LINEAR = 1,     /* a linear layer of a block: what quantizers work on */
    QP_PART_BIAS = 2,
    QP_PART_EXPERT = 4,     /* one for each expert: '*' in hf is its number; in gguf's tensor all lie one behind the other */
    QP_PART_TRANSPOSED = 8, /* Hugging Face keeps it as [in, out] (GPT-2's Conv1D); GGUF as [out, in] */
    QP_PART_BY_HEAD = 16,   /* rows by (head, q k v, i) in Hugging Face's files, by (q k v, head, i) in GGUF's */
};

struct qp_part {
    const char *hf, *gguf; /* names; in a layer: behind the family's prefix ("model.layers.N.") and "blk.N." */
    enum qp_role role;
    enum qp_dim rows, cols;
    enum qp_need need;
    unsigned flags;
    enum qp_dim rotated;   /* QP_DIM_Q or QP_DIM_KV: rows that gguf_rotated reorders; QP_DIM_1: none */
};

struct qp_arch {
    const char *hf, *gguf;   /* config.json's model_type; general.architecture */
    const char *class_name;  /* config.json's architectures, for checkpoints made from GGUF; NULL: those start from a Hugging Face directory */
    const char *layers;      /* "model.layers" */
    const struct qp_part *layer_parts, *model_parts; /* end with hf == NULL; a layer's in the order of the forward pass */
    enum qp_norm_kind norm;
    enum qp_activation activation;
    bool qkv_bias, qk_norm;  /* what the family always has */
    bool qk_norm_wide;       /* q's and k's norm is over all heads together */
    bool parallel;           /* attention and MLP read the same input, always */
    bool windowed;           /* config.json: sliding_window counts unless use_sliding_window says no; else it counts if that says yes */
    bool plain;              /* the MLP has no gate; norms are in layer_norm_eps */
    bool gguf_rotated;       /* GGUF converters reorder the rows of q and k from halves to pairs */
    bool experts;            /* layers may have experts; tells GGUF's "llama" with experts from the one without */
    bool norm_topk;          /* experts: what GGUF leaves to the family, and Mixtral's config.json too */
};
/* NULL: unknown. */
const struct qp_arch *qp_arch_by_hf(const char *model_type);
const struct qp_arch *qp_arch_by_gguf(const char *architecture, bool experts);
/* "llama, mistral, qwen2, qwen3, ...": for messages. */
const char *qp_arch_list(void);

bool qp_part_needed(const struct qp_part *p, const struct qp_model_config *c, int64_t layer);

#endif
