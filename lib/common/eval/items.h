/* Items: one question's outcome for one model, as `item` records and in memory. What paired comparisons, totals, resumed runs and joined shards rest on.
 *
 *     struct qp_items all = {0};
 *     qp_items_add(&all, &(struct qp_item){.model = "m", .task = "mmlu", .i = 7, .correct = true, .correct_norm = -1, ...}, &err);
 *     qp_item_write(w, &all.v[0]);
 *     qp_items_read(&other, rec, &err);         // an `item` record
 *     qp_items_release(&all);
 */
#ifndef QP_EVAL_ITEMS_H
#define QP_EVAL_ITEMS_H

#include <stdbool.h>

#include "stream/stream.h"

#define QP_ITEM_SCORES 64 /* choices of a question at most */

struct qp_item { /* strings and scores are owned by the list; -1 or NULL: the field is absent */
    const char *model, *task;
    int64_t i;             /* index among the task's questions, whatever was left out: with model and task it names the item */
    const char *group, *id; /* subject or category; the row's own id */
    const char *key;       /* 16 hexadecimal digits: model, task and protocol. Equal keys: the item would come out the same again */
    bool correct;          /* by the greatest score, or the answer matched */
    int correct_norm;      /* by the greatest score per character: 0 or 1; -1: not scored */
    const double *scores;  /* [n_scores] log-likelihood of each choice, nats */
    size_t n_scores;
    uint64_t greedy;       /* bit c: greedy decoding would have written choice c */
    int64_t gold, pred, pred_norm; /* indices of choices */
    int overlap;           /* shares 13 tokens in a row with calibration text: 0 or 1; -1: not known */
    int64_t cut;           /* tokens left out at the beginning because the model's context is shorter; 0: none */
    const char *answer, *expected, *end; /* of generated answers; end: what ended it, "eos", "stop", "length" or "context" */
    int64_t tokens;        /* generated; -1: none */
};
/* All fields absent. */
#define QP_ITEM_INIT {.correct_norm = -1, .gold = -1, .pred = -1, .pred_norm = -1, .overlap = -1, .tokens = -1}

struct qp_items { /* zero-initialize */
    struct qp_item *v;
    size_t n, cap;
    struct qp_item_block *blocks; /* strings and scores */
    const char **names;           /* models, tasks, groups and keys: each kept once */
    size_t n_names, names_cap;
};
void qp_items_release(struct qp_items *l);
/* Copies everything. At most QP_ITEM_SCORES scores. */
int qp_items_add(struct qp_items *l, const struct qp_item *it, struct qp_err *err) QP_MUST_USE;
/* Takes an `item` record; model, task, i and correct must be there. */
int qp_items_read(struct qp_items *l, const struct qp_record *rec, struct qp_err *err) QP_MUST_USE;
void qp_item_write(struct qp_writer *w, const struct qp_item *it);
/* By task, then by i, then in the order in which they came: models stay in their order. Tasks keep the order of their first item. */
int qp_items_sort(struct qp_items *l, struct qp_err *err) QP_MUST_USE;

#endif
