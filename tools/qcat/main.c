/* qcat: records as JSON lines, filtered, or a summary. In: streams from standard input or files. Out: text; of --merge a stream. */
#include <stdio.h>
#include <string.h>

#include "merge.h"
#include "qcat.h"
#include "stream/inputs.h"

static struct qcat app;

static const struct qp_opt options[] = {
    QP_OPT_FLAG('\0', "json", &app.json, "JSON lines (default)"),
    QP_OPT_EACH('t', "type", &app.types, "TYPE", "records of this type alone; may be given several times"),
    QP_OPT_INT('\0', "bytes", &app.max_bin, 0, 16 << 20, "N", "bytes of binary fields to show, as base64"),
    QP_OPT_FLAG('s', "summary", &app.summary, "what the stream holds: parts, counts, models, results; its checksums are verified"),
    QP_OPT_FLAG('\0', "merge", &app.merge, "join the shards of one evaluation (qmc --shard) into one stream: items in order, results added up again"),
    QP_OPT_END,
};

static bool wanted(const struct qp_record *rec)
{
    for (int i = 0; i < app.types.n; i++)
        if (qp_record_is(rec, app.types.v[i]))
            return true;
    return !app.types.n;
}

static int take(void *ctx, const struct qp_record *rec, struct qp_err *err)
{
    struct qp_buf *line = ctx;
    if (!wanted(rec))
        return 0;
    if (app.summary)
        return qcat_count(&app, rec, err);
    qp_buf_clear(line);
    qp_record_json(rec, (size_t)app.max_bin, line);
    qp_buf_adds(line, "\n");
    if (qp_buf_check(line, err))
        return QP_E_RESOURCE;
    if (fwrite(line->data, 1, line->len, stdout) != line->len)
        return qp_err_errno(err, QP_E_RESOURCE, "cannot write standard output");
    return 0;
}

static int take_shard(void *ctx, const struct qp_record *rec, struct qp_err *err)
{
    return merge_record(ctx, rec, err);
}

static int join_shards(struct qp_tool_run *run)
{
    struct merge *m;
    if (merge_new(&m, &run->err))
        return run->err.code;
    int r = qp_inputs_read(&run->args, "qcat", take_shard, m, &run->err);
    r = r ? r : merge_write(m, app.argc, app.argv, &run->err);
    merge_free(m);
    return r;
}

static int on_end(struct qp_tool_run *run, void *ctx)
{
    (void)ctx;
    if (app.merge)
        return join_shards(run);
    struct qp_buf line = QP_BUF_INIT;
    int r = qp_inputs_read(&run->args, "qcat", take, &line, &run->err);
    if (app.summary) /* what was read before an error is worth seeing */
        qcat_print(&app, !r);
    if (r)
        fflush(stdout);
    qp_buf_release(&line);
    return r;
}

static void release(void *ctx)
{
    (void)ctx;
    qp_strs_release(&app.types);
}

int main(int argc, char **argv)
{
    app.max_bin = 24;
    app.argc = argc;
    app.argv = argv;
    const struct qp_tool tool = {
        .name = "qcat",
        .summary = "Records as JSON lines, filtered, or a summary of a stream; shards joined.",
        .usage = "[--json] [--type TYPE]... [--summary | --merge] [FILE...]",
        .details = "Ends with status 3 when a stream is cut off or corrupt, after the records that were whole.\n\n"
                   "  qcat --type result run.qp | jq .value\n  qcat --summary run.qp\n  qcat --merge shard0.qp shard1.qp > whole.qp",
        .opts = options, .input = QP_INPUT_NONE, .on_end = on_end, .release = release, .ctx = &app,
    };
    return qp_tool_main(&tool, argc, argv);
}
