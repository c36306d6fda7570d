/* Comma-separated rows: quotes, commas and line ends in fields, what publishers' files have at their ends, and what is no CSV. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "text/csv.h"

static char path[64];

static void put(const char *text, size_t n)
{
    snprintf(path, sizeof path, "/tmp/qp-csv-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), n);
    close(fd);
}

/* Rows as "line:a|b|c;" or the error. */
static void expect(const char *text, const char *want)
{
    struct qp_csv csv;
    struct qp_err err = {0};
    struct qp_buf got = QP_BUF_INIT;
    put(text, strlen(text));
    int r = qp_csv_open(&csv, path, &err);
    while (!r && (r = qp_csv_next(&csv, &err)) == 1) {
        qp_buf_addf(&got, "%lld:", (long long)csv.line);
        for (size_t i = 0; i < csv.n; i++)
            qp_buf_addf(&got, "%s%s", i ? "|" : "", csv.field[i]);
        qp_buf_adds(&got, ";");
        r = 0;
    }
    if (r < 0)
        qp_buf_adds(&got, strstr(err.text, "line") ? strstr(err.text, "line") : err.text);
    assert_string_equal(got.data ? got.data : "", want);
    qp_csv_close(&csv);
    qp_buf_release(&got);
    unlink(path);
}

static void test_rows(void **state)
{
    (void)state;
    expect("", "");
    expect("\n\n", "");
    expect("a,b\nc,d\n", "1:a|b;2:c|d;");
    expect("a,b\r\n\r\nc,d", "1:a|b;3:c|d;");
    expect("\xef\xbb\xbf" "a,,\n", "1:a||;");
    expect("\"a,b\",\"c\"\"d\",\"\"\n", "1:a,b|c\"d|;");
    expect("\"two\nlines\",x\ny\n", "1:two\nlines|x;3:y;");
    expect("a \"quoted\" word,b\n", "1:a \"quoted\" word|b;");
    expect("\"a\"", "1:a;");
}

static void test_mistakes(void **state)
{
    (void)state;
    expect("a,b\nc,\"d\n", "1:a|b;line 2: field 2 has a quote that is not closed");
    expect("\"a\"b,c\n", "line 1: field 1 has text behind its closing quote");
    struct qp_csv csv;
    struct qp_err err = {0};
    put("a,\0b\n", 5);
    assert_int_equal(qp_csv_open(&csv, path, &err), QP_E_INPUT);
    unlink(path);
    err = (struct qp_err){0};
    put("a\nb,\xff\n", 6);
    assert_int_equal(qp_csv_open(&csv, path, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "line 2: invalid UTF-8 at byte 4"));
    unlink(path);
    char many[2 * QP_CSV_FIELDS + 8];
    memset(many, ',', sizeof many - 1);
    many[sizeof many - 1] = 0;
    expect(many, "line 1: more than 256 fields");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_mistakes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
