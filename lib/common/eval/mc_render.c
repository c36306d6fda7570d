/* Fields of a row, templates over them, and white space as Python sees it. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "eval/mc_spec.h"

#define MAX_PATH 256

/* str.isspace(): Unicode's white space and the four separators of ASCII. */
static bool is_space(utf8proc_int32_t c)
{
    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
    utf8proc_category_t k = utf8proc_category(c);
    return c == 0x85 || k == UTF8PROC_CATEGORY_ZS || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

static size_t char_at(const char *p, size_t n, utf8proc_int32_t *c)
{
    utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, c);
    return used > 0 ? (size_t)used : 1;
}

size_t qp_mc_rstrip(const char *text, size_t n)
{
    while (n) {
        size_t at = n - 1;
        utf8proc_int32_t c = 'x';
        while (at && ((unsigned char)text[at] & 0xc0) == 0x80)
            at--;
        char_at(text + at, n - at, &c);
        if (!is_space(c))
            break;
        n = at;
    }
    return n;
}

void qp_mc_strip(const char **text, size_t *n)
{
    *n = qp_mc_rstrip(*text, *n);
    while (*n) {
        utf8proc_int32_t c = 'x';
        size_t used = char_at(*text, *n, &c);
        if (!is_space(c))
            break;
        *text += used;
        *n -= used;
    }
}

size_t qp_mc_chars(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

json_t *qp_mc_field(const json_t *row, const char *path)
{
    const json_t *v = row;
    while (*path && v) {
        char name[MAX_PATH];
        size_t n = strcspn(path, ".[");
        if (n >= sizeof name)
            return NULL;
        memcpy(name, path, n);
        name[n] = 0;
        if (n)
            v = json_object_get(v, name);
        path += n;
        if (*path == '[') {
            char *end;
            unsigned long i = strtoul(path + 1, &end, 10);
            if (end == path + 1 || *end != ']')
                return NULL;
            v = json_array_get(v, i);
            path = end + 1;
        }
        path += *path == '.';
    }
    return (json_t *)v;
}

enum filter { FILTER_NONE, FILTER_STRIP, FILTER_SPACES };

static int render_value(const char *path, enum filter filter, const json_t *row, struct qp_buf *out, struct qp_err *err)
{
    const json_t *v = qp_mc_field(row, path);
    if (json_is_string(v)) {
        const char *s = json_string_value(v);
        size_t n = json_string_length(v);
        if (filter == FILTER_STRIP)
            qp_mc_strip(&s, &n);
        for (size_t i = 0; i < n && filter == FILTER_SPACES; i++)
            qp_buf_add(out, s[i] == '_' ? " " : s + i, 1);
        if (n && filter != FILTER_SPACES)
            qp_buf_add(out, s, n);
    } else if (json_is_integer(v)) {
        qp_buf_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    } else {
        return qp_err_set(err, QP_E_INPUT, "field '%s' is %s", path, v ? "neither text nor a whole number" : "missing");
    }
    return 0;
}

/* The placeholder at p (behind its brace): its path and its filter; returns what follows its closing brace, or NULL. */
static const char *placeholder(const char *p, char path[MAX_PATH], enum filter *filter)
{
    size_t n = strcspn(p, "}{|"), f = strcspn(p + n, "}");
    if (!n || n >= MAX_PATH || !p[n + f])
        return NULL;
    memcpy(path, p, n);
    path[n] = 0;
    if (!f)
        *filter = FILTER_NONE;
    else if (f == 6 && !strncmp(p + n, "|strip", f))
        *filter = FILTER_STRIP;
    else if (f == 7 && !strncmp(p + n, "|spaces", f))
        *filter = FILTER_SPACES;
    else
        return NULL;
    return p + n + f + 1;
}

static int walk(const char *tmpl, const json_t *row, struct qp_buf *out, struct qp_err *err)
{
    char path[MAX_PATH];
    enum filter filter;
    for (const char *p = tmpl; *p;) {
        size_t n = strcspn(p, "{}");
        if (n && out)
            qp_buf_add(out, p, n);
        p += n;
        if (*p && p[1] == *p) {
            if (out)
                qp_buf_add(out, p, 1);
            p += 2;
        } else if (*p == '{' && placeholder(p + 1, path, &filter)) {
            p = placeholder(p + 1, path, &filter);
            if (out && render_value(path, filter, row, out, err))
                return err->code;
        } else if (*p) {
            return qp_err_set(err, QP_E_INPUT, "template '%.80s': expected {field}, {field.member}, {field[0]}, {field|strip} or {field|spaces} at '%.20s'; {{ and }} are braces", tmpl, p);
        }
    }
    return out ? qp_buf_check(out, err) : 0;
}

int qp_mc_render(const char *tmpl, const json_t *row, struct qp_buf *out, struct qp_err *err)
{
    return walk(tmpl, row, out, err);
}

int qp_mc_check_template(const char *tmpl, struct qp_err *err)
{
    return walk(tmpl, NULL, NULL, err);
}
