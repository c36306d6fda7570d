#include "stats/paired.h"

#include <math.h>

#include "stats/stats.h"

double qp_mcnemar_exact(uint64_t b, uint64_t c)
{
    uint64_t k = b < c ? b : c;
    double n = (double)b + (double)c;
    if (b == c)
        return 1;
    /* from the greatest term downwards, each from the one before; later terms fall below the last bit */
    double term = exp(lgamma(n + 1) - lgamma((double)k + 1) - lgamma(n - (double)k + 1) - n * 0.69314718055994530942), sum = 0;
    for (uint64_t i = k; term > sum * 1e-18; i--) {
        sum += term;
        if (!i)
            break;
        term *= (double)i / (n - (double)i + 1);
    }
    return 2 * sum < 1 ? 2 * sum : 1;
}

void qp_wilson_interval(uint64_t successes, uint64_t n, double confidence, double *lo, double *hi)
{
    *lo = *hi = NAN;
    if (!n)
        return;
    double z = qp_normal_quantile(0.5 + confidence / 2), N = (double)n, p = (double)successes / N, shrink = 1 + z * z / N;
    double centre = (p + z * z / (2 * N)) / shrink, half = z * sqrt(p * (1 - p) / N + z * z / (4 * N * N)) / shrink;
    *lo = successes ? centre - half : 0; /* rounding would leave 1e-17 of an end that is exact */
    *hi = successes < n ? centre + half : 1;
}

void qp_holm(const double *p, size_t n, double *adjusted)
{
    for (size_t i = 0; i < n; i++) {
        size_t left = 0; /* hypotheses not yet rejected when this one's turn comes; equal ones share the first one's turn */
        for (size_t k = 0; k < n; k++)
            left += p[k] >= p[i];
        adjusted[i] = p[i] * (double)left > 1 ? 1 : p[i] * (double)left;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) /* no hypothesis is rejected before one with a smaller p */
            if (p[k] <= p[i] && adjusted[k] > adjusted[i])
                adjusted[i] = adjusted[k];
}

double qp_cluster_stderr(const double *sums, const double *counts, size_t n_clusters)
{
    if (n_clusters < 2)
        return NAN;
    double n = qp_sum(counts, n_clusters), mean = qp_sum(sums, n_clusters) / n, squares = 0, G = (double)n_clusters;
    for (size_t g = 0; g < n_clusters; g++) {
        double d = sums[g] - mean * counts[g];
        squares += d * d;
    }
    return sqrt(squares * G / (G - 1)) / n;
}

void qp_resample_sums(const double *const *columns, size_t n_columns, size_t n, struct qp_rng *rng, double *sums)
{
    for (size_t c = 0; c < n_columns; c++)
        sums[c] = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t at = qp_rng_below(rng, (uint32_t)n);
        for (size_t c = 0; c < n_columns; c++)
            sums[c] += columns[c][at];
    }
}

void qp_percentile_interval(double *replicates, size_t n, double confidence, double *lo, double *hi)
{
    qp_sort(replicates, n);
    while (n && isnan(replicates[n - 1]))
        n--;
    *lo = qp_quantile_sorted(replicates, n, 0.5 - confidence / 2);
    *hi = qp_quantile_sorted(replicates, n, 0.5 + confidence / 2);
}
