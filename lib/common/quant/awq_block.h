/* AWQ for one block: its stages' inputs are looked at in a pass of their own, scales are searched and folded. Private to quant/. */
#ifndef QP_QUANT_AWQ_BLOCK_H
#define QP_QUANT_AWQ_BLOCK_H

#include "quant/awq.h"
#include "quant/fold.h"

/* What became of one linear layer's inputs. */
struct qp_awq_note {
    struct qp_awq_found found;
    const char *none; /* NULL, or why they were not scaled */
};

struct qp_awq_run {
    const struct qp_model *m;
    const struct qp_grid *grids; /* [all linear layers]; bits 0: this one is not rounded and has no say */
    struct qp_awq_options o;
    enum qp_compute compute;
    const struct qp_ops *ops;
    struct qp_exec *ex;
    struct qp_pass *probe;       /* its stream: the block's inputs; its outputs afterwards */
    struct qp_folded *folded;
    struct qp_awq_note *notes;   /* [linear layers of the block] filled */
};

int qp_awq_block(struct qp_awq_run *u, int64_t layer, struct qp_err *err) QP_MUST_USE;

#endif
