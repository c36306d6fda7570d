/* qreport: a stream (or many) as one table. In: streams from standard input or files. Out: text, Markdown, CSV or JSON. */
#include <stdio.h>

#include "stream/inputs.h"
#include "stream/report.h"
#include "stream/tool.h"

static struct {
    bool markdown, csv, json;
    struct qp_report *report;
} app;

static const struct qp_opt options[] = {
    QP_OPT_FLAG('\0', "markdown", &app.markdown, "a Markdown table"),
    QP_OPT_FLAG('\0', "csv", &app.csv, "comma-separated values"),
    QP_OPT_FLAG('\0', "json", &app.json, "the models, results and verdicts as one JSON object"),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    (void)ctx;
    if (app.markdown + app.csv + app.json > 1)
        return qp_err_set(&run->err, QP_E_USAGE, "--markdown, --csv and --json exclude each other");
    return qp_report_new(&app.report, &run->err);
}

static int take(void *ctx, const struct qp_record *rec, struct qp_err *err)
{
    return qp_report_record(ctx, rec, err);
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    (void)ctx;
    struct qp_buf out = QP_BUF_INIT;
    int r = qp_inputs_read(&run->args, "qreport", take, app.report, &run->err);
    if (!r && app.json)
        qp_report_json(app.report, &out);
    else if (!r)
        qp_report_print(app.report, app.markdown ? QP_TABLE_MARKDOWN : app.csv ? QP_TABLE_CSV : QP_TABLE_TEXT, &out);
    r = r ? r : qp_buf_check(&out, &run->err);
    if (!r && out.len)
        fwrite(out.data, 1, out.len, stdout); /* checked when standard output is closed */
    qp_buf_release(&out);
    return r;
}

static void release(void *ctx)
{
    (void)ctx;
    qp_report_free(app.report);
}

int main(int argc, char **argv)
{
    const struct qp_tool tool = {
        .name = "qreport",
        .summary = "A stream, or many, as one table: a row for each model, its size and all that was measured, and the verdicts.",
        .usage = "[--markdown | --csv | --json] [FILE...]",
        .details = "delta ppl/NAME is the paired increase of perplexity over the baseline with its standard error; kld/NAME is in nats.\n\n"
                   "  qcalib ... | qquant ... | qppl ... | qreport\n  qreport --markdown run1.qp run2.qp",
        .opts = options, .input = QP_INPUT_NONE, .check = check, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
