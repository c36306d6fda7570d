/* qppl: perplexity, KL divergence and top-1 agreement of every model in the stream, over the same windows in one pass.
 * In: model and tensor records (or --model M), sample records (to mark text that calibration has seen). Out: source and result records. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "qppl.h"
#include "stream/tool.h"

static struct qppl app;

static const char *const bos_names[] = {"auto", "always", "never", NULL};
static const char *const compat_names[] = {"token-weighted", "window-mean", NULL};

static const struct qp_opt options[] = {
    QP_OPT_STR('m', "model", &app.model, "M", "a model (directory or .gguf) instead of a stream"),
    QP_OPT_STR('t', "text", &app.text, "FILE", "text to score: .txt, .raw, .jsonl, .jsonl.gz"),
    QP_OPT_STR('\0', "name", &app.name, "NAME", "name in the metrics (ppl/NAME); default: from the file's name"),
    QP_OPT_STR('\0', "field", &app.field, "FIELD", "field of a .jsonl row that holds the text; default: text"),
    QP_OPT_INT('\0', "window", &app.window, 0, 1 << 20, "N", "tokens in a window; 0: 2048, or the model's longest context if that is less"),
    QP_OPT_INT('\0', "stride", &app.stride, 0, 1 << 20, "N", "tokens from one window's start to the next; 0: a quarter of the window"),
    QP_OPT_INT('\0', "max-tokens", &app.max_tokens, 0, INT64_C(1) << 40, "N", "score no more than the first N tokens; 0: all"),
    QP_OPT_STR('\0', "shard", &app.shard_text, "I/N", "every Nth window from the Ith (I from 0 to N-1); sums add up over shards"),
    QP_OPT_ENUM('\0', "compat", &app.compat, compat_names, "MODE", "what ppl/NAME is: token-weighted, or the mean of window means"),
    QP_OPT_ENUM('\0', "bos", &app.bos, bos_names, "WHEN", "BOS before the text; auto: as the tokenizer does"),
    QP_OPT_ENUM('\0', "compute", &app.compute, qp_compute_choices, "TYPE", QP_COMPUTE_HELP),
    QP_OPT_ENUM('\0', "kv", &app.kv, qp_kv_choices, "TYPE", QP_KV_HELP),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qppl *a = ctx;
    if (!a->text)
        return qp_err_set(&run->err, QP_E_USAGE, "--text FILE is needed; see --help");
    if (run->args.n)
        return qp_err_set(&run->err, QP_E_USAGE, "unexpected argument '%s'", run->args.v[0]);
    if (a->window == 1)
        return qp_err_set(&run->err, QP_E_USAGE, "--window takes 2 or more tokens: a window's first token has no prediction");
    if (qp_tool_shard(a->shard_text, &a->shard, &a->shards, &run->err))
        return run->err.code;
    if (a->model)
        run->input = QP_INPUT_NONE;
    if (qp_model_set_new(&a->models, &run->err))
        return run->err.code;
    return a->model ? qp_model_set_add_path(a->models, a->model, &run->err) : 0;
}

static int on_record(struct qp_tool_run *run, void *ctx, const struct qp_record *rec)
{
    struct qppl *a = ctx;
    return qp_record_is(rec, "sample") ? qp_ngrams_read(&a->calibration, rec, &run->err) : qp_model_set_record(a->models, rec, &run->err);
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qppl *a = ctx;
    if (qp_model_set_finish(a->models, &run->err))
        return run->err.code;
    if (a->model)
        qp_model_write_record(run->out, qp_model_set_at(a->models, 0)->model, qp_model_set_at(a->models, 0)->id);
    int r = qppl_read_text(a, run);
    r = r ? r : qppl_open_engines(a, run);
    r = r ? r : qppl_score(a, run);
    if (!r)
        qppl_report(a, run);
    return r;
}

static void release(void *ctx)
{
    struct qppl *a = ctx;
    qp_ppl_release(&a->result);
    for (size_t i = 0; i < a->n_models; i++)
        qp_engine_free(a->engines[i]);
    qp_pool_free(a->pool);
    qp_tokenizer_free(a->tok);
    qp_model_set_free(a->models);
    qp_ids_release(&a->ids);
    qp_ngrams_release(&a->calibration);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qppl",
        .summary = "Perplexity, KL divergence and top-1 agreement of every model in the stream, in one pass.",
        .usage = "[--model M] --text FILE [options] < stream > stream",
        .details = "Rows of a .jsonl file are joined by two newlines, other files are taken as they are; no special tokens but the tokenizer's own.\n"
                   "Appends a source record, ppl/NAME for each model, and for each quantized model dlogppl/NAME (paired difference of the mean loss to\n"
                   "the baseline), kld/NAME (KL divergence, nats) and top1/NAME (share of tokens with the same greatest logit).\n\n"
                   "  qppl --model M --text wiki.test.raw > base.qp\n"
                   "  qcalib ... | qquant ... | qppl --text wiki.test.raw --name wikitext2 | qgate gate.json",
        .opts = options, .input = QP_INPUT_STREAM, .writes_stream = true,
        .check = check, .on_record = on_record, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
