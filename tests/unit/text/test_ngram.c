/* Runs of 13 tokens: found wherever they begin, not when one token differs, and hashed as the header says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "text/ngram.h"

static void fill(int32_t *ids, size_t n, int32_t first)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = first + (int32_t)i;
}

static void test_hash(void **state)
{
    (void)state;
    int32_t ids[QP_NGRAM];
    uint8_t bytes[4 * QP_NGRAM];
    fill(ids, QP_NGRAM, 0x01020304);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((uint32_t)ids[i / 4] >> (8 * (i % 4))); /* little-endian, whatever the machine */
    assert_true(qp_ngram_hash(ids) == qp_xxh64(bytes, sizeof bytes));
}

static void test_find(void **state)
{
    (void)state;
    struct qp_ngrams set = {0};
    int32_t text[100], sample[64];
    fill(text, 100, 1000);
    assert_int_equal(qp_ngrams_add_ids(&set, text, 100, NULL), 0);
    assert_int_equal(set.n, 100 - QP_NGRAM + 1);
    qp_ngrams_sort(&set);
    for (size_t at = 0; at + QP_NGRAM <= 64; at++) {
        fill(sample, 64, 5);
        assert_int_equal(qp_ngrams_find(&set, sample, 64), -1);
        memcpy(sample + at, text + 40, QP_NGRAM * sizeof *sample); /* exactly 13 tokens in common */
        assert_int_equal(qp_ngrams_find(&set, sample, 64), at);
        sample[at + 6] = 0; /* 12 at most, in two parts */
        assert_int_equal(qp_ngrams_find(&set, sample, 64), -1);
        memcpy(sample + at, text + 40, QP_NGRAM * sizeof *sample);
        sample[at] = 0; /* 12 in a row */
        assert_int_equal(qp_ngrams_find(&set, sample, 64), -1);
    }
    qp_ngrams_release(&set);
}

static void test_short_and_empty(void **state)
{
    (void)state;
    struct qp_ngrams set = {0};
    int32_t ids[QP_NGRAM];
    fill(ids, QP_NGRAM, 0);
    qp_ngrams_sort(&set);
    assert_int_equal(qp_ngrams_find(&set, ids, QP_NGRAM), -1);
    assert_int_equal(qp_ngrams_add_ids(&set, ids, QP_NGRAM - 1, NULL), 0);
    assert_int_equal(set.n, 0);
    assert_int_equal(qp_ngrams_add_ids(&set, ids, QP_NGRAM, NULL), 0);
    qp_ngrams_sort(&set);
    assert_int_equal(qp_ngrams_find(&set, ids, QP_NGRAM), 0);
    assert_int_equal(qp_ngrams_find(&set, ids, QP_NGRAM - 1), -1);
    assert_int_equal(qp_ngrams_find(&set, ids, 0), -1);
    qp_ngrams_release(&set);
}

/* Hashes that travelled in a record serve as well as the ids did. */
static void test_add_hashes(void **state)
{
    (void)state;
    struct qp_ngrams set = {0};
    int32_t ids[20];
    uint64_t hashes[8];
    fill(ids, 20, 7);
    for (size_t i = 0; i < 8; i++)
        hashes[i] = qp_ngram_hash(ids + i);
    assert_int_equal(qp_ngrams_add(&set, hashes, 8, NULL), 0);
    qp_ngrams_sort(&set);
    for (size_t i = 0; i < 8; i++)
        assert_true(qp_ngrams_has(&set, hashes[i]));
    assert_false(qp_ngrams_has(&set, hashes[0] + 1));
    assert_int_equal(qp_ngrams_find(&set, ids, 20), 0);
    qp_ngrams_release(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hash), cmocka_unit_test(test_find), cmocka_unit_test(test_short_and_empty), cmocka_unit_test(test_add_hashes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
