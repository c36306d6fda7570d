/* Buffers, memory, errors, hashes, half floats, the generator and tables: the small things everything stands on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/table.h"
#include "base/tensor.h"

static void test_buf(void **s)
{
    (void)s;
    struct qp_buf b = QP_BUF_INIT;
    struct qp_err err = {0};
    for (int i = 0; i < 1000; i++)
        qp_buf_addf(&b, "%d,", i);
    assert_int_equal(b.len, 3890);
    assert_int_equal(strlen(b.data), b.len);
    assert_memory_equal(b.data + b.len - 4, "999,", 4);
    qp_buf_clear(&b);
    assert_string_equal(b.data, "");
    qp_buf_add(&b, "a\0b", 3);
    qp_buf_add(&b, NULL, 0);
    assert_true(b.len == 3 && b.data[3] == 0);
    assert_int_equal(qp_buf_check(&b, &err), 0);
    assert_null(qp_buf_grow(&b, SIZE_MAX - 2)); /* the first failure sticks, what was there stays */
    qp_buf_adds(&b, "later");
    assert_int_equal(b.len, 3);
    assert_int_equal(qp_buf_check(&b, &err), QP_E_RESOURCE);
    qp_buf_release(&b);
    assert_null(b.data);
    assert_false(b.failed);
}

static void test_mem(void **s)
{
    (void)s;
    size_t n = 7;
    struct qp_err err = {0};
    assert_false(qp_mul(SIZE_MAX / 2, 3, &n));
    assert_false(qp_add(SIZE_MAX, 1, &n));
    assert_int_equal(n, 7);
    assert_true(qp_mul(3, 5, &n) && n == 15);
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, (8u << 20) - 1, (8u << 20) + 1, (9u << 20) + 12345};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *p = qp_zalloc(sizes[i], "a test", &err);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        if (sizes[i]) {
            assert_int_equal(p[sizes[i] - 1], 0);
            p[sizes[i] - 1] = 1;
        }
        qp_free(p);
    }
    assert_null(qp_alloc_n(SIZE_MAX / 4, 8, "many things", &err));
    assert_int_equal(err.code, QP_E_RESOURCE);
    assert_non_null(strstr(err.text, "many things"));
    err = (struct qp_err){0};
    assert_null(qp_alloc(SIZE_MAX - 8, "everything", &err));
    assert_int_equal(err.code, QP_E_RESOURCE);
}

static void test_err(void **s)
{
    (void)s;
    struct qp_err err = {0};
    assert_int_equal(qp_err_set(NULL, QP_E_INPUT, "x"), QP_E_INPUT);
    assert_int_equal(qp_err_set(&err, QP_E_INPUT, "name '%s'", "a\033[2J\n\x7f\xc2\x9b|\xc3\xa9"), QP_E_INPUT);
    assert_string_equal(err.text, "name 'a?[2J????|\xc3\xa9'");
    assert_int_equal(qp_err_set(&err, QP_E_USAGE, "second"), QP_E_INPUT); /* the first error wins */
    assert_int_equal(qp_err_context(&err, "--%s", "model"), QP_E_INPUT);
    assert_non_null(strstr(err.text, "--model: name 'a"));
    err = (struct qp_err){0};
    assert_int_equal(qp_err_context(&err, "none"), 0);
    assert_string_equal(err.text, "");
    errno = ENOSPC;
    assert_int_equal(qp_err_errno(&err, QP_E_INPUT, "cannot write 'x'"), QP_E_RESOURCE);
    assert_string_equal(err.text, "cannot write 'x': No space left on device");
    err = (struct qp_err){0};
    errno = EPIPE;
    assert_int_equal(qp_err_errno(&err, QP_E_RESOURCE, "x"), QP_E_PIPE);
    err = (struct qp_err){0};
    char longer[2000];
    memset(longer, 'y', sizeof longer);
    longer[sizeof longer - 1] = 0;
    qp_err_set(&err, QP_E_INPUT, "%s", longer);
    qp_err_context(&err, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
}

/* The values are those of FIPS 180 and of xxHash's own test bench. */
static void test_hashes(void **s)
{
    (void)s;
    char hex[QP_SHA256_HEX];
    qp_sha256_hex(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    struct qp_sha256 *h = qp_sha256_new();
    qp_sha256_add(h, "a", 1);
    qp_sha256_add(h, "bc", 2);
    qp_sha256_free(h, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(qp_xxh64("", 0) == 0xef46db3751d8e999u);
    assert_true(qp_xxh64("abc", 3) == 0x44bc2cf5ad770999u);
    struct qp_xxh64 *x = qp_xxh64_new();
    qp_xxh64_add(x, NULL, 0);
    qp_xxh64_add(x, "ab", 2);
    qp_xxh64_add(x, "c", 1);
    assert_true(qp_xxh64_value(x) == 0x44bc2cf5ad770999u);
    qp_xxh64_free(x);
}

/* Every half goes to float and back unchanged; floats round to the nearest, ties to even. */
static void test_half(void **s)
{
    (void)s;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = qp_f16_to_f32((uint16_t)h), b = qp_bf16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(qp_f16_to_f32(qp_f32_to_f16(f))));
        else
            assert_int_equal(qp_f32_to_f16(f), h);
        if (isnan(b))
            assert_true(isnan(qp_bf16_to_f32(qp_f32_to_bf16(b))));
        else
            assert_int_equal(qp_f32_to_bf16(b), h);
    }
    assert_true(qp_f16_to_f32(0x3c00) == 1.0f && qp_f16_to_f32(0x7bff) == 65504.0f && qp_f16_to_f32(0x0001) == 0x1p-24f);
#if defined(__FLT16_MANT_DIG__)
    struct qp_rng r = qp_rng_seed(1);
    for (int i = 0; i < 2000000; i++) { /* the compiler's own conversion is the judge */
        uint32_t u = qp_rng_next(&r);
        float f;
        memcpy(&f, &u, 4);
        if (isnan(f))
            continue;
        _Float16 want = (_Float16)f;
        uint16_t bits;
        memcpy(&bits, &want, 2);
        if (qp_f32_to_f16(f) != bits)
            fail_msg("%a gives %04x, expected %04x", (double)f, qp_f32_to_f16(f), bits);
    }
#endif
    assert_int_equal(qp_f32_to_bf16(0x1.01p0f), 0x3f80); /* tie, down to even */
    assert_int_equal(qp_f32_to_bf16(0x1.03p0f), 0x3f82); /* tie, up to even */
}

/* The same seed gives the same numbers, another seed others, and qp_rng_below is uniform. */
static void test_rng(void **s)
{
    (void)s;
    struct qp_rng a = qp_rng_seed(42), b = qp_rng_seed(42), c = qp_rng_seed(43);
    int same = 0;
    int64_t count[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint32_t x = qp_rng_next(&a);
        assert_true(x == qp_rng_next(&b));
        same += x == qp_rng_next(&c);
        count[qp_rng_below(&a, 7)]++;
        qp_rng_below(&b, 7);
    }
    assert_true(same < 3);
    for (int i = 0; i < 7; i++)
        assert_in_range(count[i], 9600, 10400); /* 4 standard deviations around 10000 */
    assert_int_equal(qp_rng_below(&a, 1), 0);
}

static void test_dtypes(void **s)
{
    (void)s;
    for (int i = 0; i < QP_DT_COUNT; i++)
        assert_int_equal(qp_dtype_by_name(qp_dtype_info[i].name), i);
    assert_int_equal(qp_dtype_by_name("q9_z"), -1);
    assert_int_equal(qp_dtype_info[QP_DT_Q4_1].block_bytes, 20);
}

static void table_is(enum qp_table_format f, const char *expected)
{
    struct qp_table t = {0};
    struct qp_buf out = QP_BUF_INIT;
    qp_table_column(&t, "model", false);
    qp_table_column(&t, "PPL", true);
    qp_table_column(&t, "note", false);
    qp_table_cell(&t, "caf\xc3\xa9"); /* four characters, five bytes */
    qp_table_cell(&t, "%.2f", 22.041);
    qp_table_cell(&t, "a|b");
    qp_table_cell(&t, "x\033[2J\n,\"y\"");
    qp_table_cell(&t, "%d", 7);
    qp_table_cell(&t, "%s", "");
    qp_table_cell(&t, "a row that is not full is left out");
    qp_table_print(&t, f, &out);
    assert_string_equal(out.data, expected);
    qp_table_release(&t);
    qp_buf_release(&out);
}

static void test_table(void **s)
{
    (void)s;
    table_is(QP_TABLE_TEXT, "model         PPL  note\n"
                            "----------  -----  ----\n"
                            "caf\xc3\xa9        22.04  a|b\n"
                            "x?[2J?,\"y\"      7\n");
    table_is(QP_TABLE_MARKDOWN, "| model      |   PPL | note |\n"
                                "|------------|------:|------|\n"
                                "| caf\xc3\xa9       | 22.04 | a\\|b  |\n"
                                "| x?[2J?,\"y\" |     7 |      |\n");
    table_is(QP_TABLE_CSV, "model,PPL,note\n"
                           "caf\xc3\xa9,22.04,a|b\n"
                           "\"x\033[2J\n,\"\"y\"\"\",7,\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_buf),  cmocka_unit_test(test_mem), cmocka_unit_test(test_err),    cmocka_unit_test(test_hashes),
                                       cmocka_unit_test(test_half), cmocka_unit_test(test_rng), cmocka_unit_test(test_dtypes), cmocka_unit_test(test_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
