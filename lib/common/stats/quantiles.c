#include "stats/quantiles.h"

#include <math.h>

#include "stats/paired.h"
#include "stats/stats.h"

/* Sum of the probabilities from k outwards (step -1: down to 0, +1: up to n), k on that side of the mean, so that terms fall. */
static double tail(size_t k, size_t n, double p, int step)
{
    double N = (double)n, K = (double)k, sum = 0;
    double term = exp(lgamma(N + 1) - lgamma(K + 1) - lgamma(N - K + 1) + K * log(p) + (N - K) * log1p(-p));
    for (;; K += step) {
        sum += term;
        if (term <= sum * 1e-17 || (step < 0 ? K <= 0 : K >= N))
            return sum;
        term *= step < 0 ? K / (N - K + 1) * (1 - p) / p : (N - K) / (K + 1) * p / (1 - p);
    }
}

double qp_binomial_cdf(size_t k, size_t n, double p)
{
    if (k >= n)
        return 1;
    return (double)k < (double)n * p ? tail(k, n, p, -1) : 1 - tail(k + 1, n, p, 1);
}

/* P(X > k), without the loss of digits of 1 - P(X <= k). */
static double above(size_t k, size_t n, double p)
{
    if (k >= n)
        return 0;
    return (double)k < (double)n * p ? 1 - tail(k, n, p, -1) : tail(k + 1, n, p, 1);
}

bool qp_quantile_ranks(size_t n, double q, double confidence, size_t *lo, size_t *hi)
{
    double half = (1 - confidence) / 2;
    if (!n || !(q > 0 && q < 1) || !(half > 0 && half < 0.5) || qp_binomial_cdf(0, n, q) >= half || above(n - 1, n, q) > half)
        return false;
    size_t from = 0, to = n; /* the least k with P(X <= k) >= half */
    while (to - from > 1) {
        size_t mid = from + (to - from) / 2;
        *(qp_binomial_cdf(mid, n, q) >= half ? &to : &from) = mid;
    }
    *lo = to;
    from = 0, to = n - 1; /* the least k with P(X > k) <= half */
    while (to - from > 1) {
        size_t mid = from + (to - from) / 2;
        *(above(mid, n, q) <= half ? &to : &from) = mid;
    }
    *hi = to + 1;
    return true;
}

static bool enough(double n, double q, double confidence)
{
    return pow(q, n) + n * pow(q, n - 1) * (1 - q) <= 1 - confidence;
}

size_t qp_quantile_min_n(double q, double confidence)
{
    q = q < 0.5 ? 1 - q : q;
    if (!(q < 1) || !(confidence > 0 && confidence < 1))
        return 0;
    size_t n = 2;
    while (!enough((double)n, q, confidence))
        n *= 2;
    for (size_t step = n / 2; step; step /= 2) /* between n/2, which is too few, and n */
        if (n - step >= 2 && enough((double)(n - step), q, confidence))
            n -= step;
    return n;
}

struct qp_quantile qp_quantile_of(const double *x, size_t n, double q, double confidence)
{
    struct qp_quantile r = {.value = NAN, .lo = NAN, .hi = NAN, .n = n, .needs = qp_quantile_min_n(q, confidence)};
    size_t lo, hi;
    if (!r.needs || n < r.needs || !qp_quantile_ranks(n, q, confidence, &lo, &hi))
        return r;
    r.shown = true;
    r.value = qp_quantile_sorted(x, n, q);
    r.lo = x[lo - 1];
    r.hi = x[hi - 1];
    return r;
}

struct qp_quantile qp_quantile_clustered(const double *x, const double *sorted, size_t n_clusters, size_t size, double q, double confidence, double *scratch)
{
    struct qp_quantile r = qp_quantile_of(sorted, n_clusters * size, q, confidence);
    double *below = scratch, *counts = scratch + n_clusters, z = qp_normal_quantile(0.5 + confidence / 2);
    if (!r.shown)
        return r;
    for (size_t g = 0; g < n_clusters; g++) {
        below[g] = 0;
        counts[g] = (double)size;
        for (size_t i = 0; i < size; i++)
            below[g] += x[g * size + i] <= r.value;
    }
    double se = qp_cluster_stderr(below, counts, n_clusters), from = q - z * se, to = q + z * se;
    if (!(from > 0 && to < 1))
        return (struct qp_quantile){.value = NAN, .lo = NAN, .hi = NAN, .n = r.n, .needs = r.needs};
    r.lo = fmin(r.lo, qp_quantile_sorted(sorted, r.n, from));
    r.hi = fmax(r.hi, qp_quantile_sorted(sorted, r.n, to));
    return r;
}

struct qp_quantile qp_paired_ratio(const double *a, const double *b, size_t n, double confidence, double *scratch)
{
    for (size_t i = 0; i < n; i++)
        scratch[i] = a[i] / b[i];
    qp_sort(scratch, n);
    return qp_quantile_of(scratch, n, 0.5, confidence);
}
