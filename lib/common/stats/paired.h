/* Statistics of two models on the same items: McNemar's exact test, Wilson's interval, Holm's correction, errors of clustered items, and the bootstrap.
 * Pure functions over arrays, double inside, nothing allocates. Equal to scipy and statsmodels (tests/golden/make_stats.py).
 *
 *     struct qp_rng rng = qp_rng_seed(42);
 *     for (r = 0; r < R; r++) {
 *         qp_resample_sums(columns, 2, n_clusters, &rng, sums);      // columns: sum of differences, count of items, by cluster
 *         means[r] = sums[0] / sums[1];
 *     }
 *     qp_percentile_interval(means, R, 0.95, &lo, &hi);
 */
#ifndef QP_STATS_PAIRED_H
#define QP_STATS_PAIRED_H

#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"

/* McNemar's exact test, two-sided: min(1, 2 P(X <= min(b, c))), X ~ Binomial(b + c, 1/2). b, c: items that only the one, only the other model got
 * right. 1 where the two never differ. As statsmodels' mcnemar(exact=True) and scipy's binomtest. Relative error below 1e-9 for b + c <= 1e6. */
double qp_mcnemar_exact(uint64_t b, uint64_t c);

/* Wilson's interval of a proportion (score interval, no continuity correction), as statsmodels' proportion_confint(method="wilson"). n = 0: NaN. */
void qp_wilson_interval(uint64_t successes, uint64_t n, double confidence, double *lo, double *hi);

/* Holm's step-down correction: adjusted[i] is the smallest family-wise level at which hypothesis i of n is rejected, as statsmodels' multipletests
 * (method="holm"). p in [0,1]; NaN are no hypotheses and stay NaN. adjusted may not alias p. Time n². */
void qp_holm(const double *p, size_t n, double *adjusted);

/* Standard error of the mean of n items that come in clusters, from each cluster's sum and its number of items: sqrt(G/(G-1) Σ (sum_g - mean·n_g)²) / n,
 * the cluster-robust error of a mean (statsmodels' OLS on a constant, cov_type="cluster"). Clusters of one item give the plain error. NaN for G < 2. */
double qp_cluster_stderr(const double *sums, const double *counts, size_t n_clusters);

/* One bootstrap resample: n draws with replacement of row indices, sums[c] = Σ columns[c][index] for each of n_columns columns. n in 1 .. 2^32-1. */
void qp_resample_sums(const double *const *columns, size_t n_columns, size_t n, struct qp_rng *rng, double *sums);

/* Percentile interval of bootstrap replicates (quantiles of type 7, as numpy and scipy's bootstrap(method="percentile")). Sorts in place; replicates that
 * are NaN (a ratio over nothing) are left out; NaN when none is left. */
void qp_percentile_interval(double *replicates, size_t n, double confidence, double *lo, double *hi);

#endif
