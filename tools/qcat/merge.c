/* --merge: the shards of one evaluation as one stream. Each item is there once, and what is computed from items is computed again; other results are passed on
 * where all files agree on them. Refused: a shard that is missing, one that was interrupted, items that come twice or under different protocols. */
#include "merge.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "eval/item_report.h"
#include "eval/mc_spec.h"

#define MAX_TASKS 256
#define MAX_MODELS 64
#define MAX_SHARDS 4096
#define SEED 42 /* of the bootstrap, as the evaluators have it */

struct records {
    struct qp_record **v;
    size_t n, cap;
};

struct task {
    struct qp_record *result; /* acc/TASK of the first shard that has it */
    const char *name;         /* in it */
    bool pooled;
    int64_t shards;           /* 0: not sharded */
    bool seen[MAX_SHARDS];
};

struct merge {
    struct qp_items items;
    struct records kept;      /* models, sources, layers, results that are not items': in order, each once */
    struct task *task[MAX_TASKS];
    size_t n_tasks;
};

int merge_new(struct merge **out, struct qp_err *err)
{
    *out = qp_zalloc(sizeof **out, "streams", err);
    return *out ? 0 : QP_E_RESOURCE;
}

void merge_free(struct merge *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->kept.n; i++)
        qp_record_free(m->kept.v[i]);
    for (size_t i = 0; i < m->n_tasks; i++) {
        qp_record_free(m->task[i]->result);
        qp_free(m->task[i]);
    }
    qp_free(m->kept.v);
    qp_items_release(&m->items);
    qp_free(m);
}

/* ---- reading ---- */

static bool same_field(const struct qp_record *a, const struct qp_record *b, const char *field)
{
    const char *x = "", *y = "";
    struct qp_err err = {0};
    return qp_record_str(a, field, &x, &err) == 1 && qp_record_str(b, field, &y, &err) == 1 && !strcmp(x, y);
}

/* The same thing: a model by its id, a result by model and metric. */
static bool same_thing(const struct qp_record *a, const struct qp_record *b)
{
    if (strcmp(a->type, b->type))
        return false;
    return qp_record_is(a, "model") ? same_field(a, b, "id") : qp_record_is(a, "result") && same_field(a, b, "model") && same_field(a, b, "metric");
}

static int keep(struct merge *m, const struct qp_record *rec, struct qp_err *err)
{
    for (size_t i = 0; i < m->kept.n; i++) {
        const struct qp_record *k = m->kept.v[i];
        if (k->raw_bytes == rec->raw_bytes && !memcmp(k->raw, rec->raw, rec->raw_bytes))
            return 0;
        if (same_thing(k, rec)) {
            const char *name = "";
            return qp_record_str(rec, qp_record_is(rec, "model") ? "id" : "metric", &name, err) < 0 ? err->code
                   : qp_err_set(err, QP_E_INPUT, "the streams differ in %s '%s'; results of items alone can be added up", rec->type, name);
        }
    }
    if (m->kept.n == m->kept.cap) {
        size_t cap = m->kept.cap ? 2 * m->kept.cap : 64;
        struct qp_record **grown = qp_alloc_n(cap, sizeof *grown, "records", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (m->kept.n)
            memcpy(grown, m->kept.v, m->kept.n * sizeof *grown);
        qp_free(m->kept.v);
        m->kept.v = grown;
        m->kept.cap = cap;
    }
    int r = qp_record_keep(&m->kept.v[m->kept.n], rec, err);
    m->kept.n += !r;
    return r;
}

static struct task *task_of(struct merge *m, const char *name)
{
    for (size_t i = 0; i < m->n_tasks; i++)
        if (!strcmp(m->task[i]->name, name))
            return m->task[i];
    return NULL;
}

/* acc/TASK: how the task is added up, and which shard this is. */
static int take_accuracy(struct merge *m, const struct qp_record *rec, const char *task, struct qp_err *err)
{
    struct qp_record detail;
    struct task *t = task_of(m, task);
    int64_t shard = 0, shards = 0;
    int has = qp_record_map(rec, "detail", &detail, err);
    if (has < 0 || (has && (qp_record_i64(&detail, "shard", &shard, err) < 0 || qp_record_i64(&detail, "shards", &shards, err) < 0)))
        return err->code;
    if (shards < 0 || shards > MAX_SHARDS || shard < 0 || (shards && shard >= shards))
        return qp_err_set(err, QP_E_INPUT, "task '%s': shard %" PRId64 "/%" PRId64 ", at most %d are joined", task, shard, shards, MAX_SHARDS);
    if (!t) {
        const char *metric;
        if (m->n_tasks == MAX_TASKS || !(t = qp_zalloc(sizeof *t, "a task", err)))
            return qp_err_set(err, QP_E_RESOURCE, "more than %d tasks", MAX_TASKS);
        m->task[m->n_tasks++] = t;
        t->shards = shards;
        t->name = "";
        if (qp_record_keep(&t->result, rec, err) || qp_record_need_str(t->result, "metric", &metric, err) || (has && qp_record_bool(&detail, "pooled", &t->pooled, err) < 0))
            return err->code;
        t->name = metric + strlen("acc/");
    }
    if (shards != t->shards)
        return qp_err_set(err, QP_E_INPUT, "task '%s': a shard of %" PRId64 " beside one of %" PRId64, task, shards, t->shards);
    t->seen[shard] = true;
    return 0;
}

static int take_result(struct merge *m, const struct qp_record *rec, struct qp_err *err)
{
    static const char *const of_items[] = {"acc_norm/", "dacc/", "dacc_norm/", "retained/", "retained_norm/", "quality/"};
    const char *metric;
    if (qp_record_need_str(rec, "metric", &metric, err))
        return err->code;
    if (!strncmp(metric, "acc/", 4))
        return take_accuracy(m, rec, metric + 4, err);
    for (size_t i = 0; i < sizeof of_items / sizeof *of_items; i++)
        if (!strncmp(metric, of_items[i], strlen(of_items[i])))
            return 0;
    return keep(m, rec, err);
}

int merge_record(struct merge *m, const struct qp_record *rec, struct qp_err *err)
{
    static const char *const kept[] = {"model", "source", "layer"};
    const char *status = "ok", *tool = "";
    if (qp_record_is(rec, "item"))
        return qp_items_read(&m->items, rec, err);
    if (qp_record_is(rec, "result"))
        return take_result(m, rec, err);
    if (qp_record_is(rec, "end")) {
        if (qp_record_str(rec, "status", &status, err) < 0 || qp_record_str(rec, "tool", &tool, err) < 0)
            return err->code;
        return strcmp(status, "ok") ? qp_err_set(err, QP_E_INPUT, "the part of '%s' ended with status '%s': a shard is not complete", tool, status) : 0;
    }
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (qp_record_is(rec, kept[i]))
            return keep(m, rec, err);
    return 0; /* samples, tensors, verdicts: of the run that made them */
}

/* ---- checking ---- */

static int check_items(const struct merge *m, struct qp_err *err)
{
    for (size_t i = 0; i < m->items.n; i++) {
        const struct qp_item *a = &m->items.v[i], *b = i ? a - 1 : NULL;
        for (; b && b >= m->items.v && b->task == a->task && b->i == a->i; b--) /* names are kept once */
            if (b->model == a->model)
                return qp_err_set(err, QP_E_INPUT, "task '%s': item %" PRId64 " of '%s' comes twice", a->task, a->i, a->model);
    }
    return 0;
}

/* Items of one model and task were made under one protocol. */
static int check_keys(const struct merge *m, struct qp_err *err)
{
    for (size_t t = 0; t < m->n_tasks; t++) {
        const struct qp_item *first[MAX_MODELS] = {0};
        size_t n = 0;
        for (size_t i = 0; i < m->items.n; i++) {
            const struct qp_item *it = &m->items.v[i];
            size_t k = 0;
            if (strcmp(it->task, m->task[t]->name))
                continue;
            while (k < n && first[k]->model != it->model)
                k++;
            if (k == n && n < MAX_MODELS)
                first[n++] = it;
            if (k < n && first[k]->key != it->key)
                return qp_err_set(err, QP_E_INPUT, "task '%s': items of '%s' were made under different protocols", it->task, it->model);
        }
    }
    return 0;
}

static bool has_items(const struct merge *m, const char *task)
{
    for (size_t i = 0; i < m->items.n; i++)
        if (!strcmp(m->items.v[i].task, task))
            return true;
    return false;
}

/* A part of a task (acc/mmlu_stem) has no items of that name: some shards may have none of its questions. */
static int check_shards(const struct merge *m, struct qp_err *err)
{
    for (size_t t = 0; t < m->n_tasks; t++)
        for (int64_t s = 0; s < m->task[t]->shards; s++)
            if (!m->task[t]->seen[s] && has_items(m, m->task[t]->name))
                return qp_err_set(err, QP_E_INPUT, "task '%s': shard %" PRId64 "/%" PRId64 " is missing", m->task[t]->name, s, m->task[t]->shards);
    return 0;
}

/* ---- writing ---- */

static void write_protocol(struct qp_writer *w, void *ctx, const char *name)
{
    struct qp_record detail;
    const struct task *t = task_of(ctx, name);
    struct qp_err err = {0};
    if (t && qp_record_map(t->result, "detail", &detail, &err) == 1)
        qp_w_field(w, &detail, "protocol");
}

static int list_models(const struct merge *m, struct qp_item_model *out, size_t *n, struct qp_err *err)
{
    const char *baseline = NULL;
    for (int quantized = 0; quantized < 2; quantized++)
        for (size_t i = 0; i < m->kept.n; i++) {
            const struct qp_record *rec = m->kept.v[i];
            const char *id, *role, *base = NULL;
            if (!qp_record_is(rec, "model"))
                continue;
            if (qp_record_need_str(rec, "id", &id, err) || qp_record_need_str(rec, "role", &role, err) || qp_record_str(rec, "base", &base, err) < 0)
                return err->code;
            if ((strcmp(role, "baseline") != 0) != (quantized != 0))
                continue;
            if (*n == MAX_MODELS)
                return qp_err_set(err, QP_E_INPUT, "more than %d models", MAX_MODELS);
            baseline = quantized || baseline ? baseline : id;
            out[(*n)++] = (struct qp_item_model){id, quantized ? base ? base : baseline : NULL};
        }
    return 0;
}

/* The tasks of the items, in their order; each had a result. */
static int list_tasks(struct merge *m, struct qp_item_task *out, size_t *n, struct qp_err *err)
{
    for (size_t i = 0; i < m->items.n; i++) {
        if (i && m->items.v[i].task == m->items.v[i - 1].task)
            continue;
        const struct task *t = task_of(m, m->items.v[i].task);
        if (!t || *n == MAX_TASKS)
            return qp_err_set(err, QP_E_INPUT, "items of task '%s' without a result acc/%s", m->items.v[i].task, m->items.v[i].task);
        out[(*n)++] = (struct qp_item_task){.name = m->items.v[i].task, .pooled = t->pooled, .section = !strcmp(t->name, "mmlu") ? qp_mmlu_section : NULL};
    }
    return 0;
}

int merge_write(struct merge *m, int argc, char **argv, struct qp_err *err)
{
    struct qp_item_model models[MAX_MODELS];
    struct qp_item_task tasks[MAX_TASKS];
    struct qp_item_report r = {.items = &m->items, .models = models, .tasks = tasks, .seed = SEED, .protocol = write_protocol, .ctx = m};
    struct qp_writer *w;
    if (!m->items.n)
        return qp_err_set(err, QP_E_INPUT, "--merge: the streams hold no items");
    if (isatty(STDOUT_FILENO))
        return qp_err_set(err, QP_E_USAGE, "--merge writes a stream: send standard output to a file or a tool");
    if (qp_items_sort(&m->items, err) || check_items(m, err) || check_keys(m, err) || check_shards(m, err) || list_models(m, models, &r.n_models, err) ||
        list_tasks(m, tasks, &r.n_tasks, err) || qp_writer_new(&w, STDOUT_FILENO, err))
        return err->code;
    qp_w_head(w, "qcat", argc, argv, 0);
    for (size_t i = 0; i < m->kept.n; i++)
        qp_w_copy(w, m->kept.v[i]);
    for (size_t i = 0; i < m->items.n; i++)
        qp_item_write(w, &m->items.v[i]);
    int status = qp_items_report(w, &r, "", NULL, err);
    if (!status) {
        qp_w_tail(w, "qcat", "ok");
        status = qp_writer_flush(w, err);
    }
    qp_writer_free(w);
    return status;
}
