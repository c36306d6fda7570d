/* McNemar, Wilson, Holm, clustered errors and the bootstrap against scipy and statsmodels (tests/golden/make_stats.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "stats/paired.h"
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

static void test_mcnemar(void **s)
{
    (void)s;
    size_t i;
    json_t *c;
    json_array_foreach (cases("mcnemar"), i, c) {
        double p = qp_mcnemar_exact((uint64_t)number(c, "b"), (uint64_t)number(c, "c"));
        assert_true(close_to(p, number(c, "p"), 1e-9));
        assert_true(close_to(p, number(c, "binomtest"), 1e-9));
    }
}

static void test_wilson(void **s)
{
    (void)s;
    size_t i;
    json_t *c;
    double want[2], lo, hi;
    json_array_foreach (cases("wilson"), i, c) {
        numbers(c, "interval", want);
        qp_wilson_interval((uint64_t)number(c, "x"), (uint64_t)number(c, "n"), number(c, "confidence"), &lo, &hi);
        assert_true(close_to(lo, want[0], 1e-12) && close_to(hi, want[1], 1e-12));
    }
    qp_wilson_interval(0, 0, 0.95, &lo, &hi);
    assert_true(isnan(lo) && isnan(hi));
}

static void test_holm(void **s)
{
    (void)s;
    size_t i;
    json_t *c;
    double p[16], want[16], got[16];
    json_array_foreach (cases("holm"), i, c) {
        size_t n = numbers(c, "p", p);
        assert_int_equal(numbers(c, "adjusted", want), n);
        qp_holm(p, n, got);
        for (size_t k = 0; k < n; k++)
            assert_true(close_to(got[k], want[k], 1e-12));
    }
    qp_holm((double[]){0.03, NAN, 0.04}, 3, got); /* NaN is no hypothesis: two are left */
    assert_true(close_to(got[0], 0.06, 1e-12) && isnan(got[1]) && close_to(got[2], 0.06, 1e-12));
}

static void test_cluster(void **s)
{
    (void)s;
    size_t i;
    json_t *c;
    double sums[64], counts[64];
    json_array_foreach (cases("cluster"), i, c) {
        size_t n = numbers(c, "sums", sums);
        assert_int_equal(numbers(c, "counts", counts), n);
        assert_true(close_to(qp_cluster_stderr(sums, counts, n), number(c, "stderr"), 1e-12));
        if (counts[0] == 1)
            assert_true(close_to(qp_cluster_stderr(sums, counts, n), qp_mean_of(sums, n).stderr_, 1e-12));
    }
    assert_true(isnan(qp_cluster_stderr(sums, counts, 1)));
}

static void test_bootstrap(void **s)
{
    (void)s;
    static double num[64], den[64], want[2], ratio[4096], sums[2];
    size_t i;
    json_t *c;
    json_array_foreach (cases("bootstrap"), i, c) {
        size_t n = numbers(c, "num", num), R = (size_t)number(c, "resamples");
        double lo, hi;
        numbers(c, "den", den);
        numbers(c, "interval", want);
        struct qp_rng rng = qp_rng_seed((uint64_t)number(c, "seed"));
        for (size_t r = 0; r < R; r++) {
            qp_resample_sums((const double *const[]){num, den}, 2, n, &rng, sums);
            ratio[r] = sums[0] / sums[1];
        }
        assert_true(close_to(qp_mean_of(ratio, R).stderr_ * sqrt((double)R), number(c, "stderr"), 1e-10));
        qp_percentile_interval(ratio, R, 0.95, &lo, &hi);
        assert_true(close_to(lo, want[0], 1e-12) && close_to(hi, want[1], 1e-12));
    }
    double lo, hi;
    qp_percentile_interval((double[]){NAN, 2, NAN, 1, 3}, 5, 0.5, &lo, &hi);
    assert_true(lo == 1.5 && hi == 2.5);
    qp_percentile_interval((double[]){NAN}, 1, 0.95, &lo, &hi);
    assert_true(isnan(lo) && isnan(hi));
}

static int setup(void **s)
{
    (void)s;
    char path[4096];
    json_error_t e;
    snprintf(path, sizeof path, "%s/tests/golden/stats.json", getenv("QP_ROOT") ? getenv("QP_ROOT") : ".");
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mcnemar), cmocka_unit_test(test_wilson), cmocka_unit_test(test_holm), cmocka_unit_test(test_cluster),
                                       cmocka_unit_test(test_bootstrap)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
