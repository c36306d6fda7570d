/* Grids, and rounding to nearest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "quant/gptq.h"

static uint64_t state = 7;

static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 11) * 0x1p-53 * 2 - 1);
}

/* Values that lie on the grid come back exactly; the codes are known in advance. */
static void test_rtn_exact(void **in)
{
    (void)in;
    struct qp_exec ex = {0};
    struct qp_err err = {0};
    struct qp_qlinear q;
    float w[64], back[64];
    for (int i = 0; i < 32; i++) {
        w[i] = 0.25f * (float)(i % 16 - 6);   /* asymmetric: -1.5 .. 2.25, scale 0.25, zero 6 */
        w[32 + i] = 0.5f * (float)(i % 16);   /* 0 .. 7.5: zero 0 */
    }
    assert_int_equal(qp_rtn_quantize(&q, w, 1, 64, (struct qp_grid){.bits = 4, .group_size = 32}, &ex, &err), 0);
    assert_int_equal(q.n_groups, 2);
    assert_true(q.scales[0] == 0.25f && q.scales[1] == 0.5f);
    assert_int_equal(q.zeros[0], 6);
    assert_int_equal(q.zeros[1], 0);
    for (int i = 0; i < 64; i++)
        assert_int_equal(q.codes[i], i % 16);
    qp_qlinear_decode(&q, back);
    assert_memory_equal(back, w, sizeof w);
    qp_qlinear_release(&q);
    /* symmetric: zero in the middle, the greatest magnitude at (2^b - 1) / 2 scales */
    const float s[4] = {-1.5f, 0.2f, 0.7f, 1.f};
    assert_int_equal(qp_rtn_quantize(&q, s, 1, 4, (struct qp_grid){.bits = 2, .sym = true}, &ex, &err), 0);
    const uint8_t want[4] = {1 /* -1.5 is half a step beyond -1: rounds up */, 2, 3, 3};
    assert_true(q.scales[0] == 1.f && q.zeros[0] == 2);
    assert_memory_equal(q.codes, want, 4);
    qp_qlinear_release(&q);
}

static void test_degenerate_groups(void **in)
{
    (void)in;
    const float zero[40] = {0}, high = 3e38f, tiny = 1e-30f;
    float w[40];
    struct qp_exec ex = {0};
    struct qp_err err = {0};
    for (int kind = 0; kind < 5; kind++)
        for (int sym = 0; sym < 2; sym++)
            for (int search = 0; search < 2; search++) {
                struct qp_qlinear q;
                for (int i = 0; i < 40; i++)
                    w[i] = kind == 0 ? zero[i] : kind == 1 ? 0.375f : kind == 2 ? -2.5f : kind == 3 ? (i == 7 ? high : 0.1f) : tiny * (float)(i - 20);
                assert_int_equal(qp_rtn_quantize(&q, w, 1, 40, (struct qp_grid){.bits = 4, .group_size = 32, .sym = sym, .search = search}, &ex, &err), 0);
                float back[40];
                qp_qlinear_decode(&q, back);
                assert_int_equal(q.n_groups, 2);
                for (int i = 0; i < 40; i++) {
                    assert_true(isfinite(back[i]) && q.codes[i] < 16);
                    assert_true(kind != 0 || back[i] == 0);
                    assert_true(kind > 2 || fabsf(back[i] - w[i]) <= 0.07f * fabsf(w[i]));
                }
                for (int g = 0; g < 2; g++)
                    assert_true(q.scales[g] > 0 && q.scales[g] == qp_f16_to_f32(qp_f32_to_f16(q.scales[g])));
                qp_qlinear_release(&q);
            }
}

static double weighted(const float *w, const float *h, int n, float scale, int zero, int max)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double d = (double)w[i] - (double)scale * (qp_grid_code(w[i], 1.f / scale, zero, max) - zero);
        sum += (h ? (double)h[i] : 1) * d * d;
    }
    return sum;
}

/* The search never loses to the plain range by the measure that it minimizes, and wins where one weight is an unimportant outlier. */
static void test_search(void **in)
{
    (void)in;
    for (int n = 5; n <= 600; n += 119)
        for (int bits = 2; bits <= 4; bits++)
            for (int sym = 0; sym < 2; sym++)
                for (int important = 0; important < 2; important++) {
                    float w[600], h[600], s0, s1;
                    uint8_t z0, z1;
                    for (int i = 0; i < n; i++) {
                        w[i] = uniform();
                        h[i] = 0.5f + fabsf(uniform());
                    }
                    w[1] = 3;
                    h[1] = 1e-3f;
                    const float *weights = important ? h : NULL;
                    struct qp_grid g = {.bits = bits, .sym = sym};
                    int max = (1 << bits) - 1;
                    qp_grid_fit(&g, w, weights, n, &s0, &z0);
                    g.search = true;
                    qp_grid_fit(&g, w, weights, n, &s1, &z1);
                    double plain = weighted(w, weights, n, s0, z0, max), searched = weighted(w, weights, n, s1, z1, max);
                    assert_true(searched <= plain * (1 + 1e-5));
                    assert_true(!important || bits < 4 || !sym || n < 100 || searched < 0.7 * plain);
                }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rtn_exact),
        cmocka_unit_test(test_degenerate_groups),
        cmocka_unit_test(test_search),
    };
    return cmocka_run_group_tests_name("quant/qlinear", tests, NULL, NULL);
}
