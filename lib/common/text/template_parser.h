/* The parser's state and its small steps, shared by template_parse.c (statements) and template_expr.c (expressions). Private to text/. */
#ifndef QP_TEXT_TEMPLATE_PARSER_H
#define QP_TEXT_TEMPLATE_PARSER_H

#include "text/template_internal.h"

#define TM_PARSE_DEPTH 100

struct parser {
    struct qp_template *t;
    const struct tm_token *k; /* the current token */
    struct qp_err *err;
    int depth, loops;
    struct tm_node spare; /* what a failed allocation gives */
};

static inline struct tm_node *node(struct parser *p, enum tm_node_kind kind)
{
    struct tm_node *n = tm_alloc(&p->t->arena, sizeof *n);
    if (!n) {
        qp_err_set(p->err, QP_E_RESOURCE, "no memory for a template");
        n = &p->spare;
    }
    *n = (struct tm_node){.kind = kind, .line = p->k->line};
    return n;
}

static inline bool failed(const struct parser *p)
{
    return p->err->code != 0;
}

static inline bool at_op(const struct parser *p, const char *op)
{
    return p->k->kind == TM_T_OP && tm_is(p->k->s, p->k->n, op);
}

static inline bool at_name(const struct parser *p, const char *name)
{
    return p->k->kind == TM_T_NAME && tm_is(p->k->s, p->k->n, name);
}

static inline void step(struct parser *p)
{
    if (p->k->kind != TM_T_END)
        p->k++;
}

static inline bool accept(struct parser *p, const char *op)
{
    bool is = at_op(p, op);
    if (is)
        step(p);
    return is;
}

static inline bool accept_name(struct parser *p, const char *name)
{
    bool is = at_name(p, name);
    if (is)
        step(p);
    return is;
}

static inline void unexpected(struct parser *p, const char *wanted)
{
    static const char *const names[] = {[TM_T_CLOSE_OUTPUT] = "'}}'", [TM_T_CLOSE_BLOCK] = "'%}'", [TM_T_END] = "the template's end", [TM_T_DATA] = "text"};
    const struct tm_token *k = p->k;
    if (k->kind == TM_T_NAME || k->kind == TM_T_OP)
        tm_error(p->t, k->line, p->err, "unexpected '%.*s', expected %s", (int)(k->n < 40 ? k->n : 40), k->s, wanted);
    else
        tm_error(p->t, k->line, p->err, "unexpected %s, expected %s", k->kind < sizeof names / sizeof *names && names[k->kind] ? names[k->kind] : "constant", wanted);
}

static inline void expect(struct parser *p, const char *op, const char *wanted)
{
    if (!failed(p) && !accept(p, op))
        unexpected(p, wanted);
}

static inline void take_name(struct parser *p, struct tm_node *n)
{
    if (p->k->kind != TM_T_NAME) {
        if (!failed(p))
            unexpected(p, "a name");
        return;
    }
    n->name = p->k->s;
    n->n = p->k->n;
    step(p);
}

static inline void add(struct tm_node ***tail, struct tm_node *n)
{
    **tail = n;
    *tail = &n->next;
}

/* template_expr.c */
struct tm_node *tm_expression(struct parser *p);   /* with inline if */
struct tm_node *tm_logic(struct parser *p);        /* without it: what a loop goes over */
struct tm_node *tm_expressions(struct parser *p);  /* "a, b" without parentheses is a tuple */
struct tm_node *tm_filters(struct parser *p, struct tm_node *a); /* the filters, tests and calls behind a; a may be NULL */

#endif
