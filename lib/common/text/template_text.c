/* Text of a rendering: Python's str, repr and json.dumps, and the string functions behind filters and methods. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <utf8proc.h>

#include "text/internal.h"
#include "text/template_internal.h"

#define MAX_NESTING 100

/* ---- Python's notation ---- */

/* The shortest digits that read back as f; an exponent from 1e16 on and below 1e-4. */
static void put_float(double f, struct qp_buf *out)
{
    char text[40];
    int digits = 1;
    if (!isfinite(f)) {
        qp_buf_adds(out, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, f);
    while (strtod(text, NULL) != f && ++digits <= 17);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        qp_buf_adds(out, text);
        return;
    }
    int decimals = digits - 1 - exponent;
    qp_buf_addf(out, "%.*f", decimals > 1 ? decimals : 1, f);
}

/* Python's repr of text: single quotes unless it holds those alone. */
static void put_repr(const struct tm_value *v, struct qp_buf *out)
{
    char quote = v->n && memchr(v->s, '\'', v->n) && !memchr(v->s, '"', v->n) ? '"' : '\'';
    qp_buf_add(out, &quote, 1);
    for (size_t i = 0; i < v->n;) {
        unsigned char c = (unsigned char)v->s[i];
        uint32_t cp;
        size_t n = c < 0x80 ? 1 : (size_t)qp_utf8_next(v->s + i, &cp);
        if (c == (unsigned char)quote || c == '\\')
            qp_buf_addf(out, "\\%c", c);
        else if (c == '\n' || c == '\r' || c == '\t')
            qp_buf_addf(out, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (c < 0x20 || c == 0x7f)
            qp_buf_addf(out, "\\x%02x", c);
        else
            qp_buf_add(out, v->s + i, n);
        i += n;
    }
    qp_buf_add(out, &quote, 1);
}

static void put(struct tm_run *r, const struct tm_value *v, bool repr, int depth, struct qp_buf *out)
{
    if (depth > MAX_NESTING) {
        tm_fail(r, "values nest deeper than %d", MAX_NESTING);
        return;
    }
    if (!tm_step(r, 1))
        return;
    switch (v->kind) {
    case TM_UNDEFINED:
        tm_undefined(r, v);
        break;
    case TM_NONE:
        qp_buf_adds(out, "None");
        break;
    case TM_BOOL:
        qp_buf_adds(out, v->b ? "True" : "False");
        break;
    case TM_INT:
        qp_buf_addf(out, "%lld", (long long)v->i);
        break;
    case TM_FLOAT:
        put_float(v->f, out);
        break;
    case TM_STR:
        if (repr)
            put_repr(v, out);
        else
            qp_buf_add(out, v->s, v->n);
        break;
    case TM_LIST:
    case TM_TUPLE:
        qp_buf_adds(out, v->kind == TM_LIST ? "[" : "(");
        for (size_t i = 0; i < v->list->n && !tm_failed(r); i++) {
            qp_buf_adds(out, i ? ", " : "");
            put(r, &v->list->v[i], true, depth + 1, out);
        }
        qp_buf_adds(out, v->kind == TM_LIST ? "]" : v->list->n == 1 ? ",)" : ")");
        break;
    case TM_DICT:
        qp_buf_adds(out, "{");
        for (size_t i = 0; i < v->dict->n && !tm_failed(r); i++) {
            qp_buf_adds(out, i ? ", " : "");
            put(r, &v->dict->v[i].key, true, depth + 1, out);
            qp_buf_adds(out, ": ");
            put(r, &v->dict->v[i].value, true, depth + 1, out);
        }
        qp_buf_adds(out, "}");
        break;
    default:
        tm_fail(r, "%s has no text", tm_kind_name(v));
    }
}

void tm_str(struct tm_run *r, const struct tm_value *v, struct qp_buf *out)
{
    put(r, v, false, 0, out);
    if (out->len > r->out_limit)
        qp_err_set(r->err, QP_E_RESOURCE, "%s line %d: more than %zu MB of output", r->t->name, r->line, r->out_limit >> 20);
}

struct tm_value tm_as_str(struct tm_run *r, const struct tm_value *v)
{
    struct qp_buf b = QP_BUF_INIT;
    if (v->kind == TM_STR)
        return *v;
    tm_str(r, v, &b);
    return tm_take(r, &b);
}

/* ---- JSON ---- */

static void json_string_to(const struct tm_value *v, struct qp_buf *out)
{
    qp_buf_adds(out, "\"");
    for (size_t i = 0; i < v->n; i++) {
        unsigned char c = (unsigned char)v->s[i];
        static const char names[] = "\nn\tt\rr\bb\ff\"\"\\\\";
        const char *p = c ? strchr(names, c) : NULL;
        if (p && (p - names) % 2 == 0)
            qp_buf_addf(out, "\\%c", p[1]);
        else if (c < 0x20)
            qp_buf_addf(out, "\\u%04x", c);
        else
            qp_buf_add(out, v->s + i, 1);
    }
    qp_buf_adds(out, "\"");
}

static int by_key(const void *a, const void *b)
{
    const struct tm_value *x = &((const struct tm_pair *)a)->key, *y = &((const struct tm_pair *)b)->key;
    size_t n = x->n < y->n ? x->n : y->n;
    int c = n ? memcmp(x->s, y->s, n) : 0;
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static void json_break(int indent, int depth, struct qp_buf *out)
{
    if (indent >= 0)
        qp_buf_addf(out, "\n%*s", indent * depth, "");
}

static void json_put(struct tm_run *r, const struct tm_value *v, int indent, bool sort, int depth, struct qp_buf *out);

static void json_members(struct tm_run *r, const struct tm_value *v, int indent, bool sort, int depth, struct qp_buf *out)
{
    size_t n = v->dict->n;
    struct tm_pair *pairs = tm_make(r, (n + 1) * sizeof *pairs);
    bool strings = true;
    if (!pairs)
        return;
    if (n)
        memcpy(pairs, v->dict->v, n * sizeof *pairs);
    for (size_t i = 0; i < n; i++)
        strings &= pairs[i].key.kind == TM_STR;
    if (sort && strings && n)
        qsort(pairs, n, sizeof *pairs, by_key);
    for (size_t i = 0; i < n && !tm_failed(r); i++) {
        struct tm_value key = tm_as_str(r, &pairs[i].key);
        if (key.kind != TM_STR)
            return;
        qp_buf_adds(out, i ? indent >= 0 ? "," : ", " : "");
        json_break(indent, depth + 1, out);
        json_string_to(&key, out);
        qp_buf_adds(out, ": ");
        json_put(r, &pairs[i].value, indent, sort, depth + 1, out);
    }
}

static void json_put(struct tm_run *r, const struct tm_value *v, int indent, bool sort, int depth, struct qp_buf *out)
{
    if (depth > MAX_NESTING) {
        tm_fail(r, "values nest deeper than %d", MAX_NESTING);
        return;
    }
    if (!tm_step(r, 1))
        return;
    switch (v->kind) {
    case TM_NONE:
        qp_buf_adds(out, "null");
        break;
    case TM_BOOL:
        qp_buf_adds(out, v->b ? "true" : "false");
        break;
    case TM_FLOAT:
        if (isfinite(v->f))
            put_float(v->f, out);
        else
            qp_buf_adds(out, isnan(v->f) ? "NaN" : v->f > 0 ? "Infinity" : "-Infinity");
        break;
    case TM_INT:
        qp_buf_addf(out, "%lld", (long long)v->i);
        break;
    case TM_STR:
        json_string_to(v, out);
        break;
    case TM_LIST:
    case TM_TUPLE:
        qp_buf_adds(out, "[");
        for (size_t i = 0; i < v->list->n && !tm_failed(r); i++) {
            qp_buf_adds(out, i ? indent >= 0 ? "," : ", " : "");
            json_break(indent, depth + 1, out);
            json_put(r, &v->list->v[i], indent, sort, depth + 1, out);
        }
        if (v->list->n)
            json_break(indent, depth, out);
        qp_buf_adds(out, "]");
        break;
    case TM_DICT:
        qp_buf_adds(out, "{");
        json_members(r, v, indent, sort, depth, out);
        if (v->dict->n)
            json_break(indent, depth, out);
        qp_buf_adds(out, "}");
        break;
    default:
        tm_fail(r, "%s has no JSON", tm_kind_name(v));
    }
}

void tm_json(struct tm_run *r, const struct tm_value *v, int indent, bool sort, struct qp_buf *out)
{
    json_put(r, v, indent, sort, 0, out);
}

/* ---- characters ---- */

size_t tm_chars(const struct tm_value *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += (s->s[i] & 0xc0) != 0x80;
    return n;
}

size_t tm_char_at(const struct tm_value *s, size_t index)
{
    size_t i = 0;
    for (; i < s->n; i++)
        if ((s->s[i] & 0xc0) != 0x80 && !index--)
            break;
    return i;
}

/* White space to Python: Unicode's, and the four separators below the blank. */
static bool is_white(uint32_t c)
{
    return qp_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

static bool strips(const struct tm_value *chars, const char *p, size_t n, uint32_t c)
{
    return chars ? n && memmem(chars->s, chars->n, p, n) != NULL : is_white(c);
}

struct tm_value tm_strip(const struct tm_value *s, const struct tm_value *chars, bool left, bool right)
{
    size_t from = 0, to = s->n;
    uint32_t c;
    while (left && from < to) {
        size_t n = (size_t)qp_utf8_next(s->s + from, &c);
        if (!strips(chars, s->s + from, n, c))
            break;
        from += n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && (s->s[at] & 0xc0) == 0x80)
            at--;
        qp_utf8_next(s->s + at, &c);
        if (!strips(chars, s->s + at, to - at, c))
            break;
        to = at;
    }
    return tm_borrow(s->s + from, to - from);
}

struct tm_value tm_case(struct tm_run *r, const struct tm_value *s, char how)
{
    struct qp_buf b = QP_BUF_INIT;
    bool start = true;
    for (size_t i = 0; i < s->n;) {
        uint32_t c;
        char put_to[4];
        i += (size_t)qp_utf8_next(s->s + i, &c);
        utf8proc_int32_t x = (utf8proc_int32_t)c;
        bool upper = how == 'u' || (start && how != 'l');
        x = upper ? (how == 'u' ? utf8proc_toupper(x) : utf8proc_totitle(x)) : utf8proc_tolower(x);
        qp_buf_add(&b, put_to, (size_t)qp_utf8_put((uint32_t)x, put_to));
        if (how == 't') /* a word begins behind what has no case */
            start = utf8proc_toupper((utf8proc_int32_t)c) == utf8proc_tolower((utf8proc_int32_t)c);
        else /* jinja2's filter: behind white space, hyphens and what opens a bracket */
            start = how == 'w' && (is_white(c) || (c < 0x80 && c && strchr("-({[<", (int)c)));
    }
    return tm_take(r, &b);
}

struct tm_value tm_replace(struct tm_run *r, const struct tm_value *s, const struct tm_value *from, const struct tm_value *to, int64_t count)
{
    struct qp_buf b = QP_BUF_INIT;
    size_t at = 0;
    while (count != 0 && at <= s->n && b.len <= r->out_limit && tm_step(r, 1)) {
        const char *p = from->n ? memmem(s->s + at, s->n - at, from->s, from->n) : s->s + at;
        if (!p)
            break;
        qp_buf_add(&b, s->s + at, (size_t)(p - s->s) - at);
        qp_buf_add(&b, to->s, to->n);
        at = (size_t)(p - s->s) + from->n;
        count--;
        if (!from->n) { /* nothing stands between all characters */
            size_t n = at < s->n ? 1 : 0;
            while (n && at + n < s->n && (s->s[at + n] & 0xc0) == 0x80)
                n++;
            qp_buf_add(&b, s->s + at, n);
            at += n;
            if (!n) {
                at = s->n + 1;
                break;
            }
        }
    }
    if (at < s->n)
        qp_buf_add(&b, s->s + at, s->n - at);
    if (b.len > r->out_limit) {
        qp_buf_release(&b);
        qp_err_set(r->err, QP_E_RESOURCE, "%s line %d: more than %zu MB of text", r->t->name, r->line, r->out_limit >> 20);
        return TM_NOTHING;
    }
    return tm_take(r, &b);
}

/* Words between white space; max splits, the rest stays whole. */
static void split_words(struct tm_run *r, const struct tm_value *s, int64_t max, struct tm_list *l)
{
    struct tm_value rest = tm_strip(s, NULL, true, false);
    while (rest.n && !tm_failed(r)) {
        size_t n = 0, step = 0;
        uint32_t c = 0;
        for (; n < rest.n; n += step) {
            step = (size_t)qp_utf8_next(rest.s + n, &c);
            if (is_white(c))
                break;
        }
        if (max >= 0 && (int64_t)l->n == max) {
            tm_append(r, l, rest);
            return;
        }
        tm_append(r, l, tm_borrow(rest.s, n));
        struct tm_value tail = tm_borrow(rest.s + n, rest.n - n);
        rest = tm_strip(&tail, NULL, true, false);
    }
}

/* The last place of what in s, or -1. */
static int64_t last_of(const struct tm_value *s, size_t end, const struct tm_value *what)
{
    for (size_t at = end >= what->n ? end - what->n + 1 : 0; at-- > 0;)
        if (!memcmp(s->s + at, what->s, what->n))
            return (int64_t)at;
    return -1;
}

static void split_from_right(struct tm_run *r, const struct tm_value *s, const struct tm_value *sep, int64_t max, struct tm_list *l)
{
    size_t end = s->n;
    int64_t at;
    while (max-- != 0 && (at = last_of(s, end, sep)) >= 0 && !tm_failed(r)) {
        tm_append(r, l, tm_borrow(s->s + at + sep->n, end - (size_t)at - sep->n));
        end = (size_t)at;
    }
    tm_append(r, l, tm_borrow(s->s, end));
    for (size_t i = 0; i < l->n / 2; i++) {
        struct tm_value t = l->v[i];
        l->v[i] = l->v[l->n - 1 - i];
        l->v[l->n - 1 - i] = t;
    }
}

struct tm_value tm_split(struct tm_run *r, const struct tm_value *s, const struct tm_value *sep, int64_t max, bool from_right)
{
    struct tm_value l = tm_new_list(r, TM_LIST);
    if (tm_failed(r))
        return l;
    if (!sep) {
        if (from_right && max >= 0)
            return tm_fail(r, "rsplit with a number of splits needs a separator");
        split_words(r, s, max, l.list);
        return l;
    }
    if (!sep->n)
        return tm_fail(r, "an empty separator");
    if (from_right) {
        split_from_right(r, s, sep, max, l.list);
        return l;
    }
    size_t at = 0;
    const char *p;
    while (max-- != 0 && (p = memmem(s->s + at, s->n - at, sep->s, sep->n)) && !tm_failed(r)) {
        tm_append(r, l.list, tm_borrow(s->s + at, (size_t)(p - s->s) - at));
        at = (size_t)(p - s->s) + sep->n;
    }
    tm_append(r, l.list, tm_borrow(s->s + at, s->n - at));
    return l;
}

struct tm_value tm_split_lines(struct tm_run *r, const struct tm_value *s)
{
    struct tm_value l = tm_new_list(r, TM_LIST);
    for (size_t at = 0; at < s->n && !tm_failed(r);) {
        const char *p = memchr(s->s + at, '\n', s->n - at);
        size_t end = p ? (size_t)(p - s->s) : s->n, n = end - at;
        tm_append(r, l.list, tm_borrow(s->s + at, n && s->s[end - 1] == '\r' && p ? n - 1 : n));
        at = end + 1;
    }
    return l;
}

struct tm_value tm_join(struct tm_run *r, const struct tm_value *sep, const struct tm_list *l)
{
    struct qp_buf b = QP_BUF_INIT;
    for (size_t i = 0; i < l->n && !tm_failed(r); i++) {
        if (i)
            qp_buf_add(&b, sep->s, sep->n);
        tm_str(r, &l->v[i], &b);
    }
    return tm_take(r, &b);
}
