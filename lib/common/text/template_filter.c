/* Filters and tests of templates. */
#include <math.h>
#include <stdlib.h>

#include "text/template_internal.h"

typedef struct tm_value filter_fn(struct tm_run *r, const struct tm_value *v, const struct tm_args *a);

const struct tm_value *tm_arg(const struct tm_args *a, int i, const char *name)
{
    if (i < a->n)
        return &a->v[i];
    for (int k = 0; name && k < a->n_kw; k++)
        if (tm_is(a->kw[k].name, a->kw[k].n, name))
            return &a->kw[k].value;
    return NULL;
}

static int64_t arg_int(const struct tm_args *a, int i, const char *name, int64_t otherwise)
{
    const struct tm_value *v = tm_arg(a, i, name);
    int64_t n;
    return v && tm_whole(v, &n) ? n : otherwise;
}

static bool arg_true(const struct tm_args *a, int i, const char *name)
{
    const struct tm_value *v = tm_arg(a, i, name);
    return v && tm_truth(v);
}

/* ---- text ---- */

static struct tm_value f_trim(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct tm_value s = tm_as_str(r, v);
    const struct tm_value *chars = tm_arg(a, 0, "chars");
    if (tm_failed(r))
        return s;
    return tm_strip(&s, chars && chars->kind == TM_STR ? chars : NULL, true, true);
}

static struct tm_value cased(struct tm_run *r, const struct tm_value *v, char how)
{
    struct tm_value s = tm_as_str(r, v);
    return tm_failed(r) ? s : tm_case(r, &s, how);
}

static struct tm_value f_upper(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    return cased(r, v, 'u');
}

static struct tm_value f_lower(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    return cased(r, v, 'l');
}

static struct tm_value f_title(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    return cased(r, v, 'w');
}

static struct tm_value f_capitalize(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    return cased(r, v, 'c');
}

static struct tm_value f_replace(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_value *from = tm_arg(a, 0, "old"), *to = tm_arg(a, 1, "new");
    struct tm_value s = tm_as_str(r, v);
    if (!from || !to || from->kind != TM_STR || to->kind != TM_STR)
        return tm_fail(r, "replace takes two texts");
    return tm_failed(r) ? s : tm_replace(r, &s, from, to, arg_int(a, 2, "count", -1));
}

static struct tm_value f_string(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    return tm_as_str(r, v);
}

static struct tm_value f_tojson(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct qp_buf b = QP_BUF_INIT;
    if (v->kind == TM_UNDEFINED)
        return tm_fail(r, "'%.*s' is undefined", (int)v->n, v->s);
    int64_t indent = arg_int(a, 1, "indent", -1); /* transformers' order: ensure_ascii, indent, separators, sort_keys */
    if (arg_true(a, 0, "ensure_ascii") || (tm_arg(a, 2, "separators") && tm_arg(a, 2, "separators")->kind != TM_NONE))
        return tm_fail(r, "tojson with ensure_ascii or separators is not supported");
    tm_json(r, v, indent > 16 ? 16 : (int)indent, arg_true(a, 3, "sort_keys"), &b);
    return tm_take(r, &b);
}

static struct tm_value f_indent(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct tm_value s = tm_as_str(r, v);
    struct qp_buf b = QP_BUF_INIT;
    int64_t width = arg_int(a, 0, "width", 4);
    bool first = arg_true(a, 1, "first"), blank = arg_true(a, 2, "blank");
    width = width < 0 ? 0 : width > 100 ? 100 : width;
    for (size_t at = 0; at < s.n && tm_step(r, 1);) {
        const char *end = memchr(s.s + at, '\n', s.n - at);
        size_t n = end ? (size_t)(end - s.s) - at + 1 : s.n - at;
        bool empty = s.s[at] == '\n';
        if ((at || first) && (!empty || blank))
            qp_buf_addf(&b, "%*s", (int)width, "");
        qp_buf_add(&b, s.s + at, n);
        at += n;
    }
    return tm_take(r, &b);
}

/* ---- numbers ---- */

static struct tm_value f_int(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    double f;
    (void)r;
    if (v->kind == TM_STR && v->n && v->n < 40) {
        char text[40], *end;
        memcpy(text, v->s, v->n);
        text[v->n] = 0;
        f = strtod(text, &end);
        if (!end[strspn(end, " \t\n")] && end > text && fabs(f) < 9e15)
            return tm_int((int64_t)f);
    } else if (tm_number(v, &f) && fabs(f) < 9e18)
        return v->kind == TM_FLOAT ? tm_int((int64_t)f) : v->kind == TM_INT ? *v : tm_int(v->b);
    return tm_int(arg_int(a, 0, "default", 0));
}

static struct tm_value f_float(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    double f;
    const struct tm_value *other = tm_arg(a, 0, "default");
    (void)r;
    if (v->kind == TM_STR && v->n && v->n < 40) {
        char text[40], *end;
        memcpy(text, v->s, v->n);
        text[v->n] = 0;
        f = strtod(text, &end);
        if (!end[strspn(end, " \t\n")] && end > text)
            return tm_float(f);
    } else if (tm_number(v, &f))
        return tm_float(f);
    return other ? *other : tm_float(0);
}

static struct tm_value f_abs(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    int64_t i;
    (void)a;
    if (tm_whole(v, &i) && i > INT64_MIN)
        return tm_int(i < 0 ? -i : i);
    return v->kind == TM_FLOAT ? tm_float(fabs(v->f)) : tm_fail(r, "abs of %s", tm_kind_name(v));
}

static struct tm_value f_round(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    double f, scale = pow(10, (double)arg_int(a, 0, "precision", 0));
    const struct tm_value *method = tm_arg(a, 1, "method");
    if (!tm_number(v, &f))
        return tm_fail(r, "round of %s", tm_kind_name(v));
    bool up = method && method->kind == TM_STR && tm_is(method->s, method->n, "ceil"), down = method && method->kind == TM_STR && tm_is(method->s, method->n, "floor");
    f *= scale;
    return tm_float((up ? ceil(f) : down ? floor(f) : nearbyint(f)) / scale); /* half to even, as Python's round */
}

/* ---- lists and mappings ---- */

static struct tm_value f_length(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    switch (v->kind) {
    case TM_STR:
        return tm_int((int64_t)tm_chars(v));
    case TM_LIST:
    case TM_TUPLE:
        return tm_int((int64_t)v->list->n);
    case TM_DICT:
        return tm_int((int64_t)v->dict->n);
    case TM_UNDEFINED:
        if (!(r->t->flags & QP_TEMPLATE_STRICT))
            return tm_int(0);
        return tm_undefined(r, v);
    default:
        return tm_fail(r, "%s has no length", tm_kind_name(v));
    }
}

static struct tm_value f_default(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_value *other = tm_arg(a, 0, "default_value");
    (void)r;
    if (v->kind == TM_UNDEFINED || (arg_true(a, 1, "boolean") && !tm_truth(v)))
        return other ? *other : tm_borrow("", 0);
    return *v;
}

/* What `attribute` ("a.b", or a number) names in v. */
static struct tm_value by_path(struct tm_run *r, struct tm_value v, const struct tm_value *path)
{
    if (path->kind != TM_STR)
        return tm_item(r, &v, path);
    for (size_t at = 0; at <= path->n && !tm_failed(r);) {
        const char *dot = memchr(path->s + at, '.', path->n - at);
        size_t n = dot ? (size_t)(dot - path->s) - at : path->n - at;
        struct tm_value part = tm_borrow(path->s + at, n);
        v = tm_item(r, &v, &part);
        at += n + 1;
    }
    return v;
}

static struct tm_value f_join(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_value *sep = tm_arg(a, 0, "d"), *path = tm_arg(a, 1, "attribute");
    const struct tm_list *l = tm_iterate(r, v);
    struct tm_value none = tm_borrow("", 0), s = sep ? tm_as_str(r, sep) : none, picked;
    if (!l)
        return TM_NOTHING;
    if (path) {
        picked = tm_new_list(r, TM_LIST);
        for (size_t i = 0; i < l->n && !tm_failed(r); i++)
            tm_append(r, picked.list, by_path(r, l->v[i], path));
        if (tm_failed(r))
            return TM_NOTHING;
        l = picked.list;
    }
    return tm_failed(r) ? TM_NOTHING : tm_join(r, &s, l);
}

static struct tm_value f_first(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_list *l = tm_iterate(r, v);
    (void)a;
    return l && l->n ? l->v[0] : (struct tm_value){.kind = TM_UNDEFINED, .s = "first", .n = 5};
}

static struct tm_value f_last(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_list *l = tm_iterate(r, v);
    (void)a;
    return l && l->n ? l->v[l->n - 1] : (struct tm_value){.kind = TM_UNDEFINED, .s = "last", .n = 4};
}

/* A copy that may be changed. */
static struct tm_value copied(struct tm_run *r, const struct tm_value *v)
{
    const struct tm_list *l = tm_iterate(r, v);
    struct tm_value out = tm_new_list(r, TM_LIST);
    for (size_t i = 0; l && i < l->n && !tm_failed(r); i++)
        tm_append(r, out.list, l->v[i]);
    return tm_failed(r) ? TM_NOTHING : out;
}

static struct tm_value f_list(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)a;
    return copied(r, v);
}

static struct tm_value f_reverse(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct tm_value out = copied(r, v), none = tm_borrow("", 0);
    (void)a;
    if (tm_failed(r))
        return out;
    for (size_t i = 0; i < out.list->n / 2; i++) {
        struct tm_value t = out.list->v[i];
        out.list->v[i] = out.list->v[out.list->n - 1 - i];
        out.list->v[out.list->n - 1 - i] = t;
    }
    return v->kind == TM_STR ? tm_join(r, &none, out.list) : out;
}

static struct tm_value f_items(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct tm_value out = tm_new_list(r, TM_LIST);
    (void)a;
    if (v->kind != TM_DICT)
        return v->kind == TM_UNDEFINED ? out : tm_fail(r, "items of %s", tm_kind_name(v));
    for (size_t i = 0; i < v->dict->n && !tm_failed(r); i++) {
        struct tm_value pair = tm_new_list(r, TM_TUPLE);
        if (tm_failed(r))
            break;
        tm_append(r, pair.list, v->dict->v[i].key);
        tm_append(r, pair.list, v->dict->v[i].value);
        tm_append(r, out.list, pair);
    }
    return out;
}

/* Insertion from the end keeps equal elements in order; the bound on steps ends what is too long. Text is compared without case unless told. */
static struct tm_value sorted(struct tm_run *r, struct tm_value l, const struct tm_value *path, bool cased_, bool reverse)
{
    struct tm_value keys = tm_new_list(r, TM_LIST);
    for (size_t i = 0; !tm_failed(r) && i < l.list->n; i++) {
        struct tm_value key = path ? by_path(r, l.list->v[i], path) : l.list->v[i];
        tm_append(r, keys.list, key.kind == TM_STR && !cased_ ? tm_case(r, &key, 'l') : key);
    }
    for (size_t i = 1; !tm_failed(r) && i < l.list->n; i++)
        for (size_t k = i; k > 0 && tm_step(r, 1); k--) {
            int c = tm_order(r, &keys.list->v[k - 1], &keys.list->v[k]);
            if (tm_failed(r) || (reverse ? c >= 0 : c <= 0))
                break;
            struct tm_value t = l.list->v[k], q = keys.list->v[k];
            l.list->v[k] = l.list->v[k - 1];
            l.list->v[k - 1] = t;
            keys.list->v[k] = keys.list->v[k - 1];
            keys.list->v[k - 1] = q;
        }
    return tm_failed(r) ? TM_NOTHING : l;
}

static struct tm_value f_sort(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct tm_value l = copied(r, v);
    return tm_failed(r) ? l : sorted(r, l, tm_arg(a, 2, "attribute"), arg_true(a, 1, "case_sensitive"), arg_true(a, 0, "reverse"));
}

static struct tm_value f_dictsort(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    struct tm_value l = f_items(r, v, a), zero = tm_int(0);
    if (tm_arg(a, 1, "by"))
        return tm_fail(r, "dictsort by value is not supported");
    return tm_failed(r) ? l : sorted(r, l, &zero, arg_true(a, 0, "case_sensitive"), arg_true(a, 2, "reverse"));
}

static struct tm_value f_unique(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_list *l = tm_iterate(r, v);
    struct tm_value seen = tm_new_list(r, TM_LIST), out = tm_new_list(r, TM_LIST);
    for (size_t i = 0; l && i < l->n && !tm_failed(r); i++) {
        struct tm_value key = l->v[i].kind == TM_STR && !arg_true(a, 0, "case_sensitive") ? tm_case(r, &l->v[i], 'l') : l->v[i];
        if (!tm_contains(r, &seen, &key) && !tm_failed(r)) {
            tm_append(r, seen.list, key);
            tm_append(r, out.list, l->v[i]);
        }
    }
    return tm_failed(r) ? TM_NOTHING : out;
}

static struct tm_value extreme(struct tm_run *r, const struct tm_value *v, const struct tm_args *a, int sign)
{
    struct tm_value l = f_sort(r, v, &(struct tm_args){.n = 0});
    (void)a;
    if (tm_failed(r) || !l.list->n)
        return (struct tm_value){.kind = TM_UNDEFINED, .s = "item", .n = 4};
    return l.list->v[sign < 0 ? 0 : l.list->n - 1];
}

static struct tm_value f_min(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    return extreme(r, v, a, -1);
}

static struct tm_value f_max(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    return extreme(r, v, a, 1);
}

static struct tm_value f_sum(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_list *l = tm_iterate(r, v);
    const struct tm_value *path = tm_arg(a, 0, "attribute"), *start = tm_arg(a, 1, "start");
    struct tm_value total = start ? *start : tm_int(0);
    for (size_t i = 0; l && i < l->n && !tm_failed(r); i++) {
        struct tm_value x = path ? by_path(r, l->v[i], path) : l->v[i];
        total = tm_binary(r, TM_ADD, &total, &x);
    }
    return total;
}

static struct tm_value f_map(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_list *l = tm_iterate(r, v);
    const struct tm_value *path = tm_arg(a, TM_MAX_ARGS, "attribute"), *other = tm_arg(a, TM_MAX_ARGS, "default");
    struct tm_value out = tm_new_list(r, TM_LIST);
    struct tm_args rest = {.n = 0};
    if (!path && (!a->n || a->v[0].kind != TM_STR || !tm_has_filter(a->v[0].s, a->v[0].n)))
        return tm_fail(r, "map takes attribute=NAME or the name of a filter");
    for (int i = 1; i < a->n; i++)
        rest.v[rest.n++] = a->v[i];
    for (size_t i = 0; l && i < l->n && !tm_failed(r); i++) {
        struct tm_value x = path ? by_path(r, l->v[i], path) : tm_filter(r, a->v[0].s, a->v[0].n, &l->v[i], &rest);
        tm_append(r, out.list, path && other && x.kind == TM_UNDEFINED ? *other : x);
    }
    return tm_failed(r) ? TM_NOTHING : out;
}

/* select, reject, selectattr, rejectattr: by a test, or by truth. */
static struct tm_value choose(struct tm_run *r, const struct tm_value *v, const struct tm_args *a, bool attribute, bool wanted)
{
    const struct tm_list *l = tm_iterate(r, v);
    struct tm_value out = tm_new_list(r, TM_LIST);
    struct tm_args rest = {.n = 0};
    int test = attribute;
    if (attribute && !a->n)
        return tm_fail(r, "selectattr and rejectattr take the name of an attribute");
    if (a->n > test && (a->v[test].kind != TM_STR || !tm_has_test(a->v[test].s, a->v[test].n)))
        return tm_fail(r, "no such test");
    for (int i = test + 1; i < a->n; i++)
        rest.v[rest.n++] = a->v[i];
    for (size_t i = 0; l && i < l->n && tm_step(r, 1); i++) {
        struct tm_value x = attribute ? by_path(r, l->v[i], &a->v[0]) : l->v[i];
        if (tm_failed(r))
            break;
        bool yes = a->n > test ? tm_test(r, a->v[test].s, a->v[test].n, &x, &rest) : tm_truth(&x);
        if (!tm_failed(r) && yes == wanted)
            tm_append(r, out.list, l->v[i]);
    }
    return tm_failed(r) ? TM_NOTHING : out;
}

static struct tm_value f_select(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    return choose(r, v, a, false, true);
}

static struct tm_value f_reject(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    return choose(r, v, a, false, false);
}

static struct tm_value f_selectattr(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    return choose(r, v, a, true, true);
}

static struct tm_value f_rejectattr(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    return choose(r, v, a, true, false);
}

static struct tm_value f_attr(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    const struct tm_value *name = tm_arg(a, 0, "name");
    return name && name->kind == TM_STR ? tm_attribute(r, v, name->s, name->n) : tm_fail(r, "attr takes a name");
}

static struct tm_value f_safe(struct tm_run *r, const struct tm_value *v, const struct tm_args *a)
{
    (void)r, (void)a; /* nothing is escaped */
    return *v;
}

static const struct {
    const char *name;
    filter_fn *fn;
} filters[] = {{"abs", f_abs}, {"attr", f_attr}, {"capitalize", f_capitalize}, {"count", f_length}, {"d", f_default}, {"default", f_default}, {"dictsort", f_dictsort}, {"first", f_first},
               {"float", f_float}, {"indent", f_indent}, {"int", f_int}, {"items", f_items}, {"join", f_join}, {"last", f_last}, {"length", f_length}, {"list", f_list}, {"lower", f_lower},
               {"map", f_map}, {"max", f_max}, {"min", f_min}, {"reject", f_reject}, {"rejectattr", f_rejectattr}, {"replace", f_replace}, {"reverse", f_reverse}, {"round", f_round},
               {"safe", f_safe}, {"select", f_select}, {"selectattr", f_selectattr}, {"sort", f_sort}, {"string", f_string}, {"sum", f_sum}, {"title", f_title}, {"tojson", f_tojson},
               {"trim", f_trim}, {"unique", f_unique}, {"upper", f_upper}};

bool tm_has_filter(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (tm_is(name, n, filters[i].name))
            return true;
    return false;
}

struct tm_value tm_filter(struct tm_run *r, const char *name, size_t n, const struct tm_value *v, const struct tm_args *args)
{
    if (v->kind == TM_UNDEFINED && (r->t->flags & QP_TEMPLATE_STRICT) && !tm_is(name, n, "default") && !tm_is(name, n, "d"))
        return tm_undefined(r, v);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (tm_is(name, n, filters[i].name))
            return filters[i].fn(r, v, args);
    return tm_fail(r, "the filter '%.*s' is not supported", (int)n, name);
}
