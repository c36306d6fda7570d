/* What the layouts' configurations share. Private to quant/. */
#ifndef QP_QUANT_LAYOUT_INTERNAL_H
#define QP_QUANT_LAYOUT_INTERNAL_H

#include "quant/layout.h"

/* Whether linear layer i is kept in 16 bits. */
bool qp_layout_keeps(const struct qp_layout_options *o, size_t i);
/* The module of linear layer i, "model.layers.0.mlp.up_proj". */
struct json_t *qp_layout_module(const struct qp_model *m, size_t i);
/* Modules that stay as they are: the head, and kept layers. */
struct json_t *qp_layout_left_out(const struct qp_layout_options *o, const struct qp_model *m);

#endif
