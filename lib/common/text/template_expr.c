/* Expressions of templates to a tree, with jinja2's grammar and precedence. Names of filters and tests are checked here, so that what is not supported never
 * waits for the one prompt that needs it. */
#include "text/template_parser.h"

static struct tm_node *unary(struct parser *p, bool filters);

static struct tm_node *constant(struct parser *p, struct tm_value v)
{
    struct tm_node *n = node(p, TM_N_CONST);
    n->value = v;
    return n;
}

static struct tm_node *name_or_constant(struct parser *p)
{
    static const struct {
        const char *name;
        struct tm_value v;
    } constants[] = {{"true", {.kind = TM_BOOL, .b = true}}, {"True", {.kind = TM_BOOL, .b = true}}, {"false", {.kind = TM_BOOL}}, {"False", {.kind = TM_BOOL}}, {"none", {.kind = TM_NONE}}, {"None", {.kind = TM_NONE}}};
    struct tm_node *n = NULL;
    for (size_t i = 0; i < sizeof constants / sizeof *constants && !n; i++)
        if (at_name(p, constants[i].name))
            n = constant(p, constants[i].v);
    if (n) {
        step(p);
        return n;
    }
    n = node(p, TM_N_NAME);
    take_name(p, n);
    return n;
}

/* Neighbouring strings are one. */
static struct tm_node *string(struct parser *p)
{
    const struct tm_token *k = p->k;
    size_t total = 0;
    for (; k->kind == TM_T_STRING; k++)
        total += k->n;
    char *text = tm_alloc(&p->t->arena, total + 1), *o = text;
    struct tm_node *n = node(p, TM_N_CONST);
    for (; p->k->kind == TM_T_STRING; step(p))
        if (text) {
            memcpy(o, p->k->s, p->k->n);
            o += p->k->n;
        }
    if (!text)
        qp_err_set(p->err, QP_E_RESOURCE, "no memory for a template");
    n->value = (struct tm_value){.kind = TM_STR, .n = (uint32_t)total, .s = text};
    return n;
}

/* Items up to `close`; a tuple where parentheses hold a comma or nothing. */
static struct tm_node *items(struct parser *p, enum tm_node_kind kind, const char *close)
{
    struct tm_node *n = node(p, kind), **tail = &n->list;
    step(p);
    while (!failed(p) && !at_op(p, close)) {
        add(&tail, tm_expression(p));
        n->trailing = accept(p, ",");
        if (!n->trailing)
            break;
    }
    expect(p, close, kind == TM_N_LIST ? "',' or ']'" : "',' or ')'");
    if (kind == TM_N_TUPLE && n->list && !n->list->next && !n->trailing)
        return n->list;
    return n;
}

static struct tm_node *dict(struct parser *p)
{
    struct tm_node *n = node(p, TM_N_DICT), **tail = &n->list;
    step(p);
    while (!failed(p) && !at_op(p, "}")) {
        add(&tail, tm_expression(p));
        expect(p, ":", "':'");
        add(&tail, tm_expression(p));
        if (!accept(p, ","))
            break;
    }
    expect(p, "}", "',' or '}'");
    return n;
}

static struct tm_node *primary(struct parser *p)
{
    struct tm_node *n;
    switch (p->k->kind) {
    case TM_T_NAME:
        return name_or_constant(p);
    case TM_T_STRING:
        return string(p);
    case TM_T_INT:
        n = constant(p, (struct tm_value){.kind = TM_INT, .i = p->k->i});
        step(p);
        return n;
    case TM_T_FLOAT:
        n = constant(p, (struct tm_value){.kind = TM_FLOAT, .f = p->k->f});
        step(p);
        return n;
    default:
        if (at_op(p, "("))
            return items(p, TM_N_TUPLE, ")");
        if (at_op(p, "["))
            return items(p, TM_N_LIST, "]");
        if (at_op(p, "{"))
            return dict(p);
        unexpected(p, "an expression");
        return &p->spare;
    }
}

/* "(a, b, key=c)" from behind "(". */
static struct tm_node *arguments(struct parser *p)
{
    struct tm_node *list = NULL, **tail = &list;
    int count = 0;
    while (!failed(p) && !at_op(p, ")")) {
        struct tm_node *arg = node(p, TM_N_ARG);
        if (at_op(p, "*") || at_op(p, "**"))
            tm_error(p->t, p->k->line, p->err, "argument lists with '*' are not supported");
        else if (p->k->kind == TM_T_NAME && p->k[1].kind == TM_T_OP && tm_is(p->k[1].s, p->k[1].n, "=")) {
            take_name(p, arg);
            step(p);
        }
        arg->a = tm_expression(p);
        add(&tail, arg);
        if (++count > TM_MAX_ARGS)
            tm_error(p->t, arg->line, p->err, "more than %d arguments", TM_MAX_ARGS);
        if (!accept(p, ","))
            break;
    }
    expect(p, ")", "',' or ')'");
    return list;
}

/* a[b], a[b:c:d] */
static struct tm_node *subscript(struct parser *p, struct tm_node *of)
{
    struct tm_node *n = node(p, TM_N_ITEM), *parts[3] = {NULL};
    int part = 0;
    step(p);
    n->a = of;
    for (; part < 3 && !failed(p) && !at_op(p, "]"); part++) {
        if (!at_op(p, ":"))
            parts[part] = tm_expression(p);
        if (!accept(p, ":"))
            break;
        n->kind = TM_N_SLICE;
    }
    expect(p, "]", "']'");
    if (n->kind == TM_N_ITEM) {
        if (!parts[0] && !failed(p))
            tm_error(p->t, n->line, p->err, "'[]' holds no index");
        n->b = parts[0];
        return n;
    }
    struct tm_node **tail = &n->list;
    for (int i = 0; i < 3; i++)
        add(&tail, parts[i] ? parts[i] : node(p, TM_N_GROUP));
    return n;
}

static struct tm_node *postfix(struct parser *p, struct tm_node *a)
{
    while (!failed(p)) {
        struct tm_node *n = a;
        if (at_op(p, "[")) {
            a = subscript(p, a);
            continue;
        }
        if (at_op(p, ".")) {
            n = node(p, TM_N_ATTR);
            step(p);
            n->a = a;
            if (p->k->kind == TM_T_INT) {
                n->kind = TM_N_ITEM;
                n->b = primary(p);
            } else
                take_name(p, n);
        } else if (at_op(p, "(")) {
            n = node(p, TM_N_CALL);
            step(p);
            n->a = a;
            n->list = arguments(p);
        } else
            break;
        a = n;
    }
    return a;
}

static struct tm_node *test(struct parser *p, struct tm_node *a)
{
    struct tm_node *n = node(p, TM_N_TEST);
    n->negated = accept_name(p, "not");
    n->a = a;
    if (at_op(p, "==") || at_op(p, "!=")) /* the tests of these names */
        unexpected(p, "the name of a test");
    take_name(p, n);
    if (!failed(p) && !tm_has_test(n->name, n->n))
        tm_error(p->t, n->line, p->err, "the test '%.*s' is not supported", (int)n->n, n->name);
    bool word = p->k->kind == TM_T_NAME && !at_name(p, "else") && !at_name(p, "or") && !at_name(p, "and") && !at_name(p, "if") && !at_name(p, "is") && !at_name(p, "in") && !at_name(p, "not");
    if (accept(p, "("))
        n->list = arguments(p);
    else if (word || p->k->kind == TM_T_STRING || p->k->kind == TM_T_INT || p->k->kind == TM_T_FLOAT || at_op(p, "[") || at_op(p, "{")) {
        n->list = node(p, TM_N_ARG);
        n->list->a = postfix(p, primary(p));
    }
    return n;
}

struct tm_node *tm_filters(struct parser *p, struct tm_node *a)
{
    while (!failed(p)) {
        struct tm_node *n;
        if (accept(p, "|")) {
            n = node(p, TM_N_FILTER);
            n->a = a;
            take_name(p, n);
            if (!failed(p) && !tm_has_filter(n->name, n->n))
                tm_error(p->t, n->line, p->err, "the filter '%.*s' is not supported", (int)n->n, n->name);
            if (accept(p, "("))
                n->list = arguments(p);
        } else if (accept_name(p, "is")) {
            n = test(p, a);
        } else if (at_op(p, "(")) {
            n = node(p, TM_N_CALL);
            step(p);
            n->a = a;
            n->list = arguments(p);
        } else
            break;
        a = n;
    }
    return a;
}

static struct tm_node *unary(struct parser *p, bool with_filters)
{
    struct tm_node *n;
    if (++p->depth > TM_PARSE_DEPTH) {
        tm_error(p->t, p->k->line, p->err, "nested deeper than %d", TM_PARSE_DEPTH);
        return &p->spare;
    }
    if (at_op(p, "-") || at_op(p, "+")) {
        n = node(p, TM_N_UNARY);
        n->op = at_op(p, "-") ? TM_SUB : TM_ADD;
        step(p);
        n->a = unary(p, false);
    } else
        n = postfix(p, primary(p));
    p->depth--;
    return with_filters ? tm_filters(p, n) : n;
}

struct level {
    const char *ops[5];
    enum tm_op op[5];
};
/* From the weakest; each is left-associative, `**` too, as jinja2 has it. */
static const struct level levels[] = {
    {{"+", "-"}, {TM_ADD, TM_SUB}}, {{"~"}, {TM_CONCAT}}, {{"*", "/", "//", "%"}, {TM_MUL, TM_DIV, TM_FLOORDIV, TM_MOD}}, {{"**"}, {TM_POW}}};
enum { N_LEVELS = sizeof levels / sizeof *levels };

static struct tm_node *arithmetic(struct parser *p, int level)
{
    struct tm_node *a = level == N_LEVELS ? unary(p, true) : arithmetic(p, level + 1);
    for (bool more = level < N_LEVELS; more && !failed(p);) {
        more = false;
        for (int i = 0; i < 5 && levels[level].ops[i] && !more; i++)
            if (at_op(p, levels[level].ops[i])) {
                struct tm_node *n = node(p, TM_N_BINARY);
                n->op = levels[level].op[i];
                step(p);
                n->a = a;
                n->b = arithmetic(p, level + 1);
                a = n;
                more = true;
            }
    }
    return a;
}

static enum tm_op comparison(struct parser *p)
{
    static const char *const ops[] = {"==", "!=", "<=", ">=", "<", ">"};
    static const enum tm_op of[] = {TM_EQ, TM_NE, TM_LE, TM_GE, TM_LT, TM_GT};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        if (accept(p, ops[i]))
            return of[i];
    if (accept_name(p, "in"))
        return TM_IN;
    if (at_name(p, "not") && p->k[1].kind == TM_T_NAME && tm_is(p->k[1].s, p->k[1].n, "in")) {
        step(p);
        step(p);
        return TM_NOT_IN;
    }
    return 0;
}

static struct tm_node *compare(struct parser *p)
{
    struct tm_node *first = arithmetic(p, 0), **at = &first, *left = first;
    enum tm_op op;
    while (!failed(p) && (op = comparison(p))) {
        struct tm_node *n = node(p, TM_N_COMPARE);
        n->op = op;
        n->a = left;
        n->b = arithmetic(p, 0);
        left = n->b;
        *at = n;
        at = &n->c;
    }
    return first;
}

static struct tm_node *negation(struct parser *p)
{
    if (!at_name(p, "not"))
        return compare(p);
    struct tm_node *n = node(p, TM_N_NOT);
    if (++p->depth > TM_PARSE_DEPTH)
        tm_error(p->t, p->k->line, p->err, "nested deeper than %d", TM_PARSE_DEPTH);
    step(p);
    n->a = failed(p) ? &p->spare : negation(p);
    p->depth--;
    return n;
}

static struct tm_node *logic(struct parser *p, bool or)
{
    struct tm_node *a = or ? logic(p, false) : negation(p);
    while (!failed(p) && accept_name(p, or ? "or" : "and")) {
        struct tm_node *n = node(p, or ? TM_N_OR : TM_N_AND);
        n->a = a;
        n->b = or ? logic(p, false) : negation(p);
        a = n;
    }
    return a;
}

struct tm_node *tm_logic(struct parser *p)
{
    return logic(p, true);
}

struct tm_node *tm_expression(struct parser *p)
{
    struct tm_node *a = logic(p, true);
    if (++p->depth > TM_PARSE_DEPTH)
        tm_error(p->t, p->k->line, p->err, "nested deeper than %d", TM_PARSE_DEPTH);
    while (!failed(p) && accept_name(p, "if")) {
        struct tm_node *n = node(p, TM_N_COND);
        n->a = a;
        n->b = logic(p, true);
        n->c = !failed(p) && accept_name(p, "else") ? tm_expression(p) : NULL;
        a = n;
    }
    p->depth--;
    return a;
}

struct tm_node *tm_expressions(struct parser *p)
{
    struct tm_node *first = tm_expression(p);
    if (failed(p) || !at_op(p, ","))
        return first;
    struct tm_node *n = node(p, TM_N_TUPLE), **tail = &n->list;
    add(&tail, first);
    while (!failed(p) && accept(p, ",") && p->k->kind != TM_T_CLOSE_BLOCK && p->k->kind != TM_T_CLOSE_OUTPUT)
        add(&tail, tm_expression(p));
    return n;
}
