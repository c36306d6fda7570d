/* The gate's decisions at and around its limits, with and without confidence; missing metrics; gate files with mistakes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/gate.h"

static int open_text(struct qp_gate *g, const char *json, struct qp_err *err)
{
    char path[] = "/tmp/qp-gate-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, json, strlen(json)) == (ssize_t)strlen(json));
    close(fd);
    *err = (struct qp_err){0};
    int r = qp_gate_open(g, path, err);
    unlink(path);
    return r;
}

/* The outcome of one check over baseline and quantized values. */
static enum qp_outcome judge(const char *check, const char *metric, double base, double base_se, double quant, double quant_se, struct qp_judged *out)
{
    struct qp_gate g;
    struct qp_results r = {0};
    struct qp_verdict v;
    struct qp_err err;
    char json[400];
    snprintf(json, sizeof json, "{\"checks\": [%s]}", check);
    if (open_text(&g, json, &err))
        fail_msg("%s", err.text);
    assert_int_equal(qp_results_add(&r, "base", metric, base, base_se, &err), 0);
    assert_int_equal(qp_results_add(&r, "quant", metric, quant, quant_se, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "quant", "base", NULL, &err), 0);
    enum qp_outcome o = v.outcome;
    if (out)
        *out = v.v[0];
    qp_verdict_release(&v);
    qp_results_release(&r);
    qp_gate_release(&g);
    return o;
}

static void test_limits(void **s)
{
    (void)s;
    const char *increase = "{\"metric\": \"ppl/x\", \"max_increase_pct\": 25}", *retained = "{\"metric\": \"acc/x\", \"min_retained_pct\": 50}";
    assert_int_equal(judge(increase, "ppl/x", 8, NAN, 10, NAN, NULL), QP_PASS); /* exactly at the limit */
    assert_int_equal(judge(increase, "ppl/x", 8, NAN, 10.0001, NAN, NULL), QP_FAIL);
    assert_int_equal(judge(increase, "ppl/x", 8, NAN, 7, NAN, NULL), QP_PASS);
    assert_int_equal(judge(increase, "ppl/x", 8, NAN, NAN, NAN, NULL), QP_FAIL);
    assert_int_equal(judge(retained, "acc/x", 0.5, NAN, 0.25, NAN, NULL), QP_PASS);
    assert_int_equal(judge(retained, "acc/x", 0.5, NAN, 0.2499, NAN, NULL), QP_FAIL);
    assert_int_equal(judge("{\"metric\": \"kld/*\", \"max_value\": 0.5}", "kld/x", 0, 0, 0.5, NAN, NULL), QP_PASS);
    assert_int_equal(judge("{\"metric\": \"kld/*\", \"max_value\": 0.5}", "kld/x", 0, 0, 0.51, NAN, NULL), QP_FAIL);
    assert_int_equal(judge("{\"metric\": \"top1/x\", \"min_value\": 0.9}", "top1/x", 1, 0, 0.9, NAN, NULL), QP_PASS);
}

static void test_confidence(void **s)
{
    (void)s;
    const char *check = "{\"metric\": \"kld/x\", \"max_value\": 1, \"confidence\": 0.95}";
    struct qp_judged j;
    assert_int_equal(judge(check, "kld/x", 0, 0, 0.5, 0.1, &j), QP_PASS);
    assert_true(fabs(j.hi - 0.6959964) < 1e-6 && fabs(j.lo - 0.3040036) < 1e-6);
    assert_int_equal(judge(check, "kld/x", 0, 0, 0.9, 0.1, &j), QP_UNDECIDED);
    assert_non_null(strstr(j.reason, "too few items"));
    assert_int_equal(judge(check, "kld/x", 0, 0, 1.1, 0.1, NULL), QP_UNDECIDED);
    assert_int_equal(judge(check, "kld/x", 0, 0, 1.5, 0.1, NULL), QP_FAIL);
    assert_int_equal(judge(check, "kld/x", 0, 0, 0.5, NAN, &j), QP_UNDECIDED);
    assert_non_null(strstr(j.reason, "no standard error"));
    /* a model that gets nothing right has failed; the error of a ratio is defined for 0 */
    check = "{\"metric\": \"acc/x\", \"min_retained_pct\": 97, \"confidence\": 0.95}";
    assert_int_equal(judge(check, "acc/x", 0.5, 0.01, 0, 0, NULL), QP_FAIL);
    assert_int_equal(judge(check, "acc/x", 0.5, 0.01, 0.5, 0.01, &j), QP_UNDECIDED);
    assert_true(fabs(j.hi - 100 - 1.959963984540054 * sqrt(8)) < 1e-9); /* errors of 2 % each, independent */
}

static void test_paired(void **s)
{
    (void)s;
    struct qp_gate g;
    struct qp_results r = {0};
    struct qp_verdict v;
    struct qp_err err;
    assert_int_equal(open_text(&g, "{\"name\": \"n\", \"confidence\": 0.9, \"checks\": [{\"metric\": \"ppl/*\", \"max_increase_pct\": 10}, {\"metric\": \"acc/mmlu\", \"min_retained_pct\": 97}]}", &err), 0);
    assert_int_equal(qp_results_add(&r, "b", "ppl/w", 20, 3, &err), 0);
    assert_int_equal(qp_results_add(&r, "q", "ppl/w", 21, 3, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", "b", NULL, &err), 0);
    assert_int_equal(v.n, 2);
    assert_int_equal(v.v[0].outcome, QP_UNDECIDED); /* unpaired errors of 3 say nothing about an increase of 1 */
    assert_false(v.v[0].paired);
    assert_true(v.v[1].missing);
    assert_int_equal(v.v[1].outcome, QP_FAIL);
    assert_string_equal(v.v[1].metric, "acc/mmlu");
    assert_int_equal(v.outcome, QP_FAIL);
    qp_verdict_release(&v);
    assert_int_equal(qp_results_add(&r, "q", "dlogppl/w", log(1.05), 0.001, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", "b", NULL, &err), 0);
    assert_int_equal(v.v[0].outcome, QP_PASS); /* paired, it is clear */
    assert_true(v.v[0].paired && fabs(v.v[0].measure - 5) < 1e-9);
    qp_verdict_release(&v);
    /* accuracies: independent errors decide nothing, paired ones do */
    assert_int_equal(qp_results_add(&r, "b", "acc/mmlu", 0.5, 0.02, &err), 0);
    assert_int_equal(qp_results_add(&r, "q", "acc/mmlu", 0.495, 0.02, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", "b", NULL, &err), 0);
    assert_true(v.v[1].outcome == QP_UNDECIDED && !v.v[1].paired);
    qp_verdict_release(&v);
    assert_int_equal(qp_results_add(&r, "q", "retained/mmlu", 99, 0.5, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", "b", NULL, &err), 0);
    assert_true(v.v[1].outcome == QP_PASS && v.v[1].paired && v.v[1].measure == 99 && fabs(v.v[1].lo - (99 - 0.5 * 1.6448536269514722)) < 1e-9);
    qp_verdict_release(&v);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", NULL, NULL, &err), 0);
    assert_int_equal(v.v[0].outcome, QP_FAIL);
    assert_true(v.v[0].missing);
    qp_verdict_release(&v);
    qp_results_release(&r);
    qp_gate_release(&g);
}

/* The model's own value of the last pass in the baseline's place; paired results are with the baseline and do not count. */
static void test_last_pass(void **s)
{
    (void)s;
    struct qp_gate g;
    struct qp_results r = {0}, last = {0};
    struct qp_verdict v;
    struct qp_err err;
    assert_int_equal(open_text(&g, "{\"checks\": [{\"metric\": \"ppl/w\", \"max_increase_pct\": 10.5, \"against\": \"last-pass\"}, {\"metric\": \"acc/w\", \"min_retained_pct\": 99, \"against\": \"last-pass\"},"
                                   " {\"metric\": \"ppl/w\", \"max_increase_pct\": 200, \"against\": \"baseline\"}]}", &err), 0);
    assert_true(qp_gate_needs_history(&g));
    assert_int_equal(qp_results_add(&r, "b", "ppl/w", 10, NAN, &err), 0);
    assert_int_equal(qp_results_add(&r, "q", "ppl/w", 22, 0.5, &err), 0);
    assert_int_equal(qp_results_add(&r, "q", "dlogppl/w", 0.9, 0.001, &err), 0);
    assert_int_equal(qp_results_add(&r, "q", "acc/w", 0.5, NAN, &err), 0);
    assert_int_equal(qp_results_add(&r, "q", "retained/w", 100, NAN, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", "b", &last, &err), 0);
    assert_int_equal(v.outcome, QP_PASS);
    assert_true(v.v[0].first && v.v[1].first && !v.v[2].first && isnan(v.v[0].baseline) && v.v[0].stderr_ == 0.5);
    assert_non_null(strstr(v.v[0].reason, "nothing to compare with"));
    qp_verdict_release(&v);
    assert_int_equal(qp_results_add(&last, "q", "ppl/w", 20, 0.25, &err), 0);
    assert_int_equal(qp_results_add(&last, "q", "acc/w", 0.51, NAN, &err), 0);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", "b", &last, &err), 0);
    assert_true(v.v[0].outcome == QP_PASS && !v.v[0].paired && v.v[0].baseline == 20 && fabs(v.v[0].measure - 10) < 1e-9);
    assert_true(fabs(v.v[0].hi - 10 - 1.959963984540054 * 100 * hypot(0.5 / 20, 1.1 * 0.25 / 20)) < 1e-9);
    assert_true(v.v[1].outcome == QP_FAIL && !v.v[1].paired && fabs(v.v[1].measure - 100 * 0.5 / 0.51) < 1e-9);
    assert_true(v.v[2].outcome == QP_PASS && v.v[2].paired && v.v[2].baseline == 10);
    qp_verdict_release(&v);
    qp_results_release(&r);
    assert_int_equal(qp_results_add(&r, "q", "ppl/w", NAN, NAN, &err), 0); /* broken, the first time, too */
    qp_results_release(&last);
    assert_int_equal(qp_gate_judge(&v, &g, &r, "q", NULL, NULL, &err), 0);
    assert_true(v.v[0].outcome == QP_FAIL && !v.v[0].first);
    qp_verdict_release(&v);
    qp_results_release(&r);
    qp_gate_release(&g);
}

static void test_mistakes(void **s)
{
    (void)s;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "line 1"},
        {"[]", "not a JSON object"},
        {"{}", "'checks'"},
        {"{\"checks\": []}", "'checks'"},
        {"{\"checks\": [{\"max_value\": 1}]}", "no 'metric'"},
        {"{\"checks\": [{\"metric\": \"x\"}]}", "0 limits"},
        {"{\"checks\": [{\"metric\": \"x\", \"max_value\": 1, \"min_value\": 0}]}", "2 limits"},
        {"{\"checks\": [{\"metric\": \"x\", \"max_value\": \"1\"}]}", "not a number"},
        {"{\"checks\": [{\"metric\": \"x\", \"max_valeu\": 1}]}", "unknown key 'max_valeu'"},
        {"{\"confidence\": 95, \"checks\": [{\"metric\": \"x\", \"max_value\": 1}]}", "between 0 and 1"},
        {"{\"checks\": [{\"metric\": \"x\", \"max_increase_pct\": 1, \"against\": \"last\"}]}", "neither \"baseline\" nor \"last-pass\""},
        {"{\"checks\": [{\"metric\": \"x\", \"max_value\": 1, \"against\": \"last-pass\"}]}", "not with max_value"},
        {"{\"cheks\": []}", "unknown key 'cheks'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qp_gate g;
        struct qp_err err;
        assert_int_equal(open_text(&g, cases[i].json, &err), QP_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s'", i, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits), cmocka_unit_test(test_confidence), cmocka_unit_test(test_paired), cmocka_unit_test(test_last_pass), cmocka_unit_test(test_mistakes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
