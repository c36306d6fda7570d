/* Templates against jinja2 and transformers (golden/make_templates.py): chat templates of ten families, expressions, statements, white space; errors where the
 * peer has one. Then the messages, and the bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

static int render(const char *text, unsigned flags, json_t *values, int64_t date, struct qp_buf *out, struct qp_err *err)
{
    struct qp_template *t;
    err->code = 0;
    qp_buf_clear(out);
    if (qp_template_open(&t, "template", text, strlen(text), flags, err))
        return err->code;
    int r = qp_template_render(t, values, date, out, err);
    qp_template_free(t);
    return r;
}

static void test_golden(void **state)
{
    (void)state;
    json_error_t je;
    char path[4096];
    const char *root = getenv("QP_ROOT");
    snprintf(path, sizeof path, "%s/tests/golden/templates.json", root ? root : ".");
    json_t *all = json_load_file(path, JSON_ALLOW_NUL, &je), *shared = json_object_get(all, "shared"), *c;
    assert_non_null(all);
    int64_t date = json_integer_value(json_object_get(all, "date"));
    size_t i, wrong = 0;
    json_array_foreach(json_object_get(all, "cases"), i, c)
    {
        const char *name = json_string_value(json_object_get(c, "name")), *text = json_string_value(json_object_get(c, "template"));
        json_t *want = json_object_get(c, "out"), *values = json_object_get(c, "values");
        struct qp_buf out = QP_BUF_INIT;
        struct qp_err err = {0};
        unsigned flags = !strcmp(json_string_value(json_object_get(c, "mode")), "chat") ? QP_TEMPLATE_TRIM : QP_TEMPLATE_STRICT;
        if (json_is_integer(values))
            values = json_array_get(shared, (size_t)json_integer_value(values));
        int r = render(text, flags, values, date, &out, &err);
        bool same = json_is_null(want) ? r == QP_E_INPUT : !r && out.len == json_string_length(want) && !memcmp(out.data ? out.data : "", json_string_value(want), out.len);
        if (!same) {
            print_message("%s: %s\n  gave   %s\n  wanted %s\n", name, text, r ? err.text : out.data ? out.data : "", json_is_null(want) ? "an error" : json_string_value(want));
            wrong++;
        }
        qp_buf_release(&out);
    }
    assert_true(i > 150);
    json_decref(all);
    assert_int_equal(wrong, 0);
}

static void refused(const char *text, unsigned flags, const char *message)
{
    struct qp_buf out = QP_BUF_INIT;
    struct qp_err err = {0};
    json_t *values = json_pack("{s:s, s:{s:i}, s:[i,i]}", "s", "text", "d", "k", 1, "l", 1, 2);
    assert_int_equal(render(text, flags, values, 0, &out, &err), QP_E_INPUT);
    if (strcmp(err.text, message))
        fail_msg("%s: '%s', wanted '%s'", text, err.text, message);
    assert_int_equal(out.len, 0);
    json_decref(values);
    qp_buf_release(&out);
}

static void test_messages(void **state)
{
    (void)state;
    refused("a\nb {{ s | nosuch }}", 0, "template line 2: the filter 'nosuch' is not supported");
    refused("{{ s is nosuch }}", 0, "template line 1: the test 'nosuch' is not supported");
    refused("\n\n{% include 'x' %}", 0, "template line 3: the statement 'include' is not supported");
    refused("{% for a in l recursive %}{% endfor %}", 0, "template line 1: recursive loops are not supported");
    refused("{{ f(*l) }}", 0, "template line 1: argument lists with '*' are not supported");
    refused("x\n{% if s %}\ny\n", 0, "template line 2: 'if' is never closed by 'endif'");
    refused("{% for a in l %}\n{% if a %}\n{% endfor %}", 0, "template line 3: the statement 'endfor' is not supported");
    refused("{{ s ", 0, "template line 1: '{{' is never closed by '}}'");
    refused("\n{# s ", 0, "template line 2: '{#' is never closed by '#}'");
    refused("{{ 'abc }}", 0, "template line 1: a string has no end");
    refused("{{ s + }}", 0, "template line 1: unexpected '}}', expected an expression");
    refused("{{ s s }}", 0, "template line 1: unexpected 's', expected '}}'");
    refused("{{ s ! }}", 0, "template line 1: unexpected character '!'");
    refused("{{ '\\ud800' }}", 0, "template line 1: '\\ud800' is no character");
    refused("{{ 12345678901234567890 }}", 0, "template line 1: the number 12345678901234567890 is too long");
    refused("line\n{{ none_such.x }}", 0, "template line 2: 'none_such' is undefined");
    refused("line\n{{ none_such }}", QP_TEMPLATE_STRICT, "template line 2: 'none_such' is undefined");
    refused("{{ d.q }}", QP_TEMPLATE_STRICT, "template line 1: 'q' is undefined");
    refused("{{ l + 1 }}", 0, "template line 1: '+' of a list and a number");
    refused("{{ raise_exception('roles must alternate') }}", 0, "template line 1: the template refuses: roles must alternate");
    refused("{{ l.append(1) }}", 0, "template line 1: the method 'append' of a list is not supported, or changes it, which the sandbox forbids");
    refused("{{ '%s' % s }}", 0, "template line 1: formatting with '%' is not supported");
    refused("{% set d.k = 2 %}", 0, "template line 1: 'd' is no namespace: its attributes cannot be set");
    refused("{% macro m(a=1, b) %}{% endmacro %}", 0, "template line 1: 'b' has no default, but stands behind one that has");
    refused("a\xff", 0, "template: invalid UTF-8 at byte 1");
}

static void bounded(const char *text, int code, const char *message)
{
    struct qp_buf out = QP_BUF_INIT;
    struct qp_err err = {0};
    assert_int_equal(render(text, 0, NULL, 0, &out, &err), code);
    if (!strstr(err.text, message))
        fail_msg("%s: '%s', wanted '%s'", text, err.text, message);
    qp_buf_release(&out);
}

static void test_bounds(void **state)
{
    (void)state;
    static char deep[3000], wide[300 << 10];
    bounded("{% for a in range(99999) %}{% if 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 and 1 %}{% endif %}{% endfor %}", QP_E_RESOURCE, "steps");
    bounded("{% set ns = namespace(s='x') %}{% for a in range(20) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{% for a in range(40) %}{{ ns.s }}{% endfor %}", QP_E_RESOURCE, "MB of output");
    bounded("{% set ns = namespace(s='x') %}{% for a in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", QP_E_RESOURCE, "MB");
    bounded("{{ range(100001) | length }}", QP_E_INPUT, "more than 100000");
    bounded("{{ 2 ** 64 }}", QP_E_INPUT, "64 bits");
    bounded("{{ 9223372036854775 * 1000000 }}", QP_E_INPUT, "64 bits");
    bounded("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", QP_E_INPUT, "nested deeper");
    bounded("{% set ns = namespace(l=[]) %}{% for a in range(200) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}", QP_E_INPUT, "nest deeper");
    snprintf(deep, sizeof deep, "{{ %*s1%*s }}", 1200, "", 1200, "");
    memset(deep + 3, '(', 1200);
    memset(deep + 1204, ')', 1200);
    bounded(deep, QP_E_INPUT, "nested deeper");
    memset(wide, 'x', sizeof wide - 1);
    bounded(wide, QP_E_INPUT, "longer than 256 KiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_messages), cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
