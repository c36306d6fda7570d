/* What a checkpoint makes of a quantized layer: a row in qp_layouts for each; the tensors themselves are quant/pack.h's. */
#ifndef QP_QUANT_LAYOUT_H
#define QP_QUANT_LAYOUT_H

#include "model/model.h"
#include "quant/pack.h"

struct json_t; /* jansson's */

struct qp_layout_options {
    struct qp_format format;         /* of all layers, or of most: f16 and bf16 stay dense weights */
    const struct qp_format *formats; /* [linear layers] where they differ; NULL: all alike */
    bool asymmetric;                 /* a layer of `formats` has zero points */
    bool desc_act, static_groups;    /* for the config: groups follow the activation order */
    double damp;
};

struct qp_layout {
    const char *name;       /* as --format takes it */
    enum qp_packing (*packing)(const struct qp_layout_options *o);
    /* quantization_config of config.json, a new reference; NULL: no memory. */
    struct json_t *(*config)(const struct qp_layout_options *o, const struct qp_model *m);
    const char *config_file; /* holds the same once more; NULL: none */
};

extern const struct qp_layout qp_layout_gptq, qp_layout_gptq_v2, qp_layout_awq, qp_layout_bnb, qp_layout_ct;
/* All layouts, NULL behind the last. */
extern const struct qp_layout *const qp_layouts[];
/* The one that holds a format best. */
const struct qp_layout *qp_layout_of(const struct qp_format *f);

/* The format of linear layer i. */
static inline const struct qp_format *qp_layout_format(const struct qp_layout_options *o, size_t i)
{
    return o->formats ? &o->formats[i] : &o->format;
}

#endif
