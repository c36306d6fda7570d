#include "quant/allocate.h"

#include <math.h>

#include "base/mem.h"

#define MAX_UNITS ((int64_t)1 << 17)
#define BISECTIONS 100
#define MAX_CHOICES 256

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* sum over layers of the least loss + lambda·cost, less lambda·budget: below every allocation within the budget. */
static double relaxed(const struct qp_choice *c, int64_t n, int k, double lambda, int64_t budget, int64_t *cost)
{
    double sum = -lambda * (double)budget;
    *cost = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct qp_choice *best = &c[i * k];
        for (int j = 1; j < k; j++)
            if (c[i * k + j].loss + lambda * (double)c[i * k + j].cost < best->loss + lambda * (double)best->cost)
                best = &c[i * k + j];
        sum += best->loss + lambda * (double)best->cost;
        *cost += best->cost;
    }
    return sum;
}

/* The greatest of those, over the price of a bit. */
static double bound_of(const struct qp_choice *c, int64_t n, int k, int64_t budget)
{
    int64_t cost;
    double least = 0, most = 1, best = relaxed(c, n, k, 0, budget, &cost);
    if (cost <= budget)
        return best;
    for (int i = 0; i < 1000 && (relaxed(c, n, k, most, budget, &cost), cost > budget); i++)
        most *= 2;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = (least + most) / 2, value = relaxed(c, n, k, middle, budget, &cost);
        best = value > best ? value : best;
        *(cost > budget ? &least : &most) = middle;
    }
    return best;
}

/* least [units + 1]: the least loss of the layers so far within that cost; step [n, units + 1]: the choice of each layer there. */
static void solve(int *chosen, const struct qp_choice *c, int64_t n, int k, int64_t units, int64_t unit, double *least, uint8_t *step)
{
    double *now = least, *next = least + units + 1;
    for (int64_t u = 0; u <= units; u++)
        now[u] = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t u = 0; u <= units; u++)
            next[u] = INFINITY;
        for (int j = 0; j < k; j++) {
            int64_t w = (c[i * k + j].cost + unit - 1) / unit;
            for (int64_t u = w; u <= units; u++)
                if (now[u - w] + c[i * k + j].loss < next[u]) {
                    next[u] = now[u - w] + c[i * k + j].loss;
                    step[i * (units + 1) + u] = (uint8_t)j;
                }
        }
        double *swap = now;
        now = next;
        next = swap;
    }
    for (int64_t i = n, u = units; i-- > 0; u -= (c[i * k + chosen[i]].cost + unit - 1) / unit)
        chosen[i] = step[i * (units + 1) + u];
}

/* The unit: what divides all costs, or coarser; and the cheapest allocation in it. */
static int64_t unit_of(const struct qp_choice *c, int64_t n, int k, int64_t budget)
{
    int64_t unit = 0;
    for (int64_t i = 0; i < n * k; i++)
        unit = common_divisor(c[i].cost, unit);
    return budget / unit > MAX_UNITS ? (budget + MAX_UNITS - 1) / MAX_UNITS : unit;
}

static int64_t cheapest(const struct qp_choice *c, int64_t n, int k, int64_t unit)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t least = c[i * k].cost;
        for (int j = 1; j < k; j++)
            least = c[i * k + j].cost < least ? c[i * k + j].cost : least;
        sum += (least + unit - 1) / unit;
    }
    return sum;
}

int qp_allocate(int *chosen, struct qp_allocation *a, const struct qp_choice *c, int64_t n, int k, int64_t budget, struct qp_err *err)
{
    if (n < 1 || k < 1 || k > MAX_CHOICES)
        return qp_err_set(err, QP_E_INTERNAL, "%lld layers with %d formats to choose from", (long long)n, k);
    if (cheapest(c, n, k, 1) > budget)
        return qp_err_set(err, QP_E_USAGE, "a budget of %.3f MB is below the least that these formats take, %.3f MB", (double)budget / 8e6, (double)cheapest(c, n, k, 1) / 8e6);
    int64_t unit = unit_of(c, n, k, budget), units = budget / unit;
    if (cheapest(c, n, k, unit) > units)
        return qp_err_set(err, QP_E_USAGE, "a budget of %.3f MB is too near the least that these formats take, %.3f MB", (double)budget / 8e6, (double)cheapest(c, n, k, 1) / 8e6);
    double *least = qp_alloc_n((size_t)(2 * (units + 1)), sizeof *least, "allocation", err);
    uint8_t *step = qp_alloc_n((size_t)n, (size_t)(units + 1), "allocation", err);
    int r = least && step ? 0 : QP_E_RESOURCE;
    if (!r) {
        solve(chosen, c, n, k, units, unit, least, step);
        *a = (struct qp_allocation){.bound = bound_of(c, n, k, budget)};
        for (int64_t i = 0; i < n; i++) {
            a->cost += c[i * k + chosen[i]].cost;
            a->loss += c[i * k + chosen[i]].loss;
        }
    }
    qp_free(least);
    qp_free(step);
    return r;
}
