/* The tensors that quantized weights become: each field where the layout says it is, and every format and packing back through the readers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "model/internal.h"
#include "quant/pack.h"

static uint64_t state = 7;

static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 11) * 0x1p-53 * 2 - 1);
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

static struct qp_qweight random_layer(int64_t rows, int64_t cols, struct qp_grid grid)
{
    struct qp_qlinear q;
    struct qp_qweight w;
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
    qp_qweight_take_ints(&w, &q);
    return w;
}

static int pack(enum qp_packing packing, const struct qp_qweight *w, struct qp_parts *out, struct qp_err *err)
{
    return qp_pack(packing, &w->format, w->rows, w->cols, w, out, err);
}

/* At all widths, with a ragged last group and a shuffled g_idx. */
static void test_gptq_layout(void **in)
{
    (void)in;
    const int bits[] = {2, 3, 4, 8};
    for (int b = 0; b < 4; b++)
        for (int64_t size = 0; size <= 64; size += 32) {
            struct qp_err err = {0};
            struct qp_parts t;
            struct qp_qweight w = random_layer(64, 160, (struct qp_grid){.bits = bits[b], .group_size = size});
            const struct qp_qlinear *q = &w.ints;
            for (int64_t i = 0; i < 160; i++)
                q->g_idx[i] = (int32_t)((i * 7) % 160 / (size ? size : 160));
            assert_int_equal(pack(QP_PACK_GPTQ_V2, &w, &t, &err), 0);
            assert_int_equal(t.v[2].shape[0], size ? (160 + size - 1) / size : 1);
            for (int64_t o = 0; o < 64; o++) {
                for (int64_t i = 0; i < 160; i++)
                    assert_int_equal(field((const int32_t *)t.v[0].data + o, 64, i, bits[b]), q->codes[o * 160 + i]);
                for (int64_t g = 0; g < q->n_groups; g++) {
                    assert_int_equal(field((const int32_t *)t.v[1].data + g * 64 * bits[b] / 32, 1, o, bits[b]), q->zeros[o * q->n_groups + g]);
                    assert_true(qp_f16_to_f32(((const uint16_t *)t.v[2].data)[g * 64 + o]) == q->scales[o * q->n_groups + g]);
                }
            }
            assert_memory_equal(t.v[3].data, q->g_idx, 160 * sizeof(int32_t));
            qp_parts_release(&t);
            qp_qweight_release(&w);
        }
}

/* Version 1 stores zero - 1; in 4 bits and symmetric that is 7 in every field. */
static void test_gptq_version_1(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_parts t;
    struct qp_qweight w = random_layer(32, 64, (struct qp_grid){.bits = 4, .group_size = 32, .sym = true});
    assert_int_equal(pack(QP_PACK_GPTQ_V1, &w, &t, &err), 0);
    for (int64_t i = 0; i < 2 * 32 * 4 / 32; i++)
        assert_int_equal(((const int32_t *)t.v[1].data)[i], 0x77777777);
    qp_parts_release(&t);
    qp_qweight_release(&w);
}

static void test_refused(void **in)
{
    (void)in;
    const struct qp_format three = {.id = QP_FMT_INT, .grid = {.bits = 3, .group_size = 32}}, four = {.id = QP_FMT_INT, .grid = {.bits = 4, .group_size = 48}},
                           nf4 = {.id = QP_FMT_NF4, .block_size = 64}, moved = {.id = QP_FMT_INT, .grid = {.bits = 4, .group_size = 32}, .permuted = true};
    const struct {
        enum qp_packing packing;
        const struct qp_format *f;
        int64_t rows, cols;
        const char *why;
    } cases[] = {{QP_PACK_GPTQ_V2, &three, 12, 40, "does not pack"},     {QP_PACK_GPTQ_V1, &nf4, 64, 64, "hold integer grids"}, {QP_PACK_AWQ, &three, 64, 64, "of 4 bits"},
                 {QP_PACK_AWQ, &four, 64, 64, "whole groups"},           {QP_PACK_AWQ, &four, 12, 96, "outputs by 8"},         {QP_PACK_AWQ, &moved, 64, 64, "neighbouring"},
                 {QP_PACK_BNB, &four, 64, 96, "hold nf4, fp4 and int8"}, {QP_PACK_CT, &four, 64, 64, "do not divide"},         {QP_PACK_CT, &nf4, 64, 64, "integer grids, int8 and fp8"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qp_err err = {0};
        struct qp_parts t;
        assert_int_equal(qp_pack(cases[i].packing, cases[i].f, cases[i].rows, cases[i].cols, NULL, &t, &err), QP_E_INPUT);
        assert_non_null(strstr(err.text, cases[i].why));
    }
}

/* ---- back through the readers ---- */

static const struct qp_tensor *find(void *ctx, const char *part)
{
    const struct qp_parts *p = ctx;
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->v[i].name, part))
            return &p->v[i];
    return NULL;
}

static void expect_same(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (a[i] != b[i])
            fail_msg("weight %lld reads back as %.9g, was %.9g", (long long)i, (double)b[i], (double)a[i]);
}

/* What kernels get is what rows decode to. */
static void expect_codes(const struct qp_store *s, const float *want)
{
    struct qp_codes c;
    qp_store_codes(s, &c);
    if (c.kind == QP_CODES_NONE)
        return;
    uint8_t codes[300];
    float scales[40], zeros[40];
    for (int64_t r = 0; r < s->rows; r++) {
        s->kind->read_codes(s, r, 1, codes, scales, zeros);
        for (int64_t i = 0; i < s->cols; i++) {
            int64_t g = c.g_idx ? c.g_idx[i] : i / c.group_size;
            float v = scales[g] * (c.kind == QP_CODES_TABLE ? c.table[codes[i]] : (float)codes[i] - zeros[g]);
            assert_true(v == want[r * s->cols + i] && g < c.n_groups && codes[i] < 1 << c.bits);
        }
    }
}

static void round_trip(enum qp_packing packing, const struct qp_qweight *w)
{
    struct qp_err err = {0};
    struct qp_parts t, declared;
    struct qp_store *s;
    int64_t n = w->rows * w->cols;
    struct qp_quant_config c = {.method = QP_QUANT_ANY, .zero_minus_one = packing == QP_PACK_GPTQ_V1, .group_size = w->format.grid.group_size, .mixed = true,
                                .block_rows = w->format.block_rows, .block_cols = w->format.block_cols};
    if (packing == QP_PACK_AWQ)
        c.method = QP_QUANT_AWQ;
    float *want = qp_alloc((size_t)n * sizeof *want, "want", &err), *got = qp_alloc((size_t)n * sizeof *got, "got", &err);
    assert_int_equal(pack(packing, w, &t, &err), 0);
    assert_int_equal(qp_pack(packing, &w->format, w->rows, w->cols, NULL, &declared, &err), 0);
    assert_int_equal(declared.n, t.n);
    for (size_t i = 0; i < t.n; i++) { /* what is declared before the work is what comes */
        assert_string_equal(declared.v[i].name, t.v[i].name);
        assert_true(declared.v[i].bytes == t.v[i].bytes && declared.v[i].dtype == t.v[i].dtype && !declared.v[i].data);
    }
    if (qp_store_open(&s, "m.weight", w->rows, w->cols, find, &t, &c, true, &err) != 1)
        fail_msg("packing %d, format %d: %s", packing, w->format.id, err.text);
    assert_true(packing == QP_PACK_AWQ || qp_store_is_whole(find, &t));
    for (size_t i = 0; i < t.n && packing != QP_PACK_AWQ; i++) { /* all but the last: not whole, in whatever order they come */
        struct qp_parts less = t;
        less.v[i] = less.v[--less.n];
        bool optional = !strcmp(t.v[i].name, "weight_shape") || !strcmp(t.v[i].name, "weight_zero_point") || !strcmp(t.v[i].name, "weight_g_idx");
        assert_int_equal(qp_store_is_whole(find, &less), optional);
    }
    qp_qweight_decode(w, want);
    assert_int_equal(qp_store_read_rows(s, 0, w->rows, got, &err), 0);
    expect_same(want, got, n);
    assert_int_equal(qp_store_read_rows(s, 1, 1, got, &err), 0);
    expect_same(want + w->cols, got, w->cols);
    expect_codes(s, want);
    assert_true(fabs((double)s->stored_bits / (double)n - qp_format_bpw(&w->format, w->rows, w->cols)) < 1e-9 || packing == QP_PACK_CT);
    qp_store_free(s);
    qp_parts_release(&t);
    qp_free(want);
    qp_free(got);
}

static void test_ints_round_trip(void **in)
{
    (void)in;
    const int bits[] = {2, 3, 4, 8};
    for (int b = 0; b < 4; b++)
        for (int sym = 0; sym < 2; sym++)
            for (int64_t size = 0; size <= 64; size += 32) {
                struct qp_qweight w = random_layer(64, 160, (struct qp_grid){.bits = bits[b], .group_size = size, .sym = sym});
                round_trip(QP_PACK_GPTQ_V2, &w);
                if (size != 64 && bits[b] == 4)
                    round_trip(QP_PACK_AWQ, &w);
                if (size != 64)
                    round_trip(QP_PACK_CT, &w);
                if (sym)
                    round_trip(QP_PACK_GPTQ_V1, &w);
                w.format.permuted = true;
                for (int64_t i = 0; i < 160; i++)
                    w.ints.g_idx[i] = (int32_t)(i * 7 % 160 / (size ? size : 160));
                round_trip(QP_PACK_GPTQ_V2, &w);
                if (size != 64)
                    round_trip(QP_PACK_CT, &w);
                qp_qweight_release(&w);
            }
}

static void test_formats_round_trip(void **in)
{
    (void)in;
    static const char *const names[] = {"nf4", "nf4-dq", "nf4-32", "nf4-4096", "fp4", "fp4-dq-128", "int8", "fp8", "e4m3-tensor", "e5m2", "e5m2-tensor"};
    const int64_t shapes[][2] = {{64, 128}, {7, 96}, {3, 50}, {5, 256}, {2, 1}, {33, 37}};
    struct qp_exec ex = {0};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            struct qp_err err = {0};
            struct qp_format f;
            struct qp_qweight w;
            static float x[64 * 256];
            for (int64_t i = 0; i < shapes[s][0] * shapes[s][1]; i++)
                x[i] = uniform() * 0.1f * (i % 97 ? 1 : 5);
            assert_int_equal(qp_format_parse(&f, names[k], &err), 0);
            assert_int_equal(qp_qweight_quantize(&w, &f, x, shapes[s][0], shapes[s][1], &ex, &err), 0);
            bool bnb = f.id == QP_FMT_NF4 || f.id == QP_FMT_FP4;
            if (bnb || f.id == QP_FMT_INT8)
                round_trip(QP_PACK_BNB, &w);
            if (!bnb)
                round_trip(QP_PACK_CT, &w);
            qp_qweight_release(&w);
        }
}

static void test_fp8_blocks_round_trip(void **in)
{
    (void)in;
    struct qp_exec ex = {0};
    struct qp_err err = {0};
    struct qp_qweight w;
    const struct qp_format f = {.id = QP_FMT_E4M3, .block_rows = 16, .block_cols = 24};
    static float x[40 * 100];
    for (int64_t i = 0; i < 40 * 100; i++)
        x[i] = uniform();
    assert_int_equal(qp_qweight_quantize(&w, &f, x, 40, 100, &ex, &err), 0);
    assert_int_equal(w.n_scales, 3 * 5);
    round_trip(QP_PACK_CT, &w);
    qp_qweight_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq_layout),     cmocka_unit_test(test_gptq_version_1),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_ints_round_trip), cmocka_unit_test(test_formats_round_trip), cmocka_unit_test(test_fp8_blocks_round_trip),
    };
    return cmocka_run_group_tests_name("quant/pack", tests, NULL, NULL);
}
