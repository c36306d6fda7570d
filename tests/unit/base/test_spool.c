/* Spooled arrays hold what was written, in memory and in files; what was passed comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/spool.h"

#define N ((size_t)8 << 20)

static char folder[] = "/tmp/qp-spool-XXXXXX";

static void fill(float *x, size_t n, float from)
{
    for (size_t i = 0; i < n; i++)
        x[i] = from + (float)(i % 1000);
}

static void check(const float *x, size_t n, float from)
{
    for (size_t i = 0; i < n; i++)
        assert_true(x[i] == from + (float)(i % 1000));
}

static void test_values(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_spool *s;
    assert_int_equal(qp_spool_new(&s, 5000, folder, &err), 0);
    float *a = qp_spool_floats(s, 1000, "a", &err), *b = qp_spool_floats(s, 1001, "b", &err), *c = qp_spool_floats(s, 100, "c", &err);
    assert_true(a && b && c);
    assert_int_equal(qp_spool_file_bytes(s), 1001 * sizeof(float)); /* a takes 4000 of 5000 bytes, c finds room again */
    assert_int_equal((uintptr_t)b % 64, 0);
    fill(a, 1000, 1);
    fill(b, 1001, 2);
    fill(c, 100, 3);
    qp_spool_passed(s, a, 4000);
    qp_spool_passed(s, b + 7, 2000);
    qp_spool_passed(s, b, 1 << 20);
    qp_spool_passed(s, &err, sizeof err); /* none of its arrays */
    qp_spool_passed(NULL, a, 4000);
    check(a, 1000, 1);
    check(b, 1001, 2);
    check(c, 100, 3);
    qp_spool_free(s, b);
    assert_int_equal(qp_spool_file_bytes(s), 0);
    qp_spool_free(s, a);
    qp_spool_free(s, c);
    qp_spool_close(s);
}

static void test_leaves_memory(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_spool *s;
    struct qp_resident before, full, after;
    if (!qp_resident_read(&before))
        skip();
    assert_int_equal(qp_spool_new(&s, 1, folder, &err), 0);
    float *x = qp_spool_floats(s, N, "x", &err);
    assert_non_null(x);
    fill(x, N, 5);
    assert_true(qp_resident_read(&full) && full.now > before.now + N * 3);
    qp_spool_passed(s, x, N * sizeof *x);
    assert_true(qp_resident_read(&after) && after.now < before.now + N);
    check(x, N, 5);
    qp_spool_free(s, x);
    qp_spool_close(s);
}

static void test_no_trace(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_spool *s;
    assert_int_equal(qp_spool_new(&s, 0, folder, &err), 0);
    float *x = qp_spool_floats(s, 5000, "x", &err);
    DIR *d = opendir(folder);
    int names = 0;
    while (readdir(d))
        names++;
    closedir(d);
    assert_int_equal(names, 2); /* . and .. */
    qp_spool_free(s, x);
    qp_spool_close(s);
    assert_int_equal(qp_spool_new(&s, 0, "/no/such/folder", &err), 0);
    assert_null(qp_spool_floats(s, 5000, "x", &err));
    assert_int_equal(err.code, QP_E_RESOURCE);
    assert_non_null(strstr(err.text, "'/no/such/folder'"));
    qp_spool_close(s);
}

static int setup(void **in)
{
    (void)in;
    return !mkdtemp(folder);
}

static int teardown(void **in)
{
    (void)in;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_leaves_memory), cmocka_unit_test(test_no_trace)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
