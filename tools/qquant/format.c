/* From options to the number format of the layers and the layout of the checkpoint. */
#include <string.h>

#include "qquant.h"

static bool is_blockwise(const struct qquant *q)
{
    return q->method == QQUANT_NF4 || q->method == QQUANT_FP4;
}

static bool keeps_all(const struct qquant *q)
{
    for (size_t i = 0; i < qp_model_n_linears(q->model); i++)
        if (!qp_format_keeps(qp_quantize_format(&q->opt, i)))
            return false;
    return true;
}

const struct qp_layout *qquant_layout(const struct qquant *q)
{
    if (q->method == QQUANT_NONE || (keeps_all(q) && !qquant_is_gguf(q)))
        return NULL;
    return q->format ? qp_layouts[q->format - 1] : qp_layout_of(&q->opt.format);
}

bool qquant_is_gguf(const struct qquant *q)
{
    return q->format && qp_layouts[q->format - 1] == &qp_layout_gguf;
}

int qquant_check_output(struct qquant *q, struct qp_err *err)
{
    size_t n = q->out ? strlen(q->out) : 0;
    bool named = n > 5 && !strcmp(q->out + n - 5, ".gguf");
    for (int i = 0; named && !q->format && qp_layouts[i]; i++)
        if (qp_layouts[i] == &qp_layout_gguf)
            q->format = i + 1;
    if (named && !qquant_is_gguf(q))
        return qp_err_set(err, QP_E_USAGE, "--output '%s' is the name of a GGUF file, --format %s writes a folder", q->out, qp_layouts[q->format - 1]->name);
    if (q->out && !named && qquant_is_gguf(q))
        return qp_err_set(err, QP_E_USAGE, "--format gguf writes one file: --output takes a name that ends in .gguf, not '%s'", q->out);
    return 0;
}

struct qp_checkpoint_options qquant_checkpoint_options(const struct qquant *q)
{
    return (struct qp_checkpoint_options){.layout = qquant_layout(q), .gguf = q->out && qquant_is_gguf(q), .quant = qquant_layout_options(q), .spool = q->spool};
}

struct qp_layout_options qquant_layout_options(const struct qquant *q)
{
    struct qp_layout_options o = {.format = q->opt.format, .formats = q->opt.formats, .desc_act = q->opt.format.permuted,
                                  .static_groups = q->act_order && q->static_groups, .damp = q->damp, .block_inputs = q->opt.block_inputs};
    for (size_t i = 0; q->opt.formats && i < qp_model_n_linears(q->model); i++)
        o.asymmetric |= q->opt.formats[i].id == QP_FMT_INT && !q->opt.formats[i].grid.sym;
    return o;
}

static struct qp_format fp8(const struct qquant *q)
{
    struct qp_format f = {.id = q->fp8_type ? QP_FMT_E5M2 : QP_FMT_E4M3, .block_rows = q->fp8_scales == QQUANT_BY_CHANNEL};
    if (q->fp8_scales == QQUANT_BY_BLOCK)
        f.block_rows = f.block_cols = 128;
    return f;
}

int qquant_set_format(struct qquant *q, struct qp_err *err)
{
    bool search = q->mse && q->method != QQUANT_AWQ; /* AWQ's own search does that */
    struct qp_grid grid = {.bits = (int)q->bits, .group_size = q->group_size > 0 ? q->group_size : 0, .sym = q->sym, .blocks = qquant_is_gguf(q), .search = search};
    switch (q->method) {
    case QQUANT_NF4:
    case QQUANT_FP4:
        q->opt.format = (struct qp_format){.id = q->method == QQUANT_NF4 ? QP_FMT_NF4 : QP_FMT_FP4, .block_size = q->block_size, .double_quant = q->double_quant};
        break;
    case QQUANT_INT8:
        q->opt.format = (struct qp_format){.id = QP_FMT_INT8, .outlier_threshold = q->outlier_threshold};
        break;
    case QQUANT_FP8:
        q->opt.format = fp8(q);
        break;
    default:
        q->opt.format = (struct qp_format){.id = QP_FMT_INT, .grid = grid, .permuted = qquant_is_gptq(q) && q->act_order && !q->static_groups && !q->group_aware};
    }
    if (is_blockwise(q) && (q->block_size & (q->block_size - 1)))
        return qp_err_set(err, QP_E_USAGE, "--block-size takes 32, 64, 128, ... 4096, not %lld", (long long)q->block_size);
    if (q->double_quant && !is_blockwise(q))
        return qp_err_set(err, QP_E_USAGE, "--double-quant goes with --method nf4 or fp4");
    return 0;
}
