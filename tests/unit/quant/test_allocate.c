/* The allocation of formats against all combinations of small cases, and against its bound in large ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "quant/allocate.h"

#define MAX_LAYERS 7
#define MAX_FORMATS 4

/* The least loss of all k^n combinations within the budget. */
static double brute_force(const struct qp_choice *c, int n, int k, int64_t budget)
{
    int all = 1;
    double best = INFINITY;
    for (int i = 0; i < n; i++)
        all *= k;
    for (int code = 0; code < all; code++) {
        int64_t cost = 0;
        double loss = 0;
        for (int i = 0, rest = code; i < n; i++, rest /= k) {
            cost += c[i * k + rest % k].cost;
            loss += c[i * k + rest % k].loss;
        }
        best = cost <= budget && loss < best ? loss : best;
    }
    return best;
}

static void test_brute_force(void **state)
{
    (void)state;
    struct qp_rng rng = qp_rng_seed(7);
    struct qp_choice c[MAX_LAYERS * MAX_FORMATS];
    for (int round = 0; round < 200; round++) {
        int n = 1 + (int)qp_rng_below(&rng, MAX_LAYERS), k = 1 + (int)qp_rng_below(&rng, MAX_FORMATS), chosen[MAX_LAYERS];
        int64_t least = 0, most = 0;
        for (int i = 0; i < n; i++) {
            int64_t lo = INT64_MAX, hi = 0;
            for (int j = 0; j < k; j++) {
                c[i * k + j] = (struct qp_choice){.cost = 12 * (1 + qp_rng_below(&rng, 50)), .loss = (double)qp_rng_below(&rng, 1000) / 100};
                lo = c[i * k + j].cost < lo ? c[i * k + j].cost : lo;
                hi = c[i * k + j].cost > hi ? c[i * k + j].cost : hi;
            }
            least += lo;
            most += hi;
        }
        int64_t budget = least + qp_rng_below(&rng, (uint32_t)(most - least + 20));
        struct qp_allocation a;
        struct qp_err err = {0};
        double want = brute_force(c, n, k, budget);
        assert_int_equal(qp_allocate(chosen, &a, c, n, k, budget, &err), 0);
        assert_true(fabs(a.loss - want) < 1e-9);
        assert_true(a.cost <= budget);
        assert_true(a.bound <= a.loss + 1e-9);
        assert_int_equal(qp_allocate(chosen, &a, c, n, k, least, &err), 0);
        assert_int_equal(qp_allocate(chosen, &a, c, n, k, least - 1, &err), QP_E_USAGE);
        assert_non_null(strstr(err.text, "below the least"));
    }
}

/* More units than the table holds: within the budget still, and near the bound. */
static void test_coarse(void **state)
{
    (void)state;
    enum { N = 300, K = 5 };
    static struct qp_choice c[N * K];
    static int chosen[N];
    struct qp_rng rng = qp_rng_seed(9);
    int64_t budget = 0;
    for (int i = 0; i < N; i++) {
        int64_t weights = 1000003 + qp_rng_below(&rng, 1000000);
        double need = exp((double)qp_rng_below(&rng, 600) / 100 - 3);
        for (int j = 0; j < K; j++)
            c[i * K + j] = (struct qp_choice){.cost = weights * (3 + j), .loss = need * pow(4, -j)};
        budget += weights * 9 / 2;
    }
    struct qp_allocation a;
    struct qp_err err = {0};
    assert_int_equal(qp_allocate(chosen, &a, c, N, K, budget, &err), 0);
    assert_true(a.cost <= budget && a.cost > budget - budget / 200);
    assert_true(a.loss >= a.bound && a.loss < 1.02 * a.bound);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_brute_force), cmocka_unit_test(test_coarse)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
