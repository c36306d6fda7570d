/* Token ids of the demo model against Hugging Face tokenizers' (reference/tokenizer-smollm2.json), through the GGUF file's metadata; and through the
 * tokenizer.json that we write from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/hash.h"
#include "model/model.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

static const char *shared(const char *name)
{
    static char path[4096];
    const char *dir = getenv("QP_SHARED");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "../shared", name);
    return path;
}

static struct qp_tokenizer *open_tokenizer(struct qp_model **m)
{
    const char *path = getenv("QP_MODEL");
    struct qp_err err = {0};
    struct qp_tokenizer *t;
    if (!path || access(path, R_OK) || access(shared("reference"), R_OK)) {
        print_message("needs the demo model (QP_MODEL) and reference values (QP_SHARED)\n");
        skip();
    }
    if (qp_model_open(m, path, &err) || qp_model_tokenizer(*m, &t, &err))
        fail_msg("%s", err.text);
    return t;
}

static void check_cases(const struct qp_tokenizer *t, json_t *ref)
{
    size_t i, j;
    json_t *c, *id;
    json_array_foreach(json_object_get(ref, "cases"), i, c)
    {
        json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids");
        struct qp_ids got = {0};
        assert_int_equal(qp_tokenizer_encode(t, json_string_value(text), json_string_length(text), 0, &got, NULL), 0);
        assert_int_equal(got.n, json_array_size(ids));
        json_array_foreach(ids, j, id) assert_int_equal(got.v[j], json_integer_value(id));
        qp_ids_release(&got);
    }
}

static void check_text(const struct qp_tokenizer *t, json_t *ref, const char *name, const char *file, const char *field, const char *sep)
{
    struct qp_buf text = QP_BUF_INIT;
    struct qp_ids ids = {0};
    struct qp_err err = {0};
    json_t *want = json_object_get(json_object_get(ref, "texts"), name);
    char sum[QP_SHA256_HEX];
    assert_non_null(want);
    assert_int_equal(qp_dataset_join(shared(file), field, sep, 1 << 30, &text, NULL, &err), 0);
    assert_int_equal(text.len, json_integer_value(json_object_get(want, "utf8_bytes")));
    clock_t start = clock();
    assert_int_equal(qp_tokenizer_encode(t, text.data, text.len, 0, &ids, &err), 0);
    print_message("%s: %zu tokens in %.3f s\n", name, ids.n, (double)(clock() - start) / CLOCKS_PER_SEC);
    assert_int_equal(ids.n, json_integer_value(json_object_get(want, "tokens")));
    qp_sha256_hex(sum, ids.v, ids.n * sizeof *ids.v);
    assert_string_equal(sum, json_string_value(json_object_get(want, "sha256")));
    struct qp_buf back = QP_BUF_INIT;
    assert_int_equal(qp_tokenizer_decode(t, ids.v, ids.n, false, &back, &err), 0);
    assert_int_equal(back.len, text.len);
    assert_memory_equal(back.data, text.data, text.len);
    qp_buf_release(&back);
    qp_buf_release(&text);
    qp_ids_release(&ids);
}

static void check_all(const struct qp_tokenizer *t)
{
    json_t *ref = json_load_file(shared("reference/tokenizer-smollm2.json"), 0, NULL);
    assert_non_null(ref);
    check_cases(t, ref);
    check_text(t, ref, "wikitext2-test, rows of test.jsonl joined by two newlines", "data/wikitext-2-raw-v1/test.jsonl", "text", "\n\n");
    check_text(t, ref, "wikitext2 wiki.test.raw as it is", "data/wikitext-2-raw-v1/wiki.test.raw", NULL, "");
    check_text(t, ref, "c4/sample.jsonl texts joined by two newlines", "data/c4/sample.jsonl", "text", "\n\n");
    check_text(t, ref, "mmlu/test.jsonl questions joined by one newline", "data/mmlu/test.jsonl", "question", "\n");
    json_decref(ref);
}

static void test_gguf(void **s)
{
    (void)s;
    struct qp_model *m;
    struct qp_tokenizer *t = open_tokenizer(&m);
    check_all(t);
    qp_tokenizer_free(t);
    qp_model_free(m);
}

static void test_saved(void **s)
{
    (void)s;
    struct qp_model *m;
    struct qp_tokenizer *t = open_tokenizer(&m), *again;
    struct qp_err err = {0};
    char dir[] = "/tmp/qp-tokenizer-XXXXXX", file[80];
    assert_non_null(mkdtemp(dir));
    assert_int_equal(qp_tokenizer_save(t, dir, &err), 0);
    snprintf(file, sizeof file, "%s/tokenizer.json", dir);
    if (qp_tokenizer_open_json(&again, file, &err))
        fail_msg("%s", err.text);
    check_all(again);
    assert_int_equal(qp_tokenizer_eos(again), qp_tokenizer_eos(t));
    assert_string_equal(qp_tokenizer_hash(again), qp_tokenizer_hash(t));
    qp_tokenizer_free(again);
    qp_tokenizer_free(t);
    qp_model_free(m);
    unlink(file);
    snprintf(file, sizeof file, "%s/tokenizer_config.json", dir);
    unlink(file);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gguf), cmocka_unit_test(test_saved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
