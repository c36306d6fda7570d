/* A multiple-choice task with its data: the questions that are evaluated, the examples drawn for each, and the text of every prompt, equal to
 * lm-evaluation-harness 0.4.13 byte for byte.
 *
 *     struct qp_mc_spec spec;
 *     struct qp_mc_task *t;
 *     qp_mc_spec_open(&spec, "arc_challenge", &err);
 *     qp_mc_task_open(&t, &spec, "data", &(struct qp_mc_options){.n_shots = -1, .limit = -1}, &err);   // takes the spec
 *     for (i = 0; i < qp_mc_task_count(t); i++)
 *         qp_mc_prompt_make(&p, t, i, &err);
 *     qp_mc_task_free(t);
 */
#ifndef QP_EVAL_MC_TASK_H
#define QP_EVAL_MC_TASK_H

#include "eval/mc_spec.h"

#define QP_MC_SEED 1234 /* of the examples' draws, the harness's default */

enum qp_mc_sampler { QP_MC_SAMPLER_TASK /* the task's own */, QP_MC_SAMPLER_DEFAULT, QP_MC_SAMPLER_FIRST_N };

struct qp_mc_options {
    int64_t n_shots;            /* -1: the task's own */
    enum qp_mc_sampler sampler;
    uint64_t seed;              /* 0: QP_MC_SEED */
    double limit;               /* of each subtask: below 1 a share, rounded up; else a number of questions. Negative: all */
    int64_t shard, shards;      /* questions whose place among those left by limit is shard modulo shards; shards 0 or 1: all */
};

struct qp_mc_file {
    char *path, sha256[65];
    int64_t rows;
    bool shots; /* examples, else questions */
};

struct qp_mc_doc {      /* a question to evaluate */
    int64_t i;          /* its index among all of the task's questions */
    int64_t doc_id;     /* its index in its subtask, as the harness counts */
    size_t leaf;        /* the subtask */
    const char *group, *id; /* NULL: none */
    const char *path;   /* where it stands */
    int64_t line;
};

struct qp_mc_prompt {   /* zero-initialize; offsets of zero-terminated texts */
    struct qp_buf text;
    int n;              /* choices */
    int gold;
    size_t context[QP_MC_CHOICES], continuation[QP_MC_CHOICES]; /* what is given, and what is scored after it */
    size_t own[QP_MC_CHOICES]; /* where the evaluated question begins in the context, behind description and examples */
    size_t choice[QP_MC_CHOICES];  /* the choice alone */
    size_t target;      /* the text of the right answer (blank: of what follows), as an example shows it */
};

struct qp_mc_task;
/* dir: the data folder (NULL: a task file's own alone). Takes *spec (released with the task, or on an error). Bad rows are QP_E_INPUT naming file, line and field. */
int qp_mc_task_open(struct qp_mc_task **out, struct qp_mc_spec *spec, const char *dir, const struct qp_mc_options *o, struct qp_err *err) QP_MUST_USE;
void qp_mc_task_free(struct qp_mc_task *t);
const struct qp_mc_spec *qp_mc_task_spec(const struct qp_mc_task *t); /* n_shots and first_n as used */
const struct qp_mc_options *qp_mc_task_options(const struct qp_mc_task *t);
/* Questions that are evaluated, leaf by leaf; and all that the task has (of leaf, or SIZE_MAX: of all). */
size_t qp_mc_task_count(const struct qp_mc_task *t);
const struct qp_mc_doc *qp_mc_task_doc(const struct qp_mc_task *t, size_t i);
size_t qp_mc_task_leaves(const struct qp_mc_task *t);
const char *qp_mc_task_leaf_group(const struct qp_mc_task *t, size_t leaf); /* NULL: the task has no subtasks */
int64_t qp_mc_task_total(const struct qp_mc_task *t, size_t leaf);
/* The row of a question, as it was prepared. Borrowed. */
const struct json_t *qp_mc_task_row(const struct qp_mc_task *t, size_t i);
/* Indices of the examples in their pool; *n is how many. */
const uint32_t *qp_mc_task_shots(const struct qp_mc_task *t, size_t i, size_t *n);
size_t qp_mc_task_n_files(const struct qp_mc_task *t);
const struct qp_mc_file *qp_mc_task_file(const struct qp_mc_task *t, size_t i);

/* The texts of question i into *p, which is used again and again and released with qp_mc_prompt_release. */
int qp_mc_prompt_make(struct qp_mc_prompt *p, const struct qp_mc_task *t, size_t i, struct qp_err *err) QP_MUST_USE;
void qp_mc_prompt_release(struct qp_mc_prompt *p);

#endif
