/* GPTQ tensors as GPTQModel and transformers load them. Symmetric grids are version 1 ("gptq"), asymmetric ones version 2 ("gptq_v2"), because version 1
 * cannot hold a zero point of 0. */
#include <jansson.h>
#include <string.h>

#include "base/buf.h"
#include "quant/layout.h"

const struct qp_layout *const qp_layouts[] = {&qp_layout_gptq, NULL};

static enum qp_packing packing(const struct qp_layout_options *o)
{
    return o->format.grid.sym ? QP_PACK_GPTQ_V1 : QP_PACK_GPTQ_V2;
}

/* "+:^NAME$" or "-:^NAME$", the module's name as a regular expression. */
static void pattern(struct qp_buf *b, const char *weight, bool kept)
{
    qp_buf_adds(b, kept ? "-:^" : "+:^");
    for (size_t i = 0, n = strlen(weight) - strlen(".weight"); i < n; i++) {
        if (weight[i] == '.')
            qp_buf_adds(b, "\\");
        qp_buf_add(b, &weight[i], 1);
    }
    qp_buf_adds(b, "$");
}

/* GPTQModel's overrides for layers that differ from the rest; kept ones are none of its layers. */
static int add_dynamic(json_t *config, const struct qp_layout_options *o, const struct qp_model *m)
{
    json_t *all = json_object();
    int r = all ? 0 : -1;
    for (size_t i = 0; o->formats && i < qp_model_n_linears(m) && !r; i++) {
        const struct qp_format *f = &o->formats[i];
        bool kept = f->id == QP_FMT_F16 || f->id == QP_FMT_BF16;
        if (!kept && f->grid.bits == o->format.grid.bits && f->grid.group_size == o->format.grid.group_size && f->grid.sym == o->format.grid.sym)
            continue;
        struct qp_buf b = QP_BUF_INIT;
        pattern(&b, qp_model_linear(m, i)->weight->name, kept);
        json_t *v = kept ? json_object() : json_pack("{s:i, s:I, s:b}", "bits", f->grid.bits, "group_size", (json_int_t)(f->grid.group_size ? f->grid.group_size : -1), "sym", f->grid.sym);
        r = b.failed ? -1 : json_object_set_new(all, b.data, v);
        qp_buf_release(&b);
    }
    if (!r && json_object_size(all))
        r = json_object_set(config, "dynamic", all);
    json_decref(all);
    return r;
}

static json_t *config(const struct qp_layout_options *o, const struct qp_model *m)
{
    const struct qp_grid *grid = &o->format.grid;
    json_int_t group = grid->group_size ? (json_int_t)grid->group_size : -1;
    const char *format = grid->sym ? "gptq" : "gptq_v2";
    json_t *c = json_pack("{s:s, s:i, s:I, s:b, s:b, s:b, s:s, s:s, s:{s:[s], s:f, s:b, s:b}}", "quant_method", "gptq", "bits", grid->bits, "group_size", group, "desc_act",
                          o->desc_act, "sym", grid->sym, "lm_head", 0, "checkpoint_format", format, "pack_dtype", "int32", "meta", "quantizer", "quantpipe:" QP_VERSION,
                          "damp_percent", o->damp, "true_sequential", 1, "static_groups", o->static_groups);
    if (c && add_dynamic(c, o, m)) {
        json_decref(c);
        return NULL;
    }
    return c;
}

const struct qp_layout qp_layout_gptq = {.name = "gptq", .packing = packing, .config = config, .config_file = "quantize_config.json"};
