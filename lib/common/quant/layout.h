/* What a checkpoint makes of a quantized layer: one struct a layout, in a file of its own (layout_gptq.c), and a row in qp_layouts. */
#ifndef QP_QUANT_LAYOUT_H
#define QP_QUANT_LAYOUT_H

#include "model/model.h"
#include "quant/qlinear.h"

#define QP_LAYOUT_PARTS 8

struct json_t;

struct qp_layout_part {  /* a tensor that a weight becomes */
    const char *suffix;  /* in place of "weight" at the end of the weight's name */
    enum qp_dtype dtype;
    int ndim;
    int64_t shape[QP_MAX_DIMS];
};

struct qp_layout_options {
    struct qp_grid grid;
    bool desc_act, static_groups; /* for the config: groups follow the activation order */
    double damp;
};

struct qp_layout {
    const char *name;    /* as --format takes it */
    /* parts [QP_LAYOUT_PARTS]: the tensors that w becomes. Returns how many, 0 when it stays dense, QP_E_INPUT when the layout cannot hold it. */
    int (*declare)(const struct qp_layout_options *o, const struct qp_weight *w, struct qp_layout_part *parts, struct qp_err *err);
    /* data[i]: the bytes of part i as declared, all in one block: free with qp_free(*block). */
    int (*pack)(const struct qp_layout_options *o, const struct qp_qlinear *q, const void **data, void **block, struct qp_err *err);
    /* quantization_config of config.json, a new reference; NULL: no memory. */
    struct json_t *(*config)(const struct qp_layout_options *o);
    const char *config_file; /* holds the same once more; NULL: none */
};

extern const struct qp_layout qp_layout_gptq;
/* All layouts, NULL behind the last. */
extern const struct qp_layout *const qp_layouts[];

#endif
