/* What qppl's files share: options, and what is opened and measured. */
#ifndef QP_TOOLS_QPPL_H
#define QP_TOOLS_QPPL_H

#include "eval/ppl.h"
#include "model/model_set.h"
#include "stream/tool.h"
#include "text/ngram.h"
#include "text/tokenizer.h"

#define QPPL_MAX_MODELS 64

enum { BOS_AUTO, BOS_ALWAYS, BOS_NEVER };
enum { COMPAT_TOKENS, COMPAT_WINDOWS };

struct qppl {
    const char *model, *text, *name, *field, *shard_text;
    int64_t window, stride, max_tokens, shard, shards;
    int compat, bos, compute, kv; /* of qp_compute_choices, qp_kv_choices */

    struct qp_model_set *models;
    struct qp_ngrams calibration; /* runs of 13 tokens that calibration has seen */
    struct qp_tokenizer *tok;
    struct qp_ids ids;
    char name_buf[128];
    bool bos_added, joined;
    int64_t docs;
    struct qp_ops ops;
    struct qp_pool *pool;
    enum qp_compute compute_used;
    struct qp_engine *engines[QPPL_MAX_MODELS];
    size_t n_models;
    struct qp_ppl_result result;
    double seconds;
};

/* Tokenizes the text with the first model's tokenizer and writes its source record. */
int qppl_read_text(struct qppl *a, struct qp_tool_run *run);
int qppl_open_engines(struct qppl *a, struct qp_tool_run *run);
int qppl_score(struct qppl *a, struct qp_tool_run *run);
/* Result records, and a few lines for people on standard error. */
void qppl_report(struct qppl *a, struct qp_tool_run *run);

#endif
