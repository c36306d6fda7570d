#include "eval/generate.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

struct slot {
    struct qp_seq *seq;
    struct qp_ids held; /* the tokens that are in the cache or will be after this step */
    int64_t request;    /* -1: free */
    int64_t fed;        /* tokens of held that are in the cache */
};

struct qp_gen {
    struct qp_engine *e;
    const struct qp_gen_request *r;
    size_t n, next; /* requests, and the first that has not begun */
    struct qp_gen_options o;
    struct qp_gen_answer *answers;
    struct slot *slots;
    int64_t n_slots, capacity, logit_rows;
    size_t kv_bytes; /* of all caches */
    struct qp_segment *segs; /* [n_slots] */
    struct slot **live;      /* [n_slots] those of this step, in order */
    float *hidden, *logits;
    double *lse;
    int32_t *top;
};

const char *qp_gen_end_name(enum qp_gen_end end)
{
    static const char *const names[] = {"pending", "eos", "stop", "length", "context"};
    return names[end];
}

static int64_t max_new(const struct qp_gen *g, size_t i)
{
    return g->r[i].max_new ? g->r[i].max_new : g->o.max_new;
}

/* ---- life ---- */

/* *need: tokens of the longest prompt with its answer. */
static int check(const struct qp_gen *g, int64_t *need, struct qp_err *err)
{
    int64_t limit = qp_engine_config(g->e)->max_positions;
    *need = 0;
    if (g->o.batch < 1 || (g->o.n_stops && !g->o.tok))
        return qp_err_set(err, QP_E_INTERNAL, "a batch of %lld sequences, %zu stop strings", (long long)g->o.batch, g->o.n_stops);
    for (size_t i = 0; i < g->n; i++) {
        if (max_new(g, i) < 1)
            return qp_err_set(err, QP_E_USAGE, "prompt %zu: %lld new tokens, expected 1 at least", i + 1, (long long)max_new(g, i));
        if (g->r[i].n < 1 || g->r[i].n >= limit)
            return qp_err_set(err, QP_E_INPUT, "prompt %zu has %lld tokens; the model takes 1 to %lld and one to answer", i + 1, (long long)g->r[i].n, (long long)limit - 1);
        int64_t all = max_new(g, i) < limit - g->r[i].n ? g->r[i].n + max_new(g, i) : limit;
        *need = all > *need ? all : *need;
    }
    return 0;
}

/* As many slots as batch and memory allow. */
static int count_slots(struct qp_gen *g, struct qp_err *err)
{
    size_t one = qp_kv_cache_bytes(qp_engine_config(g->e), qp_engine_ops(g->e), qp_engine_kv(g->e), g->capacity);
    g->n_slots = (size_t)g->o.batch < g->n ? g->o.batch : (int64_t)g->n;
    if (one == SIZE_MAX || (g->o.kv_bytes && one > g->o.kv_bytes))
        return qp_err_set(err, QP_E_RESOURCE, "the KV cache of one sequence of %lld tokens takes %.0f MB, more than the %.0f MB allowed", (long long)g->capacity,
                          (double)one / 1e6, (double)g->o.kv_bytes / 1e6);
    if (g->o.kv_bytes && (int64_t)(g->o.kv_bytes / one) < g->n_slots)
        g->n_slots = (int64_t)(g->o.kv_bytes / one);
    if (!qp_mul(one, (size_t)g->n_slots, &g->kv_bytes))
        return qp_err_set(err, QP_E_RESOURCE, "no memory for the KV caches of %lld sequences", (long long)g->n_slots);
    return 0;
}

static int allocate(struct qp_gen *g, struct qp_err *err)
{
    const struct qp_model_config *c = qp_engine_config(g->e);
    size_t B = (size_t)g->n_slots;
    g->logit_rows = qp_engine_logit_rows(g->e) < g->n_slots ? qp_engine_logit_rows(g->e) : g->n_slots;
    g->answers = qp_zalloc(g->n * sizeof *g->answers, "answers", err);
    g->slots = qp_zalloc(B * sizeof *g->slots, "sequences", err);
    g->segs = qp_zalloc(B * sizeof *g->segs, "sequences", err);
    g->live = qp_zalloc(B * sizeof *g->live, "sequences", err);
    g->hidden = qp_alloc_n(B, (size_t)c->d_model * sizeof *g->hidden, "hidden states", err);
    g->logits = qp_alloc_n((size_t)g->logit_rows, (size_t)c->vocab_size * sizeof *g->logits, "logits", err);
    g->lse = qp_alloc_n((size_t)g->logit_rows, sizeof *g->lse, "logits", err);
    g->top = qp_alloc_n((size_t)g->logit_rows, sizeof *g->top, "logits", err);
    if (!g->answers || !g->slots || !g->segs || !g->live || !g->hidden || !g->logits || !g->lse || !g->top)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < B; i++)
        g->slots[i].request = -1;
    return 0;
}

int qp_gen_new(struct qp_gen **out, struct qp_engine *e, const struct qp_gen_request *r, size_t n, const struct qp_gen_options *o, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = NULL;
    struct qp_gen *g = qp_zalloc(sizeof *g, "batch", err);
    if (!g)
        return QP_E_RESOURCE;
    *g = (struct qp_gen){.e = e, .r = r, .n = n, .o = *o};
    int64_t need;
    int bad = check(g, &need, err);
    g->capacity = need > o->capacity ? need : o->capacity;
    if (bad || (n && (count_slots(g, err) || allocate(g, err)))) {
        qp_gen_free(g);
        return err->code;
    }
    *out = g;
    return 0;
}

void qp_gen_free(struct qp_gen *g)
{
    if (!g)
        return;
    if (g->slots)
        qp_gen_free_caches(g);
    for (int64_t i = 0; g->slots && i < g->n_slots; i++)
        qp_ids_release(&g->slots[i].held);
    for (size_t i = 0; g->answers && i < g->n; i++) {
        qp_ids_release(&g->answers[i].ids);
        qp_buf_release(&g->answers[i].text);
    }
    qp_free(g->answers);
    qp_free(g->slots);
    qp_free(g->segs);
    qp_free(g->live);
    qp_free(g->hidden);
    qp_free(g->logits);
    qp_free(g->lse);
    qp_free(g->top);
    qp_free(g);
}

int qp_gen_restart(struct qp_gen *g, const struct qp_gen_request *requests, struct qp_err *err)
{
    int64_t need;
    g->r = requests;
    g->next = 0;
    for (int64_t i = 0; i < g->n_slots; i++)
        g->slots[i].request = -1;
    for (size_t i = 0; i < g->n; i++) {
        g->answers[i].ids.n = 0;
        qp_buf_clear(&g->answers[i].text);
        g->answers[i].end = QP_GEN_PENDING;
    }
    int r = check(g, &need, err);
    if (!r && need > g->capacity)
        r = qp_err_set(err, QP_E_INPUT, "a prompt and its answer take %lld tokens, the caches hold %lld", (long long)need, (long long)g->capacity);
    return r;
}

int qp_gen_make_caches(struct qp_gen *g, struct qp_err *err)
{
    for (int64_t i = 0; i < g->n_slots; i++)
        if (!g->slots[i].seq && qp_seq_new(&g->slots[i].seq, g->e, g->capacity, err))
            return qp_err_context(err, "batch %lld", (long long)g->n_slots);
    return 0;
}

void qp_gen_free_caches(struct qp_gen *g)
{
    for (int64_t i = 0; i < g->n_slots; i++) {
        qp_seq_free(g->slots[i].seq);
        g->slots[i].seq = NULL;
        g->slots[i].fed = 0;
    }
}

static int hold(struct slot *s, const int32_t *ids, int64_t n, struct qp_err *err)
{
    for (int64_t i = 0; i < n; i++)
        if (qp_ids_add(&s->held, ids[i], err))
            return QP_E_RESOURCE;
    return 0;
}

int qp_gen_fill_caches(struct qp_gen *g, const int32_t *ids, int64_t n, struct qp_err *err)
{
    int r = qp_gen_make_caches(g, err);
    for (int64_t i = 0; i < g->n_slots && !r; i++) {
        struct slot *s = &g->slots[i];
        struct qp_segment all = {.seq = s->seq, .ids = ids, .n = n, .want_from = n};
        s->held.n = 0;
        qp_seq_truncate(s->seq, 0);
        r = hold(s, ids, n, err);
        r = r ? r : i ? qp_seq_copy(s->seq, g->slots[0].seq, err) : qp_engine_forward(g->e, &all, 1, g->hidden, err);
    }
    return r;
}

const struct qp_gen_answer *qp_gen_answer(const struct qp_gen *g, size_t i)
{
    return &g->answers[i];
}

int64_t qp_gen_slots(const struct qp_gen *g)
{
    return g->n_slots;
}

size_t qp_gen_kv_bytes(const struct qp_gen *g)
{
    return g->kv_bytes;
}

/* ---- a step ---- */

/* The next request takes the slot; what its prompt shares with the cache stays, but its fresh tokens are fed, the last one always, for its logits. */
static int begin(struct qp_gen *g, struct slot *s, struct qp_gen_step *step, struct qp_err *err)
{
    const struct qp_gen_request *r = &g->r[g->next];
    int64_t same = 0, held = qp_seq_length(s->seq), most = r->n - (r->fresh > 1 ? r->fresh : 1);
    while (same < held && same < most && s->held.v[same] == r->ids[same])
        same++;
    qp_seq_truncate(s->seq, same);
    s->held.n = (size_t)same;
    if (hold(s, r->ids + same, r->n - same, err))
        return QP_E_RESOURCE;
    s->request = (int64_t)g->next++;
    s->fed = same;
    step->begun++;
    step->fed += r->n - same;
    step->reused += same;
    return 0;
}

/* The first stop string in text, or -1. */
static int64_t find_stop(const struct qp_gen_options *o, const struct qp_buf *text)
{
    const char *first = NULL;
    for (size_t i = 0; i < o->n_stops && text->len; i++) {
        const char *at = memmem(text->data, text->len, o->stops[i], strlen(o->stops[i]));
        if (at && (!first || at < first))
            first = at;
    }
    return first ? first - text->data : -1;
}

static int decode(const struct qp_gen *g, const struct qp_ids *ids, bool skip_special, struct qp_buf *text, struct qp_err *err)
{
    qp_buf_clear(text);
    return qp_tokenizer_decode(g->o.tok, ids->v, ids->n, skip_special, text, err);
}

static bool is_eos(const struct qp_gen_options *o, int32_t id)
{
    for (size_t i = 0; i < o->n_eos; i++)
        if (o->eos[i] == id)
            return true;
    return false;
}

/* The answer's text, cut before a stop string: one that ended it, or one that a control token's absence brought together. */
static int close_answer(const struct qp_gen *g, struct qp_gen_answer *a, enum qp_gen_end end, struct qp_err *err)
{
    a->end = end;
    if (!g->o.tok)
        return 0;
    if (decode(g, &a->ids, true, &a->text, err))
        return err->code;
    int64_t cut = find_stop(&g->o, &a->text);
    if (cut >= 0) {
        a->text.len = (size_t)cut;
        a->text.data[cut] = 0;
    }
    for (char *zero; a->text.len && (zero = memchr(a->text.data, 0, a->text.len));)
        *zero = '?';
    return qp_buf_check(&a->text, err);
}

/* Takes a slot's new token: ends its answer, or makes it the next to be fed. */
static int take(struct qp_gen *g, struct slot *s, int32_t id, struct qp_gen_step *step, struct qp_err *err)
{
    struct qp_gen_answer *a = &g->answers[s->request];
    const struct qp_gen_request *r = &g->r[s->request];
    enum qp_gen_end end = QP_GEN_PENDING;
    s->fed = (int64_t)s->held.n;
    if (is_eos(&g->o, id))
        end = QP_GEN_EOS;
    else {
        if (qp_ids_add(&a->ids, id, err) || (g->o.n_stops && decode(g, &a->ids, false, &a->text, err)))
            return err->code;
        if (g->o.n_stops && find_stop(&g->o, &a->text) >= 0)
            end = QP_GEN_STOP;
        else if ((int64_t)a->ids.n == max_new(g, (size_t)s->request))
            end = QP_GEN_LENGTH;
        else if (r->n + (int64_t)a->ids.n >= qp_engine_config(g->e)->max_positions)
            end = QP_GEN_CONTEXT;
    }
    if (end == QP_GEN_PENDING)
        return qp_ids_add(&s->held, id, err);
    s->request = -1;
    step->finished++;
    return close_answer(g, a, end, err);
}

/* The greatest logit of each live row, in slices; rows follow the slots' order. */
static int pick(struct qp_gen *g, struct qp_gen_step *step, struct qp_err *err)
{
    struct slot *const *live = g->live;
    int64_t n = step->live;
    const struct qp_model_config *c = qp_engine_config(g->e);
    for (int64_t at = 0; at < n; at += g->logit_rows) {
        int64_t rows = n - at < g->logit_rows ? n - at : g->logit_rows;
        if (qp_engine_logits(g->e, g->hidden + at * c->d_model, rows, g->logits, err))
            return err->code;
        qp_engine_ops(g->e)->log_sum_exp(qp_engine_exec(g->e), g->lse, g->top, g->logits, c->vocab_size, rows, c->vocab_size);
        for (int64_t i = 0; i < rows; i++) {
            if (!isfinite(g->lse[i]))
                return qp_err_set(err, QP_E_INPUT, "prompt %lld: the logits of token %zu are not finite: the model's outputs are broken",
                                  (long long)live[at + i]->request + 1, g->answers[live[at + i]->request].ids.n + 1);
            if (take(g, live[at + i], g->top[i], step, err))
                return err->code;
        }
    }
    return 0;
}

int qp_gen_step(struct qp_gen *g, struct qp_gen_step *step, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    int r = qp_gen_make_caches(g, err);
    *step = (struct qp_gen_step){0};
    for (int64_t i = 0; i < g->n_slots && !r; i++) {
        struct slot *s = &g->slots[i];
        if (s->request < 0 && g->next < g->n)
            r = begin(g, s, step, err);
        if (r || s->request < 0)
            continue;
        int64_t n = (int64_t)s->held.n - s->fed;
        g->segs[step->live] = (struct qp_segment){.seq = s->seq, .ids = s->held.v + s->fed, .n = n, .want_from = n - 1};
        g->live[step->live++] = s;
    }
    if (!r && step->live)
        r = qp_engine_forward(g->e, g->segs, step->live, g->hidden, err);
    if (!r && step->live)
        r = pick(g, step, err);
    return r ? r : step->live > 0;
}
