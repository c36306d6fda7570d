/* Encoding and decoding; what tells tokens from text. */
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/internal.h"

void qp_ids_release(struct qp_ids *ids)
{
    free(ids->v);
    *ids = (struct qp_ids){0};
}

int qp_ids_add(struct qp_ids *ids, int32_t id, struct qp_err *err)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? 2 * ids->cap : 64;
        int32_t *grown = realloc(ids->v, cap * sizeof *grown);
        if (!grown)
            return qp_err_set(err, QP_E_RESOURCE, "no memory for %zu token ids", cap);
        ids->v = grown;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return 0;
}

/* ---- encoding ---- */

/* Pre-tokens repeat: their ids are remembered for the length of one call. */
#define CACHE_SLOTS 16384
#define CACHE_BYTES 64

struct cached {
    uint64_t hash;
    uint32_t at, n; /* ids [at, at + n) of the output */
    uint32_t text, bytes;
};

struct encoder {
    const struct qp_tokenizer *t;
    struct qp_ids *out;
    struct qp_err *err;
    struct qp_bpe_work work;
    struct qp_spans spans;
    struct qp_buf text; /* normalized, all stretches one after the other: the cache points into it */
    struct cached *cache;
};

static int encode_word(struct encoder *e, size_t start, size_t n)
{
    const char *p = e->text.data + start;
    if (n > CACHE_BYTES)
        return qp_tok_bpe(e->t, &e->work, p, n, e->out, e->err);
    uint64_t h = qp_xxh64(p, n) | 1;
    struct cached *c = &e->cache[h >> 20 & (CACHE_SLOTS - 1)];
    if (c->hash == h && c->bytes == n && !memcmp(e->text.data + c->text, p, n)) {
        for (uint32_t i = 0; i < c->n; i++)
            if (qp_ids_add(e->out, e->out->v[c->at + i], e->err))
                return e->err->code;
        return 0;
    }
    size_t at = e->out->n;
    if (qp_tok_bpe(e->t, &e->work, p, n, e->out, e->err))
        return e->err->code;
    if (at <= UINT32_MAX)
        *c = (struct cached){h, (uint32_t)at, (uint32_t)(e->out->n - at), (uint32_t)start, (uint32_t)n};
    return 0;
}

static int encode_stretch(struct encoder *e, const char *text, size_t n, bool first)
{
    if (!n)
        return 0;
    size_t base = e->text.len;
    if (qp_tok_normalize(e->t, text, n, first, &e->text, e->err) || qp_tok_pretokenize(e->t, e->text.data + base, e->text.len - base, &e->spans, e->err))
        return e->err->code;
    for (size_t i = 0; i < e->spans.n; i++)
        if (encode_word(e, base + e->spans.v[i].start, e->spans.v[i].n))
            return e->err->code;
    return 0;
}

/* Rust's \w: letters, marks, decimal and letter numbers, connectors, joiners, circled letters. */
static bool word_char(const char *text, size_t n, size_t at)
{
    uint32_t c;
    if (at >= n)
        return false;
    qp_utf8_next(text + at, &c);
    if (c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f189))
        return true;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC; /* Lu Ll Lt Lm Lo Mn Mc Me Nd Nl */
}

static size_t back_one(const char *text, size_t at)
{
    while (at && ((uint8_t)text[--at] & 0xc0) == 0x80)
        ;
    return at;
}

static bool space_at(const char *text, size_t at)
{
    uint32_t c;
    qp_utf8_next(text + at, &c);
    return qp_is_space(c);
}

/* The added token that begins at `at`, or NULL. */
static const struct qp_added *added_at(const struct qp_tokenizer *t, const char *text, size_t n, size_t at)
{
    if (!t->added_first[(uint8_t)text[at]])
        return NULL;
    for (size_t i = 0; i < t->n_added; i++) {
        const struct qp_added *a = &t->added[i];
        if (a->n <= n - at && !memcmp(a->text, text + at, a->n) &&
            !(a->single_word && ((at && word_char(text, n, back_one(text, at))) || word_char(text, n, at + a->n))))
            return a;
    }
    return NULL;
}

static int encode_text(struct encoder *e, const char *text, size_t n, unsigned flags)
{
    size_t from = 0, at = 0;
    while (at < n && !(flags & QP_ENC_NO_ADDED)) {
        const struct qp_added *a = e->t->n_added ? added_at(e->t, text, n, at) : NULL;
        if (!a) {
            at++;
            continue;
        }
        size_t end = at, next = at + a->n;
        while (a->lstrip && end > from && space_at(text, back_one(text, end)))
            end = back_one(text, end);
        for (uint32_t c; a->rstrip && next < n && space_at(text, next);)
            next += (size_t)qp_utf8_next(text + next, &c);
        if (encode_stretch(e, text + from, end - from, from == 0) || qp_ids_add(e->out, a->id, e->err))
            return e->err->code;
        from = at = next;
    }
    return encode_stretch(e, text + from, n - from, from == 0);
}

int qp_tokenizer_encode(const struct qp_tokenizer *t, const char *text, size_t bytes, unsigned flags, struct qp_ids *out, struct qp_err *err)
{
    struct qp_err local = {0};
    struct encoder e = {.t = t, .out = out, .err = err ? err : &local};
    size_t valid = qp_utf8_valid(text, bytes);
    int r = valid < bytes ? qp_err_set(e.err, QP_E_INPUT, "invalid UTF-8 at byte %zu", valid) : 0;
    e.cache = r ? NULL : qp_zalloc(CACHE_SLOTS * sizeof *e.cache, "tokenizer cache", e.err);
    if (!r && !e.cache)
        r = QP_E_RESOURCE;
    for (size_t i = 0; !r && (flags & QP_ENC_SPECIAL) && i < t->n_prefix; i++)
        r = qp_ids_add(out, t->prefix[i], e.err);
    r = r ? r : encode_text(&e, text, bytes, flags);
    for (size_t i = 0; !r && (flags & QP_ENC_SPECIAL) && i < t->n_suffix; i++)
        r = qp_ids_add(out, t->suffix[i], e.err);
    qp_free(e.cache);
    free(e.work.symbols);
    free(e.work.heap);
    free(e.spans.v);
    qp_buf_release(&e.text);
    return r;
}

/* ---- decoding ---- */

/* U+FFFD for each greatest invalid stretch, as Unicode recommends and transformers prints. */
static void add_lossy(struct qp_buf *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const utf8proc_uint8_t *)p + i, (utf8proc_ssize_t)(n - i), &c);
        if (k > 0) {
            qp_buf_add(out, p + i, (size_t)k);
            i += (size_t)k;
            continue;
        }
        uint8_t b = (uint8_t)p[i];
        size_t want = b >= 0xc2 && b < 0xe0 ? 2 : b >= 0xe0 && b < 0xf0 ? 3 : b >= 0xf0 && b < 0xf5 ? 4 : 1, have = 1;
        while (have < want && i + have < n && ((uint8_t)p[i + have] & 0xc0) == 0x80) {
            uint8_t second = (uint8_t)p[i + 1];
            if ((b == 0xe0 && second < 0xa0) || (b == 0xed && second > 0x9f) || (b == 0xf0 && second < 0x90) || (b == 0xf4 && second > 0x8f))
                break;
            have++;
        }
        qp_buf_adds(out, "\xef\xbf\xbd");
        i += have;
    }
}

static void add_token(const struct qp_tokenizer *t, const struct qp_token *k, struct qp_buf *raw)
{
    unsigned byte;
    if (t->byte_level || k->type == 3 || k->type == 4) {
        qp_buf_add(raw, k->bytes, k->n);
        return;
    }
    if (t->byte_fallback && k->n == 6 && sscanf(k->text, "<0x%2X>", &byte) == 1) {
        char b = (char)byte;
        qp_buf_add(raw, &b, 1);
        return;
    }
    for (uint32_t i = 0; i < k->n;) {
        if (k->n - i >= 3 && !memcmp(k->bytes + i, "\xe2\x96\x81", 3)) {
            qp_buf_adds(raw, " ");
            i += 3;
        } else
            qp_buf_add(raw, k->bytes + i++, 1);
    }
}

int qp_tokenizer_decode(const struct qp_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, struct qp_buf *out, struct qp_err *err)
{
    struct qp_buf raw = QP_BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (size_t)ids[i] >= t->n_tokens || !t->tokens[ids[i]].present)
            continue; /* a padded vocabulary has ids without a token */
        const struct qp_token *k = &t->tokens[ids[i]];
        if (!(skip_special && (k->type == 2 || k->type == 3)))
            add_token(t, k, &raw);
    }
    size_t skip = t->strip_first && raw.len && raw.data[0] == ' ' ? 1 : 0;
    if (raw.len)
        add_lossy(out, raw.data + skip, raw.len - skip);
    int r = raw.failed ? qp_buf_check(&raw, err) : qp_buf_check(out, err);
    qp_buf_release(&raw);
    return r;
}

/* ---- getters ---- */

size_t qp_tokenizer_size(const struct qp_tokenizer *t)
{
    return t->n_tokens;
}

int32_t qp_tokenizer_bos(const struct qp_tokenizer *t)
{
    return t->bos;
}

int32_t qp_tokenizer_eos(const struct qp_tokenizer *t)
{
    return t->eos;
}

bool qp_tokenizer_adds_bos(const struct qp_tokenizer *t)
{
    return t->n_prefix && t->prefix[0] == t->bos;
}

int32_t qp_tokenizer_id(const struct qp_tokenizer *t, const char *token)
{
    for (size_t i = 0; i < t->n_tokens; i++)
        if (t->tokens[i].present && !strcmp(t->tokens[i].text, token))
            return (int32_t)i;
    return -1;
}

const char *qp_tokenizer_chat_template(const struct qp_tokenizer *t)
{
    return t->chat_template;
}

const char *qp_tokenizer_hash(const struct qp_tokenizer *t)
{
    return t->hash;
}
