/* Expressions of a template, evaluated with Python's rules. */
#include <math.h>
#include <stdio.h>

#include "text/template_internal.h"

/* ---- names, attributes, items ---- */

static struct tm_value undefined(const char *name, size_t n, const struct tm_value *of)
{
    return (struct tm_value){.kind = TM_UNDEFINED, .n = (uint32_t)n, .s = name, .self = of};
}

struct tm_value tm_undefined(struct tm_run *r, const struct tm_value *v)
{
    if (!(r->t->flags & QP_TEMPLATE_STRICT))
        return tm_borrow("", 0);
    return tm_fail(r, "'%.*s' is undefined", (int)v->n, v->s);
}

static struct tm_value lookup(struct tm_run *r, const char *name, size_t n)
{
    for (const struct tm_frame *f = r->frame; f; f = f->up) {
        const struct tm_value *v = tm_find(&f->vars, name, n);
        if (v)
            return *v;
    }
    if (tm_has_function(name, n))
        return (struct tm_value){.kind = TM_FUNCTION, .n = (uint32_t)n, .s = name};
    return undefined(name, n, NULL);
}

static struct tm_value loop_attribute(struct tm_run *r, const struct tm_value *v, const char *name, size_t n)
{
    const struct tm_loop *l = v->loop;
    int64_t at = (int64_t)l->at, count = (int64_t)l->items->n;
    const struct {
        const char *name;
        struct tm_value value;
    } all[] = {{"index", tm_int(at + 1)}, {"index0", tm_int(at)}, {"revindex", tm_int(count - at)}, {"revindex0", tm_int(count - at - 1)}, {"first", tm_bool(at == 0)},
               {"last", tm_bool(at == count - 1)}, {"length", tm_int(count)}, {"depth", tm_int(1)}, {"depth0", tm_int(0)}, /* of recursion */
               {"previtem", at > 0 ? l->items->v[at - 1] : undefined(name, n, NULL)}, {"nextitem", at + 1 < count ? l->items->v[at + 1] : undefined(name, n, NULL)}};
    (void)r;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (tm_is(name, n, all[i].name))
            return all[i].value;
    return undefined(name, n, NULL);
}

static struct tm_value *keep(struct tm_run *r, const struct tm_value *v)
{
    struct tm_value *copy = tm_make(r, sizeof *copy);
    if (copy)
        *copy = *v;
    return copy;
}

struct tm_value tm_attribute(struct tm_run *r, const struct tm_value *v, const char *name, size_t n)
{
    const struct tm_value *found;
    if (v->kind == TM_UNDEFINED)
        return tm_fail(r, "'%.*s' is undefined", (int)v->n, v->s);
    if (tm_has_method(v, name, n))
        return (struct tm_value){.kind = TM_METHOD, .n = (uint32_t)n, .s = name, .self = keep(r, v)};
    if (v->kind == TM_LOOP)
        return loop_attribute(r, v, name, n);
    if ((v->kind == TM_DICT || v->kind == TM_NAMESPACE) && (found = tm_find(v->dict, name, n)))
        return *found;
    return undefined(name, n, v);
}

/* Of a list, a tuple or text: an index from 0, or from the end below 0; -1: outside. */
static int64_t index_of(const struct tm_value *key, size_t count)
{
    int64_t i;
    if (!tm_whole(key, &i))
        return -1;
    i = i < 0 ? i + (int64_t)count : i;
    return i >= 0 && i < (int64_t)count ? i : -1;
}

struct tm_value tm_item(struct tm_run *r, const struct tm_value *v, const struct tm_value *key)
{
    const struct tm_value *found;
    const char *name = key->kind == TM_STR ? key->s : "item";
    size_t n = key->kind == TM_STR ? key->n : 4;
    int64_t i;
    switch (v->kind) {
    case TM_UNDEFINED:
        return tm_fail(r, "'%.*s' is undefined", (int)v->n, v->s);
    case TM_LIST:
    case TM_TUPLE:
        if ((i = index_of(key, v->list->n)) >= 0)
            return v->list->v[i];
        break;
    case TM_STR:
        if (key->kind != TM_STR && (i = index_of(key, tm_chars(v))) >= 0 && tm_step(r, 1 + v->n / 256)) {
            size_t from = tm_char_at(v, (size_t)i);
            return tm_borrow(v->s + from, tm_char_at(v, (size_t)i + 1) - from);
        }
        break;
    case TM_DICT:
        if (tm_step(r, 1 + v->dict->n / 8) && (found = tm_find_key(v->dict, *key)))
            return *found;
        break;
    default:
        break;
    }
    if (key->kind == TM_STR && v->kind != TM_NAMESPACE)
        return tm_attribute(r, v, name, n);
    return undefined(name, n, NULL);
}

/* Python's slice.indices. false: a part is no number. */
static bool slice_bounds(const struct tm_value parts[3], int64_t n, int64_t *start, int64_t *stop, int64_t *step)
{
    int64_t v;
    *step = 1;
    if (parts[2].kind != TM_NONE && (!tm_whole(&parts[2], step) || !*step))
        return false;
    *start = *step > 0 ? 0 : n - 1;
    *stop = *step > 0 ? n : -1;
    for (int i = 0; i < 2; i++) {
        if (parts[i].kind == TM_NONE)
            continue;
        if (!tm_whole(&parts[i], &v))
            return false;
        v = v < 0 ? v + n : v;
        if (*step > 0)
            v = v < 0 ? 0 : v > n ? n : v;
        else
            v = v < -1 ? -1 : v > n - 1 ? n - 1 : v;
        *(i ? stop : start) = v;
    }
    return true;
}

static struct tm_value slice(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value v = tm_eval(r, n->a), parts[3], out;
    const struct tm_node *p = n->list;
    int64_t start, stop, step;
    for (int i = 0; i < 3; i++, p = p->next)
        parts[i] = p->kind == TM_N_GROUP ? TM_NOTHING : tm_eval(r, p);
    if (tm_failed(r))
        return TM_NOTHING;
    if (v.kind != TM_LIST && v.kind != TM_TUPLE && v.kind != TM_STR)
        return v.kind == TM_UNDEFINED ? tm_fail(r, "'%.*s' is undefined", (int)v.n, v.s) : tm_fail(r, "%s has no slices", tm_kind_name(&v));
    int64_t count = v.kind == TM_STR ? (int64_t)tm_chars(&v) : (int64_t)v.list->n;
    if (!slice_bounds(parts, count, &start, &stop, &step))
        return tm_fail(r, "a slice takes whole numbers, and a step that is not 0");
    if (v.kind == TM_STR && step == 1) {
        size_t from = tm_char_at(&v, (size_t)start), to = stop > start ? tm_char_at(&v, (size_t)stop) : from;
        return tm_step(r, 1 + v.n / 256) ? tm_borrow(v.s + from, to - from) : TM_NOTHING;
    }
    out = tm_new_list(r, v.kind == TM_TUPLE ? TM_TUPLE : TM_LIST);
    const struct tm_list *from = tm_iterate(r, &v);
    for (int64_t i = start; !tm_failed(r) && (step > 0 ? i < stop : i > stop); i += step)
        tm_append(r, out.list, from->v[i]);
    struct tm_value nothing = tm_borrow("", 0);
    return tm_failed(r) ? TM_NOTHING : v.kind == TM_STR ? tm_join(r, &nothing, out.list) : out;
}

/* ---- operators ---- */

static struct tm_value concat(struct tm_run *r, const struct tm_value *a, const struct tm_value *b)
{
    struct qp_buf out = QP_BUF_INIT;
    tm_str(r, a, &out);
    tm_str(r, b, &out);
    return tm_take(r, &out);
}

static struct tm_value joined_lists(struct tm_run *r, const struct tm_value *a, const struct tm_value *b)
{
    struct tm_value l = tm_new_list(r, a->kind);
    for (size_t i = 0; i < a->list->n && !tm_failed(r); i++)
        tm_append(r, l.list, a->list->v[i]);
    for (size_t i = 0; i < b->list->n && !tm_failed(r); i++)
        tm_append(r, l.list, b->list->v[i]);
    return l;
}

static struct tm_value repeated(struct tm_run *r, const struct tm_value *v, int64_t times)
{
    struct qp_buf out = QP_BUF_INIT;
    struct tm_value l = TM_NOTHING;
    if (v->kind != TM_STR)
        l = tm_new_list(r, v->kind);
    for (int64_t i = 0; i < times && tm_step(r, 1) && out.len <= r->out_limit; i++)
        if (v->kind == TM_STR)
            qp_buf_add(&out, v->s, v->n);
        else
            for (size_t k = 0; k < v->list->n && !tm_failed(r); k++)
                tm_append(r, l.list, v->list->v[k]);
    if (out.len > r->out_limit)
        tm_fail(r, "text of more than %zu MB", r->out_limit >> 20);
    return v->kind == TM_STR ? tm_take(r, &out) : l;
}

static struct tm_value whole_numbers(struct tm_run *r, enum tm_op op, int64_t a, int64_t b)
{
    int64_t out = 0;
    bool over = false;
    switch (op) {
    case TM_ADD:
        over = __builtin_add_overflow(a, b, &out);
        break;
    case TM_SUB:
        over = __builtin_sub_overflow(a, b, &out);
        break;
    case TM_MUL:
        over = __builtin_mul_overflow(a, b, &out);
        break;
    case TM_FLOORDIV:
    case TM_MOD:
        if (!b)
            return tm_fail(r, "division by zero");
        over = a == INT64_MIN && b == -1;
        if (!over) { /* toward minus infinity */
            int64_t q = a / b, m = a % b;
            bool down = m && (m < 0) != (b < 0);
            out = op == TM_MOD ? m + (down ? b : 0) : q - down;
        }
        break;
    default: /* TM_POW, b >= 0 */
        out = 1;
        for (int64_t i = 0; i < b && !over && tm_step(r, 1); i++)
            over = __builtin_mul_overflow(out, a, &out);
    }
    return over ? tm_fail(r, "a number beyond 64 bits") : tm_int(out);
}

static struct tm_value numbers(struct tm_run *r, enum tm_op op, double a, double b)
{
    if (b == 0 && (op == TM_DIV || op == TM_FLOORDIV || op == TM_MOD))
        return tm_fail(r, "division by zero");
    switch (op) {
    case TM_ADD:
        return tm_float(a + b);
    case TM_SUB:
        return tm_float(a - b);
    case TM_MUL:
        return tm_float(a * b);
    case TM_DIV:
        return tm_float(a / b);
    case TM_FLOORDIV:
        return tm_float(floor(a / b));
    case TM_MOD:
        return tm_float(a - b * floor(a / b));
    default:
        return tm_float(pow(a, b));
    }
}

struct tm_value tm_binary(struct tm_run *r, enum tm_op op, const struct tm_value *a, const struct tm_value *b)
{
    static const char *const signs[] = {[TM_ADD] = "+", [TM_SUB] = "-", [TM_MUL] = "*", [TM_DIV] = "/", [TM_FLOORDIV] = "//", [TM_MOD] = "%", [TM_POW] = "**"};
    int64_t i, k;
    double x, y;
    if (tm_failed(r))
        return TM_NOTHING;
    if (op == TM_CONCAT)
        return concat(r, a, b);
    if (a->kind == TM_UNDEFINED || b->kind == TM_UNDEFINED) {
        const struct tm_value *u = a->kind == TM_UNDEFINED ? a : b;
        return tm_fail(r, "'%.*s' is undefined", (int)u->n, u->s);
    }
    if (tm_whole(a, &i) && tm_whole(b, &k) && op != TM_DIV && !(op == TM_POW && k < 0))
        return whole_numbers(r, op, i, k);
    if (tm_number(a, &x) && tm_number(b, &y))
        return numbers(r, op, x, y);
    if (op == TM_ADD && a->kind == TM_STR && b->kind == TM_STR)
        return concat(r, a, b);
    if (op == TM_ADD && a->kind == b->kind && (a->kind == TM_LIST || a->kind == TM_TUPLE))
        return joined_lists(r, a, b);
    if (op == TM_MUL && tm_whole(b, &k) && (a->kind == TM_STR || a->kind == TM_LIST || a->kind == TM_TUPLE))
        return repeated(r, a, k);
    if (op == TM_MUL && tm_whole(a, &k) && (b->kind == TM_STR || b->kind == TM_LIST || b->kind == TM_TUPLE))
        return repeated(r, b, k);
    if (op == TM_MOD && a->kind == TM_STR)
        return tm_fail(r, "formatting with '%%' is not supported");
    return tm_fail(r, "'%s' of %s and %s", signs[op], tm_kind_name(a), tm_kind_name(b));
}

static bool compare_one(struct tm_run *r, enum tm_op op, const struct tm_value *a, const struct tm_value *b)
{
    if (op == TM_IN || op == TM_NOT_IN)
        return tm_contains(r, b, a) == (op == TM_IN);
    if ((a->kind == TM_UNDEFINED || b->kind == TM_UNDEFINED) && (r->t->flags & QP_TEMPLATE_STRICT)) {
        tm_undefined(r, a->kind == TM_UNDEFINED ? a : b);
        return false;
    }
    if (op == TM_EQ || op == TM_NE)
        return tm_equal(a, b) == (op == TM_EQ);
    int c = tm_order(r, a, b);
    return op == TM_LT ? c < 0 : op == TM_LE ? c <= 0 : op == TM_GT ? c > 0 : c >= 0;
}

static struct tm_value compare(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value a = tm_eval(r, n->a);
    for (; n && !tm_failed(r); n = n->c) {
        struct tm_value b = tm_eval(r, n->b);
        if (tm_failed(r) || !compare_one(r, n->op, &a, &b))
            return tm_bool(false);
        a = b;
    }
    return tm_bool(true);
}

static struct tm_value unary(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value v = tm_eval(r, n->a), zero = tm_int(0);
    double x;
    if (tm_failed(r) || (n->op == TM_ADD && tm_number(&v, &x)))
        return v;
    if (v.kind == TM_FLOAT)
        return tm_float(-v.f);
    return n->op == TM_SUB ? tm_binary(r, TM_SUB, &zero, &v) : tm_fail(r, "'+' of %s", tm_kind_name(&v));
}

/* ---- the tree ---- */

static void evaluate_args(struct tm_run *r, const struct tm_node *list, struct tm_args *out)
{
    out->n = out->n_kw = 0;
    for (; list && !tm_failed(r); list = list->next) { /* at most TM_MAX_ARGS: checked while reading */
        if (list->name) {
            out->kw[out->n_kw].name = list->name;
            out->kw[out->n_kw].n = list->n;
            out->kw[out->n_kw++].value = tm_eval(r, list->a);
        } else if (out->n_kw)
            tm_fail(r, "a positional argument after one with a name");
        else
            out->v[out->n++] = tm_eval(r, list->a);
    }
}

static struct tm_value collection(struct tm_run *r, const struct tm_node *n)
{
    if (n->kind == TM_N_DICT) {
        struct tm_value d = tm_new_dict(r, TM_DICT);
        for (const struct tm_node *k = n->list; k && !tm_failed(r); k = k->next->next) {
            struct tm_value key = tm_eval(r, k), value = tm_eval(r, k->next);
            if (key.kind == TM_LIST || key.kind == TM_DICT)
                tm_fail(r, "%s is no key", tm_kind_name(&key));
            if (!tm_failed(r))
                tm_put(r, d.dict, key, value);
        }
        return d;
    }
    struct tm_value l = tm_new_list(r, n->kind == TM_N_LIST ? TM_LIST : TM_TUPLE);
    for (const struct tm_node *k = n->list; k && !tm_failed(r); k = k->next)
        tm_append(r, l.list, tm_eval(r, k));
    return l;
}

static struct tm_value applied(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value v = n->a ? tm_eval(r, n->a) : r->block;
    struct tm_args args;
    evaluate_args(r, n->list, &args);
    r->line = n->line;
    if (tm_failed(r) || !tm_step(r, 1 + (v.kind == TM_STR ? v.n / 256 : 0)))
        return TM_NOTHING;
    if (n->kind == TM_N_TEST)
        return tm_bool(tm_test(r, n->name, n->n, &v, &args) != n->negated);
    if (n->kind == TM_N_FILTER)
        return tm_filter(r, n->name, n->n, &v, &args);
    return tm_call(r, &v, &args);
}

static struct tm_value choose(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value v;
    switch (n->kind) {
    case TM_N_AND:
    case TM_N_OR:
        v = tm_eval(r, n->a);
        if (v.kind == TM_UNDEFINED && (r->t->flags & QP_TEMPLATE_STRICT))
            return tm_undefined(r, &v);
        return tm_failed(r) || tm_truth(&v) == (n->kind == TM_N_OR) ? v : tm_eval(r, n->b);
    case TM_N_NOT:
        v = tm_eval(r, n->a);
        if (v.kind == TM_UNDEFINED && (r->t->flags & QP_TEMPLATE_STRICT))
            return tm_undefined(r, &v);
        return tm_bool(!tm_truth(&v));
    default: /* TM_N_COND */
        v = tm_eval(r, n->b);
        if (tm_failed(r))
            return v;
        return tm_truth(&v) ? tm_eval(r, n->a) : n->c ? tm_eval(r, n->c) : undefined("if", 2, NULL);
    }
}

static struct tm_value evaluate(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value a, b;
    switch (n->kind) {
    case TM_N_CONST:
        return n->value;
    case TM_N_NAME:
        return lookup(r, n->name, n->n);
    case TM_N_LIST:
    case TM_N_TUPLE:
    case TM_N_DICT:
        return collection(r, n);
    case TM_N_ATTR:
        a = tm_eval(r, n->a);
        return tm_failed(r) ? a : tm_attribute(r, &a, n->name, n->n);
    case TM_N_ITEM:
        a = tm_eval(r, n->a);
        b = tm_eval(r, n->b);
        return tm_failed(r) ? a : tm_item(r, &a, &b);
    case TM_N_SLICE:
        return slice(r, n);
    case TM_N_CALL:
    case TM_N_FILTER:
    case TM_N_TEST:
        return applied(r, n);
    case TM_N_UNARY:
        return unary(r, n);
    case TM_N_BINARY:
        a = tm_eval(r, n->a);
        b = tm_eval(r, n->b);
        return tm_binary(r, n->op, &a, &b);
    case TM_N_COMPARE:
        return compare(r, n);
    default:
        return choose(r, n);
    }
}

struct tm_value tm_eval(struct tm_run *r, const struct tm_node *n)
{
    if (!tm_step(r, 1))
        return TM_NOTHING;
    r->line = n->line;
    if (++r->depth > TM_MAX_DEPTH)
        return tm_fail(r, "nested deeper than %d", TM_MAX_DEPTH);
    struct tm_value v = evaluate(r, n);
    r->depth--;
    return tm_failed(r) ? TM_NOTHING : v;
}
