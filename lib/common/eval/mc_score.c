#include "eval/mc_score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SLOTS 32                          /* questions in one pass at most */
#define CACHE_BYTES ((size_t)512 << 20)   /* of all their caches together, where one fits */
#define LOGIT_ROWS 96                     /* rows of logits at a time: they stay in the last-level cache */
#define CAPACITY_STEP 128
#define SHARED_MIN 16                     /* a shorter common prefix is computed again: cheaper than the copies */

/* ---- tokens ---- */

void qp_mc_input_release(struct qp_mc_input *in)
{
    qp_ids_release(&in->ids);
    *in = (struct qp_mc_input){0};
}

/* The flags of an encoding: special tokens as the tokenizer adds them, unless the text brings its own BOS. */
static int flags_for(const struct qp_tokenizer *tok, const char *text, unsigned *flags, struct qp_err *err)
{
    struct qp_buf bos = QP_BUF_INIT;
    int32_t id = qp_tokenizer_bos(tok);
    *flags = QP_ENC_SPECIAL;
    int r = id >= 0 ? qp_tokenizer_decode(tok, &id, 1, false, &bos, err) : 0;
    if (!r && bos.len && !strncmp(text, bos.data, bos.len))
        *flags = 0;
    qp_buf_release(&bos);
    return r;
}

/* No context: one token stands for it, BOS or else EOS, unless the continuation begins with it. */
static int encode_alone(struct qp_ids *out, const struct qp_tokenizer *tok, const char *text, size_t *n_context, struct qp_err *err)
{
    int32_t prefix = qp_tokenizer_bos(tok) >= 0 ? qp_tokenizer_bos(tok) : qp_tokenizer_eos(tok);
    size_t at = out->n;
    if (prefix < 0)
        return qp_err_set(err, QP_E_INPUT, "the question is empty, and the tokenizer has no BOS token to stand for it");
    if (qp_ids_add(out, prefix, err) || qp_tokenizer_encode(tok, text, strlen(text), 0, out, err))
        return err->code;
    *n_context = 1;
    if (out->n - at > 1 && out->v[at + 1] == prefix) {
        memmove(out->v + at, out->v + at + 1, (out->n - at - 1) * sizeof *out->v);
        out->n--;
    }
    return 0;
}

/* Context's own tokens, then those of both together behind as many. */
static int encode_pair(struct qp_ids *out, const struct qp_tokenizer *tok, const char *context, const char *continuation, size_t *n_context, struct qp_err *err)
{
    struct qp_ids whole = {0};
    struct qp_buf text = QP_BUF_INIT;
    unsigned flags;
    size_t n = strlen(context), kept = qp_mc_rstrip(context, n), at = out->n;
    if (!n)
        return encode_alone(out, tok, continuation, n_context, err);
    qp_buf_adds(&text, context);
    qp_buf_adds(&text, continuation);
    int r = qp_buf_check(&text, err);
    r = r ? r : flags_for(tok, context, &flags, err);
    r = r ? r : qp_tokenizer_encode(tok, text.data, text.len, flags, &whole, err);
    r = r ? r : qp_tokenizer_encode(tok, context, kept, flags, out, err);
    *n_context = out->n - at;
    if (!r && !*n_context)
        r = qp_err_set(err, QP_E_INPUT, "the question is nothing but white space");
    for (size_t i = *n_context; i < whole.n && !r; i++)
        r = qp_ids_add(out, whole.v[i], err);
    qp_ids_release(&whole);
    qp_buf_release(&text);
    return r;
}

int qp_mc_tokenize(struct qp_mc_input *in, const struct qp_tokenizer *tok, const struct qp_mc_prompt *p, int64_t max_length, struct qp_err *err)
{
    in->ids.n = 0;
    in->n = p->n;
    in->cut = 0;
    for (int c = 0; c < p->n; c++) {
        size_t at = in->ids.n, n_context;
        if (encode_pair(&in->ids, tok, p->text.data + p->context[c], p->text.data + p->continuation[c], &n_context, err))
            return err->code;
        int64_t n = (int64_t)(in->ids.n - at), scored = n - (int64_t)n_context, cut = n - (max_length + 1);
        if (scored < 1)
            return qp_err_set(err, QP_E_INPUT, "choice %d ('%.60s') adds no token to the question", c, p->text.data + p->choice[c]);
        if (scored > max_length)
            return qp_err_set(err, QP_E_INPUT, "choice %d has %lld tokens, the model takes %lld", c, (long long)scored, (long long)max_length);
        cut = cut > 0 ? cut : 0;
        in->cut = cut > in->cut ? cut : in->cut;
        in->seq[c] = (struct qp_mc_seq){.at = at + (size_t)cut, .n = n - cut, .first = (int64_t)n_context - cut}; /* 1 at least */
    }
    return 0;
}

/* ---- scoring ---- */

struct slot {
    struct qp_seq *seq;
    int64_t version; /* of the shared prefix that it begins with; 0: none */
};

struct qp_mc_scorer {
    struct qp_engine *e;
    struct slot slot[SLOTS];
    int n_slots;
    int64_t capacity;
    struct qp_seq *shared; /* the prefix that questions have in common */
    struct qp_ids prefix;
    int64_t version;
    float *hidden, *logits;
    size_t hidden_rows;
    double lse[LOGIT_ROWS];
    int32_t top[LOGIT_ROWS];
    int64_t fed, asked;
};

/* One question on its way. */
struct job {
    const struct qp_mc_input *in;
    struct qp_mc_scores *out;
    int64_t common; /* tokens that all choices feed first */
    int64_t from;   /* the first position that predicts a scored token */
    size_t order;
};

int qp_mc_scorer_new(struct qp_mc_scorer **out, struct qp_engine *e, struct qp_err *err)
{
    *out = NULL;
    struct qp_mc_scorer *s = qp_zalloc(sizeof *s, "scorer", err);
    if (!s)
        return QP_E_RESOURCE;
    s->e = e;
    int64_t rows = qp_engine_logit_rows(e) < LOGIT_ROWS ? qp_engine_logit_rows(e) : LOGIT_ROWS;
    if (!(s->logits = qp_alloc_n((size_t)rows, (size_t)qp_engine_config(e)->vocab_size * sizeof(float), "logits", err))) {
        qp_mc_scorer_free(s);
        return QP_E_RESOURCE;
    }
    *out = s;
    return 0;
}

static void free_slots(struct qp_mc_scorer *s)
{
    for (int i = 0; i < s->n_slots; i++)
        qp_seq_free(s->slot[i].seq);
    qp_seq_free(s->shared);
    s->shared = NULL;
    s->n_slots = 0;
    s->prefix.n = 0;
}

void qp_mc_scorer_free(struct qp_mc_scorer *s)
{
    if (!s)
        return;
    free_slots(s);
    qp_ids_release(&s->prefix);
    qp_free(s->hidden);
    qp_free(s->logits);
    qp_free(s);
}

void qp_mc_scorer_tokens(const struct qp_mc_scorer *s, int64_t *fed, int64_t *asked)
{
    *fed = s->fed;
    *asked = s->asked;
}

static const int32_t *tokens(const struct job *j, int c)
{
    return j->in->ids.v + j->in->seq[c].at;
}

static void plan(struct job *j, const struct qp_mc_input *in, struct qp_mc_scores *out, size_t order)
{
    *j = (struct job){.in = in, .out = out, .common = in->seq[0].n - 1, .from = INT64_MAX, .order = order};
    *out = (struct qp_mc_scores){.greedy = 0};
    for (int c = 0; c < in->n; c++) {
        int64_t n = in->seq[c].n - 1, k = 0;
        const int32_t *a = tokens(j, 0), *b = tokens(j, c);
        while (k < n && k < j->common && a[k] == b[k])
            k++;
        j->common = k;
        j->from = in->seq[c].first - 1 < j->from ? in->seq[c].first - 1 : j->from;
        out->greedy |= UINT64_C(1) << c;
    }
}

/* Longest first; equals in their order. */
static int by_length(const void *a, const void *b)
{
    const struct job *x = a, *y = b;
    if (x->common != y->common)
        return x->common > y->common ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* How many tokens all questions begin with, none of which predicts a scored one. */
static int64_t common_prefix(const struct job *jobs, size_t n)
{
    int64_t k = jobs[0].common;
    for (size_t i = 0; i < n; i++) {
        const int32_t *a = tokens(&jobs[0], 0), *b = tokens(&jobs[i], 0);
        int64_t limit = jobs[i].from < jobs[i].common ? jobs[i].from : jobs[i].common, m = 0;
        while (m < k && m < limit && a[m] == b[m])
            m++;
        k = m;
    }
    return k;
}

/* ---- memory ---- */

/* Caches for texts of `longest` tokens: as many as fit, one at least. */
static int reserve(struct qp_mc_scorer *s, int64_t longest, size_t wanted, struct qp_err *err)
{
    int64_t capacity = (longest + CAPACITY_STEP - 1) / CAPACITY_STEP * CAPACITY_STEP;
    if (capacity > s->capacity) {
        free_slots(s);
        s->capacity = capacity;
    }
    size_t bytes = qp_kv_cache_bytes(qp_engine_config(s->e), qp_engine_ops(s->e), qp_engine_kv(s->e), s->capacity), fit = CACHE_BYTES / (bytes ? bytes : 1);
    wanted = wanted < SLOTS ? wanted : SLOTS;
    wanted = wanted < fit ? wanted : fit > 1 ? fit : 1;
    for (; s->n_slots < (int)wanted; s->n_slots++) {
        s->slot[s->n_slots].version = 0;
        if (qp_seq_new(&s->slot[s->n_slots].seq, s->e, s->capacity, err))
            return err->code;
    }
    return s->shared ? 0 : qp_seq_new(&s->shared, s->e, s->capacity, err);
}

static int reserve_rows(struct qp_mc_scorer *s, int64_t rows, struct qp_err *err)
{
    if ((size_t)rows <= s->hidden_rows)
        return 0;
    qp_free(s->hidden);
    s->hidden_rows = 0;
    s->hidden = qp_alloc_n((size_t)rows, (size_t)qp_engine_config(s->e)->d_model * sizeof(float), "hidden states", err);
    if (!s->hidden)
        return QP_E_RESOURCE;
    s->hidden_rows = (size_t)rows;
    return 0;
}

/* ---- the shared prefix ---- */

/* The prefix that is held is kept where it serves nearly as well. */
static int share(struct qp_mc_scorer *s, const struct job *jobs, size_t n, struct qp_err *err)
{
    int64_t k = common_prefix(jobs, n), held = (int64_t)s->prefix.n;
    const int32_t *ids = tokens(&jobs[0], 0);
    if (held && held <= k && held >= k - k / 4 && !memcmp(ids, s->prefix.v, (size_t)held * sizeof *ids))
        return 0;
    s->prefix.n = 0;
    if (k < SHARED_MIN || n < 2)
        return 0;
    for (int64_t i = 0; i < k; i++)
        if (qp_ids_add(&s->prefix, ids[i], err))
            return err->code;
    s->version++;
    s->fed += k;
    qp_seq_truncate(s->shared, 0);
    return qp_engine_forward(s->e, &(struct qp_segment){.seq = s->shared, .ids = ids, .n = k, .want_from = k}, 1, NULL, err);
}

static int begin_slot(struct qp_mc_scorer *s, struct slot *slot, struct qp_err *err)
{
    if (!s->prefix.n) {
        slot->version = 0;
    } else if (slot->version != s->version) {
        if (qp_seq_copy(slot->seq, s->shared, err))
            return err->code;
        slot->version = s->version;
    }
    qp_seq_truncate(slot->seq, (int64_t)s->prefix.n);
    return 0;
}

/* ---- passes ---- */

/* A row of hidden states: the position after which it was taken, of which question, for which choice (-1: for all). */
struct row {
    struct job *job;
    int choice;
    int64_t position;
};

static void take(const struct row *r, const float *logits, double lse, int32_t top)
{
    const struct qp_mc_input *in = r->job->in;
    for (int c = r->choice < 0 ? 0 : r->choice; c < (r->choice < 0 ? in->n : r->choice + 1); c++) {
        int64_t t = r->position + 1; /* the token that the row predicts */
        if (t < in->seq[c].first || t >= in->seq[c].n)
            continue;
        int32_t id = tokens(r->job, c)[t];
        r->job->out->score[c] += (double)logits[id] - lse;
        if (top != id)
            r->job->out->greedy &= ~(UINT64_C(1) << c);
    }
}

static int take_rows(struct qp_mc_scorer *s, const struct row *rows, int64_t n, struct qp_err *err)
{
    int64_t V = qp_engine_config(s->e)->vocab_size, D = qp_engine_config(s->e)->d_model, step = qp_engine_logit_rows(s->e) < LOGIT_ROWS ? qp_engine_logit_rows(s->e) : LOGIT_ROWS;
    for (int64_t at = 0; at < n; at += step) {
        int64_t k = n - at < step ? n - at : step;
        if (qp_engine_logits(s->e, s->hidden + at * D, k, s->logits, err))
            return err->code;
        qp_engine_ops(s->e)->log_sum_exp(qp_engine_exec(s->e), s->lse, s->top, s->logits, V, k, V);
        for (int64_t i = 0; i < k; i++)
            take(&rows[at + i], s->logits + i * V, s->lse[i], s->top[i]);
    }
    return 0;
}

/* Feeds segments, each question's in its slot, and takes the rows from `want` on. choice -1: what all choices begin with. */
static int pass(struct qp_mc_scorer *s, struct job *jobs, int n, int choice, struct qp_err *err)
{
    struct qp_segment seg[SLOTS];
    int64_t n_rows = 0, at = 0;
    int n_seg = 0;
    for (int i = 0; i < n; i++) {
        struct job *j = &jobs[i];
        int64_t begin = choice < 0 ? (int64_t)s->prefix.n : j->common, end = choice < 0 ? j->common : choice < j->in->n ? j->in->seq[choice].n - 1 : 0;
        int64_t want = (choice < 0 ? j->from : end > begin ? j->in->seq[choice].first - 1 : 0) - begin;
        want = want < 0 ? 0 : want > end - begin ? end - begin : want;
        seg[i] = (struct qp_segment){.seq = s->slot[i].seq, .ids = tokens(j, choice < 0 || choice >= j->in->n ? 0 : choice) + begin, .n = end > begin ? end - begin : 0, .want_from = want};
        if (end <= begin)
            seg[i].want_from = 0;
        n_rows += seg[i].n - seg[i].want_from;
        s->fed += seg[i].n;
        n_seg += seg[i].n > 0;
        if (choice >= 0)
            qp_seq_truncate(seg[i].seq, begin);
    }
    struct row *rows = qp_alloc_n((size_t)n_rows + 1, sizeof *rows, "rows", err);
    int r = !rows || reserve_rows(s, n_rows, err) ? QP_E_RESOURCE : 0;
    for (int i = 0; i < n && !r; i++)
        for (int64_t k = seg[i].want_from; k < seg[i].n; k++)
            rows[at++] = (struct row){&jobs[i], choice, (choice < 0 ? (int64_t)s->prefix.n : jobs[i].common) + k};
    if (!r && n_seg)
        r = qp_engine_forward(s->e, seg, n, s->hidden, err);
    r = r ? r : take_rows(s, rows, n_rows, err);
    qp_free(rows);
    return r;
}

static int score_batch(struct qp_mc_scorer *s, struct job *jobs, int n, struct qp_err *err)
{
    int most = 0;
    for (int i = 0; i < n; i++) {
        most = jobs[i].in->n > most ? jobs[i].in->n : most;
        if (begin_slot(s, &s->slot[i], err))
            return err->code;
    }
    if (pass(s, jobs, n, -1, err))
        return err->code;
    for (int c = 0; c < most; c++)
        if (pass(s, jobs, n, c, err))
            return err->code;
    return 0;
}

static int check(const struct qp_mc_scores *out, const struct qp_mc_input *in, struct qp_err *err)
{
    for (int c = 0; c < in->n; c++)
        if (!isfinite(out->score[c]))
            return qp_err_set(err, QP_E_INPUT, "the score of choice %d is not finite: the model's outputs are broken", c);
    return 0;
}

int qp_mc_score(struct qp_mc_scorer *s, const struct qp_mc_input *in, size_t n, struct qp_mc_scores *out, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    int64_t longest = 1;
    struct job *jobs = qp_alloc_n(n, sizeof *jobs, "questions", err);
    if (!jobs)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < n; i++) {
        plan(&jobs[i], &in[i], &out[i], i);
        for (int c = 0; c < in[i].n; c++) {
            longest = in[i].seq[c].n > longest ? in[i].seq[c].n : longest;
            s->asked += in[i].seq[c].n - 1;
        }
    }
    qsort(jobs, n, sizeof *jobs, by_length);
    int r = n ? reserve(s, longest, n, err) : 0;
    r = r || !n ? r : share(s, jobs, n, err);
    for (size_t at = 0; at < n && !r; at += (size_t)s->n_slots)
        r = score_batch(s, jobs + at, (int)(n - at < (size_t)s->n_slots ? n - at : (size_t)s->n_slots), err);
    for (size_t i = 0; i < n && !r; i++)
        r = check(&out[i], &in[i], err);
    qp_free(jobs);
    return r;
}
