#include "eval/latency.h"

#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/rng.h"
#include "eval/generate.h"

struct qp_latency {
    const struct qp_tokenizer *tok;
    struct qp_latency_shape s;
    struct qp_latency_prompts given; /* none: synthetic */
    int64_t n;                       /* requests of a run */
    char **made;                     /* [n] synthetic texts; NULL where the caller's are taken */
    const char **texts;              /* [n] */
    struct qp_ids *prompts;          /* [n]: depth tokens, the same for all, and the prompt of the last run */
    struct qp_gen_request *requests; /* [n] */
    double *begun;                   /* [n] of queued requests: when each was fed; 0: it waits, or has its answer */
    struct qp_gen *g;
    struct qp_latency_kv kv;
    bool counted; /* kv's measured parts: in the first request, which is a warm-up */
};

/* ---- prompts ---- */

int64_t qp_latency_requests(const struct qp_latency_shape *s)
{
    return s->requests ? s->requests : s->batch;
}

int64_t qp_latency_steps(const struct qp_latency_shape *s)
{
    return s->requests ? s->requests : s->new_tokens - 1;
}

int64_t qp_latency_prompt_tokens(const struct qp_latency_shape *s)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < qp_latency_requests(s); i++)
        sum += s->prompt_lens[i];
    return sum;
}

int64_t qp_latency_new_tokens(const struct qp_latency_shape *s)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < qp_latency_requests(s); i++)
        sum += s->new_lens ? s->new_lens[i] : s->new_tokens;
    return sum;
}

int64_t qp_latency_longest(const struct qp_latency_shape *s)
{
    int64_t at = 0;
    for (int64_t i = 1; i < qp_latency_requests(s); i++)
        at = s->prompt_lens[i] > s->prompt_lens[at] ? i : at;
    return at;
}

static const char *const words[] = {
    "the",   "of",     "and",    "to",    "in",     "a",      "is",    "that",  "for",   "it",    "was",   "on",    "with",  "as",    "be",    "by",
    "this",  "are",    "from",   "or",    "have",   "an",     "they",  "which", "one",   "you",   "were",  "all",   "their", "there", "been",  "many",
    "if",    "more",   "when",   "will",  "would",  "who",    "so",    "no",    "out",   "up",    "time",  "about", "than",  "into",  "could", "people",
    "water", "system", "number", "small", "world",  "after",  "first", "where", "most",  "same",  "right", "place", "year",  "back",  "work",  "under",
};

static int write_words(struct qp_buf *text, int64_t n, uint64_t seed, struct qp_err *err)
{
    struct qp_rng rng = qp_rng_seed(seed);
    qp_buf_clear(text);
    for (int64_t i = 0; i < n; i++) {
        qp_buf_adds(text, i ? " " : "");
        qp_buf_adds(text, words[qp_rng_below(&rng, sizeof words / sizeof *words)]);
    }
    return qp_buf_check(text, err);
}

int64_t qp_latency_prompt_len(const struct qp_tokenizer *tok, const char *prompt, struct qp_err *err)
{
    struct qp_ids ids = {0};
    int r = qp_tokenizer_encode(tok, prompt, strlen(prompt), QP_ENC_SPECIAL, &ids, err);
    int64_t n = (int64_t)ids.n;
    qp_ids_release(&ids);
    return r ? r : n;
}

/* A text of those words with n tokens or a few more: nearly every tokenizer has each word as one token, so n words are a good start. */
static int synthesize(char **out, const struct qp_tokenizer *tok, int64_t n, uint64_t seed, struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    int64_t count = n, best = 0;
    *out = NULL;
    for (int round = 0; round < 6 && (!best || count < best); round++) {
        int64_t tokens = write_words(&text, count, seed, err) ? -1 : qp_latency_prompt_len(tok, text.data, err);
        if (tokens < 0)
            break;
        best = tokens >= n ? count : best;
        count = tokens >= n ? count * n / tokens + 1 : count + count * (n - tokens) / (tokens > 0 ? tokens : 1) + 1;
    }
    if (!err->code && !best)
        qp_err_set(err, QP_E_INPUT, "no text of %lld tokens can be made with this tokenizer", (long long)n);
    if (!err->code && !write_words(&text, best, seed, err))
        *out = qp_strdup(text.data, err);
    qp_buf_release(&text);
    return err->code;
}

/* ---- life ---- */

static int write_texts(struct qp_latency *l, uint64_t seed, struct qp_err *err)
{
    int r = 0;
    size_t n = (size_t)l->n;
    l->made = qp_zalloc(n * sizeof *l->made, "prompts", err);
    l->texts = qp_zalloc(n * sizeof *l->texts, "prompts", err);
    l->prompts = qp_zalloc(n * sizeof *l->prompts, "prompts", err);
    l->requests = qp_zalloc(n * sizeof *l->requests, "prompts", err);
    l->begun = qp_zalloc(n * sizeof *l->begun, "prompts", err);
    if (!l->made || !l->texts || !l->prompts || !l->requests || !l->begun)
        return QP_E_RESOURCE;
    for (size_t i = 0; !r && i < n; i++) {
        r = l->given.n ? 0 : synthesize(&l->made[i], l->tok, l->s.prompt_lens[i], seed + i, err);
        l->texts[i] = l->given.n ? l->given.texts[i % l->given.n] : l->made[i];
    }
    return r;
}

/* The depth tokens, before every prompt. */
static int write_depth(struct qp_latency *l, struct qp_err *err)
{
    char *text = NULL;
    struct qp_ids ids = {0};
    int r = synthesize(&text, l->tok, l->s.depth, 1, err);
    r = r ? r : qp_tokenizer_encode(l->tok, text, strlen(text), QP_ENC_SPECIAL, &ids, err);
    for (int64_t i = 0; i < l->n; i++)
        for (int64_t k = 0; !r && k < l->s.depth; k++)
            r = qp_ids_add(&l->prompts[i], ids.v[k], err);
    qp_ids_release(&ids);
    qp_free(text);
    return r;
}

static int tokenize(struct qp_latency *l, struct qp_err *err);
static int make_caches(struct qp_latency *l, struct qp_err *err);

int qp_latency_new(struct qp_latency **out, struct qp_engine *e, const struct qp_tokenizer *tok, const struct qp_latency_shape *shape,
                   const struct qp_latency_prompts *prompts, uint64_t seed, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = NULL;
    struct qp_latency *l = qp_zalloc(sizeof *l, "latency", err);
    if (!l)
        return QP_E_RESOURCE;
    *l = (struct qp_latency){.tok = tok, .s = *shape, .n = qp_latency_requests(shape)};
    if (prompts)
        l->given = *prompts;
    struct qp_gen_options o = {.batch = shape->batch, .max_new = shape->new_tokens, .capacity = shape->capacity, .tok = shape->requests ? tok : NULL};
    int r = write_texts(l, seed, err);
    r = r || !shape->depth ? r : write_depth(l, err);
    r = r ? r : tokenize(l, err);
    r = r ? r : qp_gen_new(&l->g, e, l->requests, (size_t)l->n, &o, err);
    if (!r && shape->depth) {
        r = make_caches(l, err);
        r = r ? r : qp_gen_fill_caches(l->g, l->prompts[0].v, shape->depth, err);
    }
    if (r) {
        qp_latency_free(l);
        return r;
    }
    l->kv.computed = qp_gen_kv_bytes(l->g);
    *out = l;
    return 0;
}

void qp_latency_free(struct qp_latency *l)
{
    if (!l)
        return;
    qp_gen_free(l->g);
    for (int64_t i = 0; i < l->n; i++) {
        if (l->made)
            qp_free(l->made[i]);
        if (l->prompts)
            qp_ids_release(&l->prompts[i]);
    }
    qp_free(l->made);
    qp_free(l->texts);
    qp_free(l->prompts);
    qp_free(l->requests);
    qp_free(l->begun);
    qp_free(l);
}

struct qp_latency_kv qp_latency_kv(const struct qp_latency *l)
{
    return l->kv;
}

/* ---- a request ---- */

static int tokenize(struct qp_latency *l, struct qp_err *err)
{
    const int64_t depth = l->s.depth;
    for (int64_t i = 0; i < l->n; i++) {
        struct qp_ids *ids = &l->prompts[i];
        int64_t n = l->s.prompt_lens[i];
        ids->n = (size_t)depth;
        if (qp_tokenizer_encode(l->tok, l->texts[i], strlen(l->texts[i]), QP_ENC_SPECIAL, ids, err))
            return err->code;
        if ((int64_t)ids->n < depth + n)
            return qp_err_set(err, QP_E_INPUT, "prompt %lld of '%s' has %lld tokens, not %lld", (long long)(i % (int64_t)l->given.n) + 1, l->given.path,
                              (long long)((int64_t)ids->n - depth), (long long)n);
        l->requests[i] = (struct qp_gen_request){.ids = ids->v, .n = depth + n, .fresh = n, .max_new = l->s.new_lens ? l->s.new_lens[i] : 0};
    }
    return 0;
}

static int make_caches(struct qp_latency *l, struct qp_err *err)
{
    struct qp_resident before = {0}, after;
    bool first = !l->counted && qp_resident_read(&before);
    size_t used = first ? qp_mem_in_use() : 0;
    if (qp_gen_make_caches(l->g, err))
        return err->code;
    if (first && qp_resident_read(&after)) {
        l->kv.allocated = qp_mem_in_use() - used;
        l->kv.resident = after.now > before.now ? after.now - before.now : 0;
    }
    l->counted = true;
    return 0;
}

static int detokenize(struct qp_latency *l, struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    for (int64_t i = 0; i < l->s.batch; i++) {
        const struct qp_ids *ids = &qp_gen_answer(l->g, (size_t)i)->ids;
        qp_buf_clear(&text);
        if (qp_tokenizer_decode(l->tok, ids->v, ids->n, true, &text, err))
            break;
    }
    int r = err->code ? err->code : qp_buf_check(&text, err);
    qp_buf_release(&text);
    return r;
}

/* One step of the batch, in which every sequence takes part; fed: tokens of prompts that are to be computed. */
static int step(struct qp_latency *l, int64_t fed, struct qp_err *err)
{
    struct qp_gen_step s;
    int r = qp_gen_step(l->g, &s, err);
    if (r >= 0 && (s.live != l->s.batch || s.fed != fed))
        r = qp_err_set(err, QP_E_INTERNAL, "%lld sequences of %lld in a step, %lld tokens fed", (long long)s.live, (long long)l->s.batch, (long long)s.fed);
    return r < 0 ? r : 0;
}

/* A batch in step, from its prompts to its texts. */
static int run_in_step(struct qp_latency *l, double start, double t, struct qp_latency_run *out, double *steps, struct qp_err *err)
{
    double at;
    if (step(l, qp_latency_prompt_tokens(&l->s), err))
        return err->code;
    out->prefill = (at = qp_now()) - t, t = at;
    out->first = at - start;
    for (int64_t i = 1; i < l->s.new_tokens; i++, t = at) {
        if (step(l, 0, err))
            return err->code;
        steps[i - 1] = (at = qp_now()) - t;
        out->decode += steps[i - 1];
    }
    if (detokenize(l, err))
        return err->code;
    out->detokenize = (at = qp_now()) - t;
    out->total = at - start;
    return 0;
}

/* All requests; they begin in order. */
static int run_queued(struct qp_latency *l, double start, double t, struct qp_latency_run *out, double *seconds, struct qp_err *err)
{
    struct qp_gen_step s;
    int64_t next = 0, first = 0; /* the first that waits, the first that has no answer */
    int r;
    for (double at; (r = qp_gen_step(l->g, &s, err)) == 1; t = at) {
        at = qp_now();
        for (int64_t i = 0; i < s.begun; i++)
            l->begun[next++] = t;
        for (int64_t i = first; i < next && s.finished; i++) {
            if (l->begun[i] == 0 || qp_gen_answer(l->g, (size_t)i)->end == QP_GEN_PENDING)
                continue;
            seconds[i] = at - l->begun[i];
            l->begun[i] = 0;
        }
        while (first < next && l->begun[first] == 0)
            first++;
    }
    out->total = qp_now() - start;
    return r;
}

int qp_latency_once(struct qp_latency *l, struct qp_latency_run *out, double *steps, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    double start = qp_now(), ready, at;
    *out = (struct qp_latency_run){0};
    if (tokenize(l, err) || qp_gen_restart(l->g, l->requests, err))
        return err->code;
    out->tokenize = (ready = at = qp_now()) - start;
    if (!l->s.depth && make_caches(l, err))
        return err->code;
    if (!l->s.depth)
        out->allocate = (ready = qp_now()) - at;
    int r = l->s.requests ? run_queued(l, start, ready, out, steps, err) : run_in_step(l, start, ready, out, steps, err);
    if (!l->s.depth)
        qp_gen_free_caches(l->g);
    return r;
}
