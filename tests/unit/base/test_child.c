/* Children that answer: messages both ways, how they end, that a parent may stop waiting, and that their memory is their own. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <math.h>

#include "base/child.h"
#include "base/machine.h"
#include "base/mem.h"

enum { DOUBLE = 1, DIE, REFUSE, SLEEP, PEAK, MANY };

static void serve(void *ctx, int from, int to)
{
    struct qp_buf b = QP_BUF_INIT;
    uint32_t kind;
    int64_t x = 0;
    (void)ctx;
    while (qp_message_receive(from, &kind, &b, NULL) == 1) {
        struct qp_resident r = {0};
        if (kind == DIE)
            raise(SIGKILL);
        if (kind == REFUSE)
            _exit(7);
        if (kind == SLEEP)
            sleep(600);
        if (kind == MANY) { /* more than a pipe holds */
            static const char big[300000] = "many";
            qp_message_send(to, MANY, big, sizeof big);
            continue;
        }
        if (kind == PEAK && qp_resident_read(&r))
            x = (int64_t)r.peak;
        if (kind == DOUBLE) {
            memcpy(&x, b.data, sizeof x);
            x *= 2;
        }
        qp_message_send(to, kind, &x, sizeof x);
    }
    qp_buf_release(&b);
}

static bool impatient(void)
{
    return true;
}

static int64_t ask(struct qp_child *c, uint32_t what, int64_t x)
{
    struct qp_buf b = QP_BUF_INIT;
    uint32_t kind;
    assert_true(qp_message_send(c->to, what, &x, sizeof x));
    assert_int_equal(qp_message_receive(c->from, &kind, &b, NULL), 1);
    assert_int_equal(kind, what);
    assert_int_equal(b.len, sizeof x);
    memcpy(&x, b.data, sizeof x);
    qp_buf_release(&b);
    return x;
}

static void test_answers(void **s)
{
    (void)s;
    struct qp_child a, b;
    struct qp_buf buf = QP_BUF_INIT;
    char how[64];
    uint32_t kind;
    assert_int_equal(qp_child_start(&a, serve, NULL, NULL), 0);
    assert_int_equal(qp_child_start(&b, serve, NULL, NULL), 0);
    for (int64_t i = 0; i < 50; i++) { /* in turns */
        assert_int_equal(ask(&a, DOUBLE, i), 2 * i);
        assert_int_equal(ask(&b, DOUBLE, -i), -2 * i);
    }
    assert_true(qp_message_send(a.to, MANY, NULL, 0));
    assert_int_equal(qp_message_receive(a.from, &kind, &buf, NULL), 1);
    assert_true(buf.len == 300000 && !strcmp(buf.data, "many"));
    assert_int_equal(qp_child_end(&a, false, how, sizeof how), QP_CHILD_DONE); /* b's copy of a's pipe does not keep it */
    assert_int_equal(qp_child_end(&b, false, how, sizeof how), QP_CHILD_DONE);
    assert_int_equal(qp_child_end(&b, false, how, sizeof how), QP_CHILD_DONE); /* twice is nothing */
    qp_buf_release(&buf);
}

static void test_ends(void **s)
{
    (void)s;
    const struct {
        uint32_t what;
        enum qp_child_end end;
        const char *how;
    } cases[] = {{DIE, QP_CHILD_KILLED, "was ended by signal 9"}, {REFUSE, QP_CHILD_DIED, "ended with status 7"}};
    for (size_t i = 0; i < 2; i++) {
        struct qp_child c;
        struct qp_buf buf = QP_BUF_INIT;
        char how[64];
        uint32_t kind;
        assert_int_equal(qp_child_start(&c, serve, NULL, NULL), 0);
        assert_true(qp_message_send(c.to, cases[i].what, NULL, 0));
        assert_int_equal(qp_message_receive(c.from, &kind, &buf, NULL), 0);
        assert_int_equal(qp_child_end(&c, false, how, sizeof how), cases[i].end);
        assert_string_equal(how, cases[i].how);
        qp_buf_release(&buf);
    }
}

static void test_stopped(void **s)
{
    (void)s;
    struct qp_child c;
    struct qp_buf buf = QP_BUF_INIT;
    char how[64];
    uint32_t kind;
    assert_int_equal(qp_child_start(&c, serve, NULL, NULL), 0);
    assert_true(qp_message_send(c.to, SLEEP, NULL, 0));
    assert_int_equal(qp_message_receive(c.from, &kind, &buf, impatient), -1);
    assert_int_equal(qp_child_end(&c, true, how, sizeof how), QP_CHILD_KILLED);
}

/* A parent that once was big gives its child no peak. */
static void test_peak(void **s)
{
    (void)s;
    const size_t big = (size_t)256 << 20;
    struct qp_resident r;
    struct qp_child c;
    char how[64];
    void *p = qp_alloc(big, "test", NULL);
    assert_non_null(p);
    memset(p, 1, big);
    qp_free(p);
    if (!qp_resident_read(&r) || r.peak < big || r.now > big / 2) {
        print_message("# the peak is not to be had here\n");
        skip();
    }
    assert_int_equal(qp_child_start(&c, serve, NULL, NULL), 0);
    int64_t peak = ask(&c, PEAK, 0);
    assert_true(peak > 0 && (size_t)peak < big / 2);
    qp_child_end(&c, false, how, sizeof how);
}

static void test_machine(void **s)
{
    (void)s;
    struct qp_activity a, b;
    struct qp_resident r;
    char cpu[128], governor[32];
    qp_cpu_name(cpu, sizeof cpu);
    qp_cpu_governor(governor, sizeof governor);
    assert_true(strlen(cpu) < sizeof cpu && strlen(governor) < sizeof governor);
    qp_activity_read(&a);
    double rate = qp_spin_rate();
    qp_activity_read(&b);
    assert_true(rate > 1e6 && isfinite(rate));
    assert_true(b.at > a.at && b.own >= a.own && a.processors > 0);
    double steal = qp_activity_steal(&a, &b), others = qp_activity_others(&a, &b);
    assert_true(isnan(steal) || (steal >= 0 && steal <= 1));
    assert_true(isnan(others) || (others >= 0 && others <= 1));
    /* two processors for ten seconds: 12 worked, 5 of them mine, 1 taken */
    a = (struct qp_activity){.at = 100, .busy = 50, .steal = 1, .own = 3, .processors = 2};
    b = (struct qp_activity){.at = 110, .busy = 62, .steal = 2, .own = 8, .processors = 2};
    assert_true(fabs(qp_activity_steal(&a, &b) - 0.05) < 1e-12 && fabs(qp_activity_others(&a, &b) - 0.35) < 1e-12);
    if (qp_resident_read(&r))
        assert_true(r.now > 0 && r.peak >= r.now / 2);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers), cmocka_unit_test(test_ends), cmocka_unit_test(test_stopped), cmocka_unit_test(test_peak), cmocka_unit_test(test_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
