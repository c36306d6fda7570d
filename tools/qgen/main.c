/* qgen: greedy answers of every model in the stream to a user's own examples, matched with what was expected, by category, paired with the baseline's.
 * In: model and tensor records (or --model M), sample records (to mark examples that calibration has seen). Out: source, item and result records. */
#include <string.h>

#include "base/mem.h"
#include "qgen.h"

static struct qgen app = {.max_new = 50, .batch = 16, .kv_mb = 4096, .expected_field = "expected_output", .category_field = "category"};

static const char *const match_names[] = {"contains", "exact", "regex", "number", NULL};
static const char *const number_names[] = {"last", "first", NULL};

static const struct qp_opt options[] = {
    QP_OPT_STR('m', "model", &app.model, "M", "a model (directory or .gguf) instead of a stream"),
    QP_OPT_STR('d', "data", &app.data, "FILE", "examples, .jsonl or .jsonl.gz: one object a line"),
    QP_OPT_STR('t', "template", &app.template, "T", "the prompt: text with {field}, or Jinja; @FILE; chat or chat:TEXT for the model's chat template"),
    QP_OPT_STR('\0', "system", &app.system, "TEXT", "system message of the chat template"),
    QP_OPT_STR('\0', "name", &app.name, "NAME", "name in the metrics (acc/NAME); default: from the file's name"),
    QP_OPT_STR('\0', "expected-field", &app.expected_field, "FIELD", "field with the expected answer: text, a number, or a list of which any is right"),
    QP_OPT_STR('\0', "category-field", &app.category_field, "FIELD", "field with the category; examples may lack it"),
    QP_OPT_GROUP("answers"),
    QP_OPT_INT('n', "max-new-tokens", &app.max_new, 1, 1 << 20, "N", "tokens of an answer at most"),
    QP_OPT_EACH('\0', "stop", &app.stops, "TEXT", "an answer ends before this text; may be given often; \\n is a line end"),
    QP_OPT_ENUM('\0', "match", &app.match, match_names, "HOW", "contains: the answer holds the expected text; exact; regex: the expected text is a pattern; number"),
    QP_OPT_FLAG('i', "ignore-case", &app.ignore_case, "match without regard to case"),
    QP_OPT_FLAG('w', "whole-words", &app.whole_words, "contains: the expected text stands by itself: \"no\" is not in \"another\""),
    QP_OPT_STR('\0', "extract", &app.extract, "REGEX", "match what its first group finds in the answer, not the answer"),
    QP_OPT_ENUM('\0', "number", &app.number, number_names, "WHICH", "number: which of a text's numbers counts"),
    QP_OPT_F64('\0', "tolerance", &app.tolerance, 0, 1e300, "X", "number: greatest difference that is right"),
    QP_OPT_GROUP("amount"),
    QP_OPT_INT('\0', "limit", &app.limit, 0, INT64_C(1) << 40, "N", "the first N examples; 0: all"),
    QP_OPT_STR('\0', "shard", &app.shard_text, "I/N", "every Nth example from the Ith (I from 0 to N-1)"),
    QP_OPT_INT('b', "batch", &app.batch, 1, 1024, "N", "examples that are answered together; answers do not depend on it"),
    QP_OPT_INT('\0', "kv-memory", &app.kv_mb, 1, INT64_C(1) << 30, "MB", "fewer are answered together where their KV caches would take more"),
    QP_OPT_ENUM('\0', "compute", &app.compute, qp_compute_choices, "TYPE", QP_COMPUTE_HELP),
    QP_OPT_ENUM('\0', "kv", &app.kv, qp_kv_choices, "TYPE", QP_KV_HELP),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qgen *a = ctx;
    if (!a->data || !a->template)
        return qp_err_set(&run->err, QP_E_USAGE, "--data FILE and --template T are needed; see --help");
    if (run->args.n)
        return qp_err_set(&run->err, QP_E_USAGE, "unexpected argument '%s'", run->args.v[0]);
    bool chat = !strcmp(a->template, "chat") || !strncmp(a->template, "chat:", 5);
    if (a->system && !chat)
        return qp_err_set(&run->err, QP_E_USAGE, "--system goes with --template chat; put the text into the template instead");
    if (qp_tool_shard(a->shard_text, &a->shard, &a->shards, &run->err))
        return run->err.code;
    if (a->stops.n > QGEN_MAX_STOPS)
        return qp_err_set(&run->err, QP_E_USAGE, "--stop: more than %d texts", QGEN_MAX_STOPS);
    for (int i = 0; i < a->stops.n; i++)
        if (!*a->stops.v[i])
            return qp_err_set(&run->err, QP_E_USAGE, "--stop takes a text that is not empty");
    const struct qp_match_options o = {.kind = (enum qp_match_kind)a->match, .ignore_case = a->ignore_case, .whole_words = a->whole_words, .first_number = a->number == 1, .tolerance = a->tolerance, .extract = a->extract};
    if (qp_matcher_new(&a->matcher, &o, &run->err)) {
        qp_err_context(&run->err, "--extract");
        return run->err.code = QP_E_USAGE;
    }
    if (a->model)
        run->input = QP_INPUT_NONE;
    if (qp_model_set_new(&a->models, &run->err))
        return run->err.code;
    return a->model ? qp_model_set_add_path(a->models, a->model, &run->err) : 0;
}

static int on_record(struct qp_tool_run *run, void *ctx, const struct qp_record *rec)
{
    struct qgen *a = ctx;
    return qp_record_is(rec, "sample") ? qp_ngrams_read(&a->calibration, rec, &run->err) : qp_model_set_record(a->models, rec, &run->err);
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qgen *a = ctx;
    if (qp_model_set_finish(a->models, &run->err))
        return run->err.code;
    if (a->model)
        qp_model_write_record(run->out, qp_model_set_at(a->models, 0)->model, qp_model_set_at(a->models, 0)->id);
    qp_ngrams_sort(&a->calibration);
    int r = qgen_read(a, run);
    r = r ? r : qgen_answer(a, run);
    return r ? r : qgen_report(a, run);
}

static void release(void *ctx)
{
    struct qgen *a = ctx;
    qgen_release_examples(a);
    qp_items_release(&a->items);
    qp_matcher_free(a->matcher);
    qp_chat_free(a->chat);
    qp_prompt_free(a->prompt);
    qp_pool_free(a->pool);
    qp_tokenizer_free(a->tok);
    qp_model_set_free(a->models);
    qp_ngrams_release(&a->calibration);
    for (int i = 0; i < QGEN_MAX_STOPS; i++)
        qp_free(a->stop_texts[i]);
    qp_strs_release(&a->stops);
    qp_buf_release(&a->text);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qgen",
        .summary = "Greedy answers of every model in the stream to your own examples, matched with what was expected, by category.",
        .usage = "[--model M] --data FILE --template T [options] < stream > stream",
        .details = "A line of the data: {\"input\": \"...\", \"expected_output\": \"...\", \"category\": \"...\"}; any fields that the template names.\n"
                   "Appends a source record, an item for each model and example (with the answer), acc/NAME for each model, and for each quantized model the paired\n"
                   "comparison with its baseline (dacc/NAME, retained/NAME). A prompt that is too long for the model's context loses its beginning, and is counted.\n\n"
                   "  qgen --model M --data fraud-eval.jsonl --template chat --match contains -i > base.qp\n"
                   "  qcalib ... | qquant ... | qgen --data fraud-eval.jsonl --template 'Q: {input}\\nA:' --stop '\\n' | qgate gate.json",
        .opts = options, .input = QP_INPUT_STREAM, .writes_stream = true,
        .check = check, .on_record = on_record, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
