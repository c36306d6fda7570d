/* Reading a model's configuration: config.json of a Hugging Face directory, or a GGUF file's metadata; and its limits. Private to model/. */
#ifndef QP_MODEL_CONFIG_H
#define QP_MODEL_CONFIG_H

#include "model/arch.h"
#include "model/gguf.h"

/* quantization_config of config.json, as far as it matters for reading. */
struct qp_quant_config {
    bool present, sym, zero_minus_one;
    int64_t bits, group_size;
};

/* *arch: the table's row. */
int qp_config_from_json(struct qp_model_config *c, struct qp_quant_config *q, const struct qp_arch **arch, const char *path, struct qp_err *err) QP_MUST_USE;
int qp_config_from_gguf(struct qp_model_config *c, const struct qp_arch **arch, const struct qp_gguf *g, const char *path, struct qp_err *err) QP_MUST_USE;

/* For the two readers: what the table says of a family, and the limits of all numbers. */
void qp_config_set_family(struct qp_model_config *c, const struct qp_arch *a);
int qp_config_check(struct qp_model_config *c, const char *path, struct qp_err *err) QP_MUST_USE;
/* The numbers of a model with experts, once they are read. */
int qp_config_check_experts(const struct qp_model_config *c, const char *path, struct qp_err *err) QP_MUST_USE;

#endif
