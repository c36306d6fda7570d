/* Statistics for evaluation: means with standard errors, paired differences, intervals, quantiles. Pure functions, double inside.
 * Sums are compensated (Neumaier), so a million losses lose no digits. Nothing allocates unless said. */
#ifndef QP_STATS_STATS_H
#define QP_STATS_STATS_H

#include <stddef.h>

struct qp_mean {
    double mean, stderr_; /* stderr_: sample standard deviation / sqrt(n); NaN for n < 2 */
    size_t n;
};

double qp_sum(const double *x, size_t n);
struct qp_mean qp_mean_of(const double *x, size_t n);
/* Mean of a[i] - b[i] and its standard error: the paired comparison. */
struct qp_mean qp_paired_diff(const double *a, const double *b, size_t n);
/* Standard error of a mean over correlated items by batch means: items are averaged in consecutive blocks of `block`, the error is that of the
 * block means (the tail block is weighted by its length). Token losses within a window are correlated, so qppl reports this beside the plain one. */
double qp_block_stderr(const double *x, size_t n, size_t block);
/* Quantile q in [0,1] of sorted values, linear interpolation between order statistics (Hyndman-Fan type 7, numpy's default). NaN for n = 0. */
double qp_quantile_sorted(const double *sorted, size_t n, double q);
/* Sorts in place, ascending; NaN last. */
void qp_sort(double *x, size_t n);
/* Standard normal cumulative distribution and its inverse (p in (0,1)); |error| < 1e-12. */
double qp_normal_cdf(double z);
double qp_normal_quantile(double p);
/* Two-sided interval mean -+ z * se for confidence in (0,1). */
void qp_normal_interval(double mean, double se, double confidence, double *lo, double *hi);

#endif
