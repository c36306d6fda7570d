/* GGUF's block types, as llama.cpp and those that build on it load them: one file, whose metadata stand in the place of a configuration. */
#include "quant/layout_internal.h"

static enum qp_packing packing(const struct qp_layout_options *o)
{
    (void)o;
    return QP_PACK_GGUF;
}

const struct qp_layout qp_layout_gguf = {.name = "gguf", .packing = packing};
