#include "stream/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "stream/report.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

int qp_tool_shard(const char *text, int64_t *shard, int64_t *shards, struct qp_err *err)
{
    int end = 0;
    if (text && (sscanf(text, "%" SCNd64 "/%" SCNd64 "%n", shard, shards, &end) != 2 || text[end] || *shards < 1 || *shard < 0 || *shard >= *shards))
        return qp_err_set(err, QP_E_USAGE, "--shard takes I/N with 0 <= I < N, not '%s'", text);
    return 0;
}

bool qp_tool_interrupted(void)
{
    return interrupted;
}

struct common {
    bool help, version;
};

static void install_signals(void)
{
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND}; /* a second signal ends the process at once */
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* A standard descriptor that came closed is filled with one that fails, or the first file opened would take its place. */
static void fill_standard_descriptors(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            abort();
}

static void print_help(const struct qp_tool *tool, const struct qp_opt *common)
{
    struct qp_buf b = QP_BUF_INIT;
    qp_buf_addf(&b, "usage: %s %s\n\n%s\n\n", tool->name, tool->usage, tool->summary);
    if (tool->opts)
        qp_buf_adds(&b, "options:\n");
    qp_opt_help(tool->opts, &b);
    qp_opt_help(common, &b);
    if (tool->details)
        qp_buf_addf(&b, "\n%s\n", tool->details);
    qp_buf_adds(&b, "\nexit status: 0 done, 1 gate failed, 2 usage, 3 bad input or cut-off stream, 4 memory or resources, 5 internal, 6 gate undecided\n");
    if (b.data)
        fwrite(b.data, 1, b.len, stdout); /* checked when standard output is closed */
    qp_buf_release(&b);
}

static int read_input(struct qp_tool_run *run)
{
    const struct qp_tool *tool = run->tool;
    struct qp_reader *rd;
    if (isatty(STDIN_FILENO))
        return qp_err_set(&run->err, QP_E_USAGE, "standard input is a terminal; expected a stream (qcalib ... | %s ...); see --help", tool->name);
    int r = qp_reader_new(&rd, STDIN_FILENO, "standard input", &run->err);
    struct qp_record rec;
    while (!r && (r = qp_reader_next(rd, &rec, &run->err)) == 1) {
        r = tool->on_record ? tool->on_record(run, tool->ctx, &rec) : 0;
        if (r == 0 && run->out) {
            qp_w_copy(run->out, &rec);
            r = qp_writer_check(run->out, &run->err);
        }
        r = r > 0 ? 0 : r;
    }
    qp_reader_free(rd);
    return r;
}

/* Standard output is a terminal: the stream went to memory, and a person gets its table. */
static int print_table(int fd, struct qp_err *err)
{
    struct qp_reader *rd;
    struct qp_report *rep;
    struct qp_record rec;
    struct qp_buf out = QP_BUF_INIT;
    lseek(fd, 0, SEEK_SET);
    if (qp_reader_new(&rd, fd, "the stream", err))
        return err->code;
    int r = qp_report_new(&rep, err);
    while (!r && (r = qp_reader_next(rd, &rec, err)) == 1)
        r = qp_report_record(rep, &rec, err);
    if (!r && !qp_report_empty(rep))
        qp_report_print(rep, QP_TABLE_TEXT, &out);
    if (!r && out.len)
        fwrite(out.data, 1, out.len, stdout); /* checked when standard output is closed */
    qp_buf_release(&out);
    qp_report_free(rep);
    qp_reader_free(rd);
    return r;
}

/* The work between the options and the exit status. Returns 0 or a QP_E_*; a gate's verdict is passed on after the end record. */
static int run_tool(struct qp_tool_run *run, int argc, char **argv)
{
    const struct qp_tool *tool = run->tool;
    int r = tool->check ? tool->check(run, tool->ctx) : 0, memory = -1;
    if (r < 0)
        return r;
    r = 0;
    if (run->writes_stream) {
        if (isatty(STDOUT_FILENO) && (memory = memfd_create(tool->name, MFD_CLOEXEC)) < 0)
            return qp_err_errno(&run->err, QP_E_RESOURCE, "no memory for the stream");
        if (qp_writer_new(&run->out, memory >= 0 ? memory : STDOUT_FILENO, &run->err))
            return run->err.code;
        qp_w_head(run->out, tool->name, argc, argv, run->seed);
        /* at once: should this tool fail, the next one names it */
        if (qp_writer_flush(run->out, &run->err))
            r = run->err.code;
    }
    if (!r)
        r = run->input == QP_INPUT_STREAM ? read_input(run) : 0;
    int verdict = 0;
    if (!r && tool->on_end) {
        r = tool->on_end(run, tool->ctx);
        if (r == QP_E_GATE || r == QP_E_UNDECIDED) {
            verdict = r;
            r = 0;
        }
    }
    if (!r && run->out) {
        qp_w_tail(run->out, tool->name, interrupted ? "interrupted" : "ok");
        r = qp_writer_flush(run->out, &run->err);
    }
    if (!r && memory >= 0)
        r = print_table(memory, &run->err);
    if (memory >= 0)
        close(memory);
    if (!r && run->unfinished.code) {
        run->err = run->unfinished;
        verdict = run->err.code;
    }
    return r ? r : verdict;
}

static int finish_stdout(struct qp_err *err)
{
    if (fflush(stdout) || ferror(stdout))
        return qp_err_errno(err, QP_E_RESOURCE, "cannot write standard output");
    if (close(STDOUT_FILENO) && errno != EBADF)
        return qp_err_errno(err, QP_E_RESOURCE, "cannot write standard output");
    return 0;
}

static int exit_status(struct qp_tool_run *run, int r)
{
    if (r == 0)
        r = finish_stdout(&run->err);
    else if (r == QP_E_GATE || r == QP_E_UNDECIDED || run->unfinished.code) {
        int late = finish_stdout(&run->err);
        r = late ? late : r;
    }
    if (r == QP_E_PIPE)
        return 0;
    if (run->err.code)
        fprintf(stderr, "%s: %s\n", run->tool->name, run->err.text);
    return r >= 0 ? 0 : r < QP_E_UNDECIDED ? 5 : -r;
}

int qp_tool_main(const struct qp_tool *tool, int argc, char **argv)
{
    struct qp_tool_run run = {.tool = tool, .input = tool->input, .writes_stream = tool->writes_stream};
    struct common c = {0};
    const struct qp_opt common[] = {
        QP_OPT_GROUP("common options"),
        QP_OPT_INT('\0', "threads", &run.threads, 0, 256, "N", "threads; 0: all processors"),
        QP_OPT_STR('\0', "backend", &run.backend, "NAME", "greatest instruction set to use: auto, ref, avx2, avx512, avx512_vnni, avx512_bf16"),
        QP_OPT_FLAG('q', "quiet", &run.quiet, "no progress and no summary on standard error"),
        QP_OPT_FLAG('h', "help", &c.help, "this text"),
        QP_OPT_FLAG('V', "version", &c.version, "the version"),
        QP_OPT_END,
    };
    fill_standard_descriptors();
    install_signals();
    int r = qp_opt_parse(tool->opts, common, argc, argv, &run.args, &run.err);
    if (!r && c.help)
        print_help(tool, common);
    else if (!r && c.version)
        printf("%s %s\n", tool->name, QP_VERSION);
    else if (!r) {
        run.progress = qp_progress_new(tool->name, !run.quiet);
        r = run_tool(&run, argc, argv);
        qp_progress_free(run.progress);
    }
    r = exit_status(&run, r);
    if (tool->release)
        tool->release(tool->ctx);
    qp_writer_free(run.out);
    qp_strs_release(&run.args);
    return r;
}
