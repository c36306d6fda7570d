#include "text/match.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/internal.h"

#define MAX_STEPS 1000000

struct qp_matcher {
    struct qp_match_options o;
    pcre2_code *extract;
    pcre2_match_context *limits;
};

static pcre2_code *compile(const char *pattern, bool ignore_case, const char *what, struct qp_err *err)
{
    int code;
    PCRE2_SIZE at;
    unsigned char why[160];
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | (ignore_case ? PCRE2_CASELESS : 0), &code, &at, NULL);
    if (!re) {
        pcre2_get_error_message(code, why, sizeof why);
        qp_err_set(err, QP_E_INPUT, "%s '%.60s' is no regular expression: %s at byte %zu", what, pattern, (const char *)why, (size_t)at);
    }
    return re;
}

int qp_matcher_new(struct qp_matcher **out, const struct qp_match_options *o, struct qp_err *err)
{
    struct qp_matcher *m = qp_zalloc(sizeof *m, "matcher", err);
    *out = NULL;
    if (!m)
        return QP_E_RESOURCE;
    m->o = *o;
    m->limits = pcre2_match_context_create(NULL);
    int r = m->limits ? 0 : qp_err_set(err, QP_E_RESOURCE, "no memory for a matcher");
    if (!r)
        pcre2_set_match_limit(m->limits, MAX_STEPS);
    if (!r && o->extract && !(m->extract = compile(o->extract, o->ignore_case, "the pattern", err)))
        r = QP_E_INPUT;
    if (r)
        qp_matcher_free(m);
    else
        *out = m;
    return r;
}

void qp_matcher_free(struct qp_matcher *m)
{
    if (!m)
        return;
    pcre2_code_free(m->extract);
    pcre2_match_context_free(m->limits);
    qp_free(m);
}

/* 1: found, the stretch of group 1 (or of all, where there is no group) in *from, *to; 0: not. */
static int search(const struct qp_matcher *m, const pcre2_code *re, const char *text, size_t *from, size_t *to, struct qp_err *err)
{
    pcre2_match_data *d = pcre2_match_data_create_from_pattern(re, NULL);
    if (!d)
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a match");
    int n = pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, d, m->limits);
    if (n > 0) {
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(d);
        bool group = n > 1 && at[2] != PCRE2_UNSET;
        *from = at[group ? 2 : 0];
        *to = at[group ? 3 : 1];
    }
    pcre2_match_data_free(d);
    if (n > 0 || n == PCRE2_ERROR_NOMATCH)
        return n > 0;
    return qp_err_set(err, QP_E_INPUT, n == PCRE2_ERROR_MATCHLIMIT ? "a regular expression takes more than %d steps" : "a regular expression failed (limit %d)", MAX_STEPS);
}

/* ---- text ---- */

static int normalize(const struct qp_matcher *m, const char *text, struct qp_buf *out, struct qp_err *err)
{
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE | (m->o.ignore_case ? UTF8PROC_CASEFOLD : 0);
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)strlen(text), &mapped, how);
    if (n < 0)
        return qp_err_set(err, n == UTF8PROC_ERROR_NOMEM ? QP_E_RESOURCE : QP_E_INPUT, "cannot normalize text: %s", utf8proc_errmsg(n));
    bool blank = false;
    for (utf8proc_ssize_t i = 0; i < n;) {
        uint32_t c;
        int len = qp_utf8_next((const char *)mapped + i, &c);
        if (qp_is_space(c))
            blank = out->len > 0;
        else {
            if (blank)
                qp_buf_adds(out, " ");
            blank = false;
            qp_buf_add(out, mapped + i, (size_t)len);
        }
        i += len;
    }
    free(mapped);
    return qp_buf_check(out, err);
}

static bool is_word(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) || k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

static bool holds(const struct qp_buf *text, const struct qp_buf *part, bool whole_words)
{
    const char *end = text->data + text->len, *p = text->data;
    for (; text->len && (p = memmem(p, (size_t)(end - p), part->data, part->len)); p++) {
        const char *before = p;
        uint32_t a = ' ', b = ' ';
        while (before > text->data && (*--before & 0xc0) == 0x80)
            continue;
        if (before < p)
            qp_utf8_next(before, &a);
        if (p + part->len < end)
            qp_utf8_next(p + part->len, &b);
        if (!whole_words || !(is_word(a) || is_word(b)))
            return true;
    }
    return false;
}

static int compare_texts(const struct qp_matcher *m, const char *expected, const char *answer, bool *right, struct qp_err *err)
{
    struct qp_buf want = QP_BUF_INIT, got = QP_BUF_INIT;
    int r = normalize(m, expected, &want, err);
    r = r ? r : normalize(m, answer, &got, err);
    if (!r && !want.len)
        r = qp_err_set(err, QP_E_INPUT, "the expected text is empty");
    if (!r)
        *right = m->o.kind == QP_MATCH_EXACT ? want.len == got.len && !memcmp(want.data, got.data, got.len) : holds(&got, &want, m->o.whole_words);
    qp_buf_release(&want);
    qp_buf_release(&got);
    return r;
}

/* ---- numbers ---- */

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number that begins at s: digits, with commas before groups of three, a fraction, an exponent. Its length, or 0. */
static size_t number_at(const char *s, double *value)
{
    char text[80];
    size_t n = 0, i = 0;
    while (digit(s[i]) || (s[i] == ',' && i && digit(s[i + 1]) && digit(s[i + 2]) && digit(s[i + 3]) && !digit(s[i + 4]))) {
        if (s[i] != ',' && n + 1 < sizeof text)
            text[n++] = s[i];
        i++;
    }
    if (s[i] == '.' && digit(s[i + 1]))
        for (bool first = true; first || digit(s[i]); first = false, i++)
            if (n + 1 < sizeof text)
                text[n++] = s[i];
    size_t e = s[i] == 'e' || s[i] == 'E' ? 1u + (s[i + 1] == '+' || s[i + 1] == '-') : 0;
    if (n && e && digit(s[i + e]))
        for (size_t k = 0; k < e || digit(s[i]); k++, i++)
            if (n + 1 < sizeof text)
                text[n++] = s[i];
    text[n] = 0;
    *value = strtod(text, NULL);
    return n ? i : 0;
}

/* The first or last number of a text. A minus counts where no letter or digit stands before it: "3-4" holds 3 and 4. */
static bool find_number(const char *s, bool first, double *out)
{
    bool found = false;
    for (size_t i = 0; s[i];) {
        double v;
        size_t n = number_at(s + i, &v);
        if (!n) {
            i++;
            continue;
        }
        bool minus = i && s[i - 1] == '-' && (i == 1 || !(digit(s[i - 2]) || ((s[i - 2] | 32) >= 'a' && (s[i - 2] | 32) <= 'z')));
        *out = minus ? -v : v;
        found = true;
        if (first)
            break;
        i += n;
    }
    return found;
}

static int compare_numbers(const struct qp_matcher *m, const char *expected, const char *answer, bool *right, struct qp_err *err)
{
    double want, got;
    if (!find_number(expected, m->o.first_number, &want))
        return qp_err_set(err, QP_E_INPUT, "the expected text '%.60s' holds no number", expected);
    *right = find_number(answer, m->o.first_number, &got) && (fabs(got - want) <= m->o.tolerance || fabs(got - want) <= 1e-9 * fabs(want));
    return 0;
}

/* ---- the contract ---- */

static int match_pattern(const struct qp_matcher *m, const char *expected, const char *answer, bool *right, struct qp_err *err)
{
    size_t from, to;
    pcre2_code *re = compile(expected, m->o.ignore_case, "the expected text", err);
    int found = re ? search(m, re, answer, &from, &to, err) : QP_E_INPUT;
    pcre2_code_free(re);
    *right = found == 1;
    return found < 0 ? found : 0;
}

int qp_matcher_check(const struct qp_matcher *m, const char *expected, struct qp_err *err)
{
    bool right;
    struct qp_match_options plain = m->o;
    plain.extract = NULL;
    struct qp_matcher without = {.o = plain, .limits = m->limits};
    if (!*expected)
        return qp_err_set(err, QP_E_INPUT, "the expected text is empty");
    return qp_matcher_run(&without, expected, "", &right, err);
}

int qp_matcher_run(const struct qp_matcher *m, const char *expected, const char *answer, bool *right, struct qp_err *err)
{
    struct qp_buf part = QP_BUF_INIT;
    size_t from, to;
    int r = 0;
    *right = false;
    if (m->extract) {
        int found = search(m, m->extract, answer, &from, &to, err);
        if (found <= 0)
            return found;
        qp_buf_add(&part, answer + from, to - from);
        r = qp_buf_check(&part, err);
        answer = part.data ? part.data : "";
    }
    if (!r)
        r = m->o.kind == QP_MATCH_REGEX    ? match_pattern(m, expected, answer, right, err)
            : m->o.kind == QP_MATCH_NUMBER ? compare_numbers(m, expected, answer, right, err)
                                           : compare_texts(m, expected, answer, right, err);
    qp_buf_release(&part);
    return r;
}
