/* What qquant's files share. */
#ifndef QP_TOOLS_QQUANT_H
#define QP_TOOLS_QQUANT_H

#include "model/model_set.h"
#include "quant/calibrate.h"
#include "quant/checkpoint.h"
#include "quant/pack.h"
#include "quant/allocate.h"
#include "quant/measure.h"
#include "stream/tool.h"
#include "text/tokenizer.h"

enum { QQUANT_RTN, QQUANT_GPTQ, QQUANT_AWQ, QQUANT_AWQ_GPTQ, QQUANT_NF4, QQUANT_FP4, QQUANT_INT8, QQUANT_FP8, QQUANT_NONE };
enum { QQUANT_BY_TENSOR, QQUANT_BY_CHANNEL, QQUANT_BY_BLOCK };
#define QQUANT_AWQ_POINTS 20 /* of the scale search, as the paper and the peers have it */
enum { QQUANT_AUTO, QQUANT_F32, QQUANT_BF16 };

#define QQUANT_MAX_KEEPS 64

struct qquant_keep {
    char glob[256];
    struct qp_format format;
};

struct qquant {
    /* options */
    int method, format, device, compute, duo, fp8_type, fp8_scales;
    int64_t bits, group_size, block_size, sweeps, min_expert_tokens;
    bool sym, asym, act_order, static_groups, true_sequential, mse, clip, group_aware, double_quant, verbose, plan;
    double damp, drift, outlier_threshold;
    const char *out, *model_path;
    int64_t memory;
    struct qp_strs keep, choose;
    const char *keep_sensitive;
    double bpw, budget_mb;
    int64_t measure_tokens;
    bool measure;

    /* from the stream */
    char *base_id, *base_path;
    struct qp_ids ids;
    int64_t n_samples, sample_len;

    struct qp_buf told; /* its sensitivity records */

    /* formats by layer (mixed.c) */
    struct qquant_keep keeps[QQUANT_MAX_KEEPS];
    int n_keeps;
    double keep_share;
    struct qp_format keep_format, candidates[QP_MAX_FORMATS]; /* what is chosen from; the method's own first */
    int n_candidates;
    struct qp_sensitivity *found; /* [linear layers] */
    struct qp_format *formats;    /* [linear layers] */
    struct qp_allocation allocation;

    /* the work */
    struct qp_model *model;
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_quantize_options opt;
    struct qp_spool *spool;
    struct qp_awq_options awq;
    struct qp_checkpoint *dir;
    double read_back; /* greatest difference between what was quantized and what dir's files hold */
    struct qp_quantize_blocks blocks;
    char id[512];
    double start;
    int64_t fallbacks;
    int64_t experts, few_experts, fewest_tokens; /* matrices of experts that calibration served, those rounded for lack of tokens */
};

struct qquant_ctx {
    struct qquant *q;
    struct qp_tool_run *run;
};

/* Parses --keep and --keep-sensitive; what excludes what. */
int qquant_check_mixed(struct qquant *q, struct qp_err *err);
bool qquant_needs_sensitivity(const struct qquant *q);
int qquant_take_sensitivity(struct qquant *q, const struct qp_record *rec, struct qp_err *err);
/* Sets opt.formats where layers differ; measures and writes sensitivity records where the choice needs them and the stream has none. */
int qquant_choose_formats(struct qquant *q, struct qp_tool_run *run);
/* A `sensitivity` record. */
void qquant_write_sensitivity(const struct qquant *q, struct qp_writer *w, const struct qp_sensitivity *s);
/* Whether the method rounds by GPTQ; needs calibration samples. */
bool qquant_is_gptq(const struct qquant *q);
bool qquant_needs_samples(const struct qquant *q);
/* What the options make of each layer, into opt.format; and the checkpoint's layout for it. Checks them. */
int qquant_set_format(struct qquant *q, struct qp_err *err);
const struct qp_layout *qquant_layout(const struct qquant *q);
/* What it must hold: once the formats of layers are chosen. */
struct qp_layout_options qquant_layout_options(const struct qquant *q);
/* Whether the result is a GGUF file, or rounded as for one. */
bool qquant_is_gguf(const struct qquant *q);
/* -o and --format fit each other; a name that ends in .gguf means the format. */
int qquant_check_output(struct qquant *q, struct qp_err *err);
/* Without the setup. */
struct qp_checkpoint_options qquant_checkpoint_options(const struct qquant *q);
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
