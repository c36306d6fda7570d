/* Quantizing a whole model: block by block, each linear layer on the activations that it will really see.
 *
 * The calibration tokens pass the model once. Within a block the layers are taken in the order of the forward pass (true-sequential): q, k, v share
 * their inputs; then attention runs on the quantized q, k, v and gives the inputs of o; and so on. So every layer's Hessian comes from quantized
 * predecessors, and the quantized outputs are what the next block gets; block_inputs leaves the block as it was for its own Hessians. With a drift gain the tokens pass the full-precision model beside it, and each
 * layer is moved to make up for what those before it lost (quant/drift.h); experts are not, for the two models send them different tokens. An expert that
 * saw too few tokens is rounded to nearest, and its report says so. Memory: one block (two with a drift gain), its Hessians, the activations. */
#ifndef QP_QUANT_CALIBRATE_H
#define QP_QUANT_CALIBRATE_H

#include "model/model.h"
#include "quant/awq_block.h"
#include "quant/formats.h"
#include "quant/gptq.h"

enum qp_quant_method { QP_METHOD_RTN /* each weight as its format rounds */, QP_METHOD_GPTQ };

struct qp_calibration {
    const int32_t *ids; /* [n_seq, len] */
    int64_t n_seq, len;
};

/* Between blocks a run can stop and be gone on with. */
struct qp_quantize_blocks {
    int64_t first; /* the block to begin with; what those before it gave comes from load */
    /* streams [n_streams][n]: the residual stream behind block first - 1, and the full-precision model's with a drift gain; none for QP_METHOD_RTN. */
    int (*load)(void *ctx, float *const *streams, int n_streams, size_t n, struct qp_err *err);
    int (*done)(void *ctx, int64_t layer, const float *const *streams, int n_streams, size_t n, struct qp_err *err); /* the same behind block `layer` */
    void *ctx;
};

struct qp_quantize_options {
    enum qp_quant_method method;
    struct qp_format format;     /* what each layer becomes: int by the method, others as they round */
    const struct qp_format *formats; /* [linear layers] where they differ; NULL: all as format */
    struct qp_gptq_options gptq;
    double damp;         /* share of the mean diagonal to begin with */
    bool act_order;
    bool block_inputs;   /* not true-sequential: a layer's inputs come from the layers of its block as they were, at the cost of a second pass through it */
    const struct qp_awq_options *awq; /* NULL: inputs are not scaled. With RTN: rounding with AWQ's clip search */
    double drift_gain;   /* share of the drift that each layer makes up for; 0: none, one pass */
    int64_t min_expert_tokens; /* an expert's matrix that saw fewer is rounded to nearest; 0: than a 32nd of its inputs */
    enum qp_compute compute;
    struct qp_spool *spool; /* for the activations; NULL: in memory */
    const struct qp_quantize_blocks *blocks; /* NULL: all, and none is reported */
};

/* What linear layer i becomes. */
static inline const struct qp_format *qp_quantize_format(const struct qp_quantize_options *o, size_t i)
{
    return o->formats ? &o->formats[i] : &o->format;
}

struct qp_layer_report {
    const char *name;    /* canonical weight name */
    int64_t rows, cols, index, total;
    int64_t tokens;      /* that passed the layer in calibration; 0 for rtn */
    int64_t expert;      /* -1: none */
    struct qp_quant_error error; /* against the weights as the drift correction left them */
    double hessian_trace, damp; /* 0 for rtn */
    int64_t dead;        /* inputs that calibration never used */
    const char *fallback; /* NULL, or why the layer was rounded to nearest instead */
    const struct qp_awq_note *awq; /* NULL without AWQ */
    const struct qp_weight *const *changed; /* with a block's first report: its norms and biases that are no longer the model's, because scales were folded into them */
    int n_changed;
};

/* Called for each layer in order; q is the callee's to read only. Non-zero (a QP_E_*) stops the run. */
typedef int qp_layer_fn(void *ctx, const struct qp_layer_report *report, const struct qp_qweight *q);

/* cal may be NULL for QP_METHOD_RTN. */
int qp_quantize_model(const struct qp_model *m, const struct qp_calibration *cal, const struct qp_quantize_options *o, const struct qp_ops *ops, struct qp_pool *pool,
                      qp_layer_fn *fn, void *ctx, struct qp_err *err) QP_MUST_USE;

#endif
