/* qquant: quantizes the stream's baseline. In: model and sample records. Out: a quantized model record, a layer record for each linear layer, and the
 * weights as tensor records, or with -o PATH a checkpoint and its path. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "qquant.h"

static struct qquant app = {.method = QQUANT_GPTQ, .bits = 4, .group_size = 64, .damp = 0.1, .mse = true, .sweeps = 2, .clip = true, .measure_tokens = 1024,
                            .block_size = 64, .fp8_scales = QQUANT_BY_CHANNEL, .outlier_threshold = 6,
                            .act_order = true, .static_groups = true, .true_sequential = true};

static const char *const methods[] = {"rtn", "gptq", "awq", "awq+gptq", "nf4", "fp4", "int8", "fp8", "none", NULL};
static const char *const formats[] = {"auto", "gptq", "gptq_v2", "awq", "bnb", "compressed-tensors", "gguf", NULL};
static const char *const fp8_types[] = {"e4m3", "e5m2", NULL};
static const char *const fp8_scales[] = {"tensor", "channel", "block", NULL};
static const char *const devices[] = {"cpu", NULL};
static const char *const duos[] = {"on", "off", "both", NULL};
static const char *const computes[] = {"auto", "f32", "bf16", NULL};

static const struct qp_opt options[] = {
    QP_OPT_ENUM('\0', "method", &app.method, methods, "NAME", "rtn: round to nearest; gptq: Frantar et al. 2022; awq: Lin et al. 2023; awq+gptq: GPTQ on weights that AWQ has scaled; nf4, fp4, int8 (LLM.int8()): as bitsandbytes; fp8; none: as it is, in float16"),
    QP_OPT_INT('\0', "bits", &app.bits, 2, 8, "N", "bits of a weight: 2, 3, 4 or 8"),
    QP_OPT_INT('\0', "group-size", &app.group_size, -1, 1 << 20, "N", "inputs that share a scale: 32, 64, 128, ...; -1: the whole row"),
    QP_OPT_FLAG('\0', "sym", &app.sym, "zero point in the middle of the codes (default, but for awq and awq+gptq)"),
    QP_OPT_FLAG('\0', "asym", &app.asym, "a zero point for each group"),
    QP_OPT_STR('o', "output", &app.out, "PATH", "write a checkpoint instead of sending the weights down the pipe: a Hugging Face folder, or FILE.gguf"),
    QP_OPT_ENUM('\0', "format", &app.format, formats, "NAME", "layout of the checkpoint; auto: gguf where -o names FILE.gguf, else gptq, bnb for nf4, fp4 and int8, compressed-tensors for fp8. gguf holds 4 bits (Q4_0, --asym: Q4_1) and 8 bits (Q8_0) in blocks of 32; without -o the pipe carries weights rounded as for it"),
    QP_OPT_STR('m', "model", &app.model_path, "M", "the model, where the stream has none (rtn, nf4, fp4, int8, fp8 and none need no samples)"),
    QP_OPT_GROUP("GPTQ"),
    QP_OPT_FLAG('\0', "act-order", &app.act_order, "round inputs in the order of falling activation (default; --no-act-order: as they come)"),
    QP_OPT_FLAG('\0', "static-groups", &app.static_groups, "with --act-order: groups stay blocks of neighbouring inputs (default; --no-static-groups: they follow the order, g_idx)"),
    QP_OPT_FLAG('\0', "group-aware", &app.group_aware, "group by group, those of the most active inputs first, in the order of activation within: neighbours stay in a group, grids see the errors carried so far"),
    QP_OPT_FLAG('\0', "true-sequential", &app.true_sequential, "a layer's inputs come from its quantized predecessors in the block (default; --no-true-sequential: from those as they were)"),
    QP_OPT_F64('\0', "damp", &app.damp, 0, 1, "X", "damping, as a share of the Hessian's mean diagonal; grows tenfold when needed"),
    QP_OPT_FLAG('\0', "mse", &app.mse, "search each group's clipping for the least weighted error (default; --no-mse: cover the range)"),
    QP_OPT_INT('\0', "sweeps", &app.sweeps, 0, 1000, "N", "rounds of coordinate descent after GPTQ; 0: plain GPTQ"),
    QP_OPT_F64('\0', "drift", &app.drift, 0, 1, "X", "share of what earlier layers lost that each layer makes up for, its inputs' (GPTAQ) and the residual stream's (0.5 is best); costs a full-precision pass beside it; 0: GPTQ as published"),
    QP_OPT_INT('\0', "min-expert-tokens", &app.min_expert_tokens, 0, 1 << 30, "N", "an expert's matrix that fewer calibration tokens reach is rounded to nearest; 0: than a 32nd of its inputs"),
    QP_OPT_GROUP("AWQ"),
    QP_OPT_ENUM('\0', "duo", &app.duo, duos, "NAME", "duo scaling, by activations and weights: on, off, or both tried"),
    QP_OPT_FLAG('\0', "clip", &app.clip, "awq: search each group's clipping, but for q and k (default; --no-clip: cover the range)"),
    QP_OPT_GROUP("nf4, fp4, int8, fp8"),
    QP_OPT_INT('\0', "block-size", &app.block_size, 32, 4096, "N", "nf4, fp4: weights of the flattened matrix that share a scale: 32, 64, ... 4096"),
    QP_OPT_FLAG('\0', "double-quant", &app.double_quant, "nf4, fp4: scales in 8 bits"),
    QP_OPT_F64('\0', "outlier-threshold", &app.outlier_threshold, 0, 1e6, "X", "int8: inputs of at least this magnitude are multiplied in 16 bit; 0: weights alone are in 8 bits"),
    QP_OPT_ENUM('\0', "fp8-type", &app.fp8_type, fp8_types, "NAME", "e4m3 or e5m2"),
    QP_OPT_ENUM('\0', "fp8-scales", &app.fp8_scales, fp8_scales, "NAME", "one for each: tensor, channel (output), block of 128 x 128"),
    QP_OPT_GROUP("Formats by layer"),
    QP_OPT_EACH('\0', "keep", &app.keep, "GLOB=FORMAT", "layers of that name ('*.v_proj', '*layers.0.*') get fp16, bf16, fp8, int8, nf4, w8g64, w4g32-asym, ...; may be repeated, the last that matches counts"),
    QP_OPT_STR('\0', "keep-sensitive", &app.keep_sensitive, "X[:FORMAT]", "the layers that lose most for each weight, up to that share of the weights, get fp16, or fp8, ... (0.15, 0.15:fp8)"),
    QP_OPT_F64('\0', "bpw", &app.bpw, 0, 32, "X", "choose each layer's format so that the model loses least within X bits per linear weight"),
    QP_OPT_F64('\0', "budget-mb", &app.budget_mb, 0, 1e9, "N", "the same within N MB (10^6 bytes) for the whole model"),
    QP_OPT_EACH('\0', "choose", &app.choose, "FORMAT", "a format to choose from beside the method's own; may be repeated (default: 3, 4 and 8 bits in several group sizes, fp16)"),
    QP_OPT_FLAG('\0', "measure", &app.measure, "write how much each layer minds its quantization (sensitivity records; with --method none nothing else); the options above do, where the stream has none"),
    QP_OPT_INT('\0', "measure-tokens", &app.measure_tokens, 1, 1 << 20, "N", "of the calibration text, for that"),
    QP_OPT_GROUP("Computing"),
    QP_OPT_ENUM('\0', "compute", &app.compute, computes, "TYPE", "products of the calibration pass; auto: bf16 where the machine has it"),
    QP_OPT_ENUM('\0', "device", &app.device, devices, "NAME", "where to compute"),
    QP_OPT_FLAG('\0', "plan", &app.plan, "only say what the run would need: layers that cannot be stored, memory, disk, minutes"),
    QP_OPT_SIZE('\0', "memory", &app.memory, "SIZE", "activations beyond it lie in temporary files, in $TMPDIR or beside DIR: 500M, 4G, ...; default: half of what is free"),
    QP_OPT_FLAG('v', "verbose", &app.verbose, "a line for each layer on standard error"),
    QP_OPT_END,
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qquant *q = ctx;
    q->start = now();
    if (run->args.n)
        return qp_err_set(&run->err, QP_E_USAGE, "unexpected argument '%s'", run->args.v[0]);
    if (q->bits > 4 && q->bits != 8)
        return qp_err_set(&run->err, QP_E_USAGE, "--bits takes 2, 3, 4 or 8, not %lld", (long long)q->bits);
    if (q->sym && q->asym)
        return qp_err_set(&run->err, QP_E_USAGE, "--sym and --asym exclude each other");
    if (q->group_size != -1 && (q->group_size < 8 || q->group_size % 8))
        return qp_err_set(&run->err, QP_E_USAGE, "--group-size takes a multiple of 8 (32, 64, 128, ...) or -1 for the whole row, not %lld", (long long)q->group_size);
    q->asym |= !q->sym && (q->method == QQUANT_AWQ || q->method == QQUANT_AWQ_GPTQ);
    q->sym = !q->asym;
    if (qquant_check_output(q, &run->err) || qquant_set_format(q, &run->err))
        return run->err.code;
    if (q->model_path && qquant_needs_samples(q))
        return qp_err_set(&run->err, QP_E_USAGE, "--model goes with methods that need no samples (rtn, nf4, fp4, int8, fp8, none); %s needs samples: qcalib --model M ... | qquant", methods[q->method]);
    if (q->model_path)
        run->input = QP_INPUT_NONE;
    return qquant_check_mixed(q, &run->err);
}

static int take_baseline(struct qquant *q, const struct qp_record *rec, struct qp_err *err)
{
    const char *role, *id, *path;
    if (qp_record_need_str(rec, "role", &role, err) || qp_record_need_str(rec, "id", &id, err))
        return err->code;
    if (strcmp(role, "baseline"))
        return 0;
    if (q->base_id)
        return qp_err_set(err, QP_E_INPUT, "two baselines in the stream ('%s' and '%s'); qquant takes one", q->base_id, id);
    if (qp_record_need_str(rec, "path", &path, err))
        return err->code;
    q->base_id = qp_strdup(id, err);
    q->base_path = qp_strdup(path, err);
    return q->base_id && q->base_path ? 0 : QP_E_RESOURCE;
}

static int take_sample(struct qquant *q, const struct qp_record *rec, struct qp_err *err)
{
    const uint8_t *data = NULL;
    size_t n = 0;
    int r = qp_record_bin(rec, "ids", &data, &n, err);
    if (r <= 0)
        return r < 0 ? r : qp_err_set(err, QP_E_INPUT, "sample record: field 'ids' is missing");
    if (!n || n % 4 || (q->n_samples && n / 4 != (size_t)q->sample_len))
        return qp_err_set(err, QP_E_INPUT, "sample record %lld: %zu bytes of ids, expected %lld token ids as in the first", (long long)q->n_samples, n, (long long)q->sample_len);
    for (size_t i = 0; i < n; i += 4) {
        int32_t id;
        memcpy(&id, data + i, 4);
        if (qp_ids_add(&q->ids, id, err))
            return err->code;
    }
    q->sample_len = (int64_t)(n / 4);
    q->n_samples++;
    return 0;
}

static int on_record(struct qp_tool_run *run, void *ctx, const struct qp_record *rec)
{
    if (qp_record_is(rec, "model"))
        return take_baseline(ctx, rec, &run->err);
    if (qp_record_is(rec, "sensitivity"))
        return qquant_take_sensitivity(ctx, rec, &run->err);
    return qp_record_is(rec, "sample") ? take_sample(ctx, rec, &run->err) : 0;
}

static int open_model(struct qquant *q, struct qp_tool_run *run)
{
    if (q->model_path && !(q->base_id = qp_model_id(q->model_path, &run->err)))
        return QP_E_RESOURCE;
    if (!q->base_id)
        return qp_err_set(&run->err, QP_E_INPUT, "the stream has no baseline model record; expected qcalib --model M ... | qquant");
    if (qp_model_open(&q->model, q->model_path ? q->model_path : q->base_path, &run->err))
        return run->err.code;
    if (q->model_path) {
        if (!(q->base_path = qp_strdup(qp_model_path(q->model), &run->err)))
            return QP_E_RESOURCE;
        qp_model_write_record(run->out, q->model, q->base_id);
    }
    if (qquant_needs_samples(q) && !q->n_samples)
        return qp_err_set(&run->err, QP_E_INPUT, "the stream has no sample records; %s needs calibration: qcalib --general F ... | qquant", methods[q->method]);
    if (qp_backend_cpu_init(&q->ops, run->backend, &run->err) || qp_pool_new(&q->pool, (int)run->threads, &run->err))
        return run->err.code;
    bool bf16 = q->compute == QQUANT_BF16 || (q->compute == QQUANT_AUTO && q->ops.has_bf16);
    q->opt = (struct qp_quantize_options){
        .method = qquant_is_gptq(q) ? QP_METHOD_GPTQ : QP_METHOD_RTN, .damp = q->damp, .act_order = q->act_order,
        .block_inputs = !q->true_sequential, .drift_gain = q->drift, .min_expert_tokens = q->min_expert_tokens, .compute = bf16 ? QP_COMPUTE_BF16 : QP_COMPUTE_F32,
        .format = q->opt.format, .gptq = {.grid = q->opt.format.grid,
                 .static_groups = q->act_order && q->static_groups && !q->group_aware, .group_aware = q->group_aware, .sweeps = (int)q->sweeps}};
    q->awq = (struct qp_awq_options){.duo = (enum qp_awq_duo)q->duo, .points = QQUANT_AWQ_POINTS, .clip = q->clip};
    if (q->method == QQUANT_AWQ || q->method == QQUANT_AWQ_GPTQ)
        q->opt.awq = &q->awq;
    qquant_name(q);
    return 0;
}

/* What calibration covers of a model with experts. */
static void count_experts(struct qquant *q, const struct qp_layer_report *rep)
{
    if (rep->expert < 0 || q->method != QQUANT_GPTQ)
        return;
    if (!q->experts++ || rep->tokens < q->fewest_tokens)
        q->fewest_tokens = rep->tokens;
    q->few_experts += rep->fallback != NULL;
}

static int on_layer(void *ctx, const struct qp_layer_report *rep, const struct qp_qweight *layer)
{
    struct qquant_ctx *c = ctx;
    struct qquant *q = c->q;
    if (qp_tool_interrupted())
        return qp_err_set(&c->run->err, QP_E_RESOURCE, "interrupted");
    if (rep->index == (int64_t)qp_model_first_linear(q->model, q->blocks.first))
        qp_progress_begin(c->run->progress, "quantizing", "layers", rep->total);
    qp_progress_update(c->run->progress, rep->index + 1, rep->name);
    count_experts(q, rep);
    if (rep->fallback) {
        qp_progress_end(c->run->progress);
        fprintf(stderr, "qquant: warning: '%s' was rounded to nearest: %s\n", rep->name, rep->fallback);
        q->fallbacks++;
    }
    if (q->verbose)
        fprintf(stderr, "qquant: %s  rel_error %.3e  snr %.1f dB  damp %g  %.1f s\n", rep->name, rep->error.rel_error, rep->error.snr_db, rep->damp, now() - q->start);
    return qquant_put_layer(q, c->run->out, rep, layer, &c->run->err);
}

static int quantize(struct qquant *q, struct qp_tool_run *run)
{
    struct qquant_ctx c = {q, run};
    struct qp_calibration cal = {q->ids.v, q->n_samples, q->sample_len};
    if (q->method == QQUANT_NONE)
        return 0;
    return qp_quantize_model(q->model, q->n_samples ? &cal : NULL, &q->opt, &q->ops, q->pool, on_layer, &c, &run->err);
}

static void say_done(const struct qquant *q)
{
    fprintf(stderr, "qquant: %s in %.1f s", q->id, now() - q->start);
    if (q->out)
        fprintf(stderr, ", written to %s; read back, the greatest difference is %g", q->out, q->read_back);
    fputc('\n', stderr);
}

/* A model that -o cannot write is refused before anything is measured. */
static int check_storable(const struct qquant *q, struct qp_err *err)
{
    struct qp_checkpoint_options o = qquant_checkpoint_options(q);
    size_t dense;
    return q->out ? qp_checkpoint_check(&dense, q->model, &o, err) : 0;
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qquant *q = ctx;
    int r = open_model(q, run);
    if (!r && q->plan)
        return qquant_plan(q, run);
    r = r ? r : check_storable(q, &run->err);
    r = r ? r : qquant_open_spool(q, &run->err);
    r = r ? r : qquant_choose_formats(q, run);
    if (q->method == QQUANT_NONE && q->measure && !q->out)
        return r; /* measures only */
    if (!r && q->out)
        r = qquant_open_checkpoint(q, run);
    if (!r && !q->out)
        qquant_write_model(q, run->out); /* before its tensors; with -o after the folder is complete */
    r = r ? r : quantize(q, run);
    if (!r && q->out) {
        r = qp_checkpoint_commit(q->dir, &q->read_back, &run->err);
        q->dir = NULL;
        if (!r)
            qquant_write_model(q, run->out);
    }
    qp_progress_end(run->progress);
    if (r)
        qquant_leave_checkpoint(q, run);
    if (!r && !run->quiet)
        say_done(q);
    if (!r && q->experts && (!run->quiet || q->few_experts))
        fprintf(stderr, "qquant: coverage: %lld of %lld matrices of experts quantized from calibration, %lld rounded for lack of it; fewest tokens %lld\n",
                (long long)(q->experts - q->few_experts), (long long)q->experts, (long long)q->few_experts, (long long)q->fewest_tokens);
    if (!r && q->fallbacks)
        fprintf(stderr, "qquant: warning: %lld layers fell back to rounding; their records say fallback\n", (long long)q->fallbacks);
    return r;
}

static void release(void *ctx)
{
    struct qquant *q = ctx;
    qp_spool_close(q->spool);
    qp_pool_free(q->pool);
    qp_model_free(q->model);
    qp_ids_release(&q->ids);
    qp_buf_release(&q->told);
    qp_strs_release(&q->keep);
    qp_strs_release(&q->choose);
    qp_free(q->found);
    qp_free(q->formats);
    qp_free(q->base_id);
    qp_free(q->base_path);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qquant",
        .summary = "Quantizes the stream's model on its calibration samples; says each layer's error.",
        .usage = "[--method gptq] [--bits 4] [--group-size 64] [options] [-o PATH] < stream > stream",
        .details = "Layers are quantized block by block in the order of the forward pass, each on the outputs of the quantized ones before it.\n"
                   "Appends a model record (inline, its weights as tensor records; or the path that -o wrote) and a layer record for each linear layer:\n"
                   "mse, rel_error = tr(E H E')/tr(W H W'), snr_db, damp, dead inputs, fallback.\n"
                   "With -o PATH the work lies in PATH.part, a folder, until it is complete; a run that was stopped or killed goes on from its last whole\n"
                   "block when the same command is given again, to the same bytes. A GGUF file takes over all metadata of the model's GGUF file, tokenizer\n"
                   "and all, and byte for byte the tensors that are no linear layers; of folders those of llama, qwen2 and qwen3 with byte-level BPE become one.\n\n"
                   "  qcalib --model M --general c4.jsonl | qquant --bits 4 --group-size 64 | qppl --text wiki.test.raw\n"
                   "  qcalib ... | qquant --asym --act-order -o model-gptq > record.qp",
        .opts = options, .input = QP_INPUT_STREAM, .writes_stream = true,
        .check = check, .on_record = on_record, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
