/* Values of a rendering: made in its arena, compared and ordered as Python does. */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "text/internal.h"
#include "text/template_internal.h"

#define CHUNK ((size_t)16 << 10)
#define MAX_STEPS 5000000
#define MAX_JSON_DEPTH 64

struct tm_chunk {
    struct tm_chunk *next;
    size_t used, size;
};
#define HEADER ((sizeof(struct tm_chunk) + 15) / 16 * 16)

void *tm_alloc(struct tm_arena *a, size_t n)
{
    struct tm_chunk *c = a->chunks;
    n = (n + 15) / 16 * 16;
    if (!c || c->size - c->used < n) {
        size_t size = HEADER + (n > CHUNK ? n : CHUNK);
        if (n > a->limit || a->total + size > a->limit || !(c = malloc(size)))
            return NULL;
        *c = (struct tm_chunk){a->chunks, HEADER, size};
        a->chunks = c;
        a->total += size;
    }
    void *p = (char *)c + c->used;
    c->used += n;
    return p;
}

void tm_arena_release(struct tm_arena *a)
{
    for (struct tm_chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    a->chunks = NULL;
    a->total = 0;
}

struct tm_value tm_fail(struct tm_run *r, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    tm_error(r->t, r->line, r->err, "%s", text);
    return TM_NOTHING;
}

bool tm_step(struct tm_run *r, size_t n)
{
    if (tm_failed(r))
        return false;
    r->steps += (int64_t)(n < MAX_STEPS ? n : MAX_STEPS);
    if (r->steps > MAX_STEPS)
        qp_err_set(r->err, QP_E_RESOURCE, "%s line %d: more than %d steps", r->t->name, r->line, MAX_STEPS);
    return !tm_failed(r);
}

void *tm_make(struct tm_run *r, size_t n)
{
    void *p = tm_alloc(&r->arena, n);
    if (p)
        memset(p, 0, n);
    else
        qp_err_set(r->err, QP_E_RESOURCE, "%s line %d: its values take more than %zu MB", r->t->name, r->line, r->arena.limit >> 20);
    return p;
}

struct tm_value tm_bool(bool b)
{
    return (struct tm_value){.kind = TM_BOOL, .b = b};
}

struct tm_value tm_int(int64_t i)
{
    return (struct tm_value){.kind = TM_INT, .i = i};
}

struct tm_value tm_float(double f)
{
    return (struct tm_value){.kind = TM_FLOAT, .f = f};
}

struct tm_value tm_borrow(const char *s, size_t n)
{
    return (struct tm_value){.kind = TM_STR, .n = (uint32_t)n, .s = s ? s : ""};
}

struct tm_value tm_copy(struct tm_run *r, const char *s, size_t n)
{
    char *p = tm_make(r, n + 1);
    if (!p)
        return TM_NOTHING;
    if (n)
        memcpy(p, s, n);
    return tm_borrow(p, n);
}

struct tm_value tm_take(struct tm_run *r, struct qp_buf *b)
{
    struct tm_value v = TM_NOTHING;
    if (!qp_buf_check(b, r->err))
        v = tm_copy(r, b->data, b->len);
    qp_buf_release(b);
    return v;
}

struct tm_value tm_new_list(struct tm_run *r, enum tm_kind kind)
{
    struct tm_list *l = tm_make(r, sizeof *l);
    return l ? (struct tm_value){.kind = kind, .list = l} : TM_NOTHING;
}

/* A block of twice the size (8 at first) with the old elements; NULL: failed. */
static void *grow(struct tm_run *r, const void *v, size_t n, size_t *cap, size_t size)
{
    size_t wanted = *cap ? 2 * *cap : 8;
    void *grown = tm_make(r, wanted * size);
    if (grown && n)
        memcpy(grown, v, n * size);
    if (grown)
        *cap = wanted;
    return grown;
}

void tm_append(struct tm_run *r, struct tm_list *l, struct tm_value v)
{
    if (!tm_step(r, 1))
        return;
    if (l->n == l->cap) {
        void *grown = grow(r, l->v, l->n, &l->cap, sizeof *l->v);
        if (!grown)
            return;
        l->v = grown;
    }
    l->v[l->n++] = v;
}

struct tm_value tm_new_dict(struct tm_run *r, enum tm_kind kind)
{
    struct tm_dict *d = tm_make(r, sizeof *d);
    return d ? (struct tm_value){.kind = kind, .dict = d} : TM_NOTHING;
}

const struct tm_value *tm_find_key(const struct tm_dict *d, struct tm_value key)
{
    for (size_t i = 0; i < d->n; i++)
        if (tm_equal(&d->v[i].key, &key))
            return &d->v[i].value;
    return NULL;
}

const struct tm_value *tm_find(const struct tm_dict *d, const char *s, size_t n)
{
    return tm_find_key(d, tm_borrow(s, n));
}

void tm_put(struct tm_run *r, struct tm_dict *d, struct tm_value key, struct tm_value value)
{
    if (!tm_step(r, 1 + d->n / 8)) /* keys are searched one by one */
        return;
    struct tm_value *old = (struct tm_value *)(uintptr_t)tm_find_key(d, key);
    if (old) {
        *old = value;
        return;
    }
    if (d->n == d->cap) {
        void *grown = grow(r, d->v, d->n, &d->cap, sizeof *d->v);
        if (!grown)
            return;
        d->v = grown;
    }
    d->v[d->n++] = (struct tm_pair){key, value};
}

bool tm_truth(const struct tm_value *v)
{
    switch (v->kind) {
    case TM_UNDEFINED:
    case TM_NONE:
        return false;
    case TM_BOOL:
        return v->b;
    case TM_INT:
        return v->i != 0;
    case TM_FLOAT:
        return v->f != 0;
    case TM_STR:
        return v->n != 0;
    case TM_LIST:
    case TM_TUPLE:
        return v->list->n != 0;
    case TM_DICT:
        return v->dict->n != 0;
    default:
        return true;
    }
}

bool tm_whole(const struct tm_value *v, int64_t *i)
{
    *i = v->kind == TM_BOOL ? v->b : v->i;
    return v->kind == TM_BOOL || v->kind == TM_INT;
}

bool tm_number(const struct tm_value *v, double *f)
{
    int64_t i;
    bool whole = tm_whole(v, &i);
    *f = whole ? (double)i : v->f;
    return whole || v->kind == TM_FLOAT;
}

static bool equal_lists(const struct tm_list *a, const struct tm_list *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!tm_equal(&a->v[i], &b->v[i]))
            return false;
    return true;
}

static bool equal_dicts(const struct tm_dict *a, const struct tm_dict *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct tm_value *other = tm_find_key(b, a->v[i].key);
        if (!other || !tm_equal(&a->v[i].value, other))
            return false;
    }
    return true;
}

bool tm_equal(const struct tm_value *a, const struct tm_value *b)
{
    int64_t i, k;
    double x, y;
    if (tm_whole(a, &i) && tm_whole(b, &k))
        return i == k;
    if (tm_number(a, &x) && tm_number(b, &y))
        return x == y;
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case TM_UNDEFINED:
    case TM_NONE:
        return true;
    case TM_STR:
        return a->n == b->n && !memcmp(a->s, b->s, a->n);
    case TM_LIST:
    case TM_TUPLE:
        return equal_lists(a->list, b->list);
    case TM_DICT:
        return equal_dicts(a->dict, b->dict);
    default:
        return a->dict == b->dict; /* the same object */
    }
}

const char *tm_kind_name(const struct tm_value *v)
{
    static const char *const names[] = {[TM_UNDEFINED] = "an undefined value", [TM_NONE] = "none", [TM_BOOL] = "a boolean", [TM_INT] = "a number", [TM_FLOAT] = "a number", [TM_STR] = "text",
                                        [TM_LIST] = "a list", [TM_TUPLE] = "a tuple", [TM_DICT] = "a mapping", [TM_NAMESPACE] = "a namespace", [TM_LOOP] = "a loop", [TM_FUNCTION] = "a function",
                                        [TM_METHOD] = "a method", [TM_MACRO] = "a macro"};
    return names[v->kind];
}

int tm_order(struct tm_run *r, const struct tm_value *a, const struct tm_value *b)
{
    int64_t i, k;
    double x, y;
    if (tm_whole(a, &i) && tm_whole(b, &k))
        return (i > k) - (i < k);
    if (tm_number(a, &x) && tm_number(b, &y))
        return (x > y) - (x < y);
    if (a->kind == TM_STR && b->kind == TM_STR) { /* UTF-8 keeps the order of code points */
        size_t n = a->n < b->n ? a->n : b->n;
        int c = n ? memcmp(a->s, b->s, n) : 0;
        return c ? c : (a->n > b->n) - (a->n < b->n);
    }
    if (a->kind == b->kind && (a->kind == TM_LIST || a->kind == TM_TUPLE)) {
        for (size_t at = 0; at < a->list->n && at < b->list->n && tm_step(r, 1); at++)
            if (!tm_equal(&a->list->v[at], &b->list->v[at]))
                return tm_order(r, &a->list->v[at], &b->list->v[at]);
        return (a->list->n > b->list->n) - (a->list->n < b->list->n);
    }
    tm_fail(r, "%s and %s have no order", tm_kind_name(a), tm_kind_name(b));
    return 0;
}

bool tm_contains(struct tm_run *r, const struct tm_value *in, const struct tm_value *v)
{
    switch (in->kind) {
    case TM_STR:
        if (v->kind != TM_STR)
            tm_fail(r, "%s is looked for in text", tm_kind_name(v));
        return v->kind == TM_STR && tm_step(r, 1 + in->n / 256) && (!v->n || memmem(in->s, in->n, v->s, v->n));
    case TM_LIST:
    case TM_TUPLE:
        if (!tm_step(r, in->list->n))
            return false;
        for (size_t i = 0; i < in->list->n; i++)
            if (tm_equal(&in->list->v[i], v))
                return true;
        return false;
    case TM_DICT:
        return tm_step(r, 1 + in->dict->n / 8) && tm_find_key(in->dict, *v);
    case TM_UNDEFINED:
        if (r->t->flags & QP_TEMPLATE_STRICT)
            tm_undefined(r, in);
        return false;
    default:
        tm_fail(r, "'in' needs text, a list or a mapping, not %s", tm_kind_name(in));
        return false;
    }
}

const struct tm_list *tm_iterate(struct tm_run *r, const struct tm_value *v)
{
    struct tm_value l;
    if (v->kind == TM_LIST || v->kind == TM_TUPLE)
        return v->list;
    if (v->kind == TM_UNDEFINED && (r->t->flags & QP_TEMPLATE_STRICT)) {
        tm_undefined(r, v);
        return NULL;
    }
    l = tm_new_list(r, TM_LIST);
    if (tm_failed(r))
        return NULL;
    switch (v->kind) {
    case TM_UNDEFINED:
        break;
    case TM_DICT:
        for (size_t i = 0; i < v->dict->n; i++)
            tm_append(r, l.list, v->dict->v[i].key);
        break;
    case TM_STR:
        for (size_t at = 0, next; at < v->n && !tm_failed(r); at = next) {
            for (next = at + 1; next < v->n && (v->s[next] & 0xc0) == 0x80;)
                next++;
            tm_append(r, l.list, tm_borrow(v->s + at, next - at));
        }
        break;
    default:
        tm_fail(r, "%s cannot be iterated", tm_kind_name(v));
    }
    return tm_failed(r) ? NULL : l.list;
}

static struct tm_value from_json(struct tm_run *r, const json_t *j, int depth)
{
    struct tm_value v;
    json_t *item;
    const char *key;
    size_t i;
    if (depth > MAX_JSON_DEPTH)
        return tm_fail(r, "values nest deeper than %d", MAX_JSON_DEPTH);
    switch (json_typeof(j)) {
    case JSON_STRING:
        return tm_borrow(json_string_value(j), json_string_length(j));
    case JSON_INTEGER:
        return tm_int(json_integer_value(j));
    case JSON_REAL:
        return tm_float(json_real_value(j));
    case JSON_TRUE:
    case JSON_FALSE:
        return tm_bool(json_is_true(j));
    case JSON_ARRAY:
        v = tm_new_list(r, TM_LIST);
        for (i = 0; i < json_array_size(j) && !tm_failed(r); i++)
            tm_append(r, v.list, from_json(r, json_array_get(j, i), depth + 1));
        return v;
    case JSON_OBJECT:
        v = tm_new_dict(r, TM_DICT);
        json_object_foreach((json_t *)(uintptr_t)j, key, item)
            if (!tm_failed(r))
                tm_put(r, v.dict, tm_borrow(key, strlen(key)), from_json(r, item, depth + 1));
        return v;
    default:
        return TM_NOTHING;
    }
}

struct tm_value tm_from_json(struct tm_run *r, const struct json_t *j)
{
    return from_json(r, j, 0);
}
