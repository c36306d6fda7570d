/* config.json, quantize_config.json and the tokenizer's files of a written checkpoint. Private to quant/. */
#ifndef QP_QUANT_DIR_CONFIG_H
#define QP_QUANT_DIR_CONFIG_H

#include "quant/gptq_dir.h"

int qp_dir_config_write(const char *dir, const struct qp_model *m, const struct qp_gptq_dir_options *o, struct qp_err *err) QP_MUST_USE;

#endif
