/* qgate: judges the stream's quantized models by a gate file. In: model and result records. Out: a verdict record for each quantized model;
 * exit status 0 pass, 1 fail, 6 undecided. */
#include <stdio.h>
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "qgate.h"

static struct qgate app;

static const struct qp_opt options[] = {
    QP_OPT_STR('\0', "json", &app.json, "FILE", "write the verdicts as JSON, too"),
    QP_OPT_STR('\0', "junit", &app.junit, "FILE", "write the checks as JUnit XML, for CI systems"),
    QP_OPT_STR('\0', "history", &app.history_path, "DB", "an SQLite file to which every verdict is added, and where \"against\": \"last-pass\" looks"),
    QP_OPT_INT('\0', "show", &app.show, 0, INT64_C(1) << 40, "N", "print the last N verdicts of --history, and judge nothing"),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    struct qgate *a = ctx;
    if (a->show) {
        run->input = QP_INPUT_NONE;
        run->writes_stream = false;
        if (!a->history_path || run->args.n || a->json || a->junit)
            return qp_err_set(&run->err, QP_E_USAGE, "--show goes with --history DB, and with nothing else");
        return qp_history_open(&a->history, a->history_path, false, &run->err);
    }
    if (run->args.n != 1)
        return qp_err_set(&run->err, QP_E_USAGE, "expected one gate file, got %d; see --help", run->args.n);
    a->gate_path = run->args.v[0];
    if (qp_gate_open(&a->gate, a->gate_path, &run->err))
        return run->err.code;
    if (qp_gate_needs_history(&a->gate) && !a->history_path)
        return qp_err_set(&run->err, QP_E_USAGE, "'%s' compares with the last pass: --history DB is needed", a->gate_path);
    if (a->history_path && qp_history_open(&a->history, a->history_path, true, &run->err))
        return run->err.code;
    return qp_sha256_file(a->gate_sha, a->gate_path, &run->err);
}

static int take_model(struct qgate *a, const struct qp_record *rec, struct qp_err *err)
{
    const char *id, *role, *base = NULL;
    if (qp_record_need_str(rec, "id", &id, err) || qp_record_need_str(rec, "role", &role, err) || qp_record_str(rec, "base", &base, err) < 0)
        return err->code;
    if (a->n_models == QGATE_MAX_MODELS)
        return qp_err_set(err, QP_E_INPUT, "more than %d models in one stream", QGATE_MAX_MODELS);
    struct qgate_model *m = &a->models[a->n_models++];
    m->id = qp_strdup(id, err);
    m->base = base ? qp_strdup(base, err) : NULL;
    m->quantized = strcmp(role, "baseline") != 0;
    return m->id && (m->base || !base) ? 0 : QP_E_RESOURCE;
}

/* What an interrupted tool left is no basis for a verdict. */
static int take_end(struct qgate *a, const struct qp_record *rec, struct qp_err *err)
{
    const char *sum = NULL, *status = "ok", *tool = "";
    if (qp_record_str(rec, "xxh64", &sum, err) < 0 || qp_record_str(rec, "status", &status, err) < 0 || qp_record_str(rec, "tool", &tool, err) < 0)
        return err->code;
    if (strcmp(status, "ok"))
        return qp_err_set(err, QP_E_INPUT, "the part of '%s' ended with status '%s', expected 'ok'", tool, status);
    if (sum && a->n_chain < QGATE_MAX_CHAIN)
        snprintf(a->chain[a->n_chain++], sizeof a->chain[0], "%s", sum);
    return 0;
}

static int on_record(struct qp_tool_run *run, void *ctx, const struct qp_record *rec)
{
    struct qgate *a = ctx;
    const char *model, *metric;
    double value = NAN, se = NAN;
    if (qp_record_is(rec, "model"))
        return take_model(a, rec, &run->err);
    if (qp_record_is(rec, "end"))
        return take_end(a, rec, &run->err);
    if (!qp_record_is(rec, "result"))
        return run->err.code;
    if (qp_record_need_str(rec, "model", &model, &run->err) || qp_record_need_str(rec, "metric", &metric, &run->err) ||
        qp_record_f64(rec, "value", &value, &run->err) < 0 || qp_record_f64(rec, "stderr", &se, &run->err) < 0)
        return run->err.code;
    return qp_results_add(&a->results, model, metric, value, se, &run->err);
}

/* A quantized model that names no baseline is compared with the stream's only one. */
static const char *baseline_of(const struct qgate *a, const struct qgate_model *m)
{
    if (m->base)
        return m->base;
    for (size_t i = 0; i < a->n_models; i++)
        if (!a->models[i].quantized)
            return a->models[i].id;
    return NULL;
}

static int judge(struct qgate *a, struct qgate_model *m, struct qp_err *err)
{
    struct qp_results last = {0};
    int r = a->history ? qp_history_last_pass(a->history, a->gate.name, m->id, &last, err) : 0;
    r = r ? r : qp_gate_judge(&m->verdict, &a->gate, &a->results, m->id, baseline_of(a, m), &last, err);
    qp_results_release(&last);
    return r;
}

static int remember(struct qgate *a, const struct qgate_model *m, struct qp_err *err)
{
    struct qp_buf chain = QP_BUF_INIT;
    for (size_t i = 0; i < a->n_chain; i++)
        qp_buf_addf(&chain, "%s%s", i ? " " : "", a->chain[i]);
    const struct qp_history_about about = {.gate = a->gate.name, .gate_sha256 = a->gate_sha, .model = m->id, .chain = chain.data ? chain.data : ""};
    int r = qp_buf_check(&chain, err);
    r = r ? r : qp_history_add(a->history, &about, &m->verdict, err);
    qp_buf_release(&chain);
    return r;
}

static int show(struct qgate *a, struct qp_err *err)
{
    struct qp_buf out = QP_BUF_INIT;
    int r = qp_history_print(a->history, a->show, &out, err);
    if (!r && out.len)
        fwrite(out.data, 1, out.len, stdout); /* checked when standard output is closed */
    qp_buf_release(&out);
    return r;
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    struct qgate *a = ctx;
    if (a->show)
        return show(a, &run->err);
    enum qp_outcome worst = QP_PASS;
    for (size_t i = 0; i < a->n_models; i++) {
        struct qgate_model *m = &a->models[i];
        if (!m->quantized)
            continue;
        if (judge(a, m, &run->err))
            return run->err.code;
        m->judged = true;
        a->n_judged++;
        qgate_write(a, m, run->out);
        qgate_print(a, m);
        if (a->history && remember(a, m, &run->err))
            return run->err.code;
        if (m->verdict.outcome == QP_FAIL || (m->verdict.outcome == QP_UNDECIDED && worst == QP_PASS))
            worst = m->verdict.outcome;
    }
    if (!a->n_judged)
        return qp_err_set(&run->err, QP_E_INPUT, "the stream has no quantized model to judge; expected qcalib ... | qquant ... | qppl ... | qgate %s", a->gate_path);
    if ((a->json && qgate_write_json(a, a->json, &run->err)) || (a->junit && qgate_write_junit(a, a->junit, &run->err)))
        return run->err.code;
    return worst == QP_PASS ? 0 : worst == QP_FAIL ? QP_E_GATE : QP_E_UNDECIDED;
}

static void release(void *ctx)
{
    struct qgate *a = ctx;
    for (size_t i = 0; i < a->n_models; i++) {
        qp_free(a->models[i].id);
        qp_free(a->models[i].base);
        qp_verdict_release(&a->models[i].verdict);
    }
    qp_results_release(&a->results);
    qp_gate_release(&a->gate);
    qp_history_close(a->history);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qgate",
        .summary = "Judges the stream's quantized models by a gate file: PASS, FAIL or UNDECIDED.",
        .usage = "GATEFILE [--history DB] [--json FILE] [--junit FILE] < stream > stream",
        .details = "A gate file lists checks, each with one limit:\n"
                   "  {\"name\": \"ship\", \"confidence\": 0.95, \"checks\": [\n"
                   "     {\"metric\": \"ppl/*\", \"max_increase_pct\": 5}, {\"metric\": \"acc/mmlu\", \"min_retained_pct\": 97},\n"
                   "     {\"metric\": \"kld/wikitext2\", \"max_value\": 0.1}, {\"metric\": \"top1/*\", \"min_value\": 0.9}]}\n"
                   "Without confidence the measured value decides. With it, the interval must lie on one side of the limit; else the check is undecided\n"
                   "(exit status 6: more items are needed). A metric that the stream lacks is a failure.\n"
                   "  {\"metric\": \"ppl/*\", \"max_increase_pct\": 1, \"against\": \"last-pass\"}\n"
                   "is compared with the same model's value in the last verdict by this gate's name that passed (--history DB); the first one passes.\n\n"
                   "  qgate --history ci.db gate.json < run.qp > judged.qp\n"
                   "  qgate --history ci.db --show 10",
        .opts = options, .input = QP_INPUT_STREAM, .writes_stream = true,
        .check = check, .on_record = on_record, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
