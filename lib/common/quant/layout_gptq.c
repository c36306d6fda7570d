/* GPTQ tensors as GPTQModel and transformers load them. "gptq" writes symmetric grids as version 1, asymmetric ones as version 2, because version 1 cannot hold
 * a zero point of 0; "gptq_v2" is always version 2. Layers of other formats than the most are `dynamic` entries: "+:" with what differs, "-:" kept. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "quant/layout_internal.h"

/* Version 1 needs all grids symmetric. */
static enum qp_packing packing(const struct qp_layout_options *o)
{
    return o->asymmetric || !o->format.grid.sym ? QP_PACK_GPTQ_V2 : QP_PACK_GPTQ_V1;
}

static enum qp_packing packing_v2(const struct qp_layout_options *o)
{
    (void)o;
    return QP_PACK_GPTQ_V2;
}

/* "+:^model\.layers\.0\.mlp\.up_proj$" */
static void name_rule(char out[640], const char *sign, const char *module)
{
    size_t n = (size_t)snprintf(out, 8, "%s:^", sign);
    for (; *module && n < 630; module++) {
        if (*module == '.')
            out[n++] = '\\';
        out[n++] = *module;
    }
    strcpy(out + n, "$");
}

static void add_dynamic(json_t *c, const struct qp_layout_options *o, const struct qp_model *m)
{
    json_t *dynamic = json_object();
    for (size_t i = 0; i < qp_model_n_linears(m) && o->formats; i++) {
        const struct qp_grid *g = &o->formats[i].grid, *most = &o->format.grid;
        bool kept = qp_layout_keeps(o, i);
        char rule[640];
        if (!kept && g->bits == most->bits && g->group_size == most->group_size && g->sym == most->sym)
            continue;
        json_t *module = qp_layout_module(m, i);
        name_rule(rule, kept ? "-" : "+", json_string_value(module));
        json_object_set_new(dynamic, rule, kept ? json_object() : json_pack("{s:i, s:I, s:b}", "bits", g->bits, "group_size", (json_int_t)(g->group_size ? g->group_size : -1), "sym", g->sym));
        json_decref(module);
    }
    if (json_object_size(dynamic))
        json_object_set(c, "dynamic", dynamic);
    json_decref(dynamic);
}

static json_t *config_as(const struct qp_layout_options *o, const struct qp_model *m, const char *format)
{
    const struct qp_grid *grid = &o->format.grid;
    json_int_t group = grid->group_size ? (json_int_t)grid->group_size : -1;
    json_t *c = json_pack("{s:s, s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:{s:[s], s:f, s:b, s:b}}", "quant_method", "gptq", "bits", grid->bits, "group_size", group, "desc_act",
                          o->desc_act, "sym", grid->sym, "lm_head", 0, "checkpoint_format", format, "pack_dtype", "int32", "meta", "quantizer", "quantpipe:" QP_VERSION,
                          "damp_percent", o->damp, "true_sequential", !o->block_inputs, "static_groups", o->static_groups);
    if (c)
        add_dynamic(c, o, m);
    return c;
}

static json_t *config(const struct qp_layout_options *o, const struct qp_model *m)
{
    return config_as(o, m, packing(o) == QP_PACK_GPTQ_V1 ? "gptq" : "gptq_v2");
}

static json_t *config_v2(const struct qp_layout_options *o, const struct qp_model *m)
{
    return config_as(o, m, "gptq_v2");
}

const struct qp_layout qp_layout_gptq = {.name = "gptq", .packing = packing, .config = config, .config_file = "quantize_config.json"};
const struct qp_layout qp_layout_gptq_v2 = {.name = "gptq_v2", .packing = packing_v2, .config = config_v2, .config_file = "quantize_config.json"};
