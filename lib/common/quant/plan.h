/* What quantizing a model will need, before any of it is done: layers that cannot be stored, memory, disk, time.
 * Times come from running the parts on small random matrices on this machine, scaled by the numbers of operations: good to a factor of two. */
#ifndef QP_QUANT_PLAN_H
#define QP_QUANT_PLAN_H

#include "quant/calibrate.h"
#include "quant/layout.h"

struct qp_plan {
    size_t layers, problems;
    size_t peak_bytes;      /* of memory that is taken: one block, its statistics, the activations that stay in memory. Pages of the model's files come and go beside it */
    size_t activation_bytes, spooled_bytes; /* all activations; those of them that lie in files */
    size_t result_bytes;    /* the weights as they will be stored */
    size_t state_bytes;     /* what a run that can be gone on with keeps beside them until it ends */
    double seconds;
};

struct qp_plan_options {
    const struct qp_quantize_options *quantize;
    const struct qp_layout *layout; /* of the checkpoint; NULL: as a stream carries each layer's format */
    struct qp_layout_options held;  /* what it must hold */
    bool dense;             /* nothing is quantized: a conversion */
    size_t dense_bytes;     /* of what stays dense: qp_checkpoint_check says it */
    int64_t n_seq, len;     /* calibration; 0: none */
    size_t memory;          /* activations beyond it lie in files */
    bool resumable;
};

/* A layer that the packing cannot hold, and why. */
typedef void qp_plan_problem_fn(void *ctx, const char *weight, const char *reason);

int qp_plan_make(struct qp_plan *p, const struct qp_model *m, const struct qp_plan_options *o, const struct qp_ops *ops, struct qp_pool *pool, qp_plan_problem_fn *fn, void *ctx,
                 struct qp_err *err) QP_MUST_USE;

#endif
