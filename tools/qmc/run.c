/* Models, tokens, scores: a few dozen questions at a time, every model on them, baseline first; items go out as soon as they are there. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/mem.h"
#include "qmc.h"

#define CHUNK 64
#define DEFAULT_LENGTH 2048 /* where a model does not say */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- models and keys ---- */

static const char *baseline_of(const struct qmc *a, const struct qp_model_entry *e)
{
    if (!strcmp(e->role, "baseline"))
        return NULL;
    for (size_t i = 0; i < qp_model_set_count(a->models); i++)
        if (!strcmp(qp_model_set_at(a->models, i)->role, "baseline") && (!e->base || !strcmp(e->base, qp_model_set_at(a->models, i)->id)))
            return qp_model_set_at(a->models, i)->id;
    return NULL;
}

/* What decides about an item's scores: they come out the same where all of this is the same. */
static int make_key(struct qmc *a, struct qp_tool_run *run, struct qmc_task *t, size_t m, struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    qp_buf_addf(&text, "qmc 1\n%s\n%s\n%s\n%lld %lld\n%s %s %s\n", a->m[m].hash, qp_tokenizer_hash(a->tok), qp_mc_task_spec(t->t)->name, (long long)a->max_length, (long long)a->seed,
                qp_compute_name(a->compute_used), qp_kv_name(a->kv_used), run->backend ? run->backend : "auto");
    qp_mc_spec_describe(qp_mc_task_spec(t->t), &text);
    for (size_t i = 0; i < qp_mc_task_n_files(t->t); i++)
        qp_buf_addf(&text, "\n%s", qp_mc_task_file(t->t, i)->sha256);
    int r = qp_buf_check(&text, err);
    if (!r)
        snprintf(t->key[m], QMC_KEY, "%016" PRIx64, qp_xxh64(text.data, text.len));
    qp_buf_release(&text);
    return r;
}

int qmc_open_models(struct qmc *a, struct qp_tool_run *run)
{
    struct qp_err *err = &run->err;
    a->n_models = qp_model_set_count(a->models);
    if (qp_backend_cpu_init(&a->ops, run->backend, err) || qp_pool_new(&a->pool, (int)run->threads, err) || qp_model_tokenizer(qp_model_set_at(a->models, 0)->model, &a->tok, err))
        return err->code;
    a->compute_used = qp_compute_chosen(a->compute, &a->ops);
    a->kv_used = qp_kv_chosen(a->kv, a->compute_used);
    const struct qp_model_config *first = qp_model_config(qp_model_set_at(a->models, 0)->model);
    a->max_length = first->max_positions > 0 ? first->max_positions : DEFAULT_LENGTH;
    for (size_t i = 0; i < a->n_models; i++) {
        const struct qp_model_config *c;
        a->m[i].entry = qp_model_set_at(a->models, i);
        a->m[i].base = baseline_of(a, a->m[i].entry);
        c = qp_model_config(a->m[i].entry->model);
        if (c->vocab_size != first->vocab_size)
            return qp_err_set(err, QP_E_INPUT, "models with vocabularies of %lld and %lld tokens cannot be compared", (long long)first->vocab_size, (long long)c->vocab_size);
        a->max_length = c->max_positions > 0 && c->max_positions < a->max_length ? c->max_positions : a->max_length;
        if (qp_model_hash(a->m[i].entry->model, a->m[i].hash, err))
            return err->code;
    }
    for (size_t i = 0; i < a->n_models; i++)
        for (size_t k = 0; k < a->n_tasks; k++)
            if (make_key(a, run, &a->task[k], i, err))
                return err->code;
    qp_ngrams_sort(&a->calibration);
    return 0;
}

/* Weights are packed when the first question needs them: a model whose items are all known is never loaded. */
static int open_engine(struct qmc *a, struct qp_tool_run *run, struct qmc_model *m)
{
    if (m->scorer)
        return 0;
    if (qp_engine_new(&m->engine, m->entry->model, &a->ops, a->pool, a->compute_used, &run->err))
        return qp_err_context(&run->err, "model '%s'", m->entry->id);
    qp_engine_set_kv(m->engine, a->kv_used);
    return qp_mc_scorer_new(&m->scorer, m->engine, &run->err);
}

/* ---- one chunk ---- */

struct chunk {
    struct qmc_task *task;
    size_t first, n;
    struct qp_mc_prompt prompt;
    struct qp_mc_input in[CHUNK];
    struct qp_mc_scores out[CHUNK];
    int overlap[CHUNK], gold[CHUNK];
    uint32_t chars[CHUNK][QP_MC_CHOICES];
};

/* The question itself with each of its choices shares 13 tokens in a row with calibration text. */
static int find_overlap(struct qmc *a, const struct qp_mc_prompt *p, int *overlap, struct qp_err *err)
{
    struct qp_ids ids = {0};
    struct qp_buf text = QP_BUF_INIT;
    int r = 0;
    *overlap = a->calibration.n ? 0 : -1;
    for (int c = 0; c < p->n && *overlap == 0 && !r; c++) {
        qp_buf_clear(&text);
        ids.n = 0;
        qp_buf_adds(&text, p->text.data + p->own[c]);
        qp_buf_adds(&text, p->text.data + p->continuation[c]);
        r = qp_buf_check(&text, err);
        r = r ? r : qp_tokenizer_encode(a->tok, text.data, text.len, 0, &ids, err);
        *overlap = !r && ids.n >= QP_NGRAM && qp_ngrams_find(&a->calibration, ids.v, ids.n) >= 0;
    }
    qp_ids_release(&ids);
    qp_buf_release(&text);
    return r;
}

static int read_questions(struct qmc *a, struct chunk *k, struct qp_err *err)
{
    for (size_t i = 0; i < k->n; i++) {
        const struct qp_mc_doc *d = qp_mc_task_doc(k->task->t, k->first + i);
        if (qp_mc_prompt_make(&k->prompt, k->task->t, k->first + i, err))
            return err->code;
        if (qp_mc_tokenize(&k->in[i], a->tok, &k->prompt, a->max_length, err) || find_overlap(a, &k->prompt, &k->overlap[i], err))
            return qp_err_context(err, "'%s' line %" PRId64, d->path, d->line);
        k->gold[i] = k->prompt.gold;
        for (int c = 0; c < k->prompt.n; c++)
            k->chars[i][c] = (uint32_t)qp_mc_chars(k->prompt.text.data + k->prompt.choice[c]);
    }
    return 0;
}

static int best(const double *score, const uint32_t *chars, int n)
{
    int top = 0;
    for (int c = 1; c < n; c++)
        if (score[c] / (chars ? chars[c] : 1) > score[top] / (chars ? chars[top] : 1))
            top = c;
    return top;
}

static struct qp_item item_of(const struct qmc *a, const struct chunk *k, size_t i, size_t m)
{
    const struct qp_mc_spec *s = qp_mc_task_spec(k->task->t);
    const struct qp_mc_doc *d = qp_mc_task_doc(k->task->t, k->first + i);
    struct qp_item it = QP_ITEM_INIT;
    it.model = a->m[m].entry->id;
    it.task = s->name;
    it.i = d->i;
    it.group = d->group;
    it.id = d->id;
    it.key = k->task->key[m];
    it.scores = k->out[i].score;
    it.n_scores = (size_t)k->in[i].n;
    it.greedy = k->out[i].greedy;
    it.gold = k->gold[i];
    it.pred = best(it.scores, NULL, k->in[i].n);
    it.correct = it.pred == it.gold;
    if (s->norm) {
        it.pred_norm = best(it.scores, k->chars[i], k->in[i].n);
        it.correct_norm = it.pred_norm == it.gold;
    }
    it.overlap = k->overlap[i];
    it.cut = k->in[i].cut;
    return it;
}

static int take_item(struct qmc *a, struct qp_tool_run *run, const struct qp_item *it)
{
    qp_item_write(run->out, it);
    return qp_items_add(&a->items, it, &run->err);
}

/* Scores of the questions that no run before has left: the others' places are filled from there. */
static int score_model(struct qmc *a, struct qp_tool_run *run, struct chunk *k, size_t m)
{
    struct qp_mc_input in[CHUNK];
    struct qp_mc_scores out[CHUNK];
    size_t place[CHUNK], n = 0;
    for (size_t i = 0; i < k->n; i++) {
        const struct qp_item *it = qmc_find_known(a, k->task->key[m], qp_mc_task_doc(k->task->t, k->first + i)->i);
        if (it && it->n_scores == (size_t)k->in[i].n) {
            memcpy(k->out[i].score, it->scores, it->n_scores * sizeof *it->scores);
            k->out[i].greedy = it->greedy;
            continue;
        }
        in[n] = k->in[i]; /* borrowed */
        place[n++] = i;
    }
    a->reused += k->n - n;
    a->fresh += n;
    if (n && (open_engine(a, run, &a->m[m]) || qp_mc_score(a->m[m].scorer, in, n, out, &run->err)))
        return qp_err_context(&run->err, "model '%s', task '%s'", a->m[m].entry->id, qp_mc_task_spec(k->task->t)->name);
    for (size_t i = 0; i < n; i++)
        k->out[place[i]] = out[i];
    for (size_t i = 0; i < k->n; i++) {
        struct qp_item it = item_of(a, k, i, m);
        if (take_item(a, run, &it))
            return run->err.code;
    }
    return 0;
}

/* The questions from `first` on that belong to one subtask, at most CHUNK. */
static size_t chunk_size(const struct qp_mc_task *t, size_t first)
{
    size_t n = 1;
    while (n < CHUNK && first + n < qp_mc_task_count(t) && qp_mc_task_doc(t, first + n)->leaf == qp_mc_task_doc(t, first)->leaf)
        n++;
    return n;
}

static int score_task(struct qmc *a, struct qp_tool_run *run, struct chunk *k)
{
    size_t count = qp_mc_task_count(k->task->t);
    qp_progress_begin(run->progress, qp_mc_task_spec(k->task->t)->name, "questions", (int64_t)count);
    for (k->first = 0; k->first < count && !qp_tool_interrupted(); k->first += k->n) {
        k->n = chunk_size(k->task->t, k->first);
        const char *group = qp_mc_task_doc(k->task->t, k->first)->group;
        qp_progress_update(run->progress, (int64_t)k->first, group && qp_mc_task_spec(k->task->t)->subtasks ? group : "");
        if (read_questions(a, k, &run->err))
            return run->err.code;
        for (size_t m = 0; m < a->n_models; m++)
            if (score_model(a, run, k, m))
                return run->err.code;
        if (qp_writer_flush(run->out, &run->err)) /* what --resume takes, should the run be cut off */
            return run->err.code;
    }
    qp_progress_end(run->progress);
    return 0;
}

int qmc_score(struct qmc *a, struct qp_tool_run *run)
{
    double start = now();
    struct chunk *k = qp_zalloc(sizeof *k, "questions", &run->err);
    int r = k ? 0 : QP_E_RESOURCE;
    for (size_t i = 0; i < a->n_tasks && !r && !qp_tool_interrupted(); i++) {
        k->task = &a->task[i];
        r = score_task(a, run, k);
    }
    for (size_t i = 0; k && i < CHUNK; i++)
        qp_mc_input_release(&k->in[i]);
    if (k)
        qp_mc_prompt_release(&k->prompt);
    qp_free(k);
    for (size_t m = 0; m < a->n_models; m++) {
        int64_t fed = 0, asked = 0;
        if (a->m[m].scorer)
            qp_mc_scorer_tokens(a->m[m].scorer, &fed, &asked);
        a->fed += fed;
        a->asked += asked;
    }
    a->seconds = now() - start;
    return r;
}
