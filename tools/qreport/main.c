/* qreport: a stream (or many) as one table or page. In: streams from standard input or files. Out: text, Markdown, CSV, JSON or HTML. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "stream/inputs.h"
#include "stream/report.h"
#include "stream/tool.h"

static struct {
    bool markdown, csv, json;
    const char *html;
    struct qp_report *report;
} app;

static const struct qp_opt options[] = {
    QP_OPT_FLAG('\0', "markdown", &app.markdown, "a Markdown table"),
    QP_OPT_FLAG('\0', "csv", &app.csv, "comma-separated values"),
    QP_OPT_STR('\0', "html", &app.html, "FILE", "write one self-contained HTML page with plots; -: to standard output"),
    QP_OPT_FLAG('\0', "json", &app.json, "the models, results and verdicts as one JSON object"),
    QP_OPT_END,
};

static int check(struct qp_tool_run *run, void *ctx)
{
    (void)ctx;
    if (app.markdown + app.csv + app.json + (app.html != NULL) > 1)
        return qp_err_set(&run->err, QP_E_USAGE, "--html, --markdown, --csv and --json exclude each other");
    return qp_report_new(&app.report, &run->err);
}

static int take(void *ctx, const struct qp_record *rec, struct qp_err *err)
{
    return qp_report_record(ctx, rec, err);
}

static int write_page(const char *path, const struct qp_buf *page, struct qp_err *err)
{
    struct qp_outfile f;
    if (qp_outfile_open(&f, path, err))
        return err->code;
    fwrite(page->data, 1, page->len, f.file); /* checked by the commit */
    return qp_outfile_commit(&f, err);
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    (void)ctx;
    struct qp_buf out = QP_BUF_INIT;
    int r = qp_inputs_read(&run->args, "qreport", take, app.report, &run->err);
    if (!r && app.json)
        qp_report_json(app.report, &out);
    else if (!r && app.html)
        qp_report_html(app.report, &out);
    else if (!r)
        qp_report_print(app.report, app.markdown ? QP_TABLE_MARKDOWN : app.csv ? QP_TABLE_CSV : QP_TABLE_TEXT, &out);
    r = r ? r : qp_buf_check(&out, &run->err);
    if (!r && app.html && strcmp(app.html, "-"))
        r = write_page(app.html, &out, &run->err);
    else if (!r && out.len)
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
        .usage = "[--html FILE | --markdown | --csv | --json] [FILE...]",
        .details = "delta ppl/NAME is the paired increase of perplexity over the baseline with its standard error; kld/NAME is in nats.\n\n"
                   "  qcalib ... | qquant ... | qppl ... | qreport\n  qreport --html report.html run1.qp run2.qp",
        .opts = options, .input = QP_INPUT_NONE, .check = check, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
