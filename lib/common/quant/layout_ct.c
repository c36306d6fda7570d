/* compressed-tensors, as llm-compressor saves it and transformers and vLLM load it: a config group for each format, naming its modules where formats differ. */
#include <jansson.h>
#include <string.h>

#include "quant/layout_internal.h"

static enum qp_packing packing(const struct qp_layout_options *o)
{
    (void)o;
    return QP_PACK_CT;
}

static const char *format_name(const struct qp_format *f)
{
    return f->id == QP_FMT_INT ? "pack-quantized" : f->id == QP_FMT_INT8 ? "int-quantized" : "float-quantized";
}

static json_t *weights(const struct qp_format *f)
{
    bool ints = f->id == QP_FMT_INT, eight = f->id == QP_FMT_INT8;
    bool block = !ints && !eight && f->block_cols, tensor = !ints && !eight && !f->block_rows && !f->block_cols;
    json_t *w = json_pack("{s:i, s:s, s:b, s:b, s:s, s:{}}", "num_bits", qp_format_bits(f), "type", ints || eight ? "int" : "float", "symmetric", !ints || f->grid.sym, "dynamic", 0,
                          "observer", "minmax", "observer_kwargs");
    if (!w)
        return NULL;
    json_object_set_new(w, "strategy", json_string(ints && f->grid.group_size ? "group" : block ? "block" : tensor ? "tensor" : "channel"));
    json_object_set_new(w, "group_size", ints && f->grid.group_size ? json_integer(f->grid.group_size) : json_null());
    json_object_set_new(w, "block_structure", block ? json_pack("[I, I]", (json_int_t)f->block_rows, (json_int_t)f->block_cols) : json_null());
    json_object_set_new(w, "actorder", f->permuted ? json_string("group") : json_null());
    return w;
}

static bool same(const struct qp_format *a, const struct qp_format *b)
{
    return a->id == b->id && a->grid.bits == b->grid.bits && a->grid.group_size == b->grid.group_size && a->grid.sym == b->grid.sym && a->block_rows == b->block_rows &&
           a->block_cols == b->block_cols && a->permuted == b->permuted;
}

static json_t *group(const struct qp_format *f, json_t *targets)
{
    return json_pack("{s:o, s:o, s:n, s:n, s:s}", "targets", targets, "weights", weights(f), "input_activations", "output_activations", "format", format_name(f));
}

/* Layers of one format after the other; a layer whose format an earlier one has is in that one's group. */
static json_t *groups(const struct qp_layout_options *o, const struct qp_model *m, const char **format)
{
    json_t *all = json_object();
    size_t n = qp_model_n_linears(m), n_groups = 0;
    for (size_t i = 0; i < n; i++) {
        const struct qp_format *f = qp_layout_format(o, i);
        bool seen = qp_layout_keeps(o, i);
        for (size_t j = 0; j < i && !seen; j++)
            seen = !qp_layout_keeps(o, j) && same(qp_layout_format(o, j), f);
        if (seen)
            continue;
        json_t *targets = o->formats ? json_array() : json_pack("[s]", "Linear");
        for (size_t j = i; j < n && o->formats; j++)
            if (!qp_layout_keeps(o, j) && same(qp_layout_format(o, j), f))
                json_array_append_new(targets, qp_layout_module(m, j));
        char name[32];
        snprintf(name, sizeof name, "group_%zu", n_groups++);
        json_object_set_new(all, name, group(f, targets));
        *format = *format && strcmp(*format, format_name(f)) ? "mixed-precision" : format_name(f);
    }
    return all;
}

static json_t *config(const struct qp_layout_options *o, const struct qp_model *m)
{
    const char *format = NULL;
    json_t *all = groups(o, m, &format);
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:n, s:n, s:s}", "quant_method", "compressed-tensors", "format", format ? format : "dense", "quantization_status", "compressed",
                     "config_groups", all, "ignore", qp_layout_left_out(o, m), "kv_cache_scheme", "global_compression_ratio", "version", "0.19.0");
}

const struct qp_layout qp_layout_ct = {.name = "compressed-tensors", .packing = packing, .config = config, .linear_only = true};
