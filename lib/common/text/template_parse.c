/* Statements of templates to a tree. */
#include "text/template_parser.h"

static struct tm_node *statements(struct parser *p, const char *const *ends);

static void close_block(struct parser *p)
{
    if (failed(p))
        return;
    if (p->k->kind != TM_T_CLOSE_BLOCK)
        unexpected(p, "'%}'");
    step(p);
}

/* The body up to one of `ends` (NULL-terminated), which stays the current token; open: the statement that wants it. */
static struct tm_node *body(struct parser *p, const char *const *ends, int line, const char *open)
{
    close_block(p);
    struct tm_node *n = failed(p) ? NULL : statements(p, ends);
    if (!failed(p) && p->k->kind == TM_T_END)
        tm_error(p->t, line, p->err, "'%s' is never closed by '%s'", open, ends[0]);
    return n;
}

static struct tm_node *if_statement(struct parser *p)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL}, *const last[] = {"endif", NULL};
    struct tm_node *n = node(p, TM_N_IF);
    n->a = tm_expressions(p);
    n->b = body(p, ends, n->line, "if");
    if (failed(p))
        return n;
    if (accept_name(p, "elif")) {
        if (++p->depth > TM_PARSE_DEPTH)
            tm_error(p->t, n->line, p->err, "more than %d 'elif'", TM_PARSE_DEPTH);
        n->c = failed(p) ? NULL : if_statement(p);
        p->depth--;
        return n;
    }
    if (accept_name(p, "else"))
        n->c = body(p, last, n->line, "if");
    step(p); /* endif */
    close_block(p);
    return n;
}

/* a, b or (a, b); attributes: ns.a */
static struct tm_node *targets(struct parser *p, bool attributes)
{
    struct tm_node *list = NULL, **tail = &list;
    bool parens = accept(p, "(");
    do {
        struct tm_node *n = node(p, TM_N_NAME);
        take_name(p, n);
        if (attributes && accept(p, ".")) {
            struct tm_node *of = n;
            n = node(p, TM_N_ATTR);
            n->a = of;
            take_name(p, n);
        }
        add(&tail, n);
    } while (!failed(p) && accept(p, ","));
    if (parens)
        expect(p, ")", "')'");
    return list;
}

static struct tm_node *for_statement(struct parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    struct tm_node *n = node(p, TM_N_FOR);
    n->list = targets(p, false);
    if (!failed(p) && !accept_name(p, "in"))
        unexpected(p, "'in'");
    n->a = failed(p) ? NULL : tm_logic(p); /* an `if` after it is the loop's filter */
    if (!failed(p) && accept_name(p, "if"))
        n->b = tm_expression(p);
    if (!failed(p) && at_name(p, "recursive"))
        tm_error(p->t, p->k->line, p->err, "recursive loops are not supported");
    p->loops++;
    n->body = body(p, ends, n->line, "for");
    p->loops--;
    if (!failed(p) && accept_name(p, "else"))
        n->other = body(p, last, n->line, "for");
    if (!failed(p))
        step(p); /* endfor */
    close_block(p);
    return n;
}

static struct tm_node *set_statement(struct parser *p)
{
    static const char *const ends[] = {"endset", NULL};
    struct tm_node *n = node(p, TM_N_SET);
    n->list = targets(p, true);
    if (failed(p))
        return n;
    if (accept(p, "=")) {
        n->a = tm_expressions(p);
        close_block(p);
        return n;
    }
    n->kind = TM_N_SET_BLOCK;
    if (at_op(p, "|")) { /* a FILTER over nothing: the body's text takes its place */
        n->a = tm_filters(p, NULL);
    }
    n->body = body(p, ends, n->line, "set");
    if (!failed(p))
        step(p);
    close_block(p);
    return n;
}

static struct tm_node *macro_statement(struct parser *p)
{
    static const char *const ends[] = {"endmacro", NULL};
    struct tm_node *n = node(p, TM_N_MACRO), **tail = &n->list;
    int outer = p->loops;
    bool defaults = false;
    take_name(p, n);
    expect(p, "(", "'('");
    while (!failed(p) && !at_op(p, ")")) {
        struct tm_node *arg = node(p, TM_N_ARG);
        take_name(p, arg);
        if (accept(p, "="))
            arg->a = tm_expression(p);
        else if (defaults && !failed(p))
            tm_error(p->t, arg->line, p->err, "'%.*s' has no default, but stands behind one that has", (int)arg->n, arg->name);
        defaults = arg->a != NULL;
        add(&tail, arg);
        if (!accept(p, ","))
            break;
    }
    expect(p, ")", "',' or ')'");
    p->loops = 0;
    n->body = body(p, ends, n->line, "macro");
    p->loops = outer;
    if (!failed(p))
        step(p);
    close_block(p);
    return n;
}

/* transformers' mark for what a model was trained on: its text as it is. */
static struct tm_node *generation_statement(struct parser *p)
{
    static const char *const ends[] = {"endgeneration", NULL};
    struct tm_node *n = node(p, TM_N_GROUP);
    n->body = body(p, ends, n->line, "generation");
    if (!failed(p))
        step(p);
    close_block(p);
    return n;
}

static struct tm_node *statement(struct parser *p)
{
    if (accept_name(p, "if"))
        return if_statement(p);
    if (accept_name(p, "for"))
        return for_statement(p);
    if (accept_name(p, "set"))
        return set_statement(p);
    if (accept_name(p, "macro"))
        return macro_statement(p);
    if (accept_name(p, "generation"))
        return generation_statement(p);
    if (at_name(p, "break") || at_name(p, "continue")) {
        struct tm_node *n = node(p, at_name(p, "break") ? TM_N_BREAK : TM_N_CONTINUE);
        if (!p->loops)
            tm_error(p->t, n->line, p->err, "'%.*s' outside of a loop", (int)p->k->n, p->k->s);
        step(p);
        close_block(p);
        return n;
    }
    if (p->k->kind == TM_T_NAME)
        tm_error(p->t, p->k->line, p->err, "the statement '%.*s' is not supported", (int)p->k->n, p->k->s);
    else
        unexpected(p, "a statement");
    return &p->spare;
}

static bool at_end(const struct parser *p, const char *const *ends)
{
    for (; *ends; ends++)
        if (at_name(p, *ends))
            return true;
    return false;
}

static struct tm_node *statements(struct parser *p, const char *const *ends)
{
    struct tm_node *group = node(p, TM_N_GROUP), **tail = &group->body;
    if (++p->depth > TM_PARSE_DEPTH)
        tm_error(p->t, p->k->line, p->err, "nested deeper than %d", TM_PARSE_DEPTH);
    while (!failed(p) && p->k->kind != TM_T_END) {
        struct tm_node *n;
        if (p->k->kind == TM_T_DATA) {
            n = node(p, TM_N_DATA);
            n->value = (struct tm_value){.kind = TM_STR, .n = (uint32_t)p->k->n, .s = p->k->s};
            step(p);
        } else if (p->k->kind == TM_T_OPEN_OUTPUT) {
            step(p);
            n = node(p, TM_N_OUTPUT);
            n->a = tm_expressions(p);
            if (!failed(p) && p->k->kind != TM_T_CLOSE_OUTPUT)
                unexpected(p, "'}}'");
            step(p);
        } else {
            step(p); /* "{%" */
            if (at_end(p, ends))
                break;
            n = statement(p);
        }
        add(&tail, n);
    }
    p->depth--;
    return group;
}

int tm_parse(struct qp_template *t, const struct tm_token *tokens, struct qp_err *err)
{
    static const char *const none[] = {NULL};
    struct parser p = {.t = t, .k = tokens, .err = err};
    t->body = statements(&p, none);
    return err->code;
}
