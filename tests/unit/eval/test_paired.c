/* Paired comparisons against scipy and statsmodels (tests/golden/make_stats.py), and their edges: items that overlap, tasks without a ratio, one item. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "eval/paired.h"
#include "eval/paired_report.h"

#define MAX 512

static json_t *golden;

static bool near(double a, double b, double tol)
{
    if (fabs(a - b) <= tol * (1e-9 + fabs(b)) || (isnan(a) && isnan(b)))
        return true;
    print_message("# %.17g, wanted %.17g\n", a, b);
    return false;
}

static bool same(const struct qp_estimate *e, const json_t *want, double tol)
{
    const double got[] = {e->value, e->stderr_, e->lo, e->hi};
    bool ok = true;
    for (size_t i = 0; i < 4; i++)
        ok = near(got[i], json_number_value(json_array_get(want, i)), tol) && ok;
    return ok;
}

static void test_golden(void **s)
{
    (void)s;
    static double base[3][MAX], quant[3][MAX];
    static const char *groups[3][MAX];
    struct qp_paired_items t[3];
    const json_t *tasks = json_object_get(golden, "paired"), *o;
    assert_int_equal(json_array_size(tasks), 3);
    for (size_t k = 0; k < 3; k++) {
        o = json_array_get(tasks, k);
        const json_t *b = json_object_get(o, "base"), *q = json_object_get(o, "quant"), *g = json_object_get(o, "groups");
        size_t n = json_array_size(b);
        for (size_t i = 0; i < n; i++) {
            base[k][i] = json_number_value(json_array_get(b, i));
            quant[k][i] = json_number_value(json_array_get(q, i));
            groups[k][i] = json_string_value(json_array_get(g, i));
        }
        t[k] = (struct qp_paired_items){.task = json_string_value(json_object_get(o, "task")), .metric = "acc", .primary = true, .clustered = groups[k][0] != NULL,
                                        .n = n, .base = base[k], .quant = quant[k], .groups = groups[k][0] ? groups[k] : NULL};
    }
    struct qp_paired p;
    struct qp_paired_options opt = QP_PAIRED_DEFAULTS;
    opt.resamples = (size_t)json_number_value(json_object_get(o, "resamples"));
    assert_int_equal(qp_paired_run(&p, t, 3, &opt, NULL), 0);
    for (size_t k = 0; k < 3; k++) {
        o = json_array_get(tasks, k);
        const struct qp_paired_part *a = &p.tasks[k].all;
        assert_true(a->binary && !p.tasks[k].marked);
        assert_int_equal(a->lost, json_integer_value(json_object_get(o, "lost")));
        assert_int_equal(a->gained, json_integer_value(json_object_get(o, "gained")));
        assert_int_equal(a->both + a->neither + a->lost + a->gained, a->n);
        assert_true(near(a->p, json_number_value(json_object_get(o, "p")), 1e-9));
        assert_true(near(a->p_holm, json_number_value(json_object_get(o, "p_holm")), 1e-9));
        assert_true(same(&a->diff, json_object_get(o, "diff"), 1e-9));
        assert_true(same(&a->retained, json_object_get(o, "retained"), 1e-9));
        assert_true(a->significant == (a->diff.value && fabs(a->diff.value) >= 2 * a->diff.stderr_));
    }
    assert_int_equal(p.tasks[0].all.n_clusters, 13);
    assert_int_equal(p.tasks[1].all.n_clusters, 0);
    assert_true(same(&p.all.score, json_object_get(golden, "quality"), 1e-9));
    qp_paired_release(&p);
}

static void test_groups_worst_first(void **s)
{
    (void)s;
    const double base[] = {1, 0, 1, 1, 1, 0, 1, 1}, quant[] = {1, 1, 0, 0, 1, 0, 0, 1};
    const char *const groups[] = {"b", "b", "c", "c", "a", "a", "d", "d"};
    struct qp_paired_items t = {.task = "t", .metric = "acc", .primary = true, .n = 8, .base = base, .quant = quant, .groups = groups};
    struct qp_paired p;
    assert_int_equal(qp_paired_run(&p, &t, 1, &QP_PAIRED_DEFAULTS, NULL), 0);
    assert_int_equal(p.tasks[0].n_groups, 4);
    const char *const order[] = {"c", "d", "a", "b"};
    const double diff[] = {-1, -0.5, 0, 0.5};
    for (size_t g = 0; g < 4; g++) {
        assert_string_equal(p.tasks[0].groups[g].name, order[g]);
        assert_true(p.tasks[0].groups[g].diff == diff[g]);
    }
    assert_int_equal(p.tasks[0].groups[0].lost, 2);
    assert_true(p.tasks[0].groups[0].significant && p.tasks[0].groups[0].p == 0.5 && p.tasks[0].groups[0].p_holm == 1);
    assert_true(near(p.tasks[0].groups[1].stderr_, 0.5, 1e-12) && !p.tasks[0].groups[1].significant);
    assert_int_equal(p.tasks[0].all.n_clusters, 0); /* categories that are no sample: items are resampled */
    struct qp_buf out = QP_BUF_INIT;
    qp_paired_print(&p, "x: ", &out);
    assert_non_null(strstr(out.data, "x: t acc 75.0 % to 50.0 %: -25.0 points"));
    assert_non_null(strstr(out.data, ", not significant, lost 3, gained 1"));
    assert_non_null(strstr(out.data, "x:   -100.0 points  c, 2 items"));
    qp_buf_release(&out);
    qp_paired_release(&p);
}

static void test_overlap(void **s)
{
    (void)s;
    const double base[] = {1, 1, 0, 1, 0, 1}, quant[] = {1, 0, 1, 0, 0, 1};
    const bool overlap[] = {false, true, true, false, false, false}, all[] = {true, true, true, true, true, true};
    struct qp_paired_items t[] = {{.task = "a", .metric = "acc", .primary = true, .n = 6, .base = base, .quant = quant, .overlap = overlap},
                                  {.task = "b", .metric = "acc", .primary = true, .n = 6, .base = base, .quant = quant, .overlap = all}};
    const double base2[] = {1, 1, 0, 1}, quant2[] = {1, 0, 0, 1};
    struct qp_paired_items without = {.task = "a", .metric = "acc", .primary = true, .n = 4, .base = base2, .quant = quant2};
    struct qp_paired p, w;
    assert_int_equal(qp_paired_run(&p, t, 2, &QP_PAIRED_DEFAULTS, NULL), 0);
    assert_int_equal(qp_paired_run(&w, &without, 1, &QP_PAIRED_DEFAULTS, NULL), 0);
    const struct qp_paired_part *c = &p.tasks[0].clean, *d = &w.tasks[0].all;
    assert_true(p.marked && p.tasks[0].marked);
    assert_int_equal(c->n, 4);
    assert_int_equal(c->lost, 1);
    assert_int_equal(c->gained, 0);
    assert_true(!memcmp(&c->diff, &d->diff, sizeof c->diff) && !memcmp(&c->retained, &d->retained, sizeof c->retained)); /* the same draws */
    assert_int_equal(p.tasks[1].clean.n, 0);
    assert_true(isnan(p.tasks[1].clean.diff.value));
    assert_int_equal(p.all.n_tasks, 2);
    assert_int_equal(p.clean.n_tasks, 1);
    assert_true(near(p.clean.score.value, 2.0 / 3, 1e-12));
    qp_paired_release(&p);
    qp_paired_release(&w);
}

static void test_edges(void **s)
{
    (void)s;
    const double zero[] = {0, 0, 0}, half[] = {0.5, 0, 1}, one[] = {1}, none[] = {0};
    struct qp_paired_items t[] = {{.task = "never", .metric = "acc", .primary = true, .n = 3, .base = zero, .quant = half},
                                  {.task = "single", .metric = "acc", .primary = true, .n = 1, .base = one, .quant = none},
                                  {.task = "same", .metric = "acc_norm", .primary = false, .n = 3, .base = half, .quant = half}};
    struct qp_paired p;
    assert_int_equal(qp_paired_run(&p, t, 3, &QP_PAIRED_DEFAULTS, NULL), 0);
    assert_true(isnan(p.tasks[0].all.retained.value) && !p.tasks[0].all.binary && isnan(p.tasks[0].all.p) && isnan(p.tasks[0].all.p_holm));
    assert_true(near(p.tasks[0].all.diff.value, 0.5, 1e-12));
    assert_true(p.tasks[1].all.diff.value == -1 && isnan(p.tasks[1].all.diff.stderr_) && !p.tasks[1].all.significant && p.tasks[1].all.p == 1);
    assert_true(p.tasks[2].all.diff.value == 0 && !p.tasks[2].all.significant && p.tasks[2].all.retained.value == 100);
    assert_true(p.tasks[2].all.diff.lo == 0 && p.tasks[2].all.diff.hi == 0);
    assert_int_equal(p.all.n_tasks, 1);
    assert_int_equal(p.all.n_left_out, 1);
    assert_true(p.all.score.value == 0);
    qp_paired_release(&p);

    struct qp_err err = {0};
    const double nan_score[] = {0, NAN, 1};
    t[0].quant = nan_score;
    assert_int_equal(qp_paired_run(&p, t, 3, &QP_PAIRED_DEFAULTS, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "task 'never' item 1: scores 0 and nan"));
    err = (struct qp_err){0};
    t[0].n = 0;
    assert_int_equal(qp_paired_run(&p, t, 1, &QP_PAIRED_DEFAULTS, &err), QP_E_INPUT);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_groups_worst_first), cmocka_unit_test(test_overlap),
                                       cmocka_unit_test(test_edges)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
