/* Against numpy 2.4 and scipy's published values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "stats/stats.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-12 * (1 + fabs((double)(b))))

static void test_means(void **s)
{
    (void)s;
    const double x[] = {1e16, 1, -1e16, 1}, y[] = {2, 4, 4, 4, 5, 5, 7, 9}, z[] = {1, 4, 5, 4, 4, 6, 7, 8};
    NEAR(qp_sum(x, 4), 2.0); /* plain summation gives 1 */
    struct qp_mean m = qp_mean_of(y, 8);
    NEAR(m.mean, 5.0);
    NEAR(m.stderr_, 0.7559289460184544); /* numpy: y.std(ddof=1) / sqrt(8) */
    m = qp_paired_diff(y, z, 8);
    NEAR(m.mean, 0.125);
    NEAR(m.stderr_, 0.29504842217604116);
    assert_true(isnan(qp_mean_of(y, 1).stderr_));
    assert_true(isnan(qp_mean_of(y, 0).mean));
    assert_int_equal(qp_mean_of(y, 0).n, 0);
}

static void test_blocks(void **s)
{
    (void)s;
    const double x[] = {1, 1, 3, 3, 5, 5};
    NEAR(qp_block_stderr(x, 6, 1), qp_mean_of(x, 6).stderr_);
    NEAR(qp_block_stderr(x, 6, 2), 2 / sqrt(3)); /* means 1, 3, 5 */
    assert_true(isnan(qp_block_stderr(x, 6, 6)));
}

static void test_quantiles(void **s)
{
    (void)s;
    double x[] = {5, NAN, 1, 4, 2, 3};
    qp_sort(x, 6);
    assert_true(isnan(x[5]));
    NEAR(qp_quantile_sorted(x, 5, 0.5), 3);
    NEAR(qp_quantile_sorted(x, 5, 0.99), 4.96); /* numpy.percentile(..., 99) */
    NEAR(qp_quantile_sorted(x, 5, 1), 5);
    NEAR(qp_quantile_sorted(x, 5, 0), 1);
    assert_true(isnan(qp_quantile_sorted(x, 0, 0.5)));
}

static void test_normal(void **s)
{
    (void)s;
    NEAR(qp_normal_quantile(0.975), 1.959963984540054);
    NEAR(qp_normal_quantile(0.025), -1.959963984540054);
    NEAR(qp_normal_quantile(0.5), 0);
    NEAR(qp_normal_quantile(1e-10), -6.361340902404056);
    NEAR(qp_normal_cdf(1.959963984540054), 0.975);
    assert_true(isnan(qp_normal_quantile(1)));
    double lo, hi;
    qp_normal_interval(10, 2, 0.95, &lo, &hi);
    NEAR(lo, 10 - 2 * 1.959963984540054);
    NEAR(hi, 10 + 2 * 1.959963984540054);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_means), cmocka_unit_test(test_blocks), cmocka_unit_test(test_quantiles), cmocka_unit_test(test_normal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
