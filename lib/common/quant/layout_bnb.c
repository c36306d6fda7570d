/* bitsandbytes' tensors as transformers saves and loads them. The block size and the nested quantization are said with each tensor again. */
#include <jansson.h>

#include "quant/layout_internal.h"

static enum qp_packing packing(const struct qp_layout_options *o)
{
    (void)o;
    return QP_PACK_BNB;
}

static json_t *config(const struct qp_layout_options *o, const struct qp_model *m)
{
    bool eight = o->format.id == QP_FMT_INT8;
    json_t *c = json_pack("{s:s, s:b, s:b, s:s, s:b, s:s, s:s}", "quant_method", "bitsandbytes", "load_in_4bit", !eight, "load_in_8bit", eight, "bnb_4bit_quant_type",
                          o->format.id == QP_FMT_FP4 ? "fp4" : "nf4", "bnb_4bit_use_double_quant", o->format.double_quant, "bnb_4bit_compute_dtype", "float16",
                          "bnb_4bit_quant_storage", "uint8");
    if (!c)
        return NULL;
    json_object_set_new(c, "llm_int8_threshold", json_real(eight ? o->format.outlier_threshold : 6.0));
    json_object_set_new(c, "llm_int8_has_fp16_weight", json_false());
    json_object_set_new(c, "llm_int8_enable_fp32_cpu_offload", json_false());
    json_object_set_new(c, "llm_int8_skip_modules", qp_layout_left_out(o, m));
    return c;
}

static int beside(const struct qp_layout_options *o, const struct qp_format *f, struct qp_err *err)
{
    char name[32], most[32];
    if ((f->id == QP_FMT_INT8) == (o->format.id == QP_FMT_INT8))
        return 0;
    qp_format_name(f, name);
    qp_format_name(&o->format, most);
    return qp_err_set(err, QP_E_INPUT, "%s beside %s: a bitsandbytes configuration is for 4 or for 8 bits", name, most);
}

const struct qp_layout qp_layout_bnb = {.name = "bnb", .packing = packing, .config = config, .beside = beside};
