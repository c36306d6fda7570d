#include "eval/items.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define BLOCK_BYTES ((size_t)64 << 10)

struct qp_item_block {
    struct qp_item_block *next;
    size_t used, size;
    _Alignas(16) char data[];
};

/* ---- memory ---- */

static void *take(struct qp_items *l, size_t n, struct qp_err *err)
{
    struct qp_item_block *b = l->blocks;
    n = (n + 7) / 8 * 8;
    if (!b || b->size - b->used < n) {
        size_t size = n > BLOCK_BYTES ? n : BLOCK_BYTES;
        b = qp_alloc(sizeof *b + size, "items", err);
        if (!b)
            return NULL;
        *b = (struct qp_item_block){.next = l->blocks, .size = size};
        l->blocks = b;
    }
    void *p = b->data + b->used;
    b->used += n;
    return p;
}

/* false: no memory. NULL stays NULL. */
static bool keep(struct qp_items *l, const char **s, struct qp_err *err)
{
    size_t n = *s ? strlen(*s) + 1 : 0;
    char *copy = n ? take(l, n, err) : NULL;
    if (copy)
        memcpy(copy, *s, n);
    *s = copy;
    return copy || !n;
}

static bool keep_name(struct qp_items *l, const char **s, struct qp_err *err)
{
    for (size_t i = l->n_names; *s && i-- > 0;) /* neighbours share their names */
        if (!strcmp(l->names[i], *s)) {
            *s = l->names[i];
            return true;
        }
    if (!*s)
        return true;
    if (l->n_names == l->names_cap) {
        size_t cap = l->names_cap ? 2 * l->names_cap : 64;
        const char **grown = qp_alloc_n(cap, sizeof *grown, "items", err);
        if (!grown)
            return false;
        if (l->n_names)
            memcpy(grown, l->names, l->n_names * sizeof *grown);
        qp_free(l->names);
        l->names = grown;
        l->names_cap = cap;
    }
    if (!keep(l, s, err))
        return false;
    l->names[l->n_names++] = *s;
    return true;
}

static bool reserve(struct qp_items *l, struct qp_err *err)
{
    if (l->n < l->cap)
        return true;
    size_t cap = l->cap ? 2 * l->cap : 256;
    struct qp_item *grown = qp_alloc_n(cap, sizeof *grown, "items", err);
    if (!grown)
        return false;
    if (l->n)
        memcpy(grown, l->v, l->n * sizeof *grown);
    qp_free(l->v);
    l->v = grown;
    l->cap = cap;
    return true;
}

int qp_items_add(struct qp_items *l, const struct qp_item *it, struct qp_err *err)
{
    struct qp_item copy = *it;
    double *scores = NULL;
    if (it->n_scores > QP_ITEM_SCORES)
        return qp_err_set(err, QP_E_INPUT, "item %lld of '%s' has %zu scores, at most %d are taken", (long long)it->i, it->task, it->n_scores, QP_ITEM_SCORES);
    if (!reserve(l, err) || !keep_name(l, &copy.model, err) || !keep_name(l, &copy.task, err) || !keep_name(l, &copy.group, err) || !keep_name(l, &copy.key, err) ||
        !keep_name(l, &copy.end, err) ||        !keep(l, &copy.id, err) || !keep(l, &copy.answer, err) || !keep(l, &copy.expected, err) ||
        (it->n_scores && !(scores = take(l, it->n_scores * sizeof *scores, err))))
        return QP_E_RESOURCE;
    if (it->n_scores)
        memcpy(scores, it->scores, it->n_scores * sizeof *scores);
    copy.scores = scores;
    l->v[l->n++] = copy;
    return 0;
}

void qp_items_release(struct qp_items *l)
{
    while (l->blocks) {
        struct qp_item_block *next = l->blocks->next;
        qp_free(l->blocks);
        l->blocks = next;
    }
    qp_free(l->v);
    qp_free(l->names);
    *l = (struct qp_items){0};
}

/* ---- records ---- */

static int read_greedy(struct qp_item *it, const struct qp_record *rec, struct qp_err *err)
{
    int64_t choice[QP_ITEM_SCORES];
    size_t n = 0;
    if (qp_record_i64s(rec, "greedy", choice, QP_ITEM_SCORES, &n, err) < 0)
        return err->code;
    for (size_t i = 0; i < n; i++) {
        if (choice[i] < 0 || choice[i] >= QP_ITEM_SCORES)
            return qp_err_set(err, QP_E_INPUT, "item record: field 'greedy' holds %lld, no index of a choice", (long long)choice[i]);
        it->greedy |= UINT64_C(1) << choice[i];
    }
    return 0;
}

static int read_flag(const struct qp_record *rec, const char *field, int *out, struct qp_err *err)
{
    bool b;
    int r = qp_record_bool(rec, field, &b, err);
    *out = r == 1 ? b : -1;
    return r < 0 ? r : 0;
}

int qp_items_read(struct qp_items *l, const struct qp_record *rec, struct qp_err *err)
{
    struct qp_item it = QP_ITEM_INIT;
    double scores[QP_ITEM_SCORES];
    int correct;
    if (qp_record_need_str(rec, "model", &it.model, err) || qp_record_need_str(rec, "task", &it.task, err) || qp_record_need_i64(rec, "i", &it.i, err) ||
        read_flag(rec, "correct", &correct, err) || read_flag(rec, "correct_norm", &it.correct_norm, err) || read_flag(rec, "overlap", &it.overlap, err) ||
        qp_record_str(rec, "group", &it.group, err) < 0 || qp_record_str(rec, "id", &it.id, err) < 0 || qp_record_str(rec, "key", &it.key, err) < 0 ||
        qp_record_f64s(rec, "scores", scores, QP_ITEM_SCORES, &it.n_scores, err) < 0 || read_greedy(&it, rec, err) || qp_record_i64(rec, "gold", &it.gold, err) < 0 ||
        qp_record_i64(rec, "pred", &it.pred, err) < 0 || qp_record_i64(rec, "pred_norm", &it.pred_norm, err) < 0 || qp_record_i64(rec, "cut", &it.cut, err) < 0 ||
        qp_record_str(rec, "answer", &it.answer, err) < 0 || qp_record_str(rec, "expected", &it.expected, err) < 0 || qp_record_str(rec, "end", &it.end, err) < 0 ||
        qp_record_i64(rec, "tokens", &it.tokens, err) < 0)
        return err->code;
    if (correct < 0)
        return qp_err_set(err, QP_E_INPUT, "item record: field 'correct' is missing");
    it.correct = correct;
    it.scores = scores;
    return qp_items_add(l, &it, err);
}

static void write_optional(struct qp_writer *w, const char *field, const char *s)
{
    if (s)
        qp_w_str(w, field, s);
}

static void write_index(struct qp_writer *w, const char *field, int64_t i)
{
    if (i >= 0)
        qp_w_i64(w, field, i);
}

void qp_item_write(struct qp_writer *w, const struct qp_item *it)
{
    int64_t greedy[QP_ITEM_SCORES];
    size_t n = 0;
    for (int c = 0; c < QP_ITEM_SCORES; c++)
        if (it->greedy >> c & 1)
            greedy[n++] = c;
    qp_w_begin(w, "item");
    qp_w_str(w, "model", it->model);
    qp_w_str(w, "task", it->task);
    qp_w_i64(w, "i", it->i);
    write_optional(w, "group", it->group);
    write_optional(w, "id", it->id);
    qp_w_bool(w, "correct", it->correct);
    if (it->correct_norm >= 0)
        qp_w_bool(w, "correct_norm", it->correct_norm > 0);
    if (it->n_scores) {
        qp_w_f64s(w, "scores", it->scores, it->n_scores);
        qp_w_i64s(w, "greedy", greedy, n);
    }
    write_index(w, "gold", it->gold);
    write_index(w, "pred", it->pred);
    write_index(w, "pred_norm", it->pred_norm);
    if (it->overlap >= 0)
        qp_w_bool(w, "overlap", it->overlap > 0);
    if (it->cut > 0)
        qp_w_i64(w, "cut", it->cut);
    write_optional(w, "answer", it->answer);
    write_optional(w, "expected", it->expected);
    write_optional(w, "end", it->end);
    write_index(w, "tokens", it->tokens);
    write_optional(w, "key", it->key);
    qp_w_end(w);
}

/* ---- order ---- */

struct place {
    size_t task, at;
    const struct qp_item *it;
};

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->task != y->task)
        return x->task < y->task ? -1 : 1;
    if (x->it->i != y->it->i)
        return x->it->i < y->it->i ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

int qp_items_sort(struct qp_items *l, struct qp_err *err)
{
    const char **tasks = qp_alloc_n(l->n, sizeof *tasks, "items", err);
    struct place *p = qp_alloc_n(l->n, sizeof *p, "items", err);
    struct qp_item *sorted = qp_alloc_n(l->cap, sizeof *sorted, "items", err);
    size_t n_tasks = 0;
    int r = tasks && p && sorted ? 0 : QP_E_RESOURCE;
    for (size_t i = 0; !r && i < l->n; i++) {
        size_t t = 0;
        while (t < n_tasks && tasks[t] != l->v[i].task) /* names are kept once */
            t++;
        if (t == n_tasks)
            tasks[n_tasks++] = l->v[i].task;
        p[i] = (struct place){t, i, &l->v[i]};
    }
    if (!r) {
        qsort(p, l->n, sizeof *p, compare);
        for (size_t i = 0; i < l->n; i++)
            sorted[i] = *p[i].it;
        qp_free(l->v);
        l->v = sorted;
        sorted = NULL;
    }
    qp_free(tasks);
    qp_free(p);
    qp_free(sorted);
    return r;
}
