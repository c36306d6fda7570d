/* Reading a model's configuration: config.json of a Hugging Face directory, or a GGUF file's metadata; and its limits. Private to model/. */
#ifndef QP_MODEL_CONFIG_H
#define QP_MODEL_CONFIG_H

#include "model/arch.h"
#include "model/gguf.h"

/* Whose layout the quantized layers of a checkpoint have. */
enum qp_quant_kind { QP_QUANT_NONE /* no quantization_config */, QP_QUANT_GPTQ, QP_QUANT_AWQ, QP_QUANT_BNB, QP_QUANT_CT, QP_QUANT_ANY /* a stream's */ };

/* quantization_config of config.json, as far as it matters for reading: what the tensors themselves leave open, and what contradicts them. */
struct qp_quant_config {
    enum qp_quant_kind method;
    bool sym, zero_minus_one;  /* GPTQ */
    int64_t bits, group_size;  /* 0: not said */
    bool mixed;                /* layers may have other bits and groups than these */
    double outlier_threshold;  /* LLM.int8() */
    int64_t block_rows, block_cols; /* compressed-tensors: of FP8 blocks */
};

/* *arch: the table's row. */
int qp_config_from_json(struct qp_model_config *c, struct qp_quant_config *q, const struct qp_arch **arch, const char *path, struct qp_err *err) QP_MUST_USE;
int qp_config_from_gguf(struct qp_model_config *c, const struct qp_arch **arch, const struct qp_gguf *g, const char *path, struct qp_err *err) QP_MUST_USE;

struct json_t; /* jansson's */
/* root: config.json; none: method is QP_QUANT_NONE. */
int qp_config_read_quant(struct qp_quant_config *q, struct json_t *root, const char *path, struct qp_err *err) QP_MUST_USE;

/* For the two readers: what the table says of a family, and the limits of all numbers. */
void qp_config_set_family(struct qp_model_config *c, const struct qp_arch *a);
int qp_config_check(struct qp_model_config *c, const char *path, struct qp_err *err) QP_MUST_USE;
/* The numbers of a model with experts, once they are read. */
int qp_config_check_experts(const struct qp_model_config *c, const char *path, struct qp_err *err) QP_MUST_USE;

#endif
