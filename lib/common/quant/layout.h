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
    bool block_inputs;               /* ... it was not true-sequential */
    double damp;
};

struct qp_layout {
    const char *name;       /* as --format takes it */
    enum qp_packing (*packing)(const struct qp_layout_options *o);
    /* quantization_config of config.json, a new reference; NULL: no memory. NULL itself: the layout has no folder, it is a GGUF file. */
    struct json_t *(*config)(const struct qp_layout_options *o, const struct qp_model *m);
    const char *config_file; /* holds the same once more; NULL: none */
    /* QP_E_INPUT where a layer of format f cannot stand beside those of o->format, because the configuration speaks for all. NULL: any can. */
    int (*beside)(const struct qp_layout_options *o, const struct qp_format *f, struct qp_err *err);
    bool linear_only;        /* its loaders put quantized layers in the place of nn.Linear alone, not of Conv1D (GPT-2, weights stored transposed) */
};

extern const struct qp_layout qp_layout_gptq, qp_layout_gptq_v2, qp_layout_awq, qp_layout_bnb, qp_layout_ct, qp_layout_gguf;
/* All layouts, NULL behind the last. */
extern const struct qp_layout *const qp_layouts[];
/* The one that holds a format best. */
const struct qp_layout *qp_layout_of(const struct qp_format *f);

/* The tensors, without data, that linear layer i becomes; the caller frees them with qp_parts_release. QP_E_INPUT: the layout cannot hold it, or is not loaded from. */
int qp_layout_declare(const struct qp_layout *l, const struct qp_layout_options *o, const struct qp_model *m, size_t i, struct qp_parts *out, struct qp_err *err) QP_MUST_USE;

/* What readers cannot see in layer i's tensors, but in the configuration. */
struct qp_part_hints qp_layout_hints(const struct qp_layout *l, const struct qp_layout_options *o, size_t i);

/* The format of linear layer i. */
static inline const struct qp_format *qp_layout_format(const struct qp_layout_options *o, size_t i)
{
    return o->formats ? &o->formats[i] : &o->format;
}

#endif
