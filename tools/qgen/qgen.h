/* What qgen's files share: options, examples, answers. */
#ifndef QP_TOOLS_QGEN_H
#define QP_TOOLS_QGEN_H

#include "eval/generate.h"
#include "eval/items.h"
#include "model/model_set.h"
#include "stream/tool.h"
#include "text/match.h"
#include "text/ngram.h"
#include "text/prompt.h"

#define QGEN_MAX_MODELS 64
#define QGEN_MAX_STOPS 32

struct qgen_example {
    int64_t i, line;      /* index in the file, and its line */
    char *id, *category;  /* NULL: none */
    char **expected;      /* any of them is right */
    size_t n_expected;
    struct qp_ids ids;    /* the prompt */
    int64_t cut;          /* tokens cut off at its beginning */
    bool overlap;
};

struct qgen {
    const char *model, *data, *template, *system, *name, *expected_field, *category_field, *extract, *shard_text;
    struct qp_strs stops;
    int64_t max_new, batch, limit, shard, shards, kv_mb;
    int match, number, compute, kv; /* of qp_compute_choices, qp_kv_choices */
    bool ignore_case, whole_words;
    double tolerance;

    struct qp_model_set *models;
    struct qp_ngrams calibration;
    struct qp_tokenizer *tok;
    struct qp_prompt *prompt;
    struct qp_chat *chat; /* NULL: the template's text alone */
    struct qp_matcher *matcher;
    struct qp_buf text;   /* of the template */
    char *stop_texts[QGEN_MAX_STOPS]; /* of stops, escapes resolved */
    char name_buf[128];
    struct qgen_example *examples;
    size_t n, cap, n_cut;
    int64_t rows, tokens, longest; /* of the file; of all prompts; positions that all models have */
    struct qp_ops ops;
    struct qp_pool *pool;
    enum qp_compute compute_used;
    enum qp_kv kv_used;
    struct qp_items items;
    int64_t new_tokens, fed, reused;
    double seconds;
    bool complete;        /* no signal came: every model has answered everything */
};

/* Template and matcher; then the examples with their prompts, and the source record. */
int qgen_read(struct qgen *a, struct qp_tool_run *run);
void qgen_release_examples(struct qgen *a);
/* Every model answers, baseline first. */
int qgen_answer(struct qgen *a, struct qp_tool_run *run);
/* Item and result records, and lines for people on standard error. */
int qgen_report(struct qgen *a, struct qp_tool_run *run);

#endif
