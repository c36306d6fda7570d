/* Quantiles with distribution-free intervals: ends are order statistics, whose ranks follow from the binomial distribution alone, whatever the data's.
 * Pure functions over arrays, double inside, nothing allocates. Equal to scipy (tests/golden/make_quantiles.py).
 *
 *     qp_sort(x, n);
 *     struct qp_quantile p95 = qp_quantile_of(x, n, 0.95, 0.95);
 *     if (p95.shown) ... p95.value, p95.lo, p95.hi
 *     else ... p95.needs values are needed
 */
#ifndef QP_STATS_QUANTILES_H
#define QP_STATS_QUANTILES_H

#include <stdbool.h>
#include <stddef.h>

/* P(X <= k), X ~ Binomial(n, p), p in (0,1). Relative error of the smaller tail below 1e-9 for n <= 1e6. */
double qp_binomial_cdf(size_t k, size_t n, double p);

/* Ranks (from 1) of the order statistics between which quantile q lies with at least that confidence, half of the rest on either side: the exact interval of
 * scipy's quantile_test(alternative="two-sided"). False where an end would lie outside of the sample; *lo and *hi are untouched then. */
bool qp_quantile_ranks(size_t n, double q, double confidence, size_t *lo, size_t *hi);

/* How many independent values support quantile q: so many that with that confidence two at least lie beyond it (above for q >= 1/2, below else), as then a
 * single odd value neither is the quantile nor its bound. The least n with P(X <= n - 2) >= confidence, X ~ Binomial(n, q): at 95 % 8 for the median, 46 for
 * p90, 93 for p95 and p5, 473 for p99 (Wilks 1942, second order). 0 for q outside (0,1). */
size_t qp_quantile_min_n(double q, double confidence);

struct qp_quantile {
    double value, lo, hi; /* value: type 7, as qp_quantile_sorted; NaN where it is not shown */
    bool shown;           /* the sample supports it */
    size_t n, needs;      /* values there are, values it takes */
};

/* x [n] ascending, independent values. */
struct qp_quantile qp_quantile_of(const double *x, size_t n, double q, double confidence);

/* The same for n_clusters clusters of `size` values each, of which only the clusters are independent (steps of a run): x [n_clusters, size] as it came, sorted
 * [n_clusters * size] the same values ascending. The interval is the wider of the exact one over all values and Woodruff's (1952): the quantiles at
 * q -+ z·se, se the cluster-robust error of the share of values up to the quantile. Not shown where those leave (0,1). scratch [2 * n_clusters]. */
struct qp_quantile qp_quantile_clustered(const double *x, const double *sorted, size_t n_clusters, size_t size, double q, double confidence, double *scratch);

/* Median of the ratios a[i] / b[i] of n pairs, with its exact interval: how much slower (or faster) a is than b where pair i ran side by side, so that what
 * slows both down cancels. scratch [n]. */
struct qp_quantile qp_paired_ratio(const double *a, const double *b, size_t n, double confidence, double *scratch);

#endif
