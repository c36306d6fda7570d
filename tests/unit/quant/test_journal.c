/* The journal: whatever is torn off or changed, what is read is a prefix of what was written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quant/journal.h"

#define N 20

static char path[] = "/tmp/qp-journal-XXXXXX";

static size_t text_of(int i, char out[64])
{
    return (size_t)snprintf(out, 64, "entry %d%.*s", i, i, "....................");
}

static struct qp_journal *reopen(void)
{
    struct qp_journal *j;
    struct qp_err err = {0};
    if (qp_journal_open(&j, path, &err))
        fail_msg("%s", err.text);
    return j;
}

/* Entries that can be read; each must be what was written. */
static int count(struct qp_journal *j)
{
    struct qp_journal_entry e;
    char text[64];
    int n = 0;
    while (qp_journal_next(j, &e)) {
        size_t bytes = text_of(n, text);
        assert_int_equal(e.kind, n + 1);
        assert_int_equal(e.bytes, bytes);
        assert_memory_equal(e.data, text, bytes);
        qp_journal_mark(j);
        n++;
    }
    return n;
}

static void add(struct qp_journal *j, int i)
{
    char text[64];
    struct qp_err err = {0};
    size_t bytes = text_of(i, text);
    assert_int_equal(qp_journal_add(j, (uint32_t)i + 1, text, bytes, &err), 0);
}

static size_t whole(char *bytes, size_t max)
{
    struct qp_err err = {0};
    unlink(path);
    struct qp_journal *j = reopen();
    assert_int_equal(qp_journal_rewind(j, &err), 0);
    for (int i = 0; i < N; i++)
        add(j, i);
    assert_int_equal(qp_journal_sync(j, &err), 0);
    qp_journal_close(j);
    FILE *f = fopen(path, "rb");
    size_t n = fread(bytes, 1, max, f);
    fclose(f);
    return n;
}

static void store(const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    fwrite(bytes, 1, n, f);
    fclose(f);
}

static void test_cut_anywhere(void **in)
{
    (void)in;
    char bytes[4096];
    struct qp_err err = {0};
    size_t n = whole(bytes, sizeof bytes);
    int before = 0;
    for (size_t cut = 0; cut <= n; cut++) {
        store(bytes, cut);
        struct qp_journal *j = reopen();
        int found = count(j);
        assert_true(found == before || found == before + 1);
        before = found;
        assert_int_equal(qp_journal_rewind(j, &err), 0);
        for (int i = found; i < N; i++) /* goes on where it was cut */
            add(j, i);
        qp_journal_close(j);
        j = reopen();
        assert_int_equal(count(j), N);
        qp_journal_close(j);
    }
    assert_int_equal(before, N);
}

static void test_flipped_bits(void **in)
{
    (void)in;
    char bytes[4096];
    struct qp_journal *j;
    size_t n = whole(bytes, sizeof bytes);
    for (size_t at = 0; at < n; at++) {
        struct qp_err err = {0};
        bytes[at] ^= 0x10;
        store(bytes, n);
        int r = qp_journal_open(&j, path, &err);
        if (at < 8) {
            assert_int_equal(r, QP_E_INPUT);
            assert_non_null(strstr(err.text, "is not the journal of an unfinished checkpoint"));
        } else {
            assert_int_equal(r, 0);
            assert_true(count(j) < N);
            qp_journal_close(j);
        }
        bytes[at] ^= 0x10;
    }
}

static void test_one_at_a_time(void **in)
{
    (void)in;
    char bytes[4096];
    struct qp_err err = {0};
    struct qp_journal *other;
    whole(bytes, sizeof bytes);
    struct qp_journal *j = reopen();
    assert_int_equal(qp_journal_open(&other, path, &err), QP_E_RESOURCE);
    assert_non_null(strstr(err.text, "another process is writing"));
    qp_journal_close(j);
    qp_journal_close(reopen());
}

static int setup(void **in)
{
    (void)in;
    int fd = mkstemp(path);
    return fd < 0 || close(fd);
}

static int teardown(void **in)
{
    (void)in;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cut_anywhere), cmocka_unit_test(test_flipped_bits), cmocka_unit_test(test_one_at_a_time)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
