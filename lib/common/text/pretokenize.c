/* Normalization and splitting into pre-tokens. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/internal.h"

/* GGUF's names of pre-tokenizers, by the behaviour that its converters attach to them. */
static const struct qp_pre pres[] = {
    {"gpt-2", {QP_GPT2_PATTERN}, false},
    {"gpt2", {QP_GPT2_PATTERN}, false},
    {"phi-2", {QP_GPT2_PATTERN}, false},
    {"olmo", {QP_GPT2_PATTERN}, false},
    {"mpt", {QP_GPT2_PATTERN}, false},
    {"smollm", {"\\p{N}", QP_GPT2_PATTERN}, false},
    {"starcoder", {"\\p{N}", QP_GPT2_PATTERN}, false},
    {"refact", {"\\p{N}", QP_GPT2_PATTERN}, false},
    {"command-r", {"\\p{N}", QP_GPT2_PATTERN}, false},
    {"codeshell", {"\\p{N}", QP_GPT2_PATTERN}, false},
    {"exaone", {"\\p{N}", QP_GPT2_PATTERN}, false},
    {"llama-bpe",
     {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, true},
    {"llama3",
     {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, true},
    {"qwen2", {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}, false},
    {"default",
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", QP_GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"}, false},
};

const struct qp_pre *qp_tok_pre(const char *name)
{
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++)
        if (!strcmp(pres[i].name, name))
            return &pres[i];
    return NULL;
}

/* ---- normalization: each step maps a buffer to a new one ---- */

static int unicode_form(struct qp_buf *text, enum qp_norm_kind kind, struct qp_err *err)
{
    static const utf8proc_option_t options[] = {
        [QP_NORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [QP_NORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [QP_NORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [QP_NORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)(text->data ? text->data : ""), (utf8proc_ssize_t)text->len, &mapped, options[kind]);
    if (n < 0)
        return qp_err_set(err, n == UTF8PROC_ERROR_NOMEM ? QP_E_RESOURCE : QP_E_INPUT, "cannot normalize text: %s", utf8proc_errmsg(n));
    qp_buf_clear(text);
    qp_buf_add(text, mapped, (size_t)n);
    free(mapped);
    return 0;
}

static void lower(struct qp_buf *text)
{
    struct qp_buf out = QP_BUF_INIT;
    for (size_t i = 0; i < text->len;) {
        uint32_t c;
        char u[4];
        i += (size_t)qp_utf8_next(text->data + i, &c);
        qp_buf_add(&out, u, (size_t)qp_utf8_put((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), u));
    }
    qp_buf_release(text);
    *text = out;
}

static void replace_literal(struct qp_buf *text, const char *from, const char *to)
{
    struct qp_buf out = QP_BUF_INIT;
    size_t n = strlen(from), i = 0;
    while (n && i < text->len) {
        const char *hit = memmem(text->data + i, text->len - i, from, n);
        size_t upto = hit ? (size_t)(hit - text->data) : text->len;
        qp_buf_add(&out, text->data + i, upto - i);
        if (hit)
            qp_buf_adds(&out, to);
        i = hit ? upto + n : text->len;
    }
    if (n) {
        qp_buf_release(text);
        *text = out;
    }
}

struct matcher {
    pcre2_match_data *data;
    PCRE2_SIZE *at;
};

static int matcher_init(struct matcher *m, struct qp_err *err)
{
    *m = (struct matcher){.data = pcre2_match_data_create(1, NULL)};
    if (!m->data)
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a regular expression");
    m->at = pcre2_get_ovector_pointer(m->data);
    return 0;
}

/* 1: the next match at or after `from` in [begin, end), which may be empty; 0: none. */
static int next_match(struct matcher *m, const pcre2_code *re, const char *text, size_t n, size_t from, struct qp_err *err)
{
    int r = pcre2_match(re, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, m->data, NULL);
    if (r == PCRE2_ERROR_NOMATCH)
        return 0;
    if (r < 0) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(r, why, sizeof why);
        return qp_err_set(err, QP_E_INPUT, "regular expression failed on the text: %s", (const char *)why);
    }
    return 1;
}

static int replace_regex(struct qp_buf *text, const pcre2_code *re, const char *to, struct qp_err *err)
{
    struct matcher m = {0};
    if (matcher_init(&m, err))
        return err->code;
    struct qp_buf out = QP_BUF_INIT;
    size_t i = 0;
    int r = 0;
    while (i <= text->len && text->len && (r = next_match(&m, re, text->data, text->len, i, err)) == 1) {
        qp_buf_add(&out, text->data + i, m.at[0] - i);
        qp_buf_adds(&out, to);
        if (m.at[1] == m.at[0]) {
            qp_buf_add(&out, text->data + m.at[1], m.at[1] < text->len);
            i = m.at[1] + 1;
        } else
            i = m.at[1];
    }
    if (i < text->len)
        qp_buf_add(&out, text->data + i, text->len - i);
    pcre2_match_data_free(m.data);
    qp_buf_release(text);
    *text = out;
    return r < 0 ? r : 0;
}

bool qp_is_space(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (c >= 9 && c <= 13) || c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

static void strip(struct qp_buf *text, bool left, bool right)
{
    size_t begin = 0, end = text->len, i = 0, last = 0;
    bool seen = false;
    while (i < text->len) {
        uint32_t c;
        size_t n = (size_t)qp_utf8_next(text->data + i, &c);
        if (!qp_is_space(c)) {
            if (!seen && left)
                begin = i;
            seen = true;
            last = i + n;
        }
        i += n;
    }
    if (right)
        end = seen ? last : begin;
    if (left && !seen)
        begin = end;
    struct qp_buf out = QP_BUF_INIT;
    if (text->len)
        qp_buf_add(&out, text->data + begin, end - begin);
    qp_buf_release(text);
    *text = out;
}

static int apply(const struct qp_norm *norm, struct qp_buf *text, struct qp_err *err)
{
    struct qp_buf out = QP_BUF_INIT;
    switch (norm->kind) {
    case QP_NORM_LOWER:
        lower(text);
        return 0;
    case QP_NORM_REPLACE:
        if (norm->regex)
            return replace_regex(text, norm->regex, norm->to, err);
        replace_literal(text, norm->from, norm->to);
        return 0;
    case QP_NORM_PREPEND:
        if (!text->len)
            return 0;
        qp_buf_adds(&out, norm->to);
        qp_buf_add(&out, text->data, text->len);
        qp_buf_release(text);
        *text = out;
        return 0;
    case QP_NORM_STRIP:
        strip(text, norm->left, norm->right);
        return 0;
    default:
        return unicode_form(text, norm->kind, err);
    }
}

/* The greatest growth of Unicode's own forms is 11 times (U+FDFA); more is a file's replacements feeding each other. */
static int check_growth(const struct qp_buf *text, size_t n, struct qp_err *err)
{
    if (text->len / 16 > n + 256)
        return qp_err_set(err, QP_E_INPUT, "the tokenizer's normalizers make %zu bytes of a text of %zu", text->len, n);
    return qp_buf_check(text, err);
}

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

int qp_tok_normalize(const struct qp_tokenizer *t, const char *text, size_t n, bool first, struct qp_buf *out, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    qp_buf_add(&b, text, n);
    int r = qp_buf_check(&b, err);
    for (size_t i = 0; i < t->n_norms && !r; i++) {
        r = apply(&t->norms[i], &b, err);
        r = r ? r : check_growth(&b, n, err);
    }
    if (!r && t->prefix_space && b.len && b.data[0] != ' ')
        qp_buf_adds(out, " ");
    if (!r && t->metaspace) {
        replace_literal(&b, " ", SPACE_MARK);
        bool stands = b.len >= 3 && !memcmp(b.data, SPACE_MARK, 3);
        if (b.len && (t->metaspace == 4 || (!stands && ((t->metaspace == 1 && first) || t->metaspace == 2))))
            qp_buf_adds(out, SPACE_MARK);
    }
    if (!r && b.len)
        qp_buf_add(out, b.data, b.len);
    qp_buf_release(&b);
    return r ? r : qp_buf_check(out, err);
}

/* ---- splitting ---- */

static int add_span(struct qp_spans *s, size_t start, size_t end, struct qp_err *err)
{
    if (end <= start)
        return 0;
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        struct qp_span *grown = realloc(s->v, cap * sizeof *grown);
        if (!grown)
            return qp_err_set(err, QP_E_RESOURCE, "no memory to tokenize");
        s->v = grown;
        s->cap = cap;
    }
    s->v[s->n++] = (struct qp_span){(uint32_t)start, (uint32_t)(end - start)};
    return 0;
}

/* The pieces of one span: matches and what lies between, joined as the behavior has it. */
struct splitter {
    const struct qp_split *split;
    struct qp_spans *out;
    struct qp_err *err;
    size_t pending; /* start of a piece that is still open */
    bool open, open_is_match;
};

static int piece(struct splitter *s, size_t start, size_t end, bool match)
{
    if (end <= start)
        return 0;
    match ^= s->split->invert;
    switch (s->split->behavior) {
    case QP_SPLIT_REMOVED:
        return match ? 0 : add_span(s->out, start, end, s->err);
    case QP_SPLIT_ISOLATED:
        return add_span(s->out, start, end, s->err);
    case QP_SPLIT_PREVIOUS: /* a match closes what came before it */
        if (!s->open)
            s->pending = start;
        s->open = !match;
        return match ? add_span(s->out, s->pending, end, s->err) : 0;
    case QP_SPLIT_NEXT: /* a match opens a piece */
        if (match) {
            size_t from = s->pending;
            bool had = s->open;
            s->pending = start;
            s->open = true;
            return had ? add_span(s->out, from, start, s->err) : 0;
        }
        if (!s->open)
            return add_span(s->out, start, end, s->err);
        s->open = false;
        return add_span(s->out, s->pending, end, s->err);
    default: { /* contiguous: neighbours of one kind are one piece */
        size_t from = s->pending;
        if (s->open && s->open_is_match == match)
            return 0;
        bool had = s->open;
        s->open = true;
        s->open_is_match = match;
        s->pending = start;
        return had ? add_span(s->out, from, start, s->err) : 0;
    }
    }
}

static int split_span(struct splitter *s, struct matcher *m, const char *text, struct qp_span span)
{
    size_t base = span.start, i = 0;
    int r = 0;
    s->open = false;
    while (i < span.n && (r = next_match(m, s->split->regex, text + base, span.n, i, s->err)) == 1) {
        if (m->at[1] == m->at[0]) { /* an empty match splits nothing */
            uint32_t c;
            i = m->at[0] + (m->at[0] < span.n ? (size_t)qp_utf8_next(text + base + m->at[0], &c) : 1);
            continue;
        }
        if ((r = piece(s, base + i, base + m->at[0], false)) || (r = piece(s, base + m->at[0], base + m->at[1], true)))
            return r;
        i = m->at[1];
    }
    if (r < 0 || (r = piece(s, base + i, base + span.n, false)))
        return r;
    return s->open ? add_span(s->out, s->pending, base + span.n, s->err) : 0;
}

int qp_tok_pretokenize(const struct qp_tokenizer *t, const char *text, size_t n, struct qp_spans *out, struct qp_err *err)
{
    if (n > UINT32_MAX / 2)
        return qp_err_set(err, QP_E_INPUT, "a text of %zu bytes is too long to tokenize at once", n);
    out->n = 0;
    struct matcher m = {0};
    struct qp_spans next = {0};
    int r = add_span(out, 0, n, err);
    if (!r && t->n_splits && !(r = matcher_init(&m, err))) {
        for (size_t i = 0; i < t->n_splits && !r; i++) {
            struct splitter s = {.split = &t->splits[i], .out = &next, .err = err};
            next.n = 0;
            for (size_t k = 0; k < out->n && !r; k++)
                r = split_span(&s, &m, text, out->v[k]);
            struct qp_spans swap = *out;
            *out = next;
            next = swap;
        }
        pcre2_match_data_free(m.data);
    }
    free(next.v);
    return r;
}
