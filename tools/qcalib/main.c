/* qcalib: builds a calibration set: general and domain text, tokenized, in fixed-length samples, disjoint from evaluation text.
 * In: text files. Out: source records, the baseline's model record, sample records. */
#include <stdio.h>

#include "base/mem.h"
#include "model/model_set.h"
#include "qcalib.h"

static struct qcalib app = {.ratio = 0.7, .samples = 128, .general_samples = -1, .domain_samples = -1, .seq_len = 2048, .seed = 42};

static const struct qp_opt options[] = {
    QP_OPT_STR('m', "model", &app.model, "M", "the baseline: a Hugging Face directory or a .gguf file"),
    QP_OPT_LIST('g', "general", &app.general, "FILE", "general text: .txt, .jsonl, .jsonl.gz"),
    QP_OPT_LIST('d', "domain", &app.domain, "FILE", "text of the domain that the model is sold for"),
    QP_OPT_F64('\0', "ratio", &app.ratio, 0, 1, "X", "share of general samples, where there is domain text"),
    QP_OPT_INT('n', "samples", &app.samples, 1, 1 << 24, "N", "samples in all"),
    QP_OPT_INT('\0', "general-samples", &app.general_samples, -1, 1 << 24, "N", "exact count instead of --samples and --ratio; -1: unset"),
    QP_OPT_INT('\0', "domain-samples", &app.domain_samples, -1, 1 << 24, "N", "exact count; -1: unset"),
    QP_OPT_INT('l', "seq-len", &app.seq_len, 16, 1 << 20, "N", "tokens in a sample"),
    QP_OPT_INT('\0', "seed", &app.seed, 0, INT64_C(1) << 62, "N", "order of the samples"),
    QP_OPT_STR('\0', "field", &app.field, "FIELD", "field of a .jsonl row that holds the text; default: text"),
    QP_OPT_LIST('x', "exclude", &app.exclude, "FILE", "evaluation text: no sample shares a run of 13 tokens with it"),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qcalib *c = ctx;
    bool counted = c->general_samples >= 0 || c->domain_samples >= 0;
    run->seed = c->seed;
    if (run->args.n)
        return qp_err_set(&run->err, QP_E_USAGE, "unexpected argument '%s'", run->args.v[0]);
    if (!c->model)
        return qp_err_set(&run->err, QP_E_USAGE, "--model M is needed: a Hugging Face directory or a .gguf file");
    if (!c->general.n && !c->domain.n)
        return qp_err_set(&run->err, QP_E_USAGE, "--general FILE is needed: text to calibrate on");
    if (!c->general.n && !counted && c->ratio > 0)
        return qp_err_set(&run->err, QP_E_USAGE, "--ratio %g asks for general text; give --general FILE, or --ratio 0", c->ratio);
    if ((c->general_samples > 0 && !c->general.n) || (c->domain_samples > 0 && !c->domain.n))
        return qp_err_set(&run->err, QP_E_USAGE, "--%s-samples without --%s FILE", c->general_samples > 0 && !c->general.n ? "general" : "domain",
                          c->general_samples > 0 && !c->general.n ? "general" : "domain");
    if (counted && (c->general_samples > 0 ? c->general_samples : 0) + (c->domain_samples > 0 ? c->domain_samples : 0) == 0)
        return qp_err_set(&run->err, QP_E_USAGE, "--general-samples and --domain-samples ask for no sample at all");
    return 0;
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qcalib *c = ctx;
    if (qp_model_open(&c->m, c->model, &run->err) || qp_model_tokenizer(c->m, &c->tok, &run->err) || !(c->id = qp_model_id(c->model, &run->err)))
        return run->err.code;
    int r = qcalib_read(c, run);
    if (!r)
        qp_model_write_record(run->out, c->m, c->id);
    r = r ? r : qcalib_pick(c, run);
    return r ? r : qcalib_write(c, run);
}

static void release(void *ctx)
{
    struct qcalib *c = ctx;
    for (int i = 0; c->sources && i < c->n_sources; i++)
        qp_ids_release(&c->sources[i].ids);
    qp_free(c->sources);
    qp_free(c->picked);
    qp_free(c->id);
    qp_ngrams_release(&c->excluded);
    qp_tokenizer_free(c->tok);
    qp_model_free(c->m);
    qp_strs_release(&c->general);
    qp_strs_release(&c->domain);
    qp_strs_release(&c->exclude);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qcalib",
        .summary = "Builds a calibration set: general and domain text in fixed-length samples, disjoint from evaluation text.",
        .usage = "--model M --general FILE... [--domain FILE...] [--exclude FILE...] [options] > stream",
        .details = "A file's documents are joined by two newlines and tokenized without special tokens; its windows of --seq-len tokens are taken from the\n"
                   "start, disjoint. Quotas are exact: --samples by --ratio, then over the files of a kind by their size, by largest remainder. A window that\n"
                   "shares 13 tokens in a row with an --exclude file is left out and the next one taken; a source that runs short is an error.\n\n"
                   "  qcalib --model M --general c4.jsonl --domain fraud.jsonl --exclude wiki.test.raw --samples 128 --seq-len 512 | qquant",
        .opts = options, .input = QP_INPUT_NONE, .writes_stream = true,
        .check = check, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
