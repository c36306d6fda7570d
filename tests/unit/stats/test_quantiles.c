/* Distribution-free intervals of quantiles against scipy (tests/golden/make_quantiles.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "stats/quantiles.h"
#include "stats/stats.h"

static json_t *golden;

static bool close_to(double a, double b, double tol)
{
    if (fabs(a - b) <= tol * fabs(b))
        return true;
    print_message("# %.17g, wanted %.17g\n", a, b);
    return false;
}

static double number(const json_t *o, const char *key)
{
    assert_true(json_is_number(json_object_get(o, key)));
    return json_number_value(json_object_get(o, key));
}

static size_t numbers(const json_t *o, const char *key, double *out)
{
    const json_t *a = json_object_get(o, key);
    for (size_t i = 0; i < json_array_size(a); i++)
        out[i] = json_number_value(json_array_get(a, i));
    return json_array_size(a);
}

static const json_t *cases(const char *name)
{
    const json_t *a = json_object_get(golden, name);
    assert_true(json_array_size(a) > 0);
    return a;
}

static bool is_interval(struct qp_quantile got, const double want[3])
{
    return got.shown && close_to(got.value, want[0], 1e-12) && close_to(got.lo, want[1], 1e-12) && close_to(got.hi, want[2], 1e-12);
}

static void test_binomial(void **s)
{
    (void)s;
    size_t i;
    json_t *c;
    json_array_foreach (cases("cdf"), i, c)
        assert_true(close_to(qp_binomial_cdf((size_t)number(c, "k"), (size_t)number(c, "n"), number(c, "p")), number(c, "cdf"), 1e-9));
}

static void test_ranks(void **s)
{
    (void)s;
    size_t i, lo, hi;
    json_t *c;
    json_array_foreach (cases("ranks"), i, c) {
        const json_t *want = json_object_get(c, "ranks");
        bool is = qp_quantile_ranks((size_t)number(c, "n"), number(c, "q"), number(c, "confidence"), &lo, &hi);
        assert_int_equal(is, json_is_array(want));
        if (is) {
            assert_int_equal(lo, json_integer_value(json_array_get(want, 0)));
            assert_int_equal(hi, json_integer_value(json_array_get(want, 1)));
        }
    }
    assert_false(qp_quantile_ranks(0, 0.5, 0.95, &lo, &hi));
    assert_false(qp_quantile_ranks(100, 1, 0.95, &lo, &hi));
}

static void test_support(void **s)
{
    (void)s;
    size_t i;
    json_t *c;
    json_array_foreach (cases("least"), i, c)
        assert_int_equal(qp_quantile_min_n(number(c, "q"), number(c, "confidence")), (size_t)number(c, "n"));
    assert_int_equal(qp_quantile_min_n(0.5, 0.95), 8); /* as the header says */
    assert_int_equal(qp_quantile_min_n(0.9, 0.95), 46);
    assert_int_equal(qp_quantile_min_n(0.99, 0.95), 473);
    assert_int_equal(qp_quantile_min_n(1, 0.95), 0);
    double x[46];
    for (size_t k = 0; k < 46; k++)
        x[k] = (double)k;
    struct qp_quantile few = qp_quantile_of(x, 45, 0.9, 0.95), just = qp_quantile_of(x, 46, 0.9, 0.95);
    assert_true(!few.shown && isnan(few.value) && isnan(few.hi) && few.needs == 46);
    assert_true(just.shown && just.value > 40 && just.lo < just.value && just.hi > just.value);
    assert_false(qp_quantile_of(x, 0, 0.5, 0.95).shown);
}

static void test_samples(void **s)
{
    (void)s;
    static double x[256], q[8], want[32];
    size_t i;
    json_t *c;
    json_array_foreach (cases("sample"), i, c) {
        size_t n = numbers(c, "x", x), n_q = numbers(c, "q", q);
        numbers(c, "intervals", want);
        qp_sort(x, n);
        for (size_t k = 0; k < n_q; k++)
            assert_true(is_interval(qp_quantile_of(x, n, q[k], 0.95), want + 3 * k));
    }
}

static void test_clustered(void **s)
{
    (void)s;
    static double x[512], sorted[512], q[8], want[32], scratch[512];
    size_t i;
    json_t *c;
    json_array_foreach (cases("clustered"), i, c) {
        size_t n = numbers(c, "x", x), n_q = numbers(c, "q", q), clusters = (size_t)number(c, "clusters");
        numbers(c, "intervals", want);
        memcpy(sorted, x, n * sizeof *x);
        qp_sort(sorted, n);
        for (size_t k = 0; k < n_q; k++)
            assert_true(is_interval(qp_quantile_clustered(x, sorted, clusters, n / clusters, q[k], 0.95, scratch), want + 3 * k));
    }
    /* runs that differ by more than their steps: 300 values, but the upper tail is one run's */
    for (size_t k = 0; k < 300; k++)
        sorted[k] = x[k] = (double)(100 * (k / 50) + k % 50);
    assert_true(qp_quantile_of(sorted, 300, 0.9, 0.95).shown);
    assert_false(qp_quantile_clustered(x, sorted, 6, 50, 0.9, 0.95, scratch).shown);
}

static void test_ratio(void **s)
{
    (void)s;
    static double a[128], b[128], want[3], scratch[128];
    size_t i;
    json_t *c;
    json_array_foreach (cases("ratio"), i, c) {
        size_t n = numbers(c, "a", a);
        assert_int_equal(numbers(c, "b", b), n);
        numbers(c, "interval", want);
        assert_true(is_interval(qp_paired_ratio(a, b, n, 0.95, scratch), want));
        assert_false(qp_paired_ratio(a, b, 7, 0.95, scratch).shown);
    }
    for (size_t k = 0; k < 60; k++) { /* what slows both down cancels */
        b[k] = 1 + (double)(k * k % 17);
        a[k] = 1.25 * b[k];
    }
    struct qp_quantile r = qp_paired_ratio(a, b, 60, 0.95, scratch);
    assert_true(r.value == 1.25 && r.lo == 1.25 && r.hi == 1.25);
}

static int setup(void **s)
{
    (void)s;
    char path[4096];
    json_error_t e;
    snprintf(path, sizeof path, "%s/tests/golden/quantiles.json", getenv("QP_ROOT") ? getenv("QP_ROOT") : ".");
    golden = json_load_file(path, 0, &e);
    if (!golden)
        print_message("# %s: %s\n", path, e.text);
    return golden ? 0 : -1;
}

static int teardown(void **s)
{
    (void)s;
    json_decref(golden);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_binomial), cmocka_unit_test(test_ranks), cmocka_unit_test(test_support), cmocka_unit_test(test_samples),
                                       cmocka_unit_test(test_clustered), cmocka_unit_test(test_ratio)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
