/* What qmc's files share: options, and what is opened and measured. */
#ifndef QP_TOOLS_QMC_H
#define QP_TOOLS_QMC_H

#include "eval/item_report.h"
#include "eval/mc_score.h"
#include "eval/mc_task.h"
#include "model/model_set.h"
#include "stream/tool.h"
#include "text/ngram.h"

#define QMC_MAX_MODELS 64
#define QMC_MAX_TASKS 128
#define QMC_KEY 17

struct qmc_task {
    struct qp_mc_task *t;
    char key[QMC_MAX_MODELS][QMC_KEY]; /* model, task and protocol */
};

struct qmc_model {
    const struct qp_model_entry *entry;
    struct qp_engine *engine;          /* NULL until a question has to be scored */
    struct qp_mc_scorer *scorer;
    char hash[17];
    const char *base;                  /* id of the baseline; NULL: is one */
};

struct qmc {
    const char *model, *tasks, *data, *limit_text, *shard_text, *cache, *resume, *lm_eval_json;
    int64_t n_shots, seed;
    int sampler, compute, kv; /* of qp_compute_choices, qp_kv_choices */

    struct qp_mc_options options;
    struct qp_model_set *models;
    struct qp_ngrams calibration; /* runs of 13 tokens that calibration has seen */
    struct qp_tokenizer *tok;
    int64_t max_length;
    struct qp_ops ops;
    struct qp_pool *pool;
    enum qp_compute compute_used;
    enum qp_kv kv_used;
    struct qmc_model m[QMC_MAX_MODELS];
    size_t n_models;
    struct qmc_task task[QMC_MAX_TASKS];
    size_t n_tasks;
    struct qp_items items, known; /* of this run; of a run before, by key and i */
    size_t reused, fresh;
    int64_t fed, asked;
    double seconds;
};

/* tasks.c: opens the tasks with their data and writes their sources; the shard and limit options. */
int qmc_parse(struct qmc *a, struct qp_err *err);
int qmc_open_tasks(struct qmc *a, struct qp_tool_run *run);
/* run.c: models, tokens, scores. Items are written as they come. */
int qmc_open_models(struct qmc *a, struct qp_tool_run *run);
int qmc_score(struct qmc *a, struct qp_tool_run *run);
/* keep.c: items of runs before. */
int qmc_read_known(struct qmc *a, struct qp_tool_run *run);
const struct qp_item *qmc_find_known(const struct qmc *a, const char *key, int64_t i);
int qmc_write_cache(struct qmc *a, struct qp_err *err);
/* report.c: result records, and lines for people. */
int qmc_report(struct qmc *a, struct qp_tool_run *run);
/* The task as totals see it. */
struct qp_item_task qmc_item_task(const struct qmc_task *t);
/* lmeval.c: results and samples as lm-evaluation-harness writes them. */
int qmc_write_lm_eval(struct qmc *a, struct qp_err *err);

#endif
