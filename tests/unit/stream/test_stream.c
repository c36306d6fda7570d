/* The record stream: what is written is read back; whatever is cut, flipped or invented is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "stream/scan.h"
#include "stream/stream.h"

static int memory(const void *data, size_t n)
{
    int fd = memfd_create("test", 0);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* A tool inside another: heads and ends nest. */
static size_t sample(uint8_t *out, size_t cap)
{
    struct qp_writer *w;
    struct qp_err err = {0};
    int fd = memfd_create("out", 0);
    char *argv[] = {"qinner", "--x", NULL};
    assert_int_equal(qp_writer_new(&w, fd, &err), 0);
    qp_w_head(w, "qinner", 2, argv, 7);
    qp_w_begin(w, "model");
    qp_w_str(w, "id", "m");
    qp_w_f64(w, "bpw", 4.5);
    qp_w_i64s(w, "shape", (int64_t[]){3, -4}, 2);
    qp_w_map_begin(w, "config");
    qp_w_bool(w, "sym", true);
    qp_w_array_begin(w, "list");
    qp_w_map_begin(w, NULL);
    qp_w_i64(w, "k", 9);
    qp_w_map_end(w);
    qp_w_array_end(w);
    qp_w_map_end(w);
    qp_w_bin(w, "data", "\0\1\2", 3);
    qp_w_str(w, "nil", NULL);
    qp_w_end(w);
    qp_w_begin(w, "unheard_of");
    qp_w_str(w, "field", "unknown types pass through");
    qp_w_end(w);
    qp_w_tail(w, "qinner", "ok");
    assert_int_equal(qp_writer_flush(w, &err), 0);
    qp_writer_free(w);
    /* the outer tool copies the inner one's part between its own head and end */
    struct qp_reader *rd;
    struct qp_record rec;
    int outer = memfd_create("outer", 0);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(qp_writer_new(&w, outer, &err), 0);
    qp_w_head(w, "qouter", 1, argv, 0);
    assert_int_equal(qp_reader_new(&rd, fd, "inner", &err), 0);
    while (qp_reader_next(rd, &rec, &err) == 1)
        qp_w_copy(w, &rec);
    qp_reader_free(rd);
    qp_w_tail(w, "qouter", "ok");
    assert_int_equal(qp_writer_flush(w, &err), 0);
    qp_writer_free(w);
    off_t n = lseek(outer, 0, SEEK_END);
    assert_true(n > 0 && (size_t)n <= cap);
    assert_int_equal(pread(outer, out, (size_t)n, 0), n);
    close(fd);
    close(outer);
    return (size_t)n;
}

/* Reads all; returns the last status, the records in *count. */
static int read_all(const void *data, size_t n, int *count, struct qp_err *err)
{
    struct qp_reader *rd;
    struct qp_record rec;
    int fd = memory(data, n), r;
    *count = 0;
    assert_int_equal(qp_reader_new(&rd, fd, "test", err), 0);
    while ((r = qp_reader_next(rd, &rec, err)) == 1)
        ++*count;
    qp_reader_free(rd);
    close(fd);
    return r;
}

static void test_round_trip(void **s)
{
    (void)s;
    uint8_t data[4096];
    size_t n = sample(data, sizeof data);
    struct qp_reader *rd;
    struct qp_record rec, config, item;
    struct qp_err err = {0};
    int fd = memory(data, n), count;
    assert_int_equal(read_all(data, n, &count, &err), 0);
    assert_int_equal(count, 6);
    assert_int_equal(qp_reader_new(&rd, fd, "test", &err), 0);
    while (qp_reader_next(rd, &rec, &err) == 1 && !qp_record_is(&rec, "model"))
        ;
    const char *id;
    double bpw;
    int64_t shape[4], k;
    const uint8_t *bin;
    size_t len;
    bool sym = false;
    assert_int_equal(qp_record_need_str(&rec, "id", &id, &err), 0);
    assert_string_equal(id, "m");
    assert_int_equal(qp_record_f64(&rec, "bpw", &bpw, &err), 1);
    assert_true(bpw == 4.5);
    assert_int_equal(qp_record_i64s(&rec, "shape", shape, 4, &len, &err), 1);
    assert_true(len == 2 && shape[0] == 3 && shape[1] == -4);
    assert_int_equal(qp_record_map(&rec, "config", &config, &err), 1);
    assert_int_equal(qp_record_bool(&config, "sym", &sym, &err), 1);
    assert_true(sym);
    assert_int_equal(qp_record_at(&config, "list", 0, &item, &err), 1);
    assert_int_equal(qp_record_need_i64(&item, "k", &k, &err), 0);
    assert_int_equal(k, 9);
    assert_int_equal(qp_record_at(&config, "list", 1, &item, &err), 0);
    assert_int_equal(qp_record_bin(&rec, "data", &bin, &len, &err), 1);
    assert_memory_equal(bin, "\0\1\2", 3);
    assert_int_equal(qp_record_str(&rec, "nil", &id, &err), 0);
    assert_int_equal(qp_record_str(&rec, "absent", &id, &err), 0);
    struct qp_buf json = QP_BUF_INIT;
    qp_record_json(&rec, 2, &json);
    assert_string_equal(json.data, "{\"t\":\"model\",\"id\":\"m\",\"bpw\":4.5,\"shape\":[3,-4],\"config\":{\"sym\":true,\"list\":[{\"k\":9}]},"
                                   "\"data\":{\"bin\":\"AAE=\",\"bytes\":3},\"nil\":null}");
    qp_buf_release(&json);
    assert_int_equal(qp_record_need_i64(&rec, "id", &k, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "model record: field 'id'"));
    qp_reader_free(rd);
    close(fd);
}

static void test_cut_everywhere(void **s)
{
    (void)s;
    uint8_t data[4096];
    size_t n = sample(data, sizeof data);
    for (size_t cut = 0; cut < n; cut++) {
        struct qp_err err = {0};
        int count;
        assert_int_equal(read_all(data, cut, &count, &err), QP_E_INPUT);
        assert_true(strlen(err.text) > 10);
    }
    /* after the inner tool's end it is the outer tool's part that is missing */
    struct qp_scan scan;
    size_t at = 0;
    for (int i = 0; i < 5; i++) {
        scan = (struct qp_scan){0};
        assert_int_equal(qp_scan(&scan, data + at, n - at, QP_RECORD_MAX_BYTES, QP_RECORD_MAX_VALUES), QP_SCAN_DONE);
        at += scan.pos;
        struct qp_err err = {0};
        int count;
        assert_int_equal(read_all(data, at, &count, &err), QP_E_INPUT);
        assert_int_equal(count, i + 1);
        assert_non_null(strstr(err.text, i >= 1 && i < 4 ? "'qinner'" : "'qouter'"));
    }
}

static void test_flip_everywhere(void **s)
{
    (void)s;
    uint8_t data[4096];
    size_t n = sample(data, sizeof data);
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            struct qp_err err = {0};
            int count, r;
            data[at] ^= (uint8_t)(1 << bit);
            r = read_all(data, n, &count, &err);
            data[at] ^= (uint8_t)(1 << bit);
            /* the outermost end record is covered by no checksum: a flip in its status text, or in the name of a field that is optional, passes */
            if (r == 0)
                assert_int_equal(count, 6);
            else
                assert_int_equal(r, QP_E_INPUT);
            if (at < n - 64)
                assert_int_equal(r, QP_E_INPUT);
        }
}

static void test_invented(void **s)
{
    (void)s;
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } cases[] = {
        {"", 0, "empty"},
        {"\xdf\xff\xff\xff\xff", 5, "16 MiB"},                  /* a map of 2^32 pairs */
        {"\x81\xa1t\xc6\xff\xff\xff\xff", 8, "16 MiB"},         /* a field of 2^32 bytes */
        {"\xc1", 1, "msgpack"},                                 /* never used */
        {"\x91\xa1x", 3, "map"},                                /* no map */
        {"\x81\xa1t\x05", 4, "'t'"},                            /* type is no string */
        {"\x81\xa1x\x05", 4, "'t' is missing"},
        {"\x81\xa1t\xa5model", 9, "outside of any tool"},
        {"\x84\xa1t\xa4head\xa5magic\xa4nope\xa1v\x01\xa4tool\xa1x", 29, "magic"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct qp_err err = {0};
        int count;
        assert_int_equal(read_all(cases[i].bytes, cases[i].n, &count, &err), QP_E_INPUT);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s'", i, err.text);
    }
    uint8_t deep[200];
    struct qp_err err = {0};
    int count;
    memset(deep, 0x91, sizeof deep);
    assert_int_equal(read_all(deep, sizeof deep, &count, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "deeper"));
}

/* What a stream holds must neither break the JSON nor blow it up. */
static void test_json_of_anything(void **s)
{
    (void)s;
    static const char strings[] = "\x82\xa1t\xa1y\xa1s\xaf\"\\\n\x7f\xc3\xa9\xff\xc0\xaf\xed\xa0\x80\xc2\x9b\xe2";
    uint8_t data[600];
    size_t n = 0, head = sizeof "\x84\xa1t\xa4head\xa5magic\xa9quantpipe\xa1v\x01\xa4tool\xa1x" - 1;
    memcpy(data, "\x84\xa1t\xa4head\xa5magic\xa9quantpipe\xa1v\x01\xa4tool\xa1x", head);
    memcpy(data + head, strings, sizeof strings - 1);
    n = head + sizeof strings - 1;
    /* 30 maps, each the key of the one around it */
    memcpy(data + n, "\x82\xa1t\xa1z", 5);
    n += 5;
    memset(data + n, 0x81, 30);
    n += 30;
    memset(data + n, 0x01, 31);
    n += 31;
    data[n++] = 0x02;
    struct qp_reader *rd;
    struct qp_record rec;
    struct qp_err err = {0};
    struct qp_buf json = QP_BUF_INIT;
    int fd = memory(data, n);
    assert_int_equal(qp_reader_new(&rd, fd, "test", &err), 0);
    assert_int_equal(qp_reader_next(rd, &rec, &err), 1);
    assert_int_equal(qp_reader_next(rd, &rec, &err), 1);
    qp_record_json(&rec, 16, &json);
    assert_string_equal(json.data, "{\"t\":\"y\",\"s\":\"\\\"\\\\\\u000a\\u007f\xc3\xa9"
                                   "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\\u009b\xef\xbf\xbd\"}");
    qp_buf_clear(&json);
    assert_int_equal(qp_reader_next(rd, &rec, &err), 1);
    qp_record_json(&rec, 16, &json);
    assert_true(json.len < 200);
    qp_buf_release(&json);
    qp_reader_free(rd);
    close(fd);
    /* an array of more values than a record may hold is refused before it is decoded */
    uint8_t many[] = {0x82, 0xa1, 't', 0xa1, 'x', 0xa1, 'a', 0xdd, 0x00, 0x10, 0x00, 0x01};
    int count;
    assert_int_equal(read_all(many, sizeof many, &count, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "2^20 values"));
}

/* Records that come in small pieces, as through a pipe. */
static void test_pieces(void **s)
{
    (void)s;
    uint8_t data[4096];
    size_t n = sample(data, sizeof data);
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    if (fork() == 0) {
        close(fd[0]);
        for (size_t i = 0; i < n; i++)
            if (write(fd[1], data + i, 1) != 1)
                _exit(1);
        _exit(0);
    }
    close(fd[1]);
    struct qp_reader *rd;
    struct qp_record rec;
    struct qp_err err = {0};
    int count = 0, r;
    assert_int_equal(qp_reader_new(&rd, fd[0], "pipe", &err), 0);
    while ((r = qp_reader_next(rd, &rec, &err)) == 1)
        count++;
    assert_int_equal(r, 0);
    assert_int_equal(count, 6);
    qp_reader_free(rd);
    close(fd[0]);
}

static void test_writer_errors(void **s)
{
    (void)s;
    struct qp_writer *w;
    struct qp_err err = {0};
    int fd = open("/dev/full", O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(qp_writer_new(&w, fd, &err), 0);
    qp_w_begin(w, "x");
    qp_w_end(w);
    assert_int_equal(qp_writer_flush(w, &err), QP_E_RESOURCE);
    qp_writer_free(w);
    close(fd);
    int p[2];
    err = (struct qp_err){0};
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(p), 0);
    close(p[0]);
    assert_int_equal(qp_writer_new(&w, p[1], &err), 0);
    qp_w_begin(w, "x");
    qp_w_end(w);
    assert_int_equal(qp_writer_flush(w, &err), QP_E_PIPE);
    qp_w_begin(w, "y"); /* sticky: nothing more happens */
    qp_w_end(w);
    assert_int_equal(qp_writer_check(w, &err), QP_E_PIPE);
    qp_writer_free(w);
    close(p[1]);
    err = (struct qp_err){0};
    assert_int_equal(qp_writer_new(&w, -1, &err), 0);
    qp_w_str(w, "stray", "value");
    assert_int_equal(qp_writer_check(w, &err), QP_E_INTERNAL);
    qp_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cut_everywhere), cmocka_unit_test(test_flip_everywhere),
                                       cmocka_unit_test(test_invented),   cmocka_unit_test(test_pieces),         cmocka_unit_test(test_writer_errors),
                                       cmocka_unit_test(test_json_of_anything)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
