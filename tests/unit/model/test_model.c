/* Reading models: block formats against their publisher's decoder, GPTQ layers, overlays, safetensors written and read, files that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "base/mem.h"
#include "golden/gguf_blocks.h"
#include "model/decode.h"
#include "model/gguf.h"
#include "model/internal.h"
#include "model/safetensors.h"

static void test_blocks(void **s)
{
    (void)s;
    float got[256];
#define CHECK(name)                                                                              \
    qp_decode(QP_DT_##name, name##_block, sizeof name##_values / sizeof *name##_values, got);    \
    for (size_t i = 0; i < sizeof name##_values / sizeof *name##_values; i++)                    \
        if (got[i] != name##_values[i])                                                          \
            fail_msg(#name " value %zu: %.9g, wanted %.9g", i, (double)got[i], (double)name##_values[i]);
    CHECK(Q4_0)
    CHECK(Q4_1)
    CHECK(Q5_0)
    CHECK(Q5_1)
    CHECK(Q8_0)
    CHECK(Q4_K)
    CHECK(Q5_K)
    CHECK(Q6_K)
}

static void test_halves(void **s)
{
    (void)s;
    for (uint32_t h = 0; h < 65536; h++) { /* every float16 survives the way there and back */
        float f = qp_f16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true((qp_f32_to_f16(f) & 0x7fffu) > 0x7c00u);
        else
            assert_int_equal(qp_f32_to_f16(f), h);
    }
    assert_int_equal(qp_f32_to_f16(65519.f), 0x7bff);
    assert_int_equal(qp_f32_to_f16(65520.f), 0x7c00);
    assert_int_equal(qp_f32_to_f16(0x1p-25f), 0);          /* a tie to even */
    assert_int_equal(qp_f32_to_f16(0x1.8p-25f), 1);
    assert_int_equal(qp_f32_to_bf16(1.00390625f), 0x3f80); /* a tie to even */
    assert_int_equal(qp_f32_to_bf16(1.01171875f), 0x3f82);
    assert_true(isnan(qp_bf16_to_f32(qp_f32_to_bf16(NAN))));
}

struct parts {
    struct qp_tensor v[4];
};

static const struct qp_tensor *find_part(void *ctx, const char *part)
{
    const struct parts *p = ctx;
    for (int i = 0; i < 4; i++)
        if (!strcmp(p->v[i].name, part))
            return &p->v[i];
    return NULL;
}

/* Version 1 by whole words, as GPTQModel writes it: a zero point of 0 borrows from its neighbour and must be put right. */
static void test_gptq_zeros(void **s)
{
    (void)s;
    enum { ROWS = 8, COLS = 8 };
    int32_t qweight[ROWS], g_idx[COLS] = {0}, qzeros = 0;
    uint16_t scales[ROWS];
    const uint32_t zeros = 0x80f17250u;
    struct qp_err err = {0};
    struct parts t = {{{.name = "qweight", .dtype = QP_DT_I32, .ndim = 2, .shape = {1, ROWS}, .data = qweight, .bytes = sizeof qweight},
                       {.name = "qzeros", .dtype = QP_DT_I32, .ndim = 2, .shape = {1, 1}, .data = &qzeros, .bytes = 4},
                       {.name = "scales", .dtype = QP_DT_F16, .ndim = 2, .shape = {1, ROWS}, .data = scales, .bytes = sizeof scales},
                       {.name = "g_idx", .dtype = QP_DT_I32, .ndim = 1, .shape = {COLS}, .data = g_idx, .bytes = sizeof g_idx}}};
    for (int o = 0; o < ROWS; o++) {
        qweight[o] = (int32_t)0x76543210; /* input i has code i */
        scales[o] = qp_f32_to_f16(0.5f);
    }
    for (int v1 = 0; v1 < 2; v1++) {
        qzeros = (int32_t)(v1 ? zeros - 0x11111111u : zeros);
        struct qp_quant_config c = {.method = QP_QUANT_GPTQ, .bits = 4, .group_size = COLS, .zero_minus_one = v1};
        struct qp_store *store;
        float x[ROWS * COLS];
        assert_int_equal(qp_store_open(&store, "m.weight", ROWS, COLS, find_part, &t, &c, true, &err), 1);
        assert_int_equal(qp_store_read_rows(store, 0, ROWS, x, &err), 0);
        for (int o = 0; o < ROWS; o++)
            for (int i = 0; i < COLS; i++)
                assert_true(x[o * COLS + i] == 0.5f * (float)(i - (int)(zeros >> (4 * o) & 15)));
        qp_store_free(store);
    }
    g_idx[3] = 1;
    struct qp_quant_config c = {.method = QP_QUANT_GPTQ, .bits = 4};
    struct qp_store *store;
    assert_int_equal(qp_store_open(&store, "m.weight", ROWS, COLS, find_part, &t, &c, true, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "g_idx of input 3"));
}

static void test_safetensors_round_trip(void **s)
{
    (void)s;
    char path[] = "/tmp/qp-st-XXXXXX";
    struct qp_err err = {0};
    struct qp_st_writer *w;
    struct qp_safetensors *st;
    float a[6] = {1, 2, 3, 4, 5, 6};
    int32_t b[2] = {-1, 7};
    struct qp_tensor decl[] = {{.name = "z", .dtype = QP_DT_F32, .ndim = 2, .shape = {2, 3}, .bytes = 24}, {.name = "b", .dtype = QP_DT_I32, .ndim = 1, .shape = {2}, .bytes = 8}};
    close(mkstemp(path));
    assert_int_equal(qp_st_writer_open(&w, path, decl, 2, &err), 0);
    assert_int_equal(qp_st_writer_add(w, a, 10, &err), 0);
    assert_int_equal(qp_st_writer_add(w, (char *)a + 10, 14, &err), 0);
    assert_int_equal(qp_st_writer_add(w, b, 8, &err), 0);
    assert_int_equal(qp_st_writer_commit(w, &err), 0);
    assert_int_equal(qp_safetensors_open(&st, path, &err), 0);
    const struct qp_tensor *t = qp_safetensors_find(st, "z");
    assert_true(t && t->ndim == 2 && t->shape[0] == 2 && t->shape[1] == 3 && t->dtype == QP_DT_F32);
    assert_memory_equal(t->data, a, sizeof a);
    assert_memory_equal(qp_safetensors_find(st, "b")->data, b, sizeof b);
    assert_null(qp_safetensors_find(st, "c"));
    qp_safetensors_close(st);
    assert_int_equal(qp_st_writer_open(&w, path, decl, 2, &err), 0);
    assert_int_equal(qp_st_writer_add(w, a, 24, &err), 0);
    assert_int_equal(qp_st_writer_commit(w, &err), QP_E_INTERNAL); /* data is missing: the old file stays */
    err = (struct qp_err){0};
    assert_int_equal(qp_safetensors_open(&st, path, &err), 0);
    qp_safetensors_close(st);
    unlink(path);
}

static int open_header(const char *json, size_t data, struct qp_err *err)
{
    char file[1024] = {0};
    uint64_t n = strlen(json);
    struct qp_safetensors *st;
    memcpy(file, &n, 8);
    memcpy(file + 8, json, n);
    *err = (struct qp_err){0};
    int r = qp_safetensors_open_memory(&st, file, 8 + n + data, err);
    if (!r)
        qp_safetensors_close(st);
    return r;
}

static void test_safetensors_lies(void **s)
{
    (void)s;
    static const struct {
        const char *json;
        size_t data;
        const char *says;
    } cases[] = {
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[4,12]}}", 12, "overlaps"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[2,10]}}", 10, "hole"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]}}", 9, "follow the last"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,800]}}", 8, "outside"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[8,0]}}", 8, "outside"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[5],\"data_offsets\":[0,8]}}", 8, "do not hold"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[-4],\"data_offsets\":[0,8]}}", 8, "bad size"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,8]}}", 8, "bad size"},
        {"{\"a\":{\"dtype\":\"X9\",\"shape\":[4],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4]}}", 8, "data_offsets"},
        {"{\"a\":1,\"a\":2}", 0, "JSON"},
        {"[1]", 0, "not an object"},
        {"{", 0, "JSON"},
    };
    struct qp_err err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(open_header(cases[i].json, cases[i].data, &err), QP_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s'", i, err.text);
    }
    assert_int_equal(open_header("{}", 0, &err), 0);
    struct qp_safetensors *st;
    err = (struct qp_err){0};
    assert_int_equal(qp_safetensors_open_memory(&st, "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10, &err), QP_E_INPUT);
}

static void put(struct qp_buf *b, const void *p, size_t n)
{
    qp_buf_add(b, p, n);
}

static void put_u64(struct qp_buf *b, uint64_t v)
{
    put(b, &v, 8);
}

static void put_u32(struct qp_buf *b, uint32_t v)
{
    put(b, &v, 4);
}

static void put_str(struct qp_buf *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

/* A file with one metadata string and one tensor of 32 float32. */
static void gguf_file(struct qp_buf *b, uint32_t version, uint32_t type, uint64_t offset, const char *second_key)
{
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, 1);
    put_u64(b, second_key ? 2 : 1);
    put_str(b, "k");
    put_u32(b, 8);
    put_str(b, "value");
    if (second_key) {
        put_str(b, second_key);
        put_u32(b, 4);
        put_u32(b, 7);
    }
    put_str(b, "t");
    put_u32(b, 1);
    put_u64(b, 32);
    put_u32(b, type);
    put_u64(b, offset);
    while (b->len % 32)
        put(b, "", 1);
    for (int i = 0; i < 32; i++)
        put_u32(b, 0x3f800000u);
}

static void test_gguf(void **s)
{
    (void)s;
    static const struct {
        uint32_t version, type;
        uint64_t offset;
        const char *key, *says;
    } cases[] = {
        {3, 0, 0, NULL, NULL}, {2, 0, 0, "n", NULL}, {1, 0, 0, NULL, "version 1"}, {3, 99, 0, NULL, "type 99"}, {3, 0, 4, NULL, "beyond"}, {3, 0, UINT64_MAX - 8, NULL, "beyond"},
        {3, 12, 0, NULL, "blocks"}, {3, 0, 0, "k", "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qp_buf b = QP_BUF_INIT;
        struct qp_gguf *g;
        struct qp_err err = {0};
        gguf_file(&b, cases[i].version, cases[i].type, cases[i].offset, cases[i].key);
        int r = qp_gguf_open_memory(&g, b.data, b.len, &err);
        if (cases[i].says) {
            assert_int_equal(r, QP_E_INPUT);
            if (!strstr(err.text, cases[i].says))
                fail_msg("case %zu says '%s'", i, err.text);
        } else {
            const char *text;
            int64_t n = 0;
            assert_int_equal(r, 0);
            assert_int_equal(qp_gguf_str(g, "k", &text, &err), 1);
            assert_string_equal(text, "value");
            assert_int_equal(qp_gguf_i64(g, "k", &n, &err), QP_E_INPUT);
            assert_true(((const float *)qp_gguf_find(g, "t")->data)[31] == 1.f);
            qp_gguf_close(g);
        }
        for (size_t cut = 0; cut < b.len && !cases[i].says; cut += 7) { /* cut off anywhere */
            err = (struct qp_err){0};
            assert_int_equal(qp_gguf_open_memory(&g, b.data, cut, &err), QP_E_INPUT);
        }
        qp_buf_release(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks),           cmocka_unit_test(test_halves), cmocka_unit_test(test_gptq_zeros), cmocka_unit_test(test_safetensors_round_trip),
                                       cmocka_unit_test(test_safetensors_lies), cmocka_unit_test(test_gguf)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
