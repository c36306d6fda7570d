/* What the files of the template interpreter share: values, tokens, nodes, a running rendering. Private to text/. */
#ifndef QP_TEXT_TEMPLATE_INTERNAL_H
#define QP_TEXT_TEMPLATE_INTERNAL_H

#include <stdbool.h>
#include <string.h>

#include "text/template.h"

/* ---- memory: one arena a template, one a rendering ---- */

struct tm_arena {
    struct tm_chunk *chunks;
    size_t total, limit;
};
/* 16-byte aligned; NULL beyond the limit or without memory. */
void *tm_alloc(struct tm_arena *a, size_t n);
void tm_arena_release(struct tm_arena *a);

/* ---- values: immutable but for namespaces and lists under construction ---- */

enum tm_kind { TM_UNDEFINED, TM_NONE, TM_BOOL, TM_INT, TM_FLOAT, TM_STR, TM_LIST, TM_TUPLE, TM_DICT, TM_NAMESPACE, TM_LOOP, TM_FUNCTION, TM_METHOD, TM_MACRO };

struct tm_value {
    enum tm_kind kind;
    uint32_t n;             /* bytes of s */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;      /* STR: text, not terminated. UNDEFINED, METHOD, FUNCTION: the name, n bytes */
        struct tm_list *list;
        struct tm_dict *dict;
        struct tm_loop *loop;
        const struct tm_node *macro;
    };
    const struct tm_value *self; /* METHOD: whose. UNDEFINED: what lacks the attribute, or NULL */
};
struct tm_list {
    struct tm_value *v;
    size_t n, cap;
};
struct tm_pair {
    struct tm_value key, value;
};
struct tm_dict {
    struct tm_pair *v;
    size_t n, cap;
};
struct tm_loop {
    const struct tm_list *items;
    size_t at;
    struct tm_value changed; /* what loop.changed saw last; UNDEFINED at first */
};

#define TM_NOTHING ((struct tm_value){.kind = TM_NONE})

/* ---- tokens and nodes ---- */

enum tm_token_kind { TM_T_DATA, TM_T_OPEN_OUTPUT, TM_T_CLOSE_OUTPUT, TM_T_OPEN_BLOCK, TM_T_CLOSE_BLOCK, TM_T_NAME, TM_T_STRING, TM_T_INT, TM_T_FLOAT, TM_T_OP, TM_T_END };
struct tm_token {
    enum tm_token_kind kind;
    int line;
    const char *s; /* text: DATA and NAME as they are, STRING decoded, OP its characters */
    size_t n;
    int64_t i;
    double f;
};

enum tm_node_kind {
    TM_N_CONST, TM_N_NAME, TM_N_LIST, TM_N_TUPLE, TM_N_DICT, TM_N_ATTR, TM_N_ITEM, TM_N_SLICE, TM_N_CALL, TM_N_FILTER, TM_N_TEST, TM_N_UNARY, TM_N_NOT, TM_N_AND,
    TM_N_OR, TM_N_BINARY, TM_N_COMPARE, TM_N_COND, TM_N_ARG,
    TM_N_DATA, TM_N_OUTPUT, TM_N_IF, TM_N_FOR, TM_N_SET, TM_N_SET_BLOCK, TM_N_MACRO, TM_N_BREAK, TM_N_CONTINUE, TM_N_GROUP
};
enum tm_op { TM_ADD = 1, TM_SUB, TM_MUL, TM_DIV, TM_FLOORDIV, TM_MOD, TM_POW, TM_CONCAT, TM_EQ, TM_NE, TM_LT, TM_LE, TM_GT, TM_GE, TM_IN, TM_NOT_IN };

/* Meaning of a, b, c by kind:
 *   ATTR a.name   ITEM a[b]   SLICE a[list: start, stop, step; each a GROUP where it is absent]   CALL a(list)   FILTER a|name(list)   TEST a is name(list)
 *   COMPARE a op b, and c: the next COMPARE of a chain, whose a is not used   COND a if b else c
 *   ARG a, name: of a keyword   IF a, b: then, c: else   FOR list: targets, a in b if c, body, other   SET list: targets (NAME, or ATTR of a namespace), a
 *   MACRO name, list: ARGs with defaults in a, body   GROUP body */
struct tm_node {
    enum tm_node_kind kind;
    enum tm_op op;
    int line;
    bool negated;            /* TEST: is not */
    bool trailing;           /* tuple of one target */
    const char *name;
    size_t n;
    struct tm_value value;
    struct tm_node *a, *b, *c, *list, *body, *other, *next;
};

struct qp_template {
    struct tm_arena arena;
    char *name;
    unsigned flags;
    const struct tm_node *body;
};

/* Tokens of text into the arena, ended by TM_T_END. */
int tm_lex(struct qp_template *t, const char *text, size_t n, struct tm_token **out, struct qp_err *err) QP_MUST_USE;
int tm_parse(struct qp_template *t, const struct tm_token *tokens, struct qp_err *err) QP_MUST_USE;
/* "chat template line 3: ..." */
int tm_error(const struct qp_template *t, int line, struct qp_err *err, const char *fmt, ...) QP_PRINTF(4, 5);

/* ---- a rendering ---- */

struct tm_frame {
    struct tm_dict vars;
    struct tm_frame *up;
};
struct tm_run {
    const struct qp_template *t;
    struct tm_arena arena;
    struct tm_frame *frame, globals;
    struct qp_buf *out;
    struct qp_err *err;
    int64_t date, steps;
    size_t out_limit;
    int depth, line, loops;
    struct tm_value block; /* text of a set block, for its filters */
    int leaving; /* a TM_N_BREAK or TM_N_CONTINUE on its way to its loop */
};
#define TM_MAX_ARGS 12
#define TM_MAX_DEPTH 400 /* statements and expressions that run inside of each other: bounds the C stack */
struct tm_args {
    struct tm_value v[TM_MAX_ARGS];
    struct {
        const char *name;
        size_t n;
        struct tm_value value;
    } kw[TM_MAX_ARGS];
    int n, n_kw;
};

/* First error wins; all that follows returns none, so callers look at failed() where it matters. */
static inline bool tm_failed(const struct tm_run *r)
{
    return r->err->code != 0;
}
/* Sets the error with the line that is running; returns none. */
struct tm_value tm_fail(struct tm_run *r, const char *fmt, ...) QP_PRINTF(2, 3);
bool tm_step(struct tm_run *r, size_t n); /* false when the bound is reached */

static inline bool tm_is(const char *s, size_t n, const char *word)
{
    return strlen(word) == n && !memcmp(s, word, n);
}

/* template_value.c */
void *tm_make(struct tm_run *r, size_t n); /* zeroed; NULL: failed */
struct tm_value tm_bool(bool b);
struct tm_value tm_int(int64_t i);
struct tm_value tm_float(double f);
struct tm_value tm_borrow(const char *s, size_t n);
struct tm_value tm_copy(struct tm_run *r, const char *s, size_t n);
struct tm_value tm_take(struct tm_run *r, struct qp_buf *b); /* copies, releases b */
struct tm_value tm_new_list(struct tm_run *r, enum tm_kind kind);
void tm_append(struct tm_run *r, struct tm_list *l, struct tm_value v);
struct tm_value tm_new_dict(struct tm_run *r, enum tm_kind kind);
void tm_put(struct tm_run *r, struct tm_dict *d, struct tm_value key, struct tm_value value);
const struct tm_value *tm_find(const struct tm_dict *d, const char *s, size_t n);
const struct tm_value *tm_find_key(const struct tm_dict *d, struct tm_value key);
bool tm_truth(const struct tm_value *v);
bool tm_number(const struct tm_value *v, double *f); /* bool, int, float */
bool tm_whole(const struct tm_value *v, int64_t *i); /* bool, int */
bool tm_equal(const struct tm_value *a, const struct tm_value *b);
int tm_order(struct tm_run *r, const struct tm_value *a, const struct tm_value *b); /* <0, 0, >0; fails for what has no order */
bool tm_contains(struct tm_run *r, const struct tm_value *in, const struct tm_value *v);
/* A list's items, a dict's keys, a string's characters; NULL: failed. */
const struct tm_list *tm_iterate(struct tm_run *r, const struct tm_value *v);
const char *tm_kind_name(const struct tm_value *v);
struct tm_value tm_from_json(struct tm_run *r, const struct json_t *j);

/* template_text.c */
void tm_str(struct tm_run *r, const struct tm_value *v, struct qp_buf *out);  /* Python's str() */
struct tm_value tm_as_str(struct tm_run *r, const struct tm_value *v);
void tm_json(struct tm_run *r, const struct tm_value *v, int indent, bool sort, struct qp_buf *out); /* json.dumps; indent < 0: one line */
size_t tm_chars(const struct tm_value *s);                    /* code points */
size_t tm_char_at(const struct tm_value *s, size_t index);     /* byte offset of a code point */
struct tm_value tm_strip(const struct tm_value *s, const struct tm_value *chars, bool left, bool right);
struct tm_value tm_case(struct tm_run *r, const struct tm_value *s, char how); /* 'u', 'l', 'c'apitalize, 't'itle as Python's method, 'w'ords as jinja2's title */
struct tm_value tm_replace(struct tm_run *r, const struct tm_value *s, const struct tm_value *from, const struct tm_value *to, int64_t count);
struct tm_value tm_split(struct tm_run *r, const struct tm_value *s, const struct tm_value *sep, int64_t max, bool from_right);
struct tm_value tm_split_lines(struct tm_run *r, const struct tm_value *s);
struct tm_value tm_join(struct tm_run *r, const struct tm_value *sep, const struct tm_list *l);

/* template_eval.c */
struct tm_value tm_eval(struct tm_run *r, const struct tm_node *n);
struct tm_value tm_attribute(struct tm_run *r, const struct tm_value *v, const char *name, size_t n);
struct tm_value tm_item(struct tm_run *r, const struct tm_value *v, const struct tm_value *key);
struct tm_value tm_binary(struct tm_run *r, enum tm_op op, const struct tm_value *a, const struct tm_value *b);
/* An undefined value that is used: an error in strict mode, and where operations on it have no meaning. */
struct tm_value tm_undefined(struct tm_run *r, const struct tm_value *v);

/* template_render.c */
struct tm_value tm_call_macro(struct tm_run *r, const struct tm_node *macro, const struct tm_args *args);
void tm_render(struct tm_run *r, const struct tm_node *n);

/* template_filter.c, template_call.c */
bool tm_has_filter(const char *name, size_t n);
struct tm_value tm_filter(struct tm_run *r, const char *name, size_t n, const struct tm_value *v, const struct tm_args *args);
bool tm_has_test(const char *name, size_t n);
bool tm_test(struct tm_run *r, const char *name, size_t n, const struct tm_value *v, const struct tm_args *args);
bool tm_has_function(const char *name, size_t n);
bool tm_has_method(const struct tm_value *v, const char *name, size_t n);
struct tm_value tm_call(struct tm_run *r, const struct tm_value *f, const struct tm_args *args);
const struct tm_value *tm_arg(const struct tm_args *a, int i, const char *name); /* NULL: not given */

#endif
