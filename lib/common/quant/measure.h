/* How much each linear layer minds its quantization: what formats are allocated by.
 *
 * For each layer, on the full-precision model and calibration text:
 *   - the output error of each format, tr(E H Eᵀ), the mean over tokens of |E x|², and its share of the output's energy;
 *   - what happens to the model's output when this layer alone has the first format (rounded to nearest, the rest of the model as it is): the change of the loss on the text with
 *     its standard error, and the mean KL divergence, which is the expected change on text that the model itself would write. The latter is never negative and its noise is far smaller;
 *   - from these the KL divergence that other formats would cause, taken as proportional to the output error: the loss's second order.
 * The model runs once from each layer's block to the end. Memory: the model as an evaluator holds it, and two logits for each token and entry of the vocabulary. */
#ifndef QP_QUANT_MEASURE_H
#define QP_QUANT_MEASURE_H

#include "quant/calibrate.h"
#include "quant/formats.h"

#define QP_MAX_FORMATS 16

struct qp_sensitivity {
    const char *name;
    int64_t rows, cols, index, total;
    int64_t tokens;          /* whose losses were compared */
    double dloss, dloss_stderr, kl;
    double energy;           /* tr(W H Wᵀ) */
    double run_error;        /* tr(E H Eᵀ) of the format that was run */
    double error[QP_MAX_FORMATS]; /* the same of each format */
};

struct qp_measure_options {
    const struct qp_format *formats; /* [n_formats], at most QP_MAX_FORMATS; the first is what is run */
    int n_formats;
    enum qp_compute compute;
    int64_t tokens;                  /* at most so many, whole sequences, one at least */
};

/* Called for each linear layer in order; non-zero stops the run. */
typedef int qp_sensitivity_fn(void *ctx, const struct qp_sensitivity *s);

int qp_measure_model(struct qp_model *m, const struct qp_calibration *cal, const struct qp_measure_options *o, const struct qp_ops *ops, struct qp_pool *pool,
                     qp_sensitivity_fn *fn, void *ctx, struct qp_err *err) QP_MUST_USE;
/* The KL divergence that format i would cause in that layer. */
double qp_sensitivity_of(const struct qp_sensitivity *s, int i);

#endif
