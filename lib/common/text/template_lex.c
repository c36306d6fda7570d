/* Template text to tokens, with jinja2's rules for white space: `-` strips, `+` keeps, trim_blocks takes the line end after a block, lstrip_blocks the
 * blanks before it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text/internal.h"
#include "text/template_internal.h"

struct lexer {
    struct qp_template *t;
    const char *s;
    size_t n, at;
    int line;
    bool line_starts;  /* what came before ends with a line end */
    struct tm_token *tokens;
    size_t n_tokens;
    struct qp_err *err;
};

int tm_error(const struct qp_template *t, int line, struct qp_err *err, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return qp_err_set(err, QP_E_INPUT, "%s line %d: %s", t->name, line, text);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool starts(const struct lexer *l, size_t at, const char *what)
{
    size_t n = strlen(what);
    return l->n - at >= n && !memcmp(l->s + at, what, n);
}

static struct tm_token *add(struct lexer *l, enum tm_token_kind kind, size_t from, size_t n)
{
    struct tm_token *k = &l->tokens[l->n_tokens++];
    *k = (struct tm_token){.kind = kind, .line = l->line, .s = l->s + from, .n = n};
    return k;
}

static void advance(struct lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->s[l->at] == '\n';
}

/* ---- inside of braces ---- */

static int put_char(uint32_t c, char **out)
{
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return -1;
    *out += qp_utf8_put(c, *out);
    return 0;
}

/* \n, \x41, \u00e9, \101 as Python reads them; what is no escape keeps its backslash. The result is never longer than the source. */
static int unescape(struct lexer *l, struct tm_token *k)
{
    char *copy = tm_alloc(&l->t->arena, k->n + 4), *o = copy;
    static const char plain[] = "n\nt\tr\rb\bf\fv\va\a\\\\''\"\"";
    if (!copy)
        return qp_err_set(l->err, QP_E_RESOURCE, "no memory for a template");
    for (size_t i = 0; i < k->n; i++) {
        if (k->s[i] != '\\' || i + 1 == k->n) {
            *o++ = k->s[i];
            continue;
        }
        char c = k->s[++i];
        const char *p = c ? strchr(plain, c) : NULL;
        size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        if (c == '\n')
            continue;
        if (p && (p - plain) % 2 == 0) {
            *o++ = p[1];
        } else if (digits) {
            char hex[9] = "", *end;
            snprintf(hex, sizeof hex, "%.*s", (int)(k->n - i - 1 < digits ? k->n - i - 1 : digits), k->s + i + 1);
            unsigned long v = strtoul(hex, &end, 16);
            if (strlen(hex) != digits || *end || hex[strspn(hex, "0123456789abcdefABCDEF")] || put_char((uint32_t)v, &o))
                return tm_error(l->t, k->line, l->err, "'\\%c%s' is no character", c, hex);
            i += digits;
        } else if (c >= '0' && c <= '7') {
            uint32_t v = 0;
            size_t d = 0;
            for (; d < 3 && i < k->n && k->s[i] >= '0' && k->s[i] <= '7'; d++, i++)
                v = v * 8 + (uint32_t)(k->s[i] - '0');
            i--;
            put_char(v, &o);
        } else {
            *o++ = '\\';
            *o++ = c;
        }
    }
    k->s = copy;
    k->n = (size_t)(o - copy);
    return 0;
}

static int lex_string(struct lexer *l)
{
    char quote = l->s[l->at];
    size_t end = l->at + 1;
    while (end < l->n && l->s[end] != quote)
        end += l->s[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        return tm_error(l->t, l->line, l->err, "a string has no end");
    struct tm_token *k = add(l, TM_T_STRING, l->at + 1, end - l->at - 1);
    advance(l, end + 1);
    return unescape(l, k);
}

static int lex_number(struct lexer *l)
{
    char text[64];
    size_t n = 0, end = l->at;
    bool real = false;
    while (end < l->n && n + 1 < sizeof text) {
        char c = l->s[end];
        if ((c >= '0' && c <= '9'))
            text[n++] = c;
        else if (c == '.' && !real && end + 1 < l->n && l->s[end + 1] >= '0' && l->s[end + 1] <= '9') {
            text[n++] = c;
            real = true;
        } else if ((c == 'e' || c == 'E') && end + 1 < l->n && strspn(l->s + end + 1, "+-0123456789")) {
            text[n++] = c;
            text[n++] = l->s[++end];
            real = true;
        } else if (c != '_')
            break;
        end++;
    }
    text[n] = 0;
    struct tm_token *k = add(l, real ? TM_T_FLOAT : TM_T_INT, l->at, end - l->at);
    if (n > 18 && !real)
        return tm_error(l->t, l->line, l->err, "the number %s is too long", text);
    k->i = strtoll(text, NULL, 10);
    k->f = strtod(text, NULL);
    l->at = end;
    return 0;
}

static bool is_name(char c, bool first)
{
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (!first && c >= '0' && c <= '9');
}

static int lex_op(struct lexer *l, int *depth)
{
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "*", "/", "%", "~", "(", ")", "[", "]", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (starts(l, l->at, ops[i])) {
            *depth += strchr("([{", *ops[i]) ? 1 : strchr(")]}", *ops[i]) ? -1 : 0;
            add(l, TM_T_OP, l->at, strlen(ops[i]));
            l->at += strlen(ops[i]);
            return *depth < 0 ? tm_error(l->t, l->line, l->err, "unexpected '%s'", ops[i]) : 0;
        }
    return tm_error(l->t, l->line, l->err, "unexpected character '%c'", l->s[l->at] < ' ' ? '?' : l->s[l->at]);
}

/* At the end of a tag: takes it and what white space follows. mark: '-', '+' or 0 before the end. */
static void close_tag(struct lexer *l, bool block)
{
    char mark = l->s[l->at];
    size_t end = l->at + 2 + (mark == '-' || (mark == '+'));
    if (block && mark != '-' && mark != '+' && (l->t->flags & QP_TEMPLATE_TRIM) && end < l->n && l->s[end] == '\n')
        end++;
    if (mark == '-')
        while (end < l->n && is_blank(l->s[end]))
            end++;
    advance(l, end);
    l->line_starts = l->s[end - 1] == '\n';
}

/* From behind "{{" or "{%" to its end. */
static int lex_inside(struct lexer *l, bool block)
{
    const char *end = block ? "%}" : "}}";
    int depth = 0, opened = l->line;
    while (l->at < l->n) {
        char c = l->s[l->at];
        if (is_blank(c)) {
            advance(l, l->at + 1);
        } else if (!depth && (starts(l, l->at, end) || (c == '-' && starts(l, l->at + 1, end)) || (block && c == '+' && starts(l, l->at + 1, end)))) {
            add(l, block ? TM_T_CLOSE_BLOCK : TM_T_CLOSE_OUTPUT, l->at, 2);
            close_tag(l, block);
            return 0;
        } else if (c == '\'' || c == '"') {
            if (lex_string(l))
                return l->err->code;
        } else if (c >= '0' && c <= '9') {
            if (lex_number(l))
                return l->err->code;
        } else if (is_name(c, true)) {
            size_t e = l->at;
            while (e < l->n && is_name(l->s[e], false))
                e++;
            add(l, TM_T_NAME, l->at, e - l->at);
            l->at = e;
        } else if (lex_op(l, &depth))
            return l->err->code;
    }
    return tm_error(l->t, opened, l->err, "'%s' is never closed by '%s'", block ? "{%" : "{{", end);
}

/* ---- text between tags ---- */

/* Data from `from` to the tag at `to`; the tag's own mark stands behind its two characters. */
static void add_data(struct lexer *l, size_t from, size_t to, bool tag, bool output)
{
    size_t end = to;
    char mark = tag && to + 2 < l->n ? l->s[to + 2] : 0;
    if (tag && mark == '-') {
        while (end > from && is_blank(l->s[end - 1]))
            end--;
    } else if (tag && mark != '+' && !output && (l->t->flags & QP_TEMPLATE_TRIM)) {
        size_t bol = end;
        while (bol > from && l->s[bol - 1] != '\n' && is_blank(l->s[bol - 1]))
            bol--;
        if ((bol > from && l->s[bol - 1] == '\n') || (bol == from && l->line_starts))
            end = bol;
    }
    if (end > from)
        add(l, TM_T_DATA, from, end - from);
    advance(l, to);
}

static int skip_comment(struct lexer *l)
{
    size_t end = l->at + 2;
    while (end < l->n && !starts(l, end, "#}"))
        end++;
    if (end >= l->n)
        return tm_error(l->t, l->line, l->err, "'{#' is never closed by '#}'");
    if (end > l->at + 2 && (l->s[end - 1] == '-' || l->s[end - 1] == '+'))
        end--;
    advance(l, end);
    close_tag(l, true);
    return 0;
}

/* Position behind "{%", "-", blanks, `word`, blanks, and at the tag's end mark; 0: it is another tag. */
static size_t tag_named(const struct lexer *l, size_t at, const char *word)
{
    if (!starts(l, at, "{%"))
        return 0;
    at += 2;
    at += at < l->n && (l->s[at] == '-' || l->s[at] == '+');
    while (at < l->n && is_blank(l->s[at]))
        at++;
    if (!starts(l, at, word))
        return 0;
    at += strlen(word);
    while (at < l->n && is_blank(l->s[at]))
        at++;
    return starts(l, at, "%}") || starts(l, at, "-%}") || starts(l, at, "+%}") ? at : 0;
}

static int lex_raw(struct lexer *l, size_t behind)
{
    int opened = l->line;
    advance(l, behind);
    close_tag(l, false);
    size_t from = l->at, end = from, mark = 0;
    while (end < l->n && !(mark = tag_named(l, end, "endraw")))
        end++;
    if (!mark)
        return tm_error(l->t, opened, l->err, "'raw' is never closed by 'endraw'");
    add_data(l, from, end, true, false);
    advance(l, mark);
    close_tag(l, true);
    return 0;
}

static int lex_tag(struct lexer *l)
{
    size_t raw = tag_named(l, l->at, "raw");
    if (raw)
        return lex_raw(l, raw);
    if (l->s[l->at + 1] == '#')
        return skip_comment(l);
    bool block = l->s[l->at + 1] == '%';
    add(l, block ? TM_T_OPEN_BLOCK : TM_T_OPEN_OUTPUT, l->at, 2);
    l->at += 2;
    l->at += l->at < l->n && (l->s[l->at] == '-' || (block && l->s[l->at] == '+'));
    return lex_inside(l, block);
}

int tm_lex(struct qp_template *t, const char *text, size_t n, struct tm_token **out, struct qp_err *err)
{
    struct lexer l = {.t = t, .line = 1, .line_starts = true, .err = err};
    char *copy = tm_alloc(&t->arena, n + 1);
    l.tokens = tm_alloc(&t->arena, (n + 2) * sizeof *l.tokens);
    if (!copy || !l.tokens)
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a template");
    size_t m = 0;
    for (size_t i = 0; i < n; i++) /* jinja2 reads every kind of line end as \n, and drops the last one */
        if (text[i] != '\r')
            copy[m++] = text[i];
        else if (i + 1 == n || text[i + 1] != '\n')
            copy[m++] = '\n';
    l.n = m - (m && copy[m - 1] == '\n');
    copy[l.n] = 0;
    l.s = copy;
    while (l.at < l.n) {
        size_t tag = l.at;
        while (tag < l.n && !(l.s[tag] == '{' && tag + 1 < l.n && strchr("{%#", l.s[tag + 1]) && l.s[tag + 1]))
            tag++;
        add_data(&l, l.at, tag, tag < l.n, tag < l.n && l.s[tag + 1] == '{');
        if (tag < l.n && lex_tag(&l))
            return err->code;
    }
    add(&l, TM_T_END, l.n, 0);
    *out = l.tokens;
    return 0;
}
