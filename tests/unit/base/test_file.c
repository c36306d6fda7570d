/* Files: mappings, bounded reads, and outputs that appear complete or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

static char dir[] = "/tmp/qp-test-file-XXXXXX";

static int make_dir(void **s)
{
    (void)s;
    return mkdtemp(dir) ? 0 : -1;
}

static int entries(void)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static int remove_dir(void **s)
{
    (void)s;
    return rmdir(dir);
}

static char *in_dir(const char *name)
{
    struct qp_err err = {0};
    char *p = qp_path_join(dir, name, &err);
    assert_non_null(p);
    return p;
}

static void test_outfile(void **s)
{
    (void)s;
    struct qp_err err = {0};
    struct qp_outfile out;
    struct qp_map map;
    char *path = in_dir("a");
    assert_int_equal(qp_outfile_open(&out, path, &err), 0);
    fputs("old", out.file);
    assert_int_equal(access(path, F_OK), -1); /* not there before the commit */
    assert_int_equal(qp_outfile_commit(&out, &err), 0);
    assert_int_equal(qp_outfile_open(&out, path, &err), 0);
    fputs("new that is given up", out.file);
    qp_outfile_abort(&out);
    assert_int_equal(entries(), 1);
    assert_int_equal(qp_map_open(&map, path, &err), 0);
    assert_int_equal(map.bytes, 3);
    assert_memory_equal(map.data, "old", 3);
    qp_map_close(&map);
    unlink(path);
    qp_free(path);
    assert_int_equal(qp_outfile_open(&out, "/nowhere/at/all", &err), QP_E_RESOURCE);
    assert_non_null(strstr(err.text, "cannot create '/nowhere/at/all': No such file"));
    qp_outfile_abort(&out); /* harmless after a failed open */
}

/* A file-size limit stands in for a full disk: small writes fail at the flush, large ones before the commit. */
static void test_full(void **s)
{
    (void)s;
    struct rlimit old, small = {4096, 0};
    char *path = in_dir("full"), block[65536] = {1};
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    for (int times = 1; times <= 4; times++) {
        struct qp_err err = {0};
        struct qp_outfile out;
        assert_int_equal(qp_outfile_open(&out, path, &err), 0);
        setrlimit(RLIMIT_FSIZE, &small);
        for (int i = 0; i < times; i++)
            fwrite(block, 1, times == 1 ? 4100 : sizeof block, out.file);
        int r = qp_outfile_commit(&out, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(r, QP_E_RESOURCE);
        assert_non_null(strstr(err.text, "cannot write '"));
        assert_int_equal(entries(), 0); /* neither the file nor its temporary */
    }
    qp_free(path);
}

static void test_read(void **s)
{
    (void)s;
    struct qp_err err = {0};
    struct qp_buf b = QP_BUF_INIT;
    struct qp_map map;
    char *path = in_dir("text"), hex[QP_SHA256_HEX];
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 100000; i++)
        fputc('a' + i % 26, f);
    fclose(f);
    qp_buf_adds(&b, "before:");
    assert_int_equal(qp_file_read(&b, path, 100000, &err), 0);
    assert_int_equal(b.len, 100007);
    assert_memory_equal(b.data, "before:abc", 10);
    assert_int_equal(qp_file_read(&b, path, 99999, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "longer than 99999 bytes"));
    err = (struct qp_err){0};
    char memory_hex[QP_SHA256_HEX];
    assert_int_equal(qp_sha256_file(hex, path, &err), 0);
    qp_sha256_hex(memory_hex, b.data + 7, 100000);
    assert_string_equal(hex, memory_hex);
    f = fopen(path, "wb");
    fclose(f);
    assert_int_equal(qp_map_open(&map, path, &err), 0); /* empty: no data, no error */
    assert_true(!map.data && !map.bytes);
    qp_map_close(&map);
    unlink(path);
    assert_int_equal(qp_map_open(&map, path, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "No such file or directory"));
    err = (struct qp_err){0};
    assert_int_equal(qp_map_open(&map, dir, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "is not a regular file"));
    err = (struct qp_err){0};
    assert_int_equal(qp_file_read(&b, dir, 100, &err), QP_E_INPUT);
    err = (struct qp_err){0};
    assert_int_equal(qp_sha256_file(hex, dir, &err), QP_E_INPUT);
    err = (struct qp_err){0};
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    assert_int_equal(qp_map_open(&map, path, &err), QP_E_INPUT);
    unlink(path);
    qp_buf_release(&b);
    qp_free(path);
}

static void test_paths(void **s)
{
    (void)s;
    struct qp_err err = {0};
    char *p = qp_path_join("a/", "b", &err);
    assert_string_equal(p, "a/b");
    qp_free(p);
    p = qp_path_join("a", "b", &err);
    assert_string_equal(p, "a/b");
    qp_free(p);
    char *link = in_dir("link"), *real = qp_path_real(dir, &err);
    assert_int_equal(symlink(dir, link), 0);
    p = qp_path_real(link, &err);
    assert_string_equal(p, real);
    qp_free(p);
    unlink(link);
    assert_null(qp_path_real(link, &err));
    assert_int_equal(err.code, QP_E_INPUT);
    qp_free(real);
    qp_free(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_outfile), cmocka_unit_test(test_full), cmocka_unit_test(test_read),
                                       cmocka_unit_test(test_paths)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
