/* What qquant's files share. */
#ifndef QP_TOOLS_QQUANT_H
#define QP_TOOLS_QQUANT_H

#include "model/model_set.h"
#include "quant/calibrate.h"
#include "quant/checkpoint.h"
#include "quant/pack.h"
#include "stream/tool.h"
#include "text/tokenizer.h"

enum { QQUANT_RTN, QQUANT_GPTQ, QQUANT_AWQ, QQUANT_AWQ_GPTQ, QQUANT_NONE };
#define QQUANT_AWQ_POINTS 20 /* of the scale search, as the paper and the peers have it */
enum { QQUANT_AUTO, QQUANT_F32, QQUANT_BF16 };

struct qquant {
    /* options */
    int method, format, device, compute, duo;
    int64_t bits, group_size, sweeps, min_expert_tokens;
    bool sym, asym, act_order, static_groups, mse, clip, verbose, plan;
    double damp, drift;
    const char *out, *model_path;
    int64_t memory;

    /* from the stream */
    char *base_id, *base_path;
    struct qp_ids ids;
    int64_t n_samples, sample_len;

    /* the work */
    struct qp_model *model;
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_quantize_options opt;
    struct qp_spool *spool;
    struct qp_awq_options awq;
    struct qp_checkpoint *dir;
    struct qp_quantize_blocks blocks;
    char id[512];
    double start;
    int64_t fallbacks;
    int64_t experts, few_experts, fewest_tokens; /* matrices of experts that calibration served, those rounded for lack of tokens */
};

/* Whether the method rounds by GPTQ; needs calibration samples. */
bool qquant_is_gptq(const struct qquant *q);
bool qquant_needs_samples(const struct qquant *q);
/* The id of the quantized model, "BASE-gptq-w4g64-...". */
void qquant_name(struct qquant *q);
/* The `model` record, inline or with the path of what -o wrote. */
void qquant_write_model(const struct qquant *q, struct qp_writer *w);
/* Norms and biases into which scales were folded, into the checkpoint. */
int qquant_set_changed(const struct qquant *q, const struct qp_layer_report *rep, struct qp_err *err);
/* A `layer` record and, inline, the layer's tensors. */
int qquant_write_layer(const struct qquant *q, struct qp_writer *w, const struct qp_layer_report *rep, const struct qp_qweight *layer, struct qp_err *err);

/* --plan: says what the run would need. */
int qquant_plan(struct qquant *q, struct qp_tool_run *run);
/* Bytes of activations that --memory allows. */
size_t qquant_memory(const struct qquant *q);
/* Where activations go that --memory does not hold. */
int qquant_open_spool(struct qquant *q, struct qp_err *err);
/* -o: opens the checkpoint, or goes on with the unfinished one of the same setup: its layer records are written again, q->blocks says where to begin. */
int qquant_open_checkpoint(struct qquant *q, struct qp_tool_run *run);
/* A layer's codes and record: to the checkpoint, or both to the stream. */
int qquant_put_layer(struct qquant *q, struct qp_writer *w, const struct qp_layer_report *rep, const struct qp_qweight *layer, struct qp_err *err);
/* After an error: keeps what can be gone on with, and says so. */
void qquant_leave_checkpoint(struct qquant *q, struct qp_tool_run *run);

#endif
