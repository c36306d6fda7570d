/* Draws equal CPython's, in both of sample()'s branches and for seeds of one and two words (golden/mc.json). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/pyrandom.h"

static void equal(const json_t *want, const uint32_t *got, uint32_t k)
{
    assert_int_equal(json_array_size(want), k);
    for (uint32_t i = 0; i < k; i++)
        assert_int_equal(json_integer_value(json_array_get(want, i)), got[i]);
}

static void test_draws(void **state)
{
    (void)state;
    char path[4096];
    const char *root = getenv("QP_ROOT");
    snprintf(path, sizeof path, "%.2000s/tests/golden/mc.json", root ? root : ".");
    json_t *all = json_load_file(path, 0, NULL), *d, *row;
    size_t i, j;
    uint32_t got[64];
    struct qp_pyrandom r;
    struct qp_err err = {0};
    assert_non_null(all);
    json_array_foreach(json_object_get(all, "draws"), i, d)
    {
        uint32_t n = (uint32_t)json_integer_value(json_object_get(d, "n")), k = (uint32_t)json_integer_value(json_object_get(d, "k"));
        qp_pyrandom_seed(&r, 1234);
        json_array_foreach(json_object_get(d, "draws"), j, row)
        {
            assert_int_equal(qp_pyrandom_sample(&r, n, k, got, &err), 0);
            equal(row, got, k);
        }
    }
    assert_int_equal(i, 11);
    json_array_foreach(json_object_get(all, "seeds"), i, d)
    {
        qp_pyrandom_seed(&r, (uint64_t)json_integer_value(json_object_get(d, "seed")));
        assert_int_equal(qp_pyrandom_sample(&r, 1000, 8, got, &err), 0);
        equal(json_object_get(d, "draws"), got, 8);
    }
    assert_int_equal(i, 5);
    assert_int_equal(qp_pyrandom_sample(&r, 3, 4, got, &err), QP_E_INTERNAL);
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_draws)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
