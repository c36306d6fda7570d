/* The layouts, and what their configurations share: which modules are quantized, which are not. */
#include <jansson.h>
#include <string.h>

#include "quant/layout_internal.h"

const struct qp_layout *const qp_layouts[] = {&qp_layout_gptq, &qp_layout_gptq_v2, &qp_layout_awq, &qp_layout_bnb, &qp_layout_ct, &qp_layout_gguf, NULL};

const struct qp_layout *qp_layout_of(const struct qp_format *f)
{
    switch (qp_stream_packing(f)) {
    case QP_PACK_BNB: return &qp_layout_bnb;
    case QP_PACK_CT: return &qp_layout_ct;
    default: return &qp_layout_gptq;
    }
}

int qp_layout_declare(const struct qp_layout *l, const struct qp_layout_options *o, const struct qp_model *m, size_t i, struct qp_parts *out, struct qp_err *err)
{
    const struct qp_weight *w = qp_model_linear(m, i)->weight;
    int r = qp_pack(l->packing(o), qp_layout_format(o, i), w->rows, w->cols, NULL, out, err);
    if (r || qp_layout_keeps(o, i))
        return r;
    if (w->transposed && l->linear_only)
        r = qp_err_set(err, QP_E_INPUT, "the layer is a Conv1D, which loaders of %s leave as it is; gptq and gptq_v2 hold integer grids of it, bnb holds nf4, fp4 and int8", l->name);
    else if (l->beside && !qp_format_keeps(&o->format))
        r = l->beside(o, qp_layout_format(o, i), err);
    if (r)
        qp_parts_release(out);
    return r;
}

struct qp_part_hints qp_layout_hints(const struct qp_layout *l, const struct qp_layout_options *o, size_t i)
{
    const struct qp_format *f = qp_layout_format(o, i);
    enum qp_packing packing = l->packing(o);
    return (struct qp_part_hints){.awq = packing == QP_PACK_AWQ, .bits = qp_format_bits(f), .zero_minus_one = packing == QP_PACK_GPTQ_V1,
                                  .group_size = f->id == QP_FMT_INT ? f->grid.group_size : 0};
}

bool qp_layout_keeps(const struct qp_layout_options *o, size_t i)
{
    return qp_format_keeps(qp_layout_format(o, i));
}

json_t *qp_layout_module(const struct qp_model *m, size_t i)
{
    const char *name = qp_model_linear(m, i)->weight->name;
    size_t n = strlen(name), tail = strlen(".weight");
    return json_stringn(name, n > tail && !strcmp(name + n - tail, ".weight") ? n - tail : n);
}

json_t *qp_layout_left_out(const struct qp_layout_options *o, const struct qp_model *m)
{
    json_t *list = json_pack("[s]", strcmp(qp_model_config(m)->arch, "gpt_neox") ? "lm_head" : "embed_out");
    for (size_t i = 0; i < qp_model_n_linears(m); i++)
        if (qp_layout_keeps(o, i))
            json_array_append_new(list, qp_layout_module(m, i));
    return list;
}
