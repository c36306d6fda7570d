/* Text sources: .txt, .jsonl, gzip of both; joining; every kind of bad line named with its number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "text/dataset.h"

static char dir[] = "/tmp/qp-dataset-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir);
}

static const char *put(const char *name, const void *data, size_t n)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
    return path;
}

static const char *put_gz(const char *name, const char *data, size_t n, size_t cut)
{
    static char path[200];
    unsigned char packed[4096];
    z_stream z = {.next_in = (unsigned char *)data, .avail_in = (unsigned)n, .next_out = packed, .avail_out = sizeof packed};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    snprintf(path, sizeof path, "%s", put(name, packed, z.total_out - cut));
    return path;
}

/* The documents of a file, with '|' between them; then the error's text, if there is one. */
static void holds(const char *path, const char *field, const char *want)
{
    struct qp_dataset *ds;
    struct qp_buf doc = QP_BUF_INIT, all = QP_BUF_INIT;
    struct qp_err err = {0};
    int r = qp_dataset_open(&ds, path, field, &err), n = 0;
    while (!r && (r = qp_dataset_next(ds, &doc, &err)) == 1) {
        qp_buf_adds(&all, n++ ? "|" : "");
        if (doc.len)
            qp_buf_add(&all, doc.data, doc.len);
        r = 0;
    }
    if (r < 0) {
        assert_int_equal(r, QP_E_INPUT);
        if (!strstr(err.text, want) || !strstr(err.text, path))
            fail_msg("'%s', wanted '%s'", err.text, want);
    } else
        assert_string_equal(all.data ? all.data : "", want);
    qp_dataset_close(ds);
    qp_buf_release(&doc);
    qp_buf_release(&all);
    unlink(path);
}

static void test_text(void **state)
{
    (void)state;
    holds(put("a.txt", "one\n\ntwo\n", 9), NULL, "one\n\ntwo\n");
    holds(put("a.raw", "", 0), NULL, "");
    holds(put("a.txt", "ok\xff", 3), NULL, "invalid UTF-8 at byte 2");
    holds(put("a.txt", "ok\xc3", 3), NULL, "invalid UTF-8 at byte 2");
    holds(put_gz("a.txt.gz", "packed", 6, 0), NULL, "packed");
}

static void test_lines(void **state)
{
    (void)state;
    static const char good[] = "{\"text\":\"a\"}\n\n  \r\n{\"text\":\"b\\u00e9\\n\",\"n\":1}\r\n{\"text\":\"\"}\n{\"text\":\"last\"}";
    holds(put("a.jsonl", good, strlen(good)), NULL, "a|b\xc3\xa9\n||last");
    holds(put_gz("a.jsonl.gz", good, strlen(good), 0), "text", "a|b\xc3\xa9\n||last");
    holds(put("a.jsonl", "", 0), NULL, "");
    static const char other[] = "{\"q\":\"x\"}\n{\"q\":\"y\"}\n";
    holds(put("a.json", other, strlen(other)), "q", "x|y");
    holds(put("a.jsonl", other, strlen(other)), NULL, "line 1: field 'text' is missing");
}

static void test_bad_lines(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"text\":\"a\"}\n{\"text\":7}\n", "line 2: field 'text' is not a string"},
        {"{\"text\":\"a\"}\n\n[1]\n", "line 3: not a JSON object"},
        {"{\"text\":\"a\"}\n{\"text\":\"b\n", "line 2: not a JSON object"},
        {"{\"text\":\"a\"} trailing\n", "line 1: not a JSON object"},
        {"{\"text\":\"\\ud800\"}\n", "line 1: not a JSON object"},
        {"{\"text\":\"\xff\"}\n", "line 1: not a JSON object"},
        {"plain text\n", "line 1: not a JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        holds(put("bad.jsonl", cases[i][0], strlen(cases[i][0])), NULL, cases[i][1]);
}

static void test_cut_gzip(void **state)
{
    (void)state;
    char text[600];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "{\"text\":\"abc\"}\n"[i % 15];
    holds(put_gz("a.jsonl.gz", text, sizeof text, 4), NULL, "cannot read");
    holds(put_gz("a.jsonl.gz", text, sizeof text, 12), NULL, "cannot read");
    holds(put_gz("a.txt.gz", text, sizeof text, 4), NULL, "cannot read");
    holds(put_gz("a.txt.gz", text, sizeof text, 12), NULL, "cannot read");
}

static void test_long_line(void **state)
{
    (void)state;
    enum { N = 300000 }; /* longer than any buffer inside */
    static char line[N + 16] = "{\"text\":\"";
    size_t n = N, k = strlen(line);
    memset(line + k, 'x', n);
    memcpy(line + k + n, "\"}\n", 4);
    struct qp_buf out = QP_BUF_INIT;
    int64_t docs = 0;
    const char *path = put("long.jsonl", line, strlen(line));
    assert_int_equal(qp_dataset_join(path, NULL, "\n\n", 1 << 20, &out, &docs, NULL), 0);
    assert_int_equal(out.len, n);
    assert_int_equal(docs, 1);
    qp_buf_clear(&out);
    struct qp_err err = {0};
    assert_int_equal(qp_dataset_join(path, NULL, "\n\n", 1000, &out, &docs, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "more than 1000 bytes"));
    unlink(path);
    qp_buf_release(&out);
}

static void test_join(void **state)
{
    (void)state;
    static const char rows[] = "{\"text\":\"a\"}\n{\"text\":\"\"}\n{\"text\":\"b\"}\n";
    struct qp_buf out = QP_BUF_INIT;
    int64_t docs = 0;
    const char *path = put("a.jsonl", rows, strlen(rows));
    assert_int_equal(qp_dataset_join(path, NULL, "\n\n", 1 << 20, &out, &docs, NULL), 0);
    assert_string_equal(out.data, "a\n\n\n\nb"); /* an empty row is a row */
    assert_int_equal(docs, 3);
    unlink(path);
    qp_buf_release(&out);
}

static void test_no_file(void **state)
{
    (void)state;
    struct qp_dataset *ds;
    struct qp_buf doc = QP_BUF_INIT;
    struct qp_err err = {0};
    assert_int_equal(qp_dataset_open(&ds, "/nonexistent.txt", NULL, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "'/nonexistent.txt': No such file"));
    err = (struct qp_err){0};
    int r = qp_dataset_open(&ds, "/tmp", NULL, &err); /* a directory */
    if (!r)
        r = qp_dataset_next(ds, &doc, &err);
    assert_int_equal(r, QP_E_INPUT);
    assert_non_null(strstr(err.text, "'/tmp'"));
    qp_dataset_close(ds);
    qp_buf_release(&doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),      cmocka_unit_test(test_lines), cmocka_unit_test(test_bad_lines), cmocka_unit_test(test_cut_gzip),
        cmocka_unit_test(test_long_line), cmocka_unit_test(test_join),  cmocka_unit_test(test_no_file),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
