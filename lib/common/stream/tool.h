/* The skeleton of every tool: options and help from tables, head and end records, records copied through, one error line, the
 * exit status. A tool's main.c holds its options, what it does with a record, and what it does at the end.
 *
 *     int main(int argc, char **argv) { return qp_tool_main(&spec, argc, argv); }
 *
 * Order: parse options -> check -> write head -> read the input (each record to on_record, then copied through) -> on_end
 * -> write end -> flush. An error before the end writes no `end` record, so the failure travels down the pipe.
 */
#ifndef QP_STREAM_TOOL_H
#define QP_STREAM_TOOL_H

#include <stdbool.h>

#include "base/opt.h"
#include "base/pool.h"
#include "base/progress.h"
#include "stream/stream.h"

enum qp_tool_input { QP_INPUT_STREAM, /* reads standard input, which must not be a terminal */ QP_INPUT_NONE };

/* What a running tool may use; filled by qp_tool_main. */
struct qp_tool_run {
    const struct qp_tool *tool;
    struct qp_writer *out;
    struct qp_progress *progress;
    struct qp_strs args;       /* plain arguments */
    enum qp_tool_input input;  /* check may change it, e.g. to NONE when --model was given */
    bool writes_stream;        /* the same: false for an option that prints text instead */
    int64_t threads;           /* --threads, 0: all */
    int64_t seed;              /* written into head; check may set it */
    const char *backend;       /* --backend: "auto", "ref", or an instruction set's name; NULL: auto */
    bool quiet;
    struct qp_err err;
    struct qp_err unfinished;  /* set by on_end, which returns 0: a part of the work could not be done, the rest is whole. `end` is written; then this is the
                                * error line and the exit status */
};

struct qp_tool {
    const char *name, *summary; /* "qppl", "perplexity of every model in the stream" */
    const char *usage;          /* "[--model M] --text F [options]" */
    const char *details;        /* paragraphs for --help after the options: what it reads and appends, examples; may be NULL */
    const struct qp_opt *opts;
    enum qp_tool_input input;
    bool writes_stream;         /* standard output on a terminal gets qp_report's table instead, never binary;
                                 * false: output is text on standard output (qcat, qreport); no head, end or copying */
    int (*check)(struct qp_tool_run *run, void *ctx);                                /* may be NULL; < 0: run->err is set */
    int (*on_record)(struct qp_tool_run *run, void *ctx, const struct qp_record *rec); /* may be NULL; 0: copy on, 1: drop, < 0 error */
    int (*on_end)(struct qp_tool_run *run, void *ctx);  /* may be NULL; 0, or a QP_E_*: QP_E_GATE and QP_E_UNDECIDED still write `end` */
    void (*release)(void *ctx);                         /* may be NULL; always called */
    void *ctx;
};

int qp_tool_main(const struct qp_tool *tool, int argc, char **argv);

/* --shard I/N with 0 <= I < N; text NULL: the option was not given, nothing changes. Else QP_E_USAGE. */
int qp_tool_shard(const char *text, int64_t *shard, int64_t *shards, struct qp_err *err) QP_MUST_USE;

/* True once SIGINT or SIGTERM asked the tool to stop; long loops look at it. */
bool qp_tool_interrupted(void);

#endif
