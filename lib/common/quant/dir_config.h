/* config.json, quantize_config.json and the tokenizer's files of a written checkpoint. Private to quant/. */
#ifndef QP_QUANT_DIR_CONFIG_H
#define QP_QUANT_DIR_CONFIG_H

#include "quant/checkpoint.h"

int qp_dir_config_write(const char *dir, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err) QP_MUST_USE;
/* A file of the folder, written under a temporary name. */
int qp_dir_write_json(const char *dir, const char *name, const struct json_t *o, struct qp_err *err) QP_MUST_USE;

#endif
