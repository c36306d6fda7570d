#include "base/opt.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

void qp_strs_release(struct qp_strs *s)
{
    qp_free((void *)s->v);
    *s = (struct qp_strs){0};
}

int qp_strs_add(struct qp_strs *s, const char *v, struct qp_err *err)
{
    if ((s->n & (s->n - 1)) == 0) { /* full at each power of two */
        const char **grown = qp_alloc_n(s->n ? (size_t)s->n * 2 : 1, sizeof *grown, "arguments", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (s->n)
            memcpy((void *)grown, (const void *)s->v, sizeof *grown * (size_t)s->n);
        qp_free((void *)s->v);
        s->v = grown;
    }
    s->v[s->n++] = v;
    return 0;
}

static const struct qp_opt *scan(const struct qp_opt *table, const char *name, size_t n, const struct qp_opt *found, bool *many, bool *exact)
{
    for (; table && table->kind != QP_OPT_K_END; table++) {
        if (!table->name || strncmp(table->name, name, n))
            continue;
        if (!table->name[n]) {
            *exact = true;
            return table;
        }
        if (found)
            *many = true;
        found = table;
    }
    return found;
}

static const struct qp_opt *find_long(const struct qp_opt *own, const struct qp_opt *common, const char *name, size_t n, struct qp_err *err)
{
    bool many = false, exact = false;
    const struct qp_opt *o = scan(own, name, n, NULL, &many, &exact);
    if (!exact)
        o = scan(common, name, n, o, &many, &exact);
    if (many && !exact)
        qp_err_set(err, QP_E_USAGE, "option '--%.*s' is ambiguous; see --help", (int)n, name);
    else if (!o)
        qp_err_set(err, QP_E_USAGE, "unknown option '--%.*s'; see --help", (int)n, name);
    return many && !exact ? NULL : o;
}

static const struct qp_opt *find_letter(const struct qp_opt *own, const struct qp_opt *common, char c)
{
    for (const struct qp_opt *t = own; t && t->kind != QP_OPT_K_END; t++)
        if (t->letter == c)
            return t;
    for (const struct qp_opt *t = common; t && t->kind != QP_OPT_K_END; t++)
        if (t->letter == c)
            return t;
    return NULL;
}

static int set_int(const struct qp_opt *o, const char *v, struct qp_err *err)
{
    char *end;
    errno = 0;
    long long x = strtoll(v, &end, 10);
    if (errno || end == v || *end || (double)x < o->min || (double)x > o->max)
        return qp_err_set(err, QP_E_USAGE, "--%s takes a whole number from %.0f to %.0f, not '%s'", o->name, o->min, o->max, v);
    *(int64_t *)o->value = x;
    return 0;
}

static int set_f64(const struct qp_opt *o, const char *v, struct qp_err *err)
{
    char *end;
    errno = 0;
    double x = strtod(v, &end);
    if (errno || end == v || *end || !(x >= o->min && x <= o->max))
        return qp_err_set(err, QP_E_USAGE, "--%s takes a number from %g to %g, not '%s'", o->name, o->min, o->max, v);
    *(double *)o->value = x;
    return 0;
}

static int set_size(const struct qp_opt *o, const char *v, struct qp_err *err)
{
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    long long x = strtoll(v, &end, 10);
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    int shift = unit && *unit && !end[1] ? 10 * (int)(unit - units + 1) : 0;
    if (errno || end == v || (*end && !shift) || x < 0 || ldexp((double)x, shift) > o->max)
        return qp_err_set(err, QP_E_USAGE, "--%s takes a size in bytes, or with K, M, G or T (500M), not '%s'", o->name, v);
    *(int64_t *)o->value = x << shift;
    return 0;
}

static int set_enum(const struct qp_opt *o, const char *v, struct qp_err *err)
{
    struct qp_buf list = QP_BUF_INIT;
    for (int i = 0; o->choices[i]; i++) {
        if (!strcmp(o->choices[i], v)) {
            *(int *)o->value = i;
            qp_buf_release(&list);
            return 0;
        }
        qp_buf_addf(&list, "%s%s", i ? ", " : "", o->choices[i]);
    }
    int r = qp_err_set(err, QP_E_USAGE, "--%s takes one of %s, not '%s'", o->name, list.data ? list.data : "", v);
    qp_buf_release(&list);
    return r;
}

static int set_value(const struct qp_opt *o, const char *v, struct qp_err *err)
{
    switch (o->kind) {
    case QP_OPT_K_INT:
        return set_int(o, v, err);
    case QP_OPT_K_F64:
        return set_f64(o, v, err);
    case QP_OPT_K_SIZE:
        return set_size(o, v, err);
    case QP_OPT_K_ENUM:
        return set_enum(o, v, err);
    case QP_OPT_K_STR:
        *(const char **)o->value = v;
        return 0;
    case QP_OPT_K_LIST:
    case QP_OPT_K_EACH:
        return qp_strs_add(o->value, v, err);
    default:
        return qp_err_set(err, QP_E_INTERNAL, "option '--%s' takes no value", o->name);
    }
}

struct cursor {
    int argc, i;
    char **argv;
};

/* "-" stands for standard input, so it is a word. */
static bool is_option(const char *word)
{
    return word[0] == '-' && word[1];
}

/* The value of o: given (after '='), or the next word; a list takes all words up to the next option. */
static int take_value(const struct qp_opt *o, const char *given, struct cursor *c, struct qp_err *err)
{
    if (given)
        return set_value(o, given, err);
    if (c->i + 1 >= c->argc)
        return qp_err_set(err, QP_E_USAGE, "--%s needs a value: %s", o->name, o->arg ? o->arg : "VALUE");
    int r = set_value(o, c->argv[++c->i], err);
    while (!r && o->kind == QP_OPT_K_LIST && c->i + 1 < c->argc && !is_option(c->argv[c->i + 1]))
        r = set_value(o, c->argv[++c->i], err);
    return r;
}

static int parse_long(const struct qp_opt *own, const struct qp_opt *common, struct cursor *c, struct qp_err *err)
{
    const char *word = c->argv[c->i] + 2, *eq = strchr(word, '=');
    size_t n = eq ? (size_t)(eq - word) : strlen(word);
    struct qp_err none = {0};
    const struct qp_opt *o = find_long(own, common, word, n, &none);
    bool off = false;
    if (!o && n > 3 && !strncmp(word, "no-", 3)) {
        struct qp_err negated = {0};
        o = find_long(own, common, word + 3, n - 3, &negated);
        o = o && o->kind == QP_OPT_K_FLAG ? o : NULL;
        off = true;
    }
    if (!o) {
        return qp_err_set(err, none.code, "%s", none.text);
    }
    if (o->kind == QP_OPT_K_FLAG) {
        if (eq)
            return qp_err_set(err, QP_E_USAGE, "--%s takes no value", o->name);
        *(bool *)o->value = !off;
        return 0;
    }
    return take_value(o, eq ? eq + 1 : NULL, c, err);
}

static int parse_short(const struct qp_opt *own, const struct qp_opt *common, struct cursor *c, struct qp_err *err)
{
    for (const char *p = c->argv[c->i] + 1; *p; p++) {
        const struct qp_opt *o = find_letter(own, common, *p);
        if (!o)
            return qp_err_set(err, QP_E_USAGE, "unknown option '-%c'; see --help", *p);
        if (o->kind != QP_OPT_K_FLAG)
            return take_value(o, p[1] ? p + 1 : NULL, c, err);
        *(bool *)o->value = true;
    }
    return 0;
}

int qp_opt_parse(const struct qp_opt *own, const struct qp_opt *common, int argc, char **argv, struct qp_strs *args, struct qp_err *err)
{
    struct cursor c = {argc, 1, argv};
    bool plain = false;
    for (; c.i < argc; c.i++) {
        const char *w = argv[c.i];
        int r;
        if (!plain && !strcmp(w, "--")) {
            plain = true;
            continue;
        }
        if (plain || !is_option(w))
            r = qp_strs_add(args, w, err);
        else if (w[1] == '-')
            r = parse_long(own, common, &c, err);
        else
            r = parse_short(own, common, &c, err);
        if (r)
            return r;
    }
    return 0;
}

static void add_default(const struct qp_opt *o, struct qp_buf *out)
{
    switch (o->kind) {
    case QP_OPT_K_INT:
        qp_buf_addf(out, " [%lld]", (long long)*(const int64_t *)o->value);
        break;
    case QP_OPT_K_F64:
        if (!isnan(*(const double *)o->value))
            qp_buf_addf(out, " [%g]", *(const double *)o->value);
        break;
    case QP_OPT_K_STR:
        if (*(const char *const *)o->value)
            qp_buf_addf(out, " [%s]", *(const char *const *)o->value);
        break;
    case QP_OPT_K_ENUM:
        qp_buf_addf(out, " [%s]", o->choices[*(const int *)o->value]);
        break;
    default:
        break;
    }
}

void qp_opt_help(const struct qp_opt *t, struct qp_buf *out)
{
    for (; t && t->kind != QP_OPT_K_END; t++) {
        if (t->kind == QP_OPT_K_GROUP) {
            qp_buf_addf(out, "\n%s:\n", t->help);
            continue;
        }
        size_t start = out->len;
        if (t->letter)
            qp_buf_addf(out, "  -%c, --%s", t->letter, t->name);
        else
            qp_buf_addf(out, "      --%s", t->name);
        if (t->kind != QP_OPT_K_FLAG)
            qp_buf_addf(out, " %s%s", t->arg ? t->arg : "VALUE", t->kind == QP_OPT_K_LIST || t->kind == QP_OPT_K_EACH ? "..." : "");
        size_t width = out->len - start;
        if (width >= 30) {
            qp_buf_adds(out, "\n");
            width = 0;
        }
        qp_buf_addf(out, "%*s%s", (int)(30 - width), "", t->help);
        add_default(t, out);
        qp_buf_adds(out, "\n");
    }
}

void qp_opt_value(const struct qp_opt *o, struct qp_buf *out)
{
    const struct qp_strs *s = o->value;
    const char *text;
    switch (o->kind) {
    case QP_OPT_K_FLAG: qp_buf_adds(out, *(const bool *)o->value ? "yes" : "no"); break;
    case QP_OPT_K_SIZE:
    case QP_OPT_K_INT: qp_buf_addf(out, "%" PRId64, *(const int64_t *)o->value); break;
    case QP_OPT_K_F64: qp_buf_addf(out, "%.17g", *(const double *)o->value); break;
    case QP_OPT_K_ENUM: qp_buf_adds(out, o->choices[*(const int *)o->value]); break;
    case QP_OPT_K_STR:
        text = *(const char *const *)o->value;
        qp_buf_adds(out, text ? text : "none");
        break;
    case QP_OPT_K_LIST:
    case QP_OPT_K_EACH:
        for (int i = 0; i < s->n; i++)
            qp_buf_addf(out, "%s%s", i ? " " : "", s->v[i]);
        break;
    default: break;
    }
}
