/* Histories: what is written is there, the last pass is the right one, files that are no history are refused, several may write at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eval/history.h"

static char dir[64], path[96];

static int set_up(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/qp-history-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/h.db", dir);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct qp_history *open_it(bool create)
{
    struct qp_history *h;
    struct qp_err err = {0};
    if (qp_history_open(&h, path, create, &err))
        fail_msg("%s", err.text);
    return h;
}

/* A verdict of one or two checks. */
static void add(struct qp_history *h, const char *gate, const char *model, enum qp_outcome outcome, double ppl, double acc)
{
    struct qp_check check = {.kind = QP_MAX_INCREASE_PCT, .limit = 5};
    struct qp_judged j[2] = {{.check = &check, .metric = "ppl/x", .outcome = outcome, .value = ppl, .stderr_ = 0.25, .baseline = 20, .measure = NAN, .lo = NAN, .hi = NAN, .reason = "it's so"},
                             {.check = &check, .metric = "acc/x", .outcome = QP_PASS, .value = acc, .stderr_ = NAN, .baseline = NAN, .measure = NAN, .lo = NAN, .hi = NAN}};
    struct qp_verdict v = {.v = j, .n = isnan(acc) ? 1 : 2, .outcome = outcome};
    struct qp_err err = {0};
    if (qp_history_add(h, &(struct qp_history_about){.gate = gate, .gate_sha256 = "00", .model = model, .chain = "ab cd"}, &v, &err))
        fail_msg("%s", err.text);
}

static double last(struct qp_history *h, const char *gate, const char *model, const char *metric, double *se)
{
    struct qp_results r = {0};
    struct qp_err err = {0};
    if (qp_history_last_pass(h, gate, model, &r, &err))
        fail_msg("%s", err.text);
    const struct qp_result *x = qp_results_find(&r, model, metric);
    double value = x ? x->value : NAN;
    if (se)
        *se = x ? x->stderr_ : NAN;
    qp_results_release(&r);
    return value;
}

static void test_last_pass(void **state)
{
    (void)state;
    double se;
    struct qp_history *h = open_it(true);
    assert_true(isnan(last(h, "g", "m", "ppl/x", NULL)));
    add(h, "g", "m", QP_PASS, 21, 0.5);
    add(h, "g", "m", QP_PASS, 22, NAN);
    add(h, "g", "m", QP_FAIL, 30, 0.1);
    add(h, "g", "m", QP_UNDECIDED, 31, 0.1);
    add(h, "other", "m", QP_PASS, 40, 0.1);
    add(h, "g", "m2", QP_PASS, 50, 0.1);
    assert_true(last(h, "g", "m", "ppl/x", &se) == 22 && se == 0.25);
    assert_true(last(h, "g", "m", "acc/x", &se) == 0.5 && isnan(se)); /* the last pass that judged it */
    assert_true(last(h, "other", "m", "ppl/x", NULL) == 40);
    assert_true(last(h, "g", "m2", "ppl/x", NULL) == 50);
    qp_history_close(h);
    h = open_it(false); /* it is on disk */
    assert_true(last(h, "g", "m", "ppl/x", NULL) == 22);
    struct qp_buf text = QP_BUF_INIT;
    struct qp_err err = {0};
    assert_int_equal(qp_history_print(h, 3, &text, &err), 0);
    assert_null(strstr(text.data, " 30 ")); /* the three newest */
    assert_non_null(strstr(text.data, "undecided"));
    assert_non_null(strstr(text.data, "max_increase_pct"));
    assert_true(strstr(text.data, " 31 ") < strstr(text.data, " 40 ") && strstr(text.data, " 40 ") < strstr(text.data, " 50 "));
    qp_buf_release(&text);
    struct qp_verdict none = {0};
    assert_int_equal(qp_history_add(h, &(struct qp_history_about){"g", "00", "m", ""}, &none, &err), QP_E_RESOURCE); /* to read only */
    qp_history_close(h);
}

static void refused(const char *content, size_t n, const char *says)
{
    struct qp_history *h;
    struct qp_err err = {0};
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(content, 1, n, f) == n && fclose(f) == 0);
    assert_int_equal(qp_history_open(&h, path, true, &err), QP_E_INPUT);
    assert_null(h);
    if (!strstr(err.text, path) || !strstr(err.text, says))
        fail_msg("says '%s'", err.text);
}

static void test_refused(void **state)
{
    (void)state;
    struct qp_history *h;
    struct qp_err err = {0};
    unlink(path);
    assert_int_equal(qp_history_open(&h, path, false, &err), QP_E_INPUT); /* nothing there, and nothing made */
    assert_int_not_equal(access(path, F_OK), 0);
    char text[2000];
    memset(text, 'x', sizeof text);
    refused(text, sizeof text, "not a database");
    unlink(path);
    qp_history_close(open_it(true));
    char file[32768] = "";
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(file, 1, sizeof file, f);
    fclose(f);
    assert_true(n > 100);
    file[71] ^= 1; /* application id, its last byte; behind it at 63 the user version's */
    refused(file, n, "not one of qgate --history");
    file[71] ^= 1;
    file[63] = 2;
    refused(file, n, "version 2, expected 1");
    unlink(path);
}

/* Four processes make the file and add ten verdicts each. */
static void test_together(void **state)
{
    (void)state;
    unlink(path);
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            struct qp_err err = {0};
            struct qp_history *h;
            int bad = qp_history_open(&h, path, true, &err);
            for (int k = 0; !bad && k < 10; k++) {
                struct qp_verdict none = {0};
                bad = qp_history_add(h, &(struct qp_history_about){"g", "00", "m", ""}, &none, &err);
            }
            _exit(bad ? 1 : 0);
        }
    for (int i = 0, status; i < 4; i++) {
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    struct qp_history *h = open_it(false);
    struct qp_buf text = QP_BUF_INIT;
    struct qp_err err = {0};
    int lines = 0;
    assert_int_equal(qp_history_print(h, 100, &text, &err), 0);
    for (size_t i = 0; i < text.len; i++)
        lines += text.data[i] == '\n';
    assert_int_equal(lines, 42); /* and two of the header */
    qp_buf_release(&text);
    qp_history_close(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_last_pass), cmocka_unit_test(test_refused), cmocka_unit_test(test_together)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
