/* Formats against bitsandbytes and torch, bit for bit (tests/golden/make_formats.py); names; damaged tensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "model/codebook.h"
#include "model/internal.h"
#include "quant/blockwise.h"
#include "quant/pack.h"

#define ROWS 24
#define COLS 100

static json_t *golden;

static int setup(void **in)
{
    char path[4200];
    const char *root = getenv("QP_ROOT");
    (void)in;
    snprintf(path, sizeof path, "%s/tests/golden/formats.json", root ? root : ".");
    golden = json_load_file(path, 0, NULL);
    return golden ? 0 : 1;
}

static int teardown(void **in)
{
    (void)in;
    json_decref(golden);
    return 0;
}

static void make_weights(float *w)
{
    for (uint32_t i = 0; i < ROWS * COLS; i++) {
        float v = (float)((int)(i * 2654435761u >> 20) - 2048) * (i % 53 ? 1.f : 4.f) / 8192 * (i >= 640 && i < 704 ? 0 : 1);
        w[i] = qp_f16_to_f32(qp_f32_to_f16(v));
    }
}

/* The bytes must be those of a hexadecimal text. */
static void expect_bytes(const void *data, size_t bytes, const json_t *o, const char *key)
{
    const char *hex = json_string_value(json_object_get(o, key)), *name = json_string_value(json_object_get(o, "format"));
    assert_non_null(hex);
    if (strlen(hex) != 2 * bytes)
        fail_msg("%s %s: %zu bytes, expected %zu", name ? name : "", key, bytes, strlen(hex) / 2);
    for (size_t i = 0; i < bytes; i++) {
        unsigned want;
        sscanf(hex + 2 * i, "%2x", &want);
        if (((const uint8_t *)data)[i] != want)
            fail_msg("%s %s: byte %zu is %02x, expected %02x", name ? name : "", key, i, ((const uint8_t *)data)[i], want);
    }
}

static void test_bitsandbytes(void **in)
{
    (void)in;
    float w[ROWS * COLS];
    size_t i;
    json_t *c;
    struct qp_exec ex = {0};
    make_weights(w);
    json_array_foreach(json_object_get(golden, "cases"), i, c)
    {
        struct qp_err err = {0};
        struct qp_format f;
        struct qp_qweight q;
        struct qp_parts p;
        assert_int_equal(qp_format_parse(&f, json_string_value(json_object_get(c, "format")), &err), 0);
        assert_int_equal(qp_qweight_quantize(&q, &f, w, ROWS, COLS, &ex, &err), 0);
        assert_int_equal(qp_pack(QP_PACK_BNB, &f, ROWS, COLS, &q, &p, &err), 0);
        expect_bytes(p.v[0].data, p.v[0].bytes, c, "codes");
        expect_bytes(p.v[1].data, p.v[1].bytes, c, "absmax");
        if (f.double_quant) {
            expect_bytes(p.v[3].data, p.v[3].bytes, c, "nested");
            expect_bytes(&q.offset, sizeof q.offset, c, "offset");
        }
        qp_parts_release(&p);
        qp_qweight_release(&q);
    }
    assert_true(i == 9);
}

static void test_maps(void **in)
{
    (void)in;
    const json_t *maps = json_object_get(golden, "maps");
    float map[256], e4m3[256], e5m2[256];
    uint8_t ramp[2][858];
    qp_dynamic_map(map);
    expect_bytes(map, sizeof map, maps, "dynamic");
    expect_bytes(qp_nf4, 64, maps, "nf4");
    expect_bytes(qp_fp4, 64, maps, "fp4");
    for (int c = 0; c < 256; c++) {
        e4m3[c] = isfinite(qp_e4m3_table()[c]) ? qp_e4m3_table()[c] : 12345.f;
        e5m2[c] = isfinite(qp_e5m2_table()[c]) ? qp_e5m2_table()[c] : 12345.f;
    }
    expect_bytes(e4m3, sizeof e4m3, maps, "e4m3");
    expect_bytes(e5m2, sizeof e5m2, maps, "e5m2");
    for (int i = -3000, k = 0; i < 3000; i += 7, k++) {
        float v = (float)((double)i * abs(i) / 16384);
        ramp[0][k] = qp_f32_to_e4m3(v);
        ramp[1][k] = qp_f32_to_e5m2(v);
    }
    expect_bytes(ramp[0], sizeof ramp[0], maps, "e4m3_ramp");
    expect_bytes(ramp[1], sizeof ramp[1], maps, "e5m2_ramp");
    assert_true(qp_f32_to_e4m3(1e9f) == 0x7e && qp_f32_to_e5m2(-INFINITY) == 0xfb && (qp_f32_to_e4m3(NAN) & 0x7f) == 0x7f);
}

static void test_mean(void **in)
{
    (void)in;
    size_t i;
    json_t *c;
    static float x[27648];
    for (int k = 0; k < 27648; k++)
        x[k] = (float)(k * 40503LL % 65536) / 65536;
    json_array_foreach(json_object_get(golden, "means"), i, c)
        assert_true(qp_torch_mean(x, json_integer_value(json_object_get(c, "n"))) == (float)json_number_value(json_object_get(c, "mean")));
    assert_true(i == 8);
}

static void test_names(void **in)
{
    (void)in;
    static const char *const good[] = {"nf4", "nf4-dq", "fp4-128", "nf4-dq-4096", "int8", "e4m3", "e5m2-tensor", "f16", "bf16", "w4g64", "w3row-asym", "w8g128-asym"};
    static const char *const bad[] = {"", "nf5", "nf4-96", "nf4-8192", "w5g64", "w4", "w4g7", "w4g64x", "fp", "e4m3x", "nf4-dqx"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct qp_err err = {0};
        struct qp_format f;
        char name[32];
        assert_int_equal(qp_format_parse(&f, good[i], &err), 0);
        qp_format_name(&f, name);
        assert_string_equal(name, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct qp_err err = {0};
        struct qp_format f;
        assert_int_equal(qp_format_parse(&f, bad[i], &err), QP_E_USAGE);
        assert_non_null(strstr(err.text, "expected fp16"));
    }
}

/* ---- damaged tensors ---- */

static const struct qp_tensor *find(void *ctx, const char *part)
{
    const struct qp_parts *p = ctx;
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->v[i].name, part))
            return &p->v[i];
    return NULL;
}

enum damage { GONE, SHORTER, OTHER_TYPE, NOT_FINITE };

static void damage(struct qp_parts *p, const char *name, enum damage what)
{
    struct qp_tensor *t = (struct qp_tensor *)(uintptr_t)find(p, name);
    assert_non_null(t);
    if (what == GONE)
        t->name = "gone";
    else if (what == SHORTER) {
        t->shape[0]--;
        t->bytes = t->bytes / (size_t)(t->shape[0] + 1) * (size_t)t->shape[0];
    } else if (what == OTHER_TYPE)
        t->dtype = QP_DT_F64;
    else
        memset((void *)(uintptr_t)t->data, 0xff, t->bytes);
}

static void test_damage(void **in)
{
    (void)in;
    static const struct {
        const char *format, *part;
        enum damage what;
        const char *why;
    } cases[] = {
        {"nf4", "weight.absmax", GONE, "'m.weight.absmax' is missing"},
        {"nf4", "weight.absmax", SHORTER, "'m.weight.absmax' has 37 values, expected 38"},
        {"nf4", "weight.absmax", OTHER_TYPE, "dtype f64, expected f32"},
        {"nf4", "weight.absmax", NOT_FINITE, "scale 0 is not finite"},
        {"nf4", "weight", SHORTER, "has 1199 bytes, expected 1200"},
        {"nf4", "weight.quant_map", SHORTER, "has 15 values, expected 16"},
        {"nf4", "weight.quant_state.bitsandbytes__nf4", SHORTER, NULL}, /* a space less */
        {"nf4", "weight.quant_state.bitsandbytes__nf4", NOT_FINITE, "quant_state is no JSON"},
        {"nf4-dq", "weight.nested_absmax", GONE, "'m.weight.nested_absmax' is missing"},
        {"nf4-dq", "weight.nested_quant_map", SHORTER, "has 255 values, expected 256"},
        {"int8", "weight", OTHER_TYPE, "dtype f64, expected i8"},
        {"int8", "SCB", SHORTER, "has 23 values, expected 24"},
        {"int8", "SCB", NOT_FINITE, "is not finite"},
        {"fp8", "weight_scale", SHORTER, "do not cover"},
        {"fp8", "weight_scale", NOT_FINITE, "is not finite"},
        {"fp8", "weight", SHORTER, "does not fit 24 x 100"},
    };
    float w[ROWS * COLS];
    struct qp_exec ex = {0};
    make_weights(w);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qp_err err = {0};
        struct qp_format f;
        struct qp_qweight q;
        struct qp_parts p;
        struct qp_store *s;
        const struct qp_quant_config c = {.method = QP_QUANT_ANY, .mixed = true};
        assert_int_equal(qp_format_parse(&f, cases[i].format, &err), 0);
        assert_int_equal(qp_qweight_quantize(&q, &f, w, ROWS, COLS, &ex, &err), 0);
        assert_int_equal(qp_pack(qp_stream_packing(&f), &f, ROWS, COLS, &q, &p, &err), 0);
        damage(&p, cases[i].part, cases[i].what);
        int r = qp_store_open(&s, "m.weight", ROWS, COLS, find, &p, &c, true, &err);
        if (cases[i].why ? r != QP_E_INPUT || !strstr(err.text, cases[i].why) : r != 1)
            fail_msg("%s, damage %zu: %d '%s'", cases[i].format, i, r, err.text);
        if (r == 1)
            qp_store_free(s);
        qp_parts_release(&p);
        qp_qweight_release(&q);
    }
}

/* Every code of 8-bit floating point that is no number is refused where it is read, named with its place; the greatest that are numbers are not. */
static void test_not_numbers(void **in)
{
    (void)in;
    static const struct {
        const char *format;
        uint8_t code;
        const char *why;
    } cases[] = {
        {"fp8", 0x7e, NULL},  {"fp8", 0xfe, NULL},  {"fp8", 0x7f, "0x7f (row 19, input 77), which is NaN"}, {"fp8", 0xff, "0xff (row 19, input 77), which is NaN"},
        {"e5m2", 0x7b, NULL}, {"e5m2", 0xfb, NULL}, {"e5m2", 0x7c, "0x7c (row 19, input 77), which is infinite"}, {"e5m2", 0xfc, "which is infinite"},
        {"e5m2", 0x7d, "which is NaN"}, {"e5m2", 0xff, "which is NaN"},
    };
    float w[ROWS * COLS];
    struct qp_exec ex = {0};
    make_weights(w);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qp_err err = {0};
        struct qp_format f;
        struct qp_qweight q;
        struct qp_parts p;
        struct qp_store *s;
        const struct qp_quant_config c = {.method = QP_QUANT_ANY, .mixed = true};
        assert_int_equal(qp_format_parse(&f, cases[i].format, &err), 0);
        assert_int_equal(qp_qweight_quantize(&q, &f, w, ROWS, COLS, &ex, &err), 0);
        assert_int_equal(qp_pack(qp_stream_packing(&f), &f, ROWS, COLS, &q, &p, &err), 0);
        memset((char *)(uintptr_t)find(&p, "weight")->data + 19 * COLS + 77, cases[i].code, 1);
        assert_int_equal(qp_store_open(&s, "m.weight", ROWS, COLS, find, &p, &c, true, &err), 1);
        assert_int_equal(qp_store_read_rows(s, 0, 19, w, &err), 0);
        int r = qp_store_read_rows(s, 0, ROWS, w, &err);
        if (cases[i].why ? r != QP_E_INPUT || !strstr(err.text, "tensor 'm.weight' holds the code") || !strstr(err.text, cases[i].why) : r != 0)
            fail_msg("%s, case %zu: %d '%s'", cases[i].format, i, r, err.text);
        make_weights(w);
        qp_store_free(s);
        qp_parts_release(&p);
        qp_qweight_release(&q);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bitsandbytes), cmocka_unit_test(test_maps),   cmocka_unit_test(test_mean),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_damage), cmocka_unit_test(test_not_numbers),
    };
    return cmocka_run_group_tests_name("quant/formats", tests, setup, teardown);
}
