/* qlat: latency, throughput and memory of every model in the stream, by batch size, prompt length, depth of context and type of the KV cache.
 * In: model and tensor records (or --model M). Out: result records. Measures only when all before it in the pipe have ended. */
#include "base/mem.h"
#include "qlat.h"

static struct qlat app = {.batch_text = "1,8,32,64", .depth_text = "0", .kv_text = "auto", .new_text = "128", .warmup = 10, .runs = 50, .seed = 42, .measure_limits = true};

static const struct qp_opt options[] = {
    QP_OPT_STR('m', "model", &app.model, "M", "a model (directory or .gguf) instead of a stream"),
    QP_OPT_STR('\0', "batch", &app.batch_text, "N,N,...", "sequences that are answered together"),
    QP_OPT_STR('\0', "prompt-len", &app.prompt_len_text, "N,N,...", "tokens of a prompt of common words, or a range, 64-512: spread over the batch; default: 512, or those of --prompt"),
    QP_OPT_STR('\0', "prompt", &app.prompt_path, "FILE", "text of the prompt, or a .jsonl file of prompts ({\"prompt\": ...} or {\"text\": ...}) that the batch takes in turn; with --prompt-len their first tokens"),
    QP_OPT_STR('\0', "new-tokens", &app.new_text, "N", "tokens of an answer; with --requests also a range, 16-128"),
    QP_OPT_INT('\0', "requests", &app.requests, 0, 1 << 20, "N", "N requests queue for the batch, where one that ends makes room for the next; 0: each run is one batch, in step"),
    QP_OPT_STR('\0', "context-depth", &app.depth_text, "N,N,...", "tokens in the KV cache before the prompt"),
    QP_OPT_STR('\0', "kv", &app.kv_text, "TYPE,...", "how keys and values are kept: auto (--compute's type), f32, bf16, f16, int8"),
    QP_OPT_INT('\0', "cache", &app.cache, 0, 1 << 24, "N", "tokens that a sequence's cache holds; 0: just enough"),
    QP_OPT_INT('\0', "warmup", &app.warmup, 5, 1000000, "N", "requests thrown away first"),
    QP_OPT_INT('\0', "runs", &app.runs, 50, 1000000, "N", "requests that count; p95 takes 93, p99 473"),
    QP_OPT_F64('\0', "seconds", &app.seconds, 0, 1e6, "S", "go on for so long, beyond --runs"),
    QP_OPT_FLAG('\0', "pin", &app.pin, "tie threads to processors"),
    QP_OPT_FLAG('\0', "one-by-one", &app.one_by_one, "one model after the other, for want of memory: no paired ratios"),
    QP_OPT_FLAG('\0', "limits", &app.measure_limits, "measure the machine's own limits before each shape; on unless --no-limits"),
    QP_OPT_ENUM('\0', "compute", &app.compute, qp_compute_choices, "TYPE", QP_COMPUTE_HELP),
    QP_OPT_F64('\0', "memory-limit", &app.memory_limit_mb, 0, 1e9, "MB", "address space of the process that measures a model; 0: no limit"),
    QP_OPT_INT('\0', "seed", &app.seed, 0, INT64_C(1) << 53, "N", "of the prompts' words"),
    QP_OPT_STR('\0', "llama-bench-json", &app.llama_path, "FILE", "write the runs there under llama-bench's field names, too"),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qlat *a = ctx;
    if (run->args.n)
        return qp_err_set(&run->err, QP_E_USAGE, "unexpected argument '%s'", run->args.v[0]);
    if (qlat_parse_lists(a, &run->err))
        return run->err.code;
    run->seed = a->seed;
    if (a->model)
        run->input = QP_INPUT_NONE;
    if (qp_model_set_new(&a->models, &run->err))
        return run->err.code;
    return a->model ? qp_model_set_add_path(a->models, a->model, &run->err) : 0;
}

static int on_record(struct qp_tool_run *run, void *ctx, const struct qp_record *rec)
{
    return qp_model_set_record(((struct qlat *)ctx)->models, rec, &run->err);
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qlat *a = ctx;
    a->run = run;
    if (qp_model_set_finish(a->models, &run->err))
        return run->err.code;
    a->n_models = qp_model_set_count(a->models);
    for (size_t i = 0; i < a->n_models; i++)
        a->list[i] = (struct qp_sweep_model){qp_model_set_at(a->models, i)->id, qp_model_set_at(a->models, i)->model};
    if (a->model)
        qp_model_write_record(run->out, a->list[0].model, a->list[0].id);
    int r = qlat_read_prompts(a, &run->err);
    r = r ? r : qlat_measure(a);
    return r || !a->llama_path ? r : qlat_llama_write(a);
}

static void release(void *ctx)
{
    struct qlat *a = ctx;
    qp_model_set_free(a->models);
    qlat_release_prompts(a);
    json_decref(a->llama);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qlat",
        .summary = "Latency, throughput and memory of every model in the stream.",
        .usage = "[--model M] [options] < stream > stream",
        .details = "Starts when the stream before it has ended, so that no other stage is computing. Each model runs in a process of its own, request by\n"
                   "request in turns with the others (A B A B), behind warm-ups that are thrown away. Appends latency/bsN/ttft_p50_ms and so on, each with a\n"
                   "distribution-free interval; a percentile that so few runs do not support is left out. A model or batch that memory does not\n"
                   "suffice for is recorded (latency/bsN/status), the others go on, and the exit status is 4 in the end.\n\n"
                   "  qlat --model M --batch 1,8 --runs 100 > base.qp\n"
                   "  qlat --model M --batch 16 --prompt-len 64-512 > mixed.qp\n"
                   "  qlat --model M --batch 16 --prompt-len 64-512 --new-tokens 16-128 --requests 100 > throughput.qp\n"
                   "  qcalib ... | qquant ... | qlat --batch 1 --prompt-len 512 | qgate gate.json",
        .opts = options, .input = QP_INPUT_STREAM, .writes_stream = true,
        .check = check, .on_record = on_record, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
