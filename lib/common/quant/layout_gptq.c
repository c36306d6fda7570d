/* GPTQ tensors as GPTQModel and transformers load them. Symmetric grids are version 1 ("gptq"), asymmetric ones version 2 ("gptq_v2"), because version 1
 * cannot hold a zero point of 0. */
#include <jansson.h>

#include "quant/layout.h"

const struct qp_layout *const qp_layouts[] = {&qp_layout_gptq, NULL};

static enum qp_packing packing(const struct qp_layout_options *o)
{
    return o->format.grid.sym ? QP_PACK_GPTQ_V1 : QP_PACK_GPTQ_V2;
}

static json_t *config(const struct qp_layout_options *o, const struct qp_model *m)
{
    const struct qp_grid *grid = &o->format.grid;
    json_int_t group = grid->group_size ? (json_int_t)grid->group_size : -1;
    (void)m;
    const char *format = grid->sym ? "gptq" : "gptq_v2";
    return json_pack("{s:s, s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:{s:[s], s:f, s:b, s:b}}", "quant_method", "gptq", "bits", grid->bits, "group_size", group, "desc_act",
                     o->desc_act, "sym", grid->sym, "lm_head", 0, "checkpoint_format", format, "pack_dtype", "int32", "meta", "quantizer", "quantpipe:" QP_VERSION,
                     "damp_percent", o->damp, "true_sequential", 1, "static_groups", o->static_groups);
}

const struct qp_layout qp_layout_gptq = {.name = "gptq", .packing = packing, .config = config, .config_file = "quantize_config.json"};
