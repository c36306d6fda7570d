/* Building a tokenizer's tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/hash.h"
#include "base/mem.h"
#include "text/internal.h"

#define MAX_TOKENS ((int64_t)1 << 24)

uint32_t qp_byte_to_char(uint8_t b)
{
    if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae)
        return b;
    if (b <= 0x20)
        return 256u + b;
    return b <= 0xa0 ? 256u + 33 + (b - 0x7fu) : 256u + 33 + 34; /* 0x7f to 0xa0, then 0xad */
}

int qp_char_to_byte(uint32_t c)
{
    if (c < 256)
        return qp_byte_to_char((uint8_t)c) == c ? (int)c : -1;
    c -= 256;
    if (c <= 0x20)
        return (int)c;
    if (c < 33 + 34)
        return (int)(c - 33 + 0x7f);
    return c == 33 + 34 ? 0xad : -1;
}

/* A sequence that is cut short or malformed counts as one byte: texts are validated before, vocabularies are not. */
size_t qp_utf8_valid(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = (uint8_t)s[i] < 0x80 ? 1 : utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (k < 0)
            return i;
        i += (size_t)k;
    }
    return n;
}

int qp_utf8_next(const char *p, uint32_t *c)
{
    const uint8_t *u = (const uint8_t *)p;
    int n = u[0] < 0x80 ? 1 : u[0] < 0xc0 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : u[0] < 0xf8 ? 4 : 0;
    *c = n == 1 ? u[0] : n == 2 ? u[0] & 31u : n == 3 ? u[0] & 15u : u[0] & 7u;
    for (int i = 1; i < n; i++) {
        if ((u[i] & 0xc0) != 0x80) {
            n = 0;
            break;
        }
        *c = *c << 6 | (u[i] & 63u);
    }
    if (!n)
        *c = 0xfffd;
    return n ? n : 1;
}

int qp_utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

int qp_tok_set_token(struct qp_tokenizer *t, int64_t id, const char *text, size_t n, struct qp_err *err)
{
    if (id < 0 || id >= MAX_TOKENS)
        return qp_err_set(err, QP_E_INPUT, "token id %lld is outside of 0 to %lld", (long long)id, (long long)MAX_TOKENS);
    if ((size_t)id >= t->n_tokens) {
        size_t cap = (size_t)id + 1 > 2 * t->n_tokens ? (size_t)id + 1 : 2 * t->n_tokens;
        struct qp_token *grown = qp_alloc_n(cap, sizeof *grown, "vocabulary", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (t->n_tokens)
            memcpy(grown, t->tokens, t->n_tokens * sizeof *grown);
        memset(grown + t->n_tokens, 0, (cap - t->n_tokens) * sizeof *grown);
        qp_free(t->tokens);
        t->tokens = grown;
        t->n_tokens = cap;
    }
    struct qp_token *k = &t->tokens[id];
    if (k->present) {
        if (k->n == n && !memcmp(k->text, text, n))
            return 0; /* an added token that the vocabulary has too */
        return qp_err_set(err, QP_E_INPUT, "token id %lld stands for '%s' and for '%.*s'", (long long)id, k->text, (int)(n > 64 ? 64 : n), text);
    }
    char *copy = qp_alloc(n + 1, "vocabulary", err);
    if (!copy)
        return QP_E_RESOURCE;
    memcpy(copy, text, n);
    copy[n] = 0;
    *k = (struct qp_token){.bytes = copy, .text = copy, .n = (uint32_t)n, .type = 1, .present = true};
    return 0;
}

/* "Ġthe" to " the": only when every character is one of the 256. */
static int to_bytes(struct qp_token *k, struct qp_err *err)
{
    char *raw = qp_alloc((size_t)k->n + 1, "vocabulary", err);
    if (!raw)
        return QP_E_RESOURCE;
    uint32_t n = 0;
    for (uint32_t i = 0; i < k->n;) {
        uint32_t c;
        int len = qp_utf8_next(k->text + i, &c), b = qp_char_to_byte(c);
        if (b < 0) {
            qp_free(raw);
            return 0;
        }
        raw[n++] = (char)b;
        i += (uint32_t)len;
    }
    raw[n] = 0;
    k->bytes = raw;
    k->n = n;
    return 0;
}

static uint64_t hash_of(const char *p, size_t n)
{
    uint64_t h = qp_xxh64(p, n);
    return h ? h : 1;
}

int32_t qp_tok_find(const struct qp_tokenizer *t, const char *bytes, size_t n)
{
    uint64_t h = hash_of(bytes, n);
    for (size_t i = h & t->vocab_mask; t->vocab[i].hash; i = (i + 1) & t->vocab_mask) {
        const struct qp_token *k = &t->tokens[t->vocab[i].id];
        if (t->vocab[i].hash == h && k->n == n && !memcmp(k->bytes, bytes, n))
            return t->vocab[i].id;
    }
    return -1;
}

static size_t table_size(size_t n)
{
    size_t size = 64;
    while (size < 2 * n + 2)
        size *= 2;
    return size;
}

/* Control tokens ("<|im_end|>") are found among the added tokens; as byte-level text they would shadow nothing, so they are indexed too. */
int qp_tok_index(struct qp_tokenizer *t, struct qp_err *err)
{
    size_t size = table_size(t->n_tokens);
    t->vocab = qp_zalloc(size * sizeof *t->vocab, "vocabulary", err);
    if (!t->vocab)
        return QP_E_RESOURCE;
    t->vocab_mask = size - 1;
    for (int i = 0; i < 256; i++)
        t->byte_ids[i] = -1;
    for (size_t id = 0; id < t->n_tokens; id++) {
        struct qp_token *k = &t->tokens[id];
        unsigned byte;
        if (!k->present)
            continue;
        if (t->byte_level && k->type == 1 && to_bytes(k, err))
            return err->code;
        if (t->byte_level && k->n == 1 && k->type == 1)
            t->byte_ids[(uint8_t)k->bytes[0]] = (int32_t)id;
        if (!t->byte_level && k->n == 6 && sscanf(k->text, "<0x%2X>", &byte) == 1)
            t->byte_ids[byte & 255] = (int32_t)id;
        if (qp_tok_find(t, k->bytes, k->n) >= 0)
            continue; /* the first id keeps the text */
        uint64_t h = hash_of(k->bytes, k->n);
        size_t i = h & t->vocab_mask;
        while (t->vocab[i].hash)
            i = (i + 1) & t->vocab_mask;
        t->vocab[i] = (struct qp_vocab_slot){h, (int32_t)id};
    }
    return 0;
}

int qp_tok_reserve_merges(struct qp_tokenizer *t, size_t n, struct qp_err *err)
{
    size_t size = table_size(n);
    t->merges = qp_alloc_n(size, sizeof *t->merges, "merges", err);
    t->merge_text = qp_zalloc((n + 1) * sizeof *t->merge_text, "merges", err);
    if (!t->merges || !t->merge_text)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < size; i++)
        t->merges[i].pair = -1;
    t->merge_mask = size - 1;
    t->n_merges = n;
    return 0;
}

/* Byte-level text to bytes; n of the result, or 0 when a character is none of the 256. */
static size_t raw_piece(const struct qp_tokenizer *t, const char *text, size_t n, char *out)
{
    size_t m = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int len = qp_utf8_next(text + i, &c), b = t->byte_level ? qp_char_to_byte(c) : 0;
        if (b < 0)
            return 0;
        if (t->byte_level)
            out[m++] = (char)b;
        else
            for (int j = 0; j < len; j++)
                out[m++] = text[i + (size_t)j];
        i += (size_t)len;
    }
    return m;
}

int qp_tok_add_merge(struct qp_tokenizer *t, size_t rank, const char *left, size_t nl, const char *right, size_t nr, struct qp_err *err)
{
    char *both = qp_alloc(nl + nr + 2, "merges", err), *text = qp_alloc(nl + nr + 2, "merges", err);
    if (!both || !text) {
        qp_free(both);
        qp_free(text);
        return QP_E_RESOURCE;
    }
    snprintf(text, nl + nr + 2, "%.*s %.*s", (int)nl, left, (int)nr, right);
    t->merge_text[rank] = text;
    size_t a = raw_piece(t, left, nl, both), b = raw_piece(t, right, nr, both + a);
    int32_t l = a ? qp_tok_find(t, both, a) : -1, r = b ? qp_tok_find(t, both + a, b) : -1, id = qp_tok_find(t, both, a + b);
    qp_free(both);
    if (l < 0 || r < 0 || id < 0)
        return qp_err_set(err, QP_E_INPUT, "merge %zu ('%s'): %s is not in the vocabulary", rank, text, l < 0 ? "its left part" : r < 0 ? "its right part" : "the result");
    int64_t pair = (int64_t)l << 32 | (uint32_t)r;
    size_t i = ((uint64_t)pair * 0x9e3779b97f4a7c15u >> 20) & t->merge_mask;
    while (t->merges[i].pair != -1) {
        if (t->merges[i].pair == pair) /* given twice: the later rank counts, as in a map */
            break;
        i = (i + 1) & t->merge_mask;
    }
    t->merges[i] = (struct qp_merge_slot){pair, (int32_t)rank, id};
    return 0;
}

pcre2_code *qp_tok_regex(const char *pattern, struct qp_err *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!re) {
        PCRE2_UCHAR text[160];
        pcre2_get_error_message(code, text, sizeof text);
        qp_err_set(err, QP_E_INPUT, "bad regular expression '%.80s' at %zu: %s", pattern, (size_t)at, (const char *)text);
        return NULL;
    }
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* without JIT it is slower, not wrong */
    return re;
}

static void *append(void *list, size_t n, size_t size, const void *item, struct qp_err *err)
{
    void *grown = qp_alloc_n(n + 1, size, "tokenizer", err);
    if (!grown)
        return NULL;
    if (n)
        memcpy(grown, list, n * size);
    memcpy((char *)grown + n * size, item, size);
    qp_free(list);
    return grown;
}

int qp_tok_add_split(struct qp_tokenizer *t, const char *pattern, enum qp_split_behavior behavior, bool invert, struct qp_err *err)
{
    struct qp_split s = {qp_tok_regex(pattern, err), behavior, invert};
    struct qp_split *list = s.regex ? append(t->splits, t->n_splits, sizeof s, &s, err) : NULL;
    if (!list) {
        pcre2_code_free(s.regex);
        return err->code;
    }
    t->splits = list;
    t->n_splits++;
    return 0;
}

int qp_tok_add_norm(struct qp_tokenizer *t, struct qp_norm norm, struct qp_err *err)
{
    struct qp_norm *list = append(t->norms, t->n_norms, sizeof norm, &norm, err);
    if (!list) {
        qp_free(norm.from);
        qp_free(norm.to);
        pcre2_code_free(norm.regex);
        return QP_E_RESOURCE;
    }
    t->norms = list;
    t->n_norms++;
    return 0;
}

int qp_tok_add_added(struct qp_tokenizer *t, struct qp_added a, struct qp_err *err)
{
    if (!a.n)
        return 0;
    if (!(a.text = qp_strdup(a.text, err)))
        return QP_E_RESOURCE;
    struct qp_added *list = append(t->added, t->n_added, sizeof a, &a, err);
    if (!list) {
        qp_free(a.text);
        return QP_E_RESOURCE;
    }
    t->added = list;
    t->n_added++;
    t->added_first[(uint8_t)a.text[0]] = true;
    return 0;
}

static int longest_first(const void *a, const void *b)
{
    const struct qp_added *x = a, *y = b;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

int qp_tok_finish(struct qp_tokenizer *t, struct qp_err *err)
{
    while (t->n_tokens && !t->tokens[t->n_tokens - 1].present)
        t->n_tokens--;
    if (!t->n_tokens)
        return qp_err_set(err, QP_E_INPUT, "the vocabulary is empty");
    if (t->n_added)
        qsort(t->added, t->n_added, sizeof *t->added, longest_first);
    struct qp_sha256 *h = qp_sha256_new();
    for (size_t i = 0; i < t->n_tokens; i++) {
        qp_sha256_add(h, t->tokens[i].present ? t->tokens[i].text : "", t->tokens[i].present ? strlen(t->tokens[i].text) : 0);
        qp_sha256_add(h, "", 1);
    }
    for (size_t i = 0; i < t->n_merges; i++)
        qp_sha256_add(h, t->merge_text[i], strlen(t->merge_text[i]) + 1);
    qp_sha256_free(h, t->hash);
    return 0;
}

void qp_tokenizer_free(struct qp_tokenizer *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_tokens; i++) {
        if (t->tokens[i].text != t->tokens[i].bytes)
            qp_free(t->tokens[i].text);
        qp_free(t->tokens[i].bytes);
    }
    for (size_t i = 0; i < t->n_merges; i++)
        qp_free(t->merge_text[i]);
    for (size_t i = 0; i < t->n_norms; i++) {
        qp_free(t->norms[i].from);
        qp_free(t->norms[i].to);
        pcre2_code_free(t->norms[i].regex);
    }
    for (size_t i = 0; i < t->n_splits; i++)
        pcre2_code_free(t->splits[i].regex);
    for (size_t i = 0; i < t->n_added; i++)
        qp_free(t->added[i].text);
    qp_free(t->tokens);
    qp_free(t->vocab);
    qp_free(t->merges);
    qp_free(t->merge_text);
    qp_free(t->norms);
    qp_free(t->splits);
    qp_free(t->added);
    qp_free(t->prefix);
    qp_free(t->suffix);
    qp_free(t->chat_template);
    qp_free(t->json);
    qp_free(t->pre);
    qp_free(t);
}
