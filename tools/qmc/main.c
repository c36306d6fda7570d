/* qmc: multiple choice as lm-evaluation-harness scores it, for every model in the stream, question by question; what quantization lost, by subject.
 * In: model and tensor records (or --model M), sample records (to mark questions that calibration has seen). Out: source, item and result records. */
#include "base/mem.h"
#include "qmc.h"

static struct qmc app = {.n_shots = -1, .seed = QP_MC_SEED};

static const char *const sampler_names[] = {"task", "default", "first_n", NULL};

static const struct qp_opt options[] = {
    QP_OPT_STR('m', "model", &app.model, "M", "a model (directory or .gguf) instead of a stream"),
    QP_OPT_STR('t', "task", &app.tasks, "T[,T...]", "mmlu, mmlu_SUBJECT, mmlu_stem and so on, hellaswag, arc_challenge, arc_easy, winogrande, piqa, or a task file (.json)"),
    QP_OPT_STR('d', "data", &app.data, "DIR", "where the data sets lie, a folder each (mmlu/test.jsonl), as publishers or the hub have them"),
    QP_OPT_INT('\0', "num-fewshot", &app.n_shots, -1, 1000, "K", "examples before each question; -1: the task's own number"),
    QP_OPT_ENUM('\0', "fewshot-sampler", &app.sampler, sampler_names, "HOW", "how examples are chosen: the task's own way, drawn at random, or the first ones"),
    QP_OPT_INT('\0', "fewshot-seed", &app.seed, 1, INT64_C(1) << 53, "N", "seed of the draws"),
    QP_OPT_STR('l', "limit", &app.limit_text, "N|FRACTION", "the first N questions, or that share, of each task and subject"),
    QP_OPT_STR('\0', "shard", &app.shard_text, "I/N", "every Nth question from the Ith (I from 0 to N-1); qcat --merge joins the shards"),
    QP_OPT_ENUM('\0', "compute", &app.compute, qp_compute_choices, "TYPE", QP_COMPUTE_HELP),
    QP_OPT_ENUM('\0', "kv", &app.kv, qp_kv_choices, "TYPE", QP_KV_HELP),
    QP_OPT_STR('\0', "cache", &app.cache, "DIR", "keep the baselines' items there, by model, task and protocol, and take them from there"),
    QP_OPT_STR('\0', "resume", &app.resume, "FILE", "take the items that a run before has written to FILE, cut off or not"),
    QP_OPT_STR('\0', "lm-eval-json", &app.lm_eval_json, "DIR", "write results and samples as lm-evaluation-harness does, too"),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qmc *a = ctx;
    if (!a->tasks)
        return qp_err_set(&run->err, QP_E_USAGE, "--task T[,T...] is needed; see --help");
    if (run->args.n)
        return qp_err_set(&run->err, QP_E_USAGE, "unexpected argument '%s'", run->args.v[0]);
    if (qmc_parse(a, &run->err))
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
    struct qmc *a = ctx;
    return qp_record_is(rec, "sample") ? qp_ngrams_read(&a->calibration, rec, &run->err) : qp_model_set_record(a->models, rec, &run->err);
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qmc *a = ctx;
    if (qp_model_set_finish(a->models, &run->err))
        return run->err.code;
    if (a->model)
        qp_model_write_record(run->out, qp_model_set_at(a->models, 0)->model, qp_model_set_at(a->models, 0)->id);
    int r = qmc_open_tasks(a, run);
    r = r ? r : qmc_open_models(a, run);
    r = r ? r : qmc_read_known(a, run);
    r = r ? r : qmc_score(a, run);
    r = r ? r : qmc_report(a, run);
    r = r || !a->cache ? r : qmc_write_cache(a, &run->err);
    return r || !a->lm_eval_json ? r : qmc_write_lm_eval(a, &run->err);
}

static void release(void *ctx)
{
    struct qmc *a = ctx;
    for (size_t i = 0; i < a->n_models; i++) {
        qp_mc_scorer_free(a->m[i].scorer);
        qp_engine_free(a->m[i].engine);
    }
    for (size_t i = 0; i < a->n_tasks; i++)
        qp_mc_task_free(a->task[i].t);
    qp_pool_free(a->pool);
    qp_tokenizer_free(a->tok);
    qp_model_set_free(a->models);
    qp_items_release(&a->items);
    qp_items_release(&a->known);
    qp_ngrams_release(&a->calibration);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qmc",
        .summary = "Multiple choice as lm-evaluation-harness scores it, for every model in the stream, item by item.",
        .usage = "[--model M] --task T[,T...] --data DIR [options] < stream > stream",
        .details = "Appends an item record for every question and model, acc/TASK and acc_norm/TASK, and for each quantized model dacc/TASK (paired difference\n"
                   "to the baseline, with its worst subjects), retained/TASK (percent) and quality/all. A user's own set needs a task file: docs/TASKS.md.\n\n"
                   "  qmc --model M --task mmlu,hellaswag --data data --limit 0.1 > base.qp\n"
                   "  qcalib ... | qquant ... | qmc --task arc_challenge --data data --cache ~/.cache/quantpipe/qmc | qgate gate.json\n"
                   "  qmc --resume cut-off.qp ... > whole.qp             # another file than the one that is read",
        .opts = options, .input = QP_INPUT_STREAM, .writes_stream = true,
        .check = check, .on_record = on_record, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
