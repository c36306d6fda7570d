/* Tests, functions and methods of templates. */
#include <stdlib.h>
#include <time.h>
#include <utf8proc.h>

#include "text/internal.h"
#include "text/template_internal.h"

#define MAX_RANGE 100000 /* jinja2's sandbox has the same bound */

/* ---- tests ---- */

/* Tests of one value, by kind. */
static bool kind_test(const char *name, size_t n, const struct tm_value *v, bool *known)
{
    enum tm_kind k = v->kind;
    const struct {
        const char *name;
        bool is;
    } all[] = {{"defined", k != TM_UNDEFINED}, {"undefined", k == TM_UNDEFINED}, {"none", k == TM_NONE}, {"boolean", k == TM_BOOL}, {"true", k == TM_BOOL && v->b},
               {"false", k == TM_BOOL && !v->b}, {"string", k == TM_STR}, {"number", k == TM_INT || k == TM_FLOAT || k == TM_BOOL}, {"integer", k == TM_INT}, {"float", k == TM_FLOAT},
               {"mapping", k == TM_DICT}, {"sequence", k == TM_LIST || k == TM_TUPLE || k == TM_STR || k == TM_DICT || k == TM_UNDEFINED},
               {"iterable", k == TM_LIST || k == TM_TUPLE || k == TM_STR || k == TM_DICT || k == TM_UNDEFINED}, {"callable", k == TM_FUNCTION || k == TM_METHOD || k == TM_MACRO}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (tm_is(name, n, all[i].name)) {
            *known = true;
            return all[i].is;
        }
    *known = false;
    return false;
}

/* Tests that compare with an argument, under all their names. */
static enum tm_op compare_test(const char *name, size_t n)
{
    static const struct {
        const char *name;
        enum tm_op op;
    } all[] = {{"eq", TM_EQ}, {"equalto", TM_EQ}, {"==", TM_EQ}, {"ne", TM_NE}, {"!=", TM_NE}, {"lt", TM_LT}, {"lessthan", TM_LT}, {"<", TM_LT}, {"le", TM_LE}, {"<=", TM_LE},
               {"gt", TM_GT}, {"greaterthan", TM_GT}, {">", TM_GT}, {"ge", TM_GE}, {">=", TM_GE}, {"in", TM_IN}, {"sameas", TM_EQ}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (tm_is(name, n, all[i].name))
            return all[i].op;
    return 0;
}

static bool number_test(const char *name, size_t n)
{
    return tm_is(name, n, "odd") || tm_is(name, n, "even") || tm_is(name, n, "divisibleby");
}

static bool case_test(const char *name, size_t n)
{
    return tm_is(name, n, "lower") || tm_is(name, n, "upper");
}

bool tm_has_test(const char *name, size_t n)
{
    bool known;
    kind_test(name, n, &TM_NOTHING, &known);
    return known || compare_test(name, n) || number_test(name, n) || case_test(name, n);
}

static bool compared(struct tm_run *r, enum tm_op op, const struct tm_value *v, const struct tm_args *args)
{
    const struct tm_value *other = tm_arg(args, 0, NULL);
    if (!other) {
        tm_fail(r, "the test needs an argument");
        return false;
    }
    if (op == TM_IN)
        return tm_contains(r, other, v);
    if (op == TM_EQ || op == TM_NE)
        return tm_equal(v, other) == (op == TM_EQ);
    int c = tm_order(r, v, other);
    return op == TM_LT ? c < 0 : op == TM_LE ? c <= 0 : op == TM_GT ? c > 0 : c >= 0;
}

bool tm_test(struct tm_run *r, const char *name, size_t n, const struct tm_value *v, const struct tm_args *args)
{
    bool known, is = kind_test(name, n, v, &known);
    int64_t i, by = 2;
    if (known)
        return is;
    if (v->kind == TM_UNDEFINED && (r->t->flags & QP_TEMPLATE_STRICT)) {
        tm_undefined(r, v);
        return false;
    }
    enum tm_op op = compare_test(name, n);
    if (op)
        return compared(r, op, v, args);
    if (case_test(name, n)) {
        struct tm_value s = tm_as_str(r, v), other = tm_failed(r) ? s : tm_case(r, &s, name[0]);
        struct tm_value swapped = tm_failed(r) ? s : tm_case(r, &s, name[0] == 'u' ? 'l' : 'u'); /* some letter has case */
        return !tm_failed(r) && tm_equal(&s, &other) && !tm_equal(&s, &swapped);
    }
    if (tm_is(name, n, "divisibleby") && (!tm_arg(args, 0, "num") || !tm_whole(tm_arg(args, 0, "num"), &by) || !by))
        tm_fail(r, "divisibleby takes a whole number that is not 0");
    else if (!tm_whole(v, &i))
        tm_fail(r, "the test '%.*s' of %s", (int)n, name, tm_kind_name(v));
    if (tm_failed(r))
        return false;
    return (by == -1 || i % by == 0) != tm_is(name, n, "odd");
}

/* ---- functions ---- */

static struct tm_value range(struct tm_run *r, const struct tm_args *a)
{
    int64_t v[3] = {0, 0, 1};
    for (int i = 0; i < a->n; i++)
        if (i > 2 || !tm_whole(&a->v[i], &v[i]))
            return tm_fail(r, "range takes one to three whole numbers");
    if (!a->n || !v[2])
        return tm_fail(r, "range takes one to three whole numbers, and a step that is not 0");
    if (a->n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    struct tm_value l = tm_new_list(r, TM_LIST);
    for (int64_t i = v[0]; !tm_failed(r) && (v[2] > 0 ? i < v[1] : i > v[1]); i += v[2]) {
        if (l.list->n == MAX_RANGE)
            return tm_fail(r, "a range of more than %d", MAX_RANGE);
        tm_append(r, l.list, tm_int(i));
        if ((v[2] > 0 && i > INT64_MAX - v[2]) || (v[2] < 0 && i < INT64_MIN - v[2]))
            break;
    }
    return l;
}

static struct tm_value mapping(struct tm_run *r, const struct tm_args *a, enum tm_kind kind)
{
    struct tm_value d = tm_new_dict(r, kind);
    if (a->n && a->v[0].kind != TM_DICT)
        return tm_fail(r, "expected names with values, not %s", tm_kind_name(&a->v[0]));
    for (size_t i = 0; a->n && i < a->v[0].dict->n && !tm_failed(r); i++)
        tm_put(r, d.dict, a->v[0].dict->v[i].key, a->v[0].dict->v[i].value);
    for (int i = 0; i < a->n_kw && !tm_failed(r); i++)
        tm_put(r, d.dict, tm_borrow(a->kw[i].name, a->kw[i].n), a->kw[i].value);
    return d;
}

static struct tm_value date(struct tm_run *r, const struct tm_args *a)
{
    char format[128], text[256];
    struct tm utc;
    time_t when = (time_t)r->date;
    if (!a->n || a->v[0].kind != TM_STR || a->v[0].n >= sizeof format || !gmtime_r(&when, &utc))
        return tm_fail(r, "strftime_now takes a format of less than %zu bytes", sizeof format);
    memcpy(format, a->v[0].s, a->v[0].n);
    format[a->v[0].n] = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = strftime(text, sizeof text, format, &utc); /* the C locale: no tool sets another */
#pragma GCC diagnostic pop
    return tm_copy(r, text, n);
}

static const char *const functions[] = {"range", "namespace", "dict", "raise_exception", "strftime_now"};

bool tm_has_function(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (tm_is(name, n, functions[i]))
            return true;
    return false;
}

static struct tm_value call_function(struct tm_run *r, const struct tm_value *f, const struct tm_args *a)
{
    if (tm_is(f->s, f->n, "range"))
        return range(r, a);
    if (tm_is(f->s, f->n, "namespace"))
        return mapping(r, a, TM_NAMESPACE);
    if (tm_is(f->s, f->n, "dict"))
        return mapping(r, a, TM_DICT);
    if (tm_is(f->s, f->n, "strftime_now"))
        return date(r, a);
    struct tm_value text = a->n ? tm_as_str(r, &a->v[0]) : tm_borrow("", 0);
    return tm_fail(r, "the template refuses: %.*s", (int)(text.n < 300 ? text.n : 300), text.kind == TM_STR ? text.s : "");
}

/* ---- methods ---- */

static const char *const text_methods[] = {"strip", "lstrip", "rstrip", "startswith", "endswith", "split", "rsplit", "splitlines", "upper", "lower", "title", "capitalize", "replace",
                                           "find", "rfind", "count", "join", "removeprefix", "removesuffix", "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower", "format", NULL};
static const char *const dict_methods[] = {"get", "items", "keys", "values", "update", "pop", "setdefault", "clear", "copy", NULL};
static const char *const list_methods[] = {"index", "count", "append", "extend", "insert", "pop", "remove", "reverse", "sort", "copy", NULL};
static const char *const loop_methods[] = {"cycle", "changed", NULL};

bool tm_has_method(const struct tm_value *v, const char *name, size_t n)
{
    const char *const *all = v->kind == TM_STR ? text_methods : v->kind == TM_DICT ? dict_methods : v->kind == TM_LIST || v->kind == TM_TUPLE ? list_methods : v->kind == TM_LOOP ? loop_methods : NULL;
    for (; all && *all; all++)
        if (tm_is(name, n, *all))
            return true;
    return false;
}

/* Text, or any of a tuple's. */
static bool begins(const struct tm_value *s, const struct tm_value *what, bool end)
{
    if (what->kind == TM_TUPLE) {
        for (size_t i = 0; i < what->list->n; i++)
            if (what->list->v[i].kind == TM_STR && begins(s, &what->list->v[i], end))
                return true;
        return false;
    }
    return what->n <= s->n && !memcmp(end ? s->s + s->n - what->n : s->s, what->s, what->n);
}

static bool all_of(const struct tm_value *s, char what)
{
    for (size_t i = 0; i < s->n;) {
        uint32_t c;
        i += (size_t)qp_utf8_next(s->s + i, &c);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
        bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO, digit = k == UTF8PROC_CATEGORY_ND;
        if (what == 's' ? !qp_is_space(c) : what == 'd' ? !digit : what == 'a' ? !letter : !letter && !digit)
            return false;
    }
    return s->n > 0;
}

/* The place of what in s in code points, or -1. */
static int64_t place(const struct tm_value *s, const struct tm_value *what, bool last)
{
    const char *p = NULL, *q = s->s;
    while ((q = memmem(q, (size_t)(s->s + s->n - q), what->s, what->n))) {
        p = q++;
        if (!last || !what->n)
            break;
    }
    struct tm_value before = tm_borrow(s->s, p ? (size_t)(p - s->s) : 0);
    return p ? (int64_t)tm_chars(&before) : -1;
}

static int64_t occurrences(const struct tm_value *s, const struct tm_value *what)
{
    int64_t count = 0;
    const char *p = s->s;
    if (!what->n)
        return (int64_t)tm_chars(s) + 1;
    for (; (p = memmem(p, (size_t)(s->s + s->n - p), what->s, what->n)); p += what->n)
        count++;
    return count;
}

/* Methods of text that take one text at least. */
static struct tm_value text_with_argument(struct tm_run *r, const char *name, size_t n, const struct tm_value *s, const struct tm_args *a)
{
    const struct tm_value *x = tm_arg(a, 0, NULL);
    int64_t max = -1;
    if (tm_is(name, n, "join")) {
        const struct tm_list *l = x ? tm_iterate(r, x) : NULL;
        return l ? tm_join(r, s, l) : tm_fail(r, "join takes a list");
    }
    bool tuple = x && x->kind == TM_TUPLE && (tm_is(name, n, "startswith") || tm_is(name, n, "endswith"));
    if (!x || (x->kind != TM_STR && !tuple))
        return tm_fail(r, "'%.*s' takes text", (int)n, name);
    if (tm_is(name, n, "startswith"))
        return tm_bool(begins(s, x, false));
    if (tm_is(name, n, "endswith"))
        return tm_bool(begins(s, x, true));
    if (tm_is(name, n, "removeprefix"))
        return begins(s, x, false) ? tm_borrow(s->s + x->n, s->n - x->n) : *s;
    if (tm_is(name, n, "removesuffix"))
        return begins(s, x, true) ? tm_borrow(s->s, s->n - x->n) : *s;
    if (tm_is(name, n, "count"))
        return tm_int(occurrences(s, x));
    if (tm_is(name, n, "replace")) {
        const struct tm_value *to = tm_arg(a, 1, NULL), *limit = tm_arg(a, 2, "count");
        if (!to || to->kind != TM_STR || (limit && !tm_whole(limit, &max)))
            return tm_fail(r, "replace takes two texts");
        return tm_replace(r, s, x, to, max);
    }
    return tm_int(place(s, x, tm_is(name, n, "rfind")));
}

static struct tm_value call_text(struct tm_run *r, const char *name, size_t n, const struct tm_value *s, const struct tm_args *a)
{
    const struct tm_value *x = tm_arg(a, 0, "sep"), *limit = tm_arg(a, 1, "maxsplit");
    bool left = tm_is(name, n, "lstrip"), right = tm_is(name, n, "rstrip"), split = tm_is(name, n, "split"), from_right = tm_is(name, n, "rsplit");
    int64_t max = -1;
    if (tm_is(name, n, "format"))
        return tm_fail(r, "the method 'format' is not supported");
    if (left || right || tm_is(name, n, "strip"))
        return tm_strip(s, x && x->kind == TM_STR ? x : NULL, !right, !left);
    if (split || from_right) {
        if ((x && x->kind != TM_STR && x->kind != TM_NONE) || (limit && !tm_whole(limit, &max)))
            return tm_fail(r, "'%.*s' takes a separator and a whole number", (int)n, name);
        return tm_split(r, s, x && x->kind == TM_STR ? x : NULL, max, from_right);
    }
    if (tm_is(name, n, "splitlines"))
        return tm_split_lines(r, s);
    if (tm_is(name, n, "upper") || tm_is(name, n, "lower") || tm_is(name, n, "title") || tm_is(name, n, "capitalize"))
        return tm_case(r, s, name[0]);
    if (n > 5 && !memcmp(name, "is", 2)) {
        if (tm_is(name, n, "isupper") || tm_is(name, n, "islower"))
            return tm_bool(tm_test(r, name + 2, n - 2, s, a));
        return tm_bool(all_of(s, tm_is(name, n, "isalnum") ? 'n' : name[2]));
    }
    return text_with_argument(r, name, n, s, a);
}

static struct tm_value call_dict(struct tm_run *r, const char *name, size_t n, const struct tm_value *d, const struct tm_args *a)
{
    if (tm_is(name, n, "get")) {
        const struct tm_value *key = tm_arg(a, 0, NULL), *other = tm_arg(a, 1, NULL), *found = key ? tm_find_key(d->dict, *key) : NULL;
        return !key ? tm_fail(r, "get takes a key") : found ? *found : other ? *other : TM_NOTHING;
    }
    if (tm_is(name, n, "items"))
        return tm_filter(r, "items", 5, d, a);
    bool values = tm_is(name, n, "values");
    if (!values && !tm_is(name, n, "keys"))
        return tm_fail(r, "the method '%.*s' changes its mapping, which the sandbox forbids", (int)n, name);
    struct tm_value l = tm_new_list(r, TM_LIST);
    for (size_t i = 0; i < d->dict->n && !tm_failed(r); i++)
        tm_append(r, l.list, values ? d->dict->v[i].value : d->dict->v[i].key);
    return l;
}

static struct tm_value call_list(struct tm_run *r, const char *name, size_t n, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_value *x = tm_arg(a, 0, NULL);
    int64_t count = 0;
    bool counts = tm_is(name, n, "count");
    if ((!counts && !tm_is(name, n, "index")) || !x)
        return tm_fail(r, "the method '%.*s' of a list is not supported, or changes it, which the sandbox forbids", (int)n, name);
    for (size_t i = 0; i < v->list->n && tm_step(r, 1); i++)
        if (tm_equal(&v->list->v[i], x)) {
            if (!counts)
                return tm_int((int64_t)i);
            count++;
        }
    return counts ? tm_int(count) : tm_fail(r, "the value is not in the list");
}

static struct tm_value call_loop(struct tm_run *r, const char *name, size_t n, const struct tm_value *v, const struct tm_args *a)
{
    if (!a->n)
        return tm_fail(r, "loop.%.*s takes values", (int)n, name);
    if (tm_is(name, n, "cycle"))
        return a->v[v->loop->at % (size_t)a->n];
    bool changed = !tm_equal(&v->loop->changed, &a->v[0]);
    v->loop->changed = a->v[0];
    return tm_bool(changed);
}

struct tm_value tm_call(struct tm_run *r, const struct tm_value *f, const struct tm_args *a)
{
    if (f->kind == TM_FUNCTION)
        return call_function(r, f, a);
    if (f->kind == TM_MACRO)
        return tm_call_macro(r, f->macro, a);
    if (f->kind == TM_UNDEFINED)
        return tm_fail(r, "'%.*s' is undefined", (int)f->n, f->s);
    if (f->kind != TM_METHOD)
        return tm_fail(r, "%s cannot be called", tm_kind_name(f));
    if (f->self->kind == TM_STR && tm_step(r, 1 + f->self->n / 256))
        return call_text(r, f->s, f->n, f->self, a);
    if (f->self->kind == TM_DICT)
        return call_dict(r, f->s, f->n, f->self, a);
    if (f->self->kind == TM_LOOP)
        return call_loop(r, f->s, f->n, f->self, a);
    return call_list(r, f->s, f->n, f->self, a);
}
