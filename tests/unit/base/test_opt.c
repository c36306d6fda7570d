/* Options: every kind, every form, and the message for each mistake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/buf.h"
#include "base/opt.h"

struct values {
    int64_t bits, threads, memory;
    double ratio;
    const char *model;
    struct qp_strs files, types, args;
    int method;
    bool quiet, sym;
};

static const char *const methods[] = {"rtn", "gptq", NULL};

/* Parses the words (NULL-terminated) into *v, which holds the defaults. */
static int parse(struct values *v, struct qp_err *err, const char *const *words)
{
    const struct qp_opt own[] = {
        QP_OPT_GROUP("quantization"),
        QP_OPT_INT('b', "bits", &v->bits, 2, 8, "N", "bits"),
        QP_OPT_F64('\0', "ratio", &v->ratio, 0, 1, "R", "ratio"),
        QP_OPT_STR('m', "model", &v->model, "M", "model"),
        QP_OPT_LIST('\0', "files", &v->files, "F", "files"),
        QP_OPT_EACH('t', "type", &v->types, "T", "types"),
        QP_OPT_ENUM('\0', "method", &v->method, methods, "M", "method"),
        QP_OPT_SIZE('\0', "memory", &v->memory, "SIZE", "memory"),
        QP_OPT_FLAG('s', "sym", &v->sym, "symmetric"),
        QP_OPT_END,
    };
    const struct qp_opt common[] = {
        QP_OPT_INT('\0', "threads", &v->threads, 0, 256, "N", "threads"),
        QP_OPT_FLAG('q', "quiet", &v->quiet, "quiet"),
        QP_OPT_END,
    };
    char *argv[32] = {(char *)"tool"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    *err = (struct qp_err){0};
    return qp_opt_parse(own, common, argc, argv, &v->args, err);
}

static void release(struct values *v)
{
    qp_strs_release(&v->files);
    qp_strs_release(&v->types);
    qp_strs_release(&v->args);
}

#define PARSE(v, err, ...) parse(v, err, (const char *const[]){__VA_ARGS__, NULL})

static void test_forms(void **s)
{
    (void)s;
    struct values v = {.bits = 4, .sym = true};
    struct qp_err err;
    assert_int_equal(PARSE(&v, &err, "--bits=3", "--ratio", "0.7", "-m", "a", "--no-sym", "--method", "gptq", "-q", "one", "--", "--two"), 0);
    assert_int_equal(v.bits, 3);
    assert_true(v.ratio == 0.7 && !v.sym && v.quiet && v.method == 1);
    assert_string_equal(v.model, "a");
    assert_int_equal(v.args.n, 2);
    assert_string_equal(v.args.v[0], "one");
    assert_string_equal(v.args.v[1], "--two");
    release(&v);
    v = (struct values){.bits = 4};
    assert_int_equal(PARSE(&v, &err, "-sqb8", "-mpath", "--thr", "2", "-", "--bits", "2", "--bits", "5", "--model="), 0);
    assert_true(v.sym && v.quiet && v.bits == 5 && v.threads == 2); /* the last wins; letters in one word; prefixes */
    assert_string_equal(v.model, "");
    assert_int_equal(v.args.n, 1);
    assert_string_equal(v.args.v[0], "-");
    release(&v);
}

static void test_sizes(void **s)
{
    (void)s;
    static const struct {
        const char *text;
        int64_t bytes;
    } good[] = {{"0", 0}, {"77", 77}, {"3K", 3072}, {"5m", 5 << 20}, {"2G", (int64_t)2 << 30}, {"1T", (int64_t)1 << 40}};
    static const char *const bad[] = {"", "x", "-1", "1.5G", "2GB", "1 K", "K", "9223372036854775807T"};
    struct qp_err err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct values v = {0};
        assert_int_equal(PARSE(&v, &err, "--memory", good[i].text), 0);
        assert_int_equal(v.memory, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct values v = {0};
        assert_int_equal(PARSE(&v, &err, "--memory", bad[i]), QP_E_USAGE);
        assert_non_null(strstr(err.text, "--memory takes a size in bytes, or with K, M, G or T (500M), not '"));
    }
}

static void test_lists(void **s)
{
    (void)s;
    struct values v = {0};
    struct qp_err err;
    assert_int_equal(PARSE(&v, &err, "--files", "a", "b", "-", "--quiet", "plain", "--files=c", "-t", "x", "plain2", "--type=y", "--type", "z", "plain3"), 0);
    assert_int_equal(v.files.n, 4); /* --files=c, then -t ends the list */
    assert_string_equal(v.files.v[2], "-");
    assert_string_equal(v.files.v[3], "c");
    assert_int_equal(v.types.n, 3); /* EACH takes one word, so files may follow it */
    assert_string_equal(v.types.v[2], "z");
    assert_int_equal(v.args.n, 3);
    assert_string_equal(v.args.v[2], "plain3");
    release(&v);
}

static void test_mistakes(void **s)
{
    (void)s;
    static const struct {
        const char *words[4], *says;
    } cases[] = {
        {{"--bits", "9"}, "--bits takes a whole number from 2 to 8, not '9'"},
        {{"--bits", "4x"}, "not '4x'"},
        {{"--bits="}, "not ''"},
        {{"--bits", "99999999999999999999"}, "--bits takes"},
        {{"--bits", "-3"}, "not '-3'"},
        {{"--ratio", "nan"}, "--ratio takes a number from 0 to 1, not 'nan'"},
        {{"--ratio", "1e999"}, "--ratio takes"},
        {{"--method", "awq"}, "--method takes one of rtn, gptq, not 'awq'"},
        {{"--model"}, "--model needs a value"},
        {{"-b"}, "--bits needs a value"},
        {{"--quiet=1"}, "--quiet takes no value"},
        {{"--m", "x"}, "option '--m' is ambiguous"},
        {{"--nope"}, "unknown option '--nope'"},
        {{"--no-bits"}, "unknown option '--no-bits'"},
        {{"--no-nope"}, "unknown option '--no-nope'"},
        {{"-x"}, "unknown option '-x'"},
        {{"--bits", "\033[31m"}, "not '?[31m'"}, /* nothing that drives a terminal */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct values v = {.bits = 4};
        struct qp_err err;
        assert_int_equal(parse(&v, &err, cases[i].words), QP_E_USAGE);
        assert_int_equal(err.code, QP_E_USAGE);
        if (!strstr(err.text, cases[i].says))
            fail_msg("case %zu says '%s', expected '%s'", i, err.text, cases[i].says);
        assert_int_equal(v.bits, 4);
        release(&v);
    }
}

static void test_help(void **s)
{
    (void)s;
    int64_t n = 4;
    double x = 0.5;
    bool b = false;
    int e = 1;
    struct qp_strs l = {0};
    const struct qp_opt t[] = {
        QP_OPT_INT('b', "bits", &n, 2, 8, "N", "how many"),
        QP_OPT_F64('\0', "a-very-long-option-name-it-is", &x, 0, 1, "X", "wraps"),
        QP_OPT_FLAG('q', "quiet", &b, "hush"),
        QP_OPT_ENUM('\0', "method", &e, methods, "M", "which"),
        QP_OPT_LIST('\0', "files", &l, "F", "which files"),
        QP_OPT_END,
    };
    struct qp_buf out = QP_BUF_INIT;
    qp_opt_help(t, &out);
    assert_string_equal(out.data, "  -b, --bits N                how many [4]\n"
                                  "      --a-very-long-option-name-it-is X\n                              wraps [0.5]\n"
                                  "  -q, --quiet                 hush\n"
                                  "      --method M              which [gptq]\n"
                                  "      --files F...            which files\n");
    qp_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_sizes), cmocka_unit_test(test_lists), cmocka_unit_test(test_mistakes),
                                       cmocka_unit_test(test_help)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
