#include "stats/stats.h"

#include <math.h>
#include <stdlib.h>

double qp_sum(const double *x, size_t n)
{
    double sum = 0, lost = 0; /* Neumaier */
    for (size_t i = 0; i < n; i++) {
        double t = sum + x[i];
        lost += fabs(sum) >= fabs(x[i]) ? (sum - t) + x[i] : (x[i] - t) + sum;
        sum = t;
    }
    return sum + lost;
}

static struct qp_mean from_deviation(double mean, double squares, size_t n)
{
    return (struct qp_mean){mean, n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : NAN, n};
}

struct qp_mean qp_mean_of(const double *x, size_t n)
{
    if (!n)
        return (struct qp_mean){NAN, NAN, 0};
    double mean = qp_sum(x, n) / (double)n, squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return from_deviation(mean, squares, n);
}

struct qp_mean qp_paired_diff(const double *a, const double *b, size_t n)
{
    if (!n)
        return (struct qp_mean){NAN, NAN, 0};
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] - b[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (a[i] - b[i] - mean) * (a[i] - b[i] - mean);
    return from_deviation(mean, squares, n);
}

double qp_block_stderr(const double *x, size_t n, size_t block)
{
    if (!block || n <= block)
        return NAN;
    double mean = qp_sum(x, n) / (double)n, squares = 0;
    size_t blocks = 0;
    for (size_t at = 0; at < n; at += block, blocks++) {
        size_t len = n - at < block ? n - at : block;
        double d = qp_sum(x + at, len) - mean * (double)len; /* weighted by the length, so a short tail counts less */
        squares += d * d;
    }
    return sqrt(squares * (double)blocks / (double)(blocks - 1)) / (double)n;
}

double qp_quantile_sorted(const double *sorted, size_t n, double q)
{
    if (!n)
        return NAN;
    double at = q * (double)(n - 1);
    size_t lo = (size_t)floor(at);
    if (lo + 1 >= n)
        return sorted[n - 1];
    return sorted[lo] + (at - (double)lo) * (sorted[lo + 1] - sorted[lo]);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

void qp_sort(double *x, size_t n)
{
    if (n)
        qsort(x, n, sizeof *x, ascending);
}

double qp_normal_cdf(double z)
{
    return 0.5 * erfc(-z * 0.70710678118654752440);
}

/* Acklam's rational approximation, then one step of Halley's method with the exact distribution. */
double qp_normal_quantile(double p)
{
    static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02, 1.383577518672690e+02, -3.066479806614716e+01, 2.506628277459239e+00};
    static const double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01, -1.328068155288572e+01};
    static const double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00, -2.549732539343734e+00, 4.374664141464968e+00, 2.938163982698783e+00};
    static const double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00};
    if (!(p > 0 && p < 1))
        return NAN;
    double tail = p < 0.5 ? p : 1 - p, x;
    if (tail < 0.02425) {
        double q = sqrt(-2 * log(tail));
        x = (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) / ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    } else {
        double q = tail - 0.5, r = q * q;
        x = (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q / (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
    }
    double e = qp_normal_cdf(x) - tail, u = e * 2.50662827463100050242 * exp(x * x / 2);
    x -= u / (1 + x * u / 2);
    return p < 0.5 ? x : -x;
}

void qp_normal_interval(double mean, double se, double confidence, double *lo, double *hi)
{
    double z = qp_normal_quantile(0.5 + confidence / 2);
    *lo = mean - z * se;
    *hi = mean + z * se;
}
