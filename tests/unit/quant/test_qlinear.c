/* Grids, rounding to nearest, and the packed layout. */
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

static uint32_t field(const int32_t *p, int64_t step, int64_t i, int bits)
{
    uint32_t v = 0;
    for (int b = 0; b < bits; b++) { /* bit by bit: independent of how words are cut */
        int64_t bit = i * bits + b;
        v |= (((uint32_t)p[bit / 32 * step] >> (bit % 32)) & 1u) << b;
    }
    return v;
}

static struct qp_qlinear random_layer(int64_t rows, int64_t cols, struct qp_grid grid)
{
    struct qp_qlinear q;
    struct qp_err err = {0};
    assert_int_equal(qp_qlinear_init(&q, rows, cols, grid, &err), 0);
    for (int64_t i = 0; i < rows * cols; i++)
        q.codes[i] = (uint8_t)((uint32_t)(state = state * 6364136223846793005u + 1) >> 7 & ((1u << grid.bits) - 1));
    for (int64_t i = 0; i < rows * q.n_groups; i++) {
        q.scales[i] = qp_f16_to_f32(qp_f32_to_f16(0.01f + fabsf(uniform())));
        q.zeros[i] = (uint8_t)((uint32_t)(state = state * 6364136223846793005u + 1) >> 9 & ((1u << grid.bits) - 1));
        if (grid.sym)
            q.zeros[i] = (uint8_t)(1 << (grid.bits - 1));
    }
    return q;
}

/* Each field where the layout says it is, at all widths, with a ragged last group and a shuffled g_idx. */
static void test_pack_layout(void **in)
{
    (void)in;
    const int bits[] = {2, 3, 4, 8};
    for (int b = 0; b < 4; b++)
        for (int64_t size = 0; size <= 64; size += 32) {
            struct qp_err err = {0};
            struct qp_gptq_tensors t;
            struct qp_qlinear q = random_layer(64, 160, (struct qp_grid){.bits = bits[b], .group_size = size});
            for (int64_t i = 0; i < 160; i++)
                q.g_idx[i] = (int32_t)((i * 7) % 160 / (size ? size : 160));
            assert_int_equal(qp_qlinear_pack(&q, false, &t, &err), 0);
            assert_int_equal(t.n_groups, size ? (160 + size - 1) / size : 1);
            assert_int_equal(t.group_size, size ? size : 160);
            for (int64_t o = 0; o < 64; o++) {
                for (int64_t i = 0; i < 160; i++)
                    assert_int_equal(field(t.qweight + o, 64, i, bits[b]), q.codes[o * 160 + i]);
                for (int64_t g = 0; g < t.n_groups; g++) {
                    assert_int_equal(field(t.qzeros + g * 64 * bits[b] / 32, 1, o, bits[b]), q.zeros[o * q.n_groups + g]);
                    assert_true(qp_f16_to_f32(t.scales[g * 64 + o]) == q.scales[o * q.n_groups + g]);
                }
            }
            assert_memory_equal(t.g_idx, q.g_idx, 160 * sizeof *t.g_idx);
            qp_free((void *)(uintptr_t)t.qweight);
            qp_qlinear_release(&q);
        }
}

/* Version 1 stores zero - 1; in 4 bits and symmetric that is 7 in every field. */
static void test_pack_version_1(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_gptq_tensors t;
    struct qp_qlinear q = random_layer(32, 64, (struct qp_grid){.bits = 4, .group_size = 32, .sym = true});
    assert_int_equal(qp_qlinear_pack(&q, true, &t, &err), 0);
    for (int64_t i = 0; i < 2 * 32 * 4 / 32; i++)
        assert_int_equal(t.qzeros[i], 0x77777777);
    assert_true(t.zero_minus_one);
    qp_free((void *)(uintptr_t)t.qweight);
    qp_qlinear_release(&q);
}

static void test_pack_refuses(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_gptq_tensors t;
    struct qp_qlinear q = random_layer(12, 40, (struct qp_grid){.bits = 3, .group_size = 32});
    assert_int_equal(qp_qlinear_pack(&q, false, &t, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "does not pack"));
    qp_qlinear_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rtn_exact),   cmocka_unit_test(test_degenerate_groups), cmocka_unit_test(test_search),
        cmocka_unit_test(test_pack_layout), cmocka_unit_test(test_pack_version_1),    cmocka_unit_test(test_pack_refuses),
    };
    return cmocka_run_group_tests_name("quant/qlinear", tests, NULL, NULL);
}
