#include "eval/latency.h"

#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/rng.h"
#include "text/tokenizer.h"

struct qp_latency {
    struct qp_engine *e;
    const struct qp_tokenizer *tok;
    struct qp_latency_shape s;
    char **texts;           /* [batch]; all the same pointer for a given prompt */
    bool given;             /* texts are the caller's prompt */
    struct qp_ids *prompts; /* [batch], of the last request */
    struct qp_seq **seqs;   /* [batch] */
    struct qp_segment *segs;
    int32_t *next, *answers; /* [batch]; [batch, new_tokens] */
    float *hidden, *logits;
    double *lse;
    struct qp_latency_kv kv;
    bool counted; /* kv's measured parts: in the first request, which is a warm-up */
};

/* ---- prompts ---- */

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

static int allocate(struct qp_latency *l, struct qp_err *err)
{
    size_t B = (size_t)l->s.batch, D = (size_t)qp_engine_config(l->e)->d_model, V = (size_t)qp_engine_config(l->e)->vocab_size;
    int64_t rows = qp_engine_logit_rows(l->e);
    rows = rows < l->s.batch ? rows : l->s.batch;
    l->texts = qp_zalloc(B * sizeof *l->texts, "prompts", err);
    l->prompts = qp_zalloc(B * sizeof *l->prompts, "prompts", err);
    l->seqs = qp_zalloc(B * sizeof *l->seqs, "sequences", err);
    l->segs = qp_zalloc(B * sizeof *l->segs, "sequences", err);
    l->next = qp_zalloc(B * sizeof *l->next, "tokens", err);
    l->lse = qp_zalloc(B * sizeof *l->lse, "tokens", err);
    l->answers = qp_alloc_n(B * (size_t)l->s.new_tokens, sizeof *l->answers, "answers", err);
    l->hidden = qp_alloc_n(B * D, sizeof *l->hidden, "hidden states", err);
    l->logits = qp_alloc_n((size_t)rows * V, sizeof *l->logits, "logits", err);
    return err->code;
}

static int fill_cache(struct qp_latency *l, struct qp_err *err);

int qp_latency_new(struct qp_latency **out, struct qp_engine *e, const struct qp_tokenizer *tok, const struct qp_latency_shape *shape, const char *prompt,
                   uint64_t seed, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = NULL;
    struct qp_latency *l = qp_zalloc(sizeof *l, "latency", err);
    if (!l)
        return QP_E_RESOURCE;
    l->e = e;
    l->tok = tok;
    l->s = *shape;
    l->given = prompt != NULL;
    if (!l->s.capacity)
        l->s.capacity = l->s.depth + l->s.prompt_len + l->s.new_tokens;
    int r = allocate(l, err);
    for (int64_t i = 0; !r && i < l->s.batch; i++)
        if (prompt)
            l->texts[i] = (char *)(uintptr_t)prompt;
        else
            r = synthesize(&l->texts[i], tok, l->s.prompt_len, seed + (uint64_t)i, err);
    size_t each = r ? 0 : qp_kv_cache_bytes(qp_engine_config(e), qp_engine_ops(e), qp_engine_kv(e), l->s.capacity);
    if (!r && !qp_mul(each, (size_t)l->s.batch, &l->kv.computed))
        r = qp_err_set(err, QP_E_RESOURCE, "no memory for the KV caches of %lld sequences", (long long)l->s.batch);
    if (!r && l->s.depth)
        r = fill_cache(l, err);
    if (r) {
        qp_latency_free(l);
        return r;
    }
    *out = l;
    return 0;
}

static void free_sequences(struct qp_latency *l)
{
    for (int64_t i = 0; l->seqs && i < l->s.batch; i++) {
        qp_seq_free(l->seqs[i]);
        l->seqs[i] = NULL;
    }
}

void qp_latency_free(struct qp_latency *l)
{
    if (!l)
        return;
    free_sequences(l);
    for (int64_t i = 0; i < l->s.batch; i++) {
        if (l->texts && !l->given)
            qp_free(l->texts[i]);
        if (l->prompts)
            qp_ids_release(&l->prompts[i]);
    }
    void *const blocks[] = {l->texts, l->prompts, l->seqs, l->segs, l->next, l->lse, l->answers, l->hidden, l->logits, l};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        qp_free(blocks[i]);
}

struct qp_latency_kv qp_latency_kv(const struct qp_latency *l)
{
    return l->kv;
}

/* ---- a request ---- */

static int tokenize(struct qp_latency *l, struct qp_err *err)
{
    for (int64_t i = 0; i < l->s.batch; i++) {
        struct qp_ids *ids = &l->prompts[i];
        ids->n = 0;
        if (qp_tokenizer_encode(l->tok, l->texts[i], strlen(l->texts[i]), QP_ENC_SPECIAL, ids, err))
            return err->code;
        if (ids->n < (size_t)l->s.prompt_len)
            return qp_err_set(err, QP_E_INPUT, "the prompt has %zu tokens, not %lld", ids->n, (long long)l->s.prompt_len);
        ids->n = (size_t)l->s.prompt_len;
    }
    return 0;
}

static int make_sequences(struct qp_latency *l, struct qp_err *err)
{
    struct qp_resident before = {0}, after;
    bool first = !l->counted && qp_resident_read(&before);
    size_t used = first ? qp_mem_in_use() : 0;
    for (int64_t i = 0; i < l->s.batch; i++)
        if (qp_seq_new(&l->seqs[i], l->e, l->s.capacity, err))
            return qp_err_context(err, "batch %lld", (long long)l->s.batch);
    if (first && qp_resident_read(&after)) {
        l->kv.allocated = qp_mem_in_use() - used;
        l->kv.resident = after.now > before.now ? after.now - before.now : 0;
    }
    l->counted = true;
    return 0;
}

/* Sequences that have seen depth tokens: what the measured prompts stand behind. */
static int fill_cache(struct qp_latency *l, struct qp_err *err)
{
    char *text = NULL;
    struct qp_ids ids = {0};
    int r = make_sequences(l, err);
    r = r ? r : synthesize(&text, l->tok, l->s.depth, 1, err);
    r = r ? r : qp_tokenizer_encode(l->tok, text, strlen(text), QP_ENC_SPECIAL, &ids, err);
    struct qp_segment seg = {.seq = l->seqs[0], .ids = ids.v, .n = l->s.depth, .want_from = l->s.depth};
    r = r ? r : qp_engine_forward(l->e, &seg, 1, l->hidden, err);
    for (int64_t i = 1; !r && i < l->s.batch; i++)
        r = qp_seq_copy(l->seqs[i], l->seqs[0], err);
    qp_ids_release(&ids);
    qp_free(text);
    return r;
}

/* A pass over the segments and the most likely next token of each sequence. */
static int pass(struct qp_latency *l, struct qp_err *err)
{
    const struct qp_model_config *c = qp_engine_config(l->e);
    int64_t most = qp_engine_logit_rows(l->e);
    if (qp_engine_forward(l->e, l->segs, l->s.batch, l->hidden, err))
        return err->code;
    for (int64_t i = 0; i < l->s.batch; i += most) {
        int64_t n = l->s.batch - i < most ? l->s.batch - i : most;
        if (qp_engine_logits(l->e, l->hidden + i * c->d_model, n, l->logits, err))
            return err->code;
        qp_engine_ops(l->e)->log_sum_exp(qp_engine_exec(l->e), l->lse, l->next + i, l->logits, c->vocab_size, n, c->vocab_size);
    }
    return 0;
}

static void keep_tokens(struct qp_latency *l, int64_t at)
{
    for (int64_t i = 0; i < l->s.batch; i++) {
        l->answers[i * l->s.new_tokens + at] = l->next[i];
        l->segs[i] = (struct qp_segment){.seq = l->seqs[i], .ids = &l->next[i], .n = 1};
    }
}

static int detokenize(struct qp_latency *l, struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    for (int64_t i = 0; i < l->s.batch; i++) {
        qp_buf_clear(&text);
        if (qp_tokenizer_decode(l->tok, l->answers + i * l->s.new_tokens, (size_t)l->s.new_tokens, true, &text, err))
            break;
    }
    int r = err->code ? err->code : qp_buf_check(&text, err);
    qp_buf_release(&text);
    return r;
}

int qp_latency_once(struct qp_latency *l, struct qp_latency_run *out, double *steps, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    double start = qp_now(), t = start, at;
    if (tokenize(l, err))
        return err->code;
    out->tokenize = (at = qp_now()) - t, t = at;
    if (!l->s.depth && make_sequences(l, err))
        return err->code;
    out->allocate = l->s.depth ? 0 : (at = qp_now()) - t, t = at;
    for (int64_t i = 0; i < l->s.batch; i++) {
        qp_seq_truncate(l->seqs[i], l->s.depth);
        l->segs[i] = (struct qp_segment){.seq = l->seqs[i], .ids = l->prompts[i].v, .n = l->s.prompt_len, .want_from = l->s.prompt_len - 1};
    }
    if (pass(l, err))
        return err->code;
    out->prefill = (at = qp_now()) - t, t = at;
    out->first = at - start;
    keep_tokens(l, 0);
    out->decode = 0;
    for (int64_t i = 1; i < l->s.new_tokens; i++, t = at) {
        if (pass(l, err))
            return err->code;
        keep_tokens(l, i);
        steps[i - 1] = (at = qp_now()) - t;
        out->decode += steps[i - 1];
    }
    if (detokenize(l, err))
        return err->code;
    out->detokenize = (at = qp_now()) - t;
    out->total = at - start;
    if (!l->s.depth)
        free_sequences(l);
    return 0;
}
