/* AWQ tensors ("gemm") as AutoAWQ's loaders and GPTQModel take them. Zero points are always stored. */
#include <jansson.h>

#include "quant/layout_internal.h"

static enum qp_packing packing(const struct qp_layout_options *o)
{
    (void)o;
    return QP_PACK_AWQ;
}

static json_t *config(const struct qp_layout_options *o, const struct qp_model *m)
{
    json_int_t group = o->format.grid.group_size ? (json_int_t)o->format.grid.group_size : -1;
    return json_pack("{s:s, s:i, s:I, s:b, s:s, s:o}", "quant_method", "awq", "bits", 4, "group_size", group, "zero_point", 1, "version", "gemm", "modules_to_not_convert",
                     qp_layout_left_out(o, m));
}

static int beside(const struct qp_layout_options *o, const struct qp_format *f, struct qp_err *err)
{
    int64_t size = f->grid.group_size, most = o->format.grid.group_size;
    if (size == most)
        return 0;
    return qp_err_set(err, QP_E_INPUT, "groups of %lld beside groups of %lld: an AWQ configuration has one size for all layers", (long long)size, (long long)most);
}

const struct qp_layout qp_layout_awq = {.name = "awq", .packing = packing, .config = config, .beside = beside, .linear_only = true};
