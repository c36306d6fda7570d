/* Statements of a template; opening and rendering. */
#include "base/mem.h"
#include "text/internal.h"
#include "text/template_internal.h"

#define MAX_TEXT ((size_t)256 << 10)
#define MAX_OUTPUT ((size_t)16 << 20)
#define MAX_VALUES ((size_t)64 << 20)
#define MAX_LOOPS 24

static void output(struct tm_run *r, const struct tm_value *v)
{
    tm_str(r, v, r->out);
}

/* A new innermost frame; NULL: failed. */
static struct tm_frame *enter(struct tm_run *r)
{
    struct tm_frame *f = tm_make(r, sizeof *f);
    if (f) {
        f->up = r->frame;
        r->frame = f;
    }
    return f;
}

static void assign(struct tm_run *r, const struct tm_node *target, struct tm_value v)
{
    r->line = target->line;
    if (target->kind == TM_N_NAME) {
        tm_put(r, &r->frame->vars, tm_borrow(target->name, target->n), v);
        return;
    }
    struct tm_value ns = tm_eval(r, target->a);
    if (tm_failed(r))
        return;
    if (ns.kind != TM_NAMESPACE)
        tm_fail(r, "'%.*s' is no namespace: its attributes cannot be set", (int)target->a->n, target->a->name);
    else
        tm_put(r, ns.dict, tm_borrow(target->name, target->n), v);
}

static void assign_all(struct tm_run *r, const struct tm_node *targets, struct tm_value v)
{
    size_t wanted = 0, i = 0;
    if (!targets->next) {
        assign(r, targets, v);
        return;
    }
    const struct tm_list *l = tm_iterate(r, &v);
    for (const struct tm_node *t = targets; t; t = t->next)
        wanted++;
    if (l && l->n != wanted)
        tm_fail(r, "%zu values for %zu names", l->n, wanted);
    for (const struct tm_node *t = targets; t && l && !tm_failed(r); t = t->next)
        assign(r, t, l->v[i++]);
}

/* The items that the loop's `if` lets pass: loop counts those alone. */
static const struct tm_list *passed(struct tm_run *r, const struct tm_node *n, const struct tm_list *items)
{
    struct tm_value kept = tm_new_list(r, TM_LIST);
    struct tm_frame *f = enter(r);
    for (size_t i = 0; f && i < items->n && !tm_failed(r); i++) {
        f->vars.n = 0;
        assign_all(r, n->list, items->v[i]);
        struct tm_value yes = tm_eval(r, n->b);
        if (!tm_failed(r) && tm_truth(&yes))
            tm_append(r, kept.list, items->v[i]);
    }
    if (f)
        r->frame = f->up;
    return tm_failed(r) ? NULL : kept.list;
}

static void loop(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value over = tm_eval(r, n->a);
    const struct tm_list *items = tm_failed(r) ? NULL : tm_iterate(r, &over);
    struct tm_loop *l = items ? tm_make(r, sizeof *l) : NULL;
    if (l && n->b)
        items = passed(r, n, items);
    if (!l || !items)
        return;
    if (++r->loops > MAX_LOOPS)
        tm_fail(r, "loops nest deeper than %d", MAX_LOOPS);
    l->items = items;
    struct tm_frame *f = enter(r);
    for (; f && l->at < items->n && !tm_failed(r); l->at++) {
        f->vars.n = 0;
        tm_put(r, &f->vars, tm_borrow("loop", 4), (struct tm_value){.kind = TM_LOOP, .loop = l});
        assign_all(r, n->list, items->v[l->at]);
        tm_render(r, n->body);
        int leaving = r->leaving;
        r->leaving = 0;
        if (leaving == TM_N_BREAK)
            break;
    }
    if (f)
        r->frame = f->up;
    r->loops--;
    if (!items->n && n->other)
        tm_render(r, n->other);
}

/* What a body writes, as a value. */
static struct tm_value captured(struct tm_run *r, const struct tm_node *body)
{
    struct qp_buf text = QP_BUF_INIT, *outer = r->out;
    r->out = &text;
    tm_render(r, body);
    r->out = outer;
    return tm_take(r, &text);
}

static void set_block(struct tm_run *r, const struct tm_node *n)
{
    struct tm_frame *f = enter(r);
    if (!f)
        return;
    struct tm_value v = captured(r, n->body), outer = r->block;
    r->frame = f->up;
    if (n->a && !tm_failed(r)) {
        r->block = v;
        v = tm_eval(r, n->a);
        r->block = outer;
    }
    if (!tm_failed(r))
        assign_all(r, n->list, v);
}

struct tm_value tm_call_macro(struct tm_run *r, const struct tm_node *m, const struct tm_args *args)
{
    struct tm_frame *caller = r->frame;
    int i = 0, leaving = r->leaving, used = 0;
    r->frame = &r->globals; /* a macro sees what the template's top level has */
    struct tm_frame *f = enter(r);
    for (const struct tm_node *p = m->list; p && f && !tm_failed(r); p = p->next, i++) {
        struct tm_value v = {.kind = TM_UNDEFINED, .n = (uint32_t)p->n, .s = p->name};
        bool given = i < args->n;
        v = given ? args->v[i] : v;
        for (int k = 0; k < args->n_kw && !given; k++)
            if (args->kw[k].n == p->n && !memcmp(args->kw[k].name, p->name, p->n)) {
                v = args->kw[k].value;
                given = true;
                used++;
            }
        if (!given && p->a)
            v = tm_eval(r, p->a);
        tm_put(r, &f->vars, tm_borrow(p->name, p->n), v);
    }
    if (!tm_failed(r) && (args->n > i || used < args->n_kw))
        tm_fail(r, "the macro '%.*s' takes %d arguments of other names", (int)m->n, m->name, i);
    struct tm_value v = tm_failed(r) ? TM_NOTHING : captured(r, m->body);
    r->frame = caller;
    r->leaving = leaving;
    return v;
}

static void conditional(struct tm_run *r, const struct tm_node *n)
{
    while (n && n->kind == TM_N_IF && !tm_failed(r)) {
        struct tm_value yes = tm_eval(r, n->a);
        if (tm_failed(r))
            return;
        if (yes.kind == TM_UNDEFINED)
            tm_undefined(r, &yes);
        if (tm_truth(&yes)) {
            tm_render(r, n->b);
            return;
        }
        n = n->c;
    }
    if (n && !tm_failed(r))
        tm_render(r, n);
}

static void execute(struct tm_run *r, const struct tm_node *n)
{
    struct tm_value v;
    switch (n->kind) {
    case TM_N_GROUP:
        for (const struct tm_node *k = n->body; k && !tm_failed(r) && !r->leaving; k = k->next)
            tm_render(r, k);
        break;
    case TM_N_DATA:
        output(r, &n->value);
        break;
    case TM_N_OUTPUT:
        v = tm_eval(r, n->a);
        if (!tm_failed(r))
            output(r, &v);
        break;
    case TM_N_IF:
        conditional(r, n);
        break;
    case TM_N_FOR:
        loop(r, n);
        break;
    case TM_N_SET:
        v = tm_eval(r, n->a);
        if (!tm_failed(r))
            assign_all(r, n->list, v);
        break;
    case TM_N_SET_BLOCK:
        set_block(r, n);
        break;
    case TM_N_MACRO:
        tm_put(r, &r->frame->vars, tm_borrow(n->name, n->n), (struct tm_value){.kind = TM_MACRO, .macro = n});
        break;
    default: /* TM_N_BREAK, TM_N_CONTINUE */
        r->leaving = (int)n->kind;
    }
}

void tm_render(struct tm_run *r, const struct tm_node *n)
{
    if (!tm_step(r, 1) || r->leaving)
        return;
    r->line = n->line;
    if (++r->depth > TM_MAX_DEPTH)
        tm_fail(r, "nested deeper than %d", TM_MAX_DEPTH);
    else
        execute(r, n);
    r->depth--;
}

/* ---- the contract ---- */

int qp_template_open(struct qp_template **out, const char *name, const char *text, size_t n, unsigned flags, struct qp_err *err)
{
    struct qp_err local = {0};
    struct tm_token *tokens;
    err = err ? err : &local;
    *out = NULL;
    if (n > MAX_TEXT)
        return qp_err_set(err, QP_E_INPUT, "%s: longer than %zu KiB", name, MAX_TEXT >> 10);
    if (qp_utf8_valid(text, n) < n)
        return qp_err_set(err, QP_E_INPUT, "%s: invalid UTF-8 at byte %zu", name, qp_utf8_valid(text, n));
    struct qp_template *t = qp_zalloc(sizeof *t, "template", err);
    if (!t)
        return QP_E_RESOURCE;
    t->arena.limit = MAX_VALUES;
    t->flags = flags;
    t->name = qp_strdup(name, err);
    if (!t->name || tm_lex(t, text, n, &tokens, err) || tm_parse(t, tokens, err)) {
        qp_template_free(t);
        return err->code;
    }
    *out = t;
    return 0;
}

void qp_template_free(struct qp_template *t)
{
    if (!t)
        return;
    tm_arena_release(&t->arena);
    qp_free(t->name);
    qp_free(t);
}

int qp_template_render(const struct qp_template *t, const struct json_t *values, int64_t date, struct qp_buf *out, struct qp_err *err)
{
    struct qp_err local = {0};
    struct qp_buf text = QP_BUF_INIT;
    struct tm_run r = {.t = t, .arena = {.limit = MAX_VALUES}, .out = &text, .err = err ? err : &local, .date = date, .out_limit = MAX_OUTPUT, .line = 1};
    r.frame = &r.globals;
    if (values) {
        struct tm_value v = tm_from_json(&r, values);
        if (v.kind == TM_DICT)
            r.globals.vars = *v.dict;
    }
    if (!tm_failed(&r))
        tm_render(&r, t->body);
    if (!tm_failed(&r) && !qp_buf_check(&text, r.err) && text.len)
        qp_buf_add(out, text.data, text.len);
    qp_buf_release(&text);
    tm_arena_release(&r.arena);
    return r.err->code ? r.err->code : qp_buf_check(out, r.err);
}
