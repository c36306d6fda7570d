/* GPTQ tensors as GPTQModel and transformers load them. Symmetric grids are version 1 ("gptq"), asymmetric ones version 2 ("gptq_v2"), because version 1
 * cannot hold a zero point of 0. */
#include <jansson.h>

#include "quant/layout.h"

const struct qp_layout *const qp_layouts[] = {&qp_layout_gptq, NULL};

static int declare(const struct qp_layout_options *o, const struct qp_weight *w, struct qp_layout_part *parts, struct qp_err *err)
{
    int64_t rows = w->rows, cols = w->cols, bits = o->grid.bits, groups = qp_grid_groups(&o->grid, cols);
    if (cols * bits % 32 || rows * bits % 32)
        return qp_err_set(err, QP_E_INPUT, "'%s' is %lld x %lld, which does not pack into 32-bit words at %lld bits: GPTQ checkpoints cannot hold it", w->name, (long long)rows,
                          (long long)cols, (long long)bits);
    parts[0] = (struct qp_layout_part){"qweight", QP_DT_I32, 2, {cols * bits / 32, rows}};
    parts[1] = (struct qp_layout_part){"qzeros", QP_DT_I32, 2, {groups, rows * bits / 32}};
    parts[2] = (struct qp_layout_part){"scales", QP_DT_F16, 2, {groups, rows}};
    parts[3] = (struct qp_layout_part){"g_idx", QP_DT_I32, 1, {cols}};
    return 4;
}

static int pack(const struct qp_layout_options *o, const struct qp_qlinear *q, const void **data, void **block, struct qp_err *err)
{
    struct qp_gptq_tensors t;
    if (qp_qlinear_pack(q, o->grid.sym, &t, err))
        return err->code;
    data[0] = t.qweight;
    data[1] = t.qzeros;
    data[2] = t.scales;
    data[3] = t.g_idx;
    *block = (void *)(uintptr_t)t.qweight;
    return 0;
}

static json_t *config(const struct qp_layout_options *o)
{
    json_int_t group = o->grid.group_size ? (json_int_t)o->grid.group_size : -1;
    const char *format = o->grid.sym ? "gptq" : "gptq_v2";
    return json_pack("{s:s, s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:{s:[s], s:f, s:b, s:b}}", "quant_method", "gptq", "bits", o->grid.bits, "group_size", group, "desc_act",
                     o->desc_act, "sym", o->grid.sym, "lm_head", 0, "checkpoint_format", format, "pack_dtype", "int32", "meta", "quantizer", "quantpipe:" QP_VERSION,
                     "damp_percent", o->damp, "true_sequential", 1, "static_groups", o->static_groups);
}

const struct qp_layout qp_layout_gptq = {.name = "gptq", .declare = declare, .pack = pack, .config = config, .config_file = "quantize_config.json"};
