/* Tokenizers of several families against Hugging Face tokenizers (golden/tokenizers, made by golden/make_tokenizers.py); what is saved
 * encodes the same; bad files are refused with a line that says what is wrong; time is linear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "text/tokenizer.h"

#define GOLDEN "tests/golden/tokenizers"

static struct qp_tokenizer *open_json(json_t *o)
{
    struct qp_tokenizer *t;
    struct qp_err err = {0};
    char *text = json_dumps(o, JSON_COMPACT);
    if (qp_tokenizer_open_memory(&t, text, strlen(text), &err))
        fail_msg("%s", err.text);
    free(text);
    return t;
}

static int same_ids(const struct qp_tokenizer *t, json_t *text, json_t *want, unsigned flags)
{
    struct qp_ids got = {0};
    struct qp_err err = {0};
    size_t i, differ = 0;
    json_t *id;
    if (qp_tokenizer_encode(t, json_string_value(text), json_string_length(text), flags, &got, &err))
        fail_msg("%s", err.text);
    differ = got.n != json_array_size(want);
    json_array_foreach(want, i, id) differ |= i < got.n && got.v[i] != json_integer_value(id);
    if (differ) {
        char *c = json_dumps(text, JSON_ENCODE_ANY), *w = json_dumps(want, JSON_COMPACT);
        struct qp_buf g = QP_BUF_INIT;
        for (i = 0; i < got.n; i++)
            qp_buf_addf(&g, "%s%d", i ? "," : "", got.v[i]);
        print_message("# %s: ids [%s], wanted %s\n", c, g.data ? g.data : "", w);
        qp_buf_release(&g);
        free(c);
        free(w);
    }
    qp_ids_release(&got);
    return (int)differ;
}

static int same_text(const struct qp_tokenizer *t, json_t *ids, json_t *want, bool skip_special)
{
    struct qp_buf out = QP_BUF_INIT;
    struct qp_err err = {0};
    size_t i, n = json_array_size(ids);
    int32_t *v = calloc(n + 1, sizeof *v);
    for (i = 0; i < n; i++)
        v[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    if (qp_tokenizer_decode(t, v, n, skip_special, &out, &err))
        fail_msg("%s", err.text);
    int differ = out.len != json_string_length(want) || (out.len && memcmp(out.data, json_string_value(want), out.len));
    if (differ)
        print_message("# decoded '%s', wanted '%s'\n", out.data ? out.data : "", json_string_value(want));
    free(v);
    qp_buf_release(&out);
    return differ;
}

/* How many of a golden file's cases differ. */
static int check_cases(const struct qp_tokenizer *t, json_t *golden, const char *name)
{
    size_t i;
    int differ = 0;
    json_t *c;
    bool has_decoder = json_is_object(json_object_get(json_object_get(golden, "tokenizer"), "decoder"));
    json_array_foreach(json_object_get(golden, "cases"), i, c)
    {
        json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids"), *special = json_object_get(c, "special");
        differ += same_ids(t, text, ids, 0);
        differ += same_ids(t, text, special, QP_ENC_SPECIAL);
        if (has_decoder) {
            differ += same_text(t, ids, json_object_get(c, "decoded"), false);
            differ += same_text(t, special, json_object_get(c, "skipped"), true);
        }
    }
    if (differ)
        print_message("# %s: %d differences\n", name, differ);
    return differ;
}

static json_t *golden_file(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, GOLDEN "/%s", name);
    json_t *o = json_load_file(path, JSON_ALLOW_NUL, NULL);
    if (!o)
        fail_msg("cannot read %s: run from the project's root", path);
    return o;
}

static void test_goldens(void **state)
{
    (void)state;
    DIR *dir = opendir(GOLDEN);
    struct dirent *e;
    int files = 0, differ = 0;
    assert_non_null(dir);
    while ((e = readdir(dir)))
        if (strstr(e->d_name, ".json")) {
            json_t *o = golden_file(e->d_name);
            struct qp_tokenizer *t = open_json(json_object_get(o, "tokenizer"));
            differ += check_cases(t, o, e->d_name);
            qp_tokenizer_free(t);
            json_decref(o);
            files++;
        }
    closedir(dir);
    assert_true(files >= 10);
    assert_int_equal(differ, 0);
}

/* ---- from GGUF's metadata, made of a golden file's vocabulary ---- */

struct vocab {
    struct qp_tokenizer_spec spec;
    const char **tokens;
    size_t *bytes;
    char **merges;
    float *scores;
    int32_t *types;
};

static char *merge_text(json_t *m)
{
    if (json_is_string(m))
        return strdup(json_string_value(m));
    const char *a = json_string_value(json_array_get(m, 0)), *b = json_string_value(json_array_get(m, 1));
    size_t n = strlen(a) + strlen(b) + 2;
    char *s = malloc(n);
    snprintf(s, n, "%s %s", a, b);
    return s;
}

static void vocab_init(struct vocab *v, json_t *tok, const char *model, const char *pre)
{
    json_t *o = json_object_get(tok, "model"), *words = json_object_get(o, "vocab"), *merges = json_object_get(o, "merges"), *added = json_object_get(tok, "added_tokens");
    size_t n = 0, i, n_merges = json_array_size(merges);
    const char *text;
    json_t *id, *a;
    json_object_foreach(words, text, id) n = (size_t)json_integer_value(id) >= n ? (size_t)json_integer_value(id) + 1 : n;
    json_array_foreach(added, i, a) n = (size_t)json_integer_value(json_object_get(a, "id")) >= n ? (size_t)json_integer_value(json_object_get(a, "id")) + 1 : n;
    *v = (struct vocab){.tokens = calloc(n, sizeof *v->tokens), .bytes = calloc(n, sizeof *v->bytes), .merges = calloc(n_merges + 1, sizeof *v->merges),
                        .scores = calloc(n, sizeof *v->scores), .types = calloc(n, sizeof *v->types)};
    json_object_foreach(words, text, id)
    {
        size_t k = (size_t)json_integer_value(id);
        v->tokens[k] = text;
        v->types[k] = strlen(text) == 6 && !strncmp(text, "<0x", 3) ? 6 : 1;
    }
    json_array_foreach(added, i, a)
    {
        size_t k = (size_t)json_integer_value(json_object_get(a, "id"));
        v->tokens[k] = json_string_value(json_object_get(a, "content"));
        v->types[k] = json_is_true(json_object_get(a, "special")) ? 3 : 4;
    }
    for (i = 0; i < n; i++) {
        assert_non_null(v->tokens[i]);
        v->bytes[i] = strlen(v->tokens[i]);
        v->scores[i] = -(float)i;
    }
    json_array_foreach(merges, i, a) v->merges[i] = merge_text(a);
    v->spec = (struct qp_tokenizer_spec){.model = model, .pre = pre, .tokens = v->tokens, .token_bytes = v->bytes, .scores = v->scores, .types = v->types, .n_tokens = n,
                                         .merges = (const char *const *)v->merges, .n_merges = n_merges, .bos = 0, .eos = 1, .unk = -1, .pad = -1,
                                         .chat_template = "{{ bos_token }}"};
}

static void vocab_release(struct vocab *v)
{
    for (size_t i = 0; i < v->spec.n_merges; i++)
        free(v->merges[i]);
    free(v->tokens);
    free(v->bytes);
    free(v->merges);
    free(v->scores);
    free(v->types);
}

/* GGUF knows no lstrip, rstrip, single_word and no normalizer: such cases are left out. */
static bool gguf_says(json_t *text)
{
    const char *s = json_string_value(text);
    return !strstr(s, "<mask>") && !strstr(s, "<|tool|>") && !strstr(s, "<word>") && !strstr(s, "e\xcc\x81") && !strstr(s, "\xe2\x84\xab");
}

static struct qp_tokenizer *save_and_open(const struct qp_tokenizer *t)
{
    char dir[] = "/tmp/qp-test-XXXXXX", path[64];
    struct qp_err err = {0};
    struct qp_tokenizer *again;
    assert_non_null(mkdtemp(dir));
    if (qp_tokenizer_save(t, dir, &err))
        fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    if (qp_tokenizer_open_json(&again, path, &err))
        fail_msg("%s", err.text);
    unlink(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", dir);
    unlink(path);
    rmdir(dir);
    return again;
}

static void test_gguf_names(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{"gpt2.json", "gpt-2"}, {"smollm.json", "smollm"}, {"llama3.json", "llama-bpe"}, {"qwen2.json", "qwen2"}};
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
        json_t *o = golden_file(pairs[p][0]), *c;
        struct vocab v;
        struct qp_tokenizer *t;
        struct qp_err err = {0};
        size_t i;
        int differ = 0;
        vocab_init(&v, json_object_get(o, "tokenizer"), "gpt2", pairs[p][1]);
        if (qp_tokenizer_new(&t, &v.spec, &err))
            fail_msg("%s", err.text);
        struct qp_tokenizer *saved = save_and_open(t);
        json_array_foreach(json_object_get(o, "cases"), i, c) if (gguf_says(json_object_get(c, "text")))
        {
            differ += same_ids(t, json_object_get(c, "text"), json_object_get(c, "ids"), 0);
            differ += same_ids(saved, json_object_get(c, "text"), json_object_get(c, "ids"), 0);
        }
        if (differ)
            print_message("# pre-tokenizer '%s'\n", pairs[p][1]);
        assert_int_equal(differ, 0);
        assert_string_equal(qp_tokenizer_hash(saved), qp_tokenizer_hash(t));
        assert_int_equal(qp_tokenizer_bos(saved), 0);
        assert_int_equal(qp_tokenizer_eos(saved), 1);
        assert_string_equal(qp_tokenizer_chat_template(saved), "{{ bos_token }}");
        qp_tokenizer_free(saved);
        qp_tokenizer_free(t);
        vocab_release(&v);
        json_decref(o);
    }
}

/* SentencePiece by scores: the best score first, the leftmost of equals, bytes for what has no token, and what is saved does the same. */
static void test_scores(void **state)
{
    (void)state;
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\xe2\x96\x81", "a", "b", "c", "ab", "bc", "abc", "\xe2\x96\x81" "a"};
    static const float scores[] = {0, 0, 0, 0, 0, -9, -8, -7, -6, -2, -1, -5, -3};
    static const int32_t types[] = {2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1};
    size_t bytes[13];
    for (int i = 0; i < 13; i++)
        bytes[i] = strlen(tokens[i]);
    struct qp_tokenizer_spec spec = {.model = "llama", .tokens = tokens, .token_bytes = bytes, .scores = scores, .types = types, .n_tokens = 13, .bos = 1, .eos = 2, .unk = 0,
                                     .pad = -1, .add_bos = true, .add_space_prefix = true};
    static const struct {
        const char *text;
        int32_t ids[8];
        size_t n;
    } cases[] = {
        {"abc", {1, 12, 10}, 3},                    /* bc first, then "_a"; a and bc would make abc, but "_a" scores better */
        {"c abc", {1, 5, 8, 12, 10}, 5},
        {"\xc3\xa9" "abc", {1, 5, 3, 4, 11}, 5},     /* bytes; abc where no space stands before it */
        {"ab<s>ab", {1, 5, 9, 1, 5, 9}, 6},         /* the space is put in front of each piece of text, */
        {"a<unk>", {1, 12, 0}, 3},
        {" a", {1, 5, 12}, 3},                      /* where one stands already, too */
        {"z", {1, 5, 0}, 3},                        /* neither token nor bytes */
    };
    struct qp_err err = {0};
    struct qp_tokenizer *t;
    assert_int_equal(qp_tokenizer_new(&t, &spec, &err), 0);
    struct qp_tokenizer *saved = save_and_open(t);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 2; k++) {
            struct qp_ids ids = {0};
            assert_int_equal(qp_tokenizer_encode(k ? saved : t, cases[i].text, strlen(cases[i].text), QP_ENC_SPECIAL, &ids, &err), 0);
            if (ids.n != cases[i].n || memcmp(ids.v, cases[i].ids, ids.n * sizeof *ids.v))
                fail_msg("%s '%s': %zu ids, the second is %d", k ? "saved" : "new", cases[i].text, ids.n, ids.n > 1 ? ids.v[1] : -1);
            qp_ids_release(&ids);
        }
    assert_true(qp_tokenizer_adds_bos(t) && qp_tokenizer_adds_bos(saved));
    qp_tokenizer_free(saved);
    qp_tokenizer_free(t);
    spec.scores = NULL;
    assert_int_equal(qp_tokenizer_new(&t, &spec, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "tokenizer.ggml.scores"));
}

/* ---- what is refused ---- */

static void refused(const char *json, const char *says)
{
    struct qp_tokenizer *t;
    struct qp_err err = {0};
    int r = qp_tokenizer_open_memory(&t, json, strlen(json), &err);
    if (r != QP_E_INPUT || !strstr(err.text, says))
        fail_msg("%s\nstatus %d '%s', wanted '%s'", json, r, err.text, says);
    assert_null(t);
}

#define MODEL(vocab, merges) "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"
#define WITH(rest) "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}," rest "}"

static void test_bad_files(void **state)
{
    (void)state;
    refused("", "line");
    refused("[]", "not a JSON object");
    refused("{\"model\":{\"type\":\"BPE\"", "line 1");
    refused("{}", "model");
    refused("{\"model\":{\"type\":\"Unigram\"}}", "'Unigram' is not supported; supported: BPE");
    refused("{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "'vocab'");
    refused("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "'merges'");
    refused(MODEL("{}", "[]"), "empty");
    refused(MODEL("{\"a\":\"x\"}", "[]"), "the id of 'a'");
    refused(MODEL("{\"a\":-1}", "[]"), "token id -1");
    refused(MODEL("{\"a\":4294967296}", "[]"), "far beyond");
    refused(MODEL("{\"a\":0,\"b\":0}", "[]"), "token id 0 stands for 'a' and for 'b'");
    refused(MODEL("{\"a\":0,\"a\":1}", "[]"), "duplicate");
    refused(MODEL("{\"a\":0,\"b\":1}", "[\"a b\"]"), "merge 0 ('a b'): the result is not in the vocabulary");
    refused(MODEL("{\"a\":0,\"ab\":1}", "[\"a b\"]"), "its right part");
    refused(MODEL("{\"b\":0,\"ab\":1}", "[[\"a\",\"b\"]]"), "its left part");
    refused(MODEL("{\"a\":0}", "[\"a\"]"), "merge 0 is no pair");
    refused(MODEL("{\"a\":0}", "[[\"a\"]]"), "merge 0 is no pair");
    refused(MODEL("{\"a\":0}", "[7]"), "merge 0 is no pair");
    refused(WITH("\"added_tokens\":[{\"id\":2}]"), "added_tokens: entry 0");
    refused(WITH("\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]"), "token id 0");
    refused(WITH("\"added_tokens\":[{\"id\":99999999,\"content\":\"x\"}]"), "far beyond");
    refused(WITH("\"normalizer\":{\"type\":\"Precompiled\"}"), "normalizer of type 'Precompiled'");
    refused(WITH("\"normalizer\":{\"type\":\"Replace\"}"), "Replace");
    refused(WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}"), "bad regular expression '('");
    refused(WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}"), "behavior 'Odd'");
    refused(WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{},\"behavior\":\"Isolated\"}"), "pattern");
    refused(WITH("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}"), "'Digits' after ByteLevel");
    refused(WITH("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"},{\"type\":\"Metaspace\"}]}"), "Metaspace after another");
    refused(WITH("\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<x>\"}}]}"), "special token '<x>'");
}

static void test_missing_file(void **state)
{
    (void)state;
    struct qp_tokenizer *t;
    struct qp_err err = {0};
    assert_int_equal(qp_tokenizer_open_json(&t, "/nonexistent/tokenizer.json", &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "'/nonexistent/tokenizer.json'"));
}

static void test_bad_text(void **state)
{
    (void)state;
    json_t *o = golden_file("gpt2.json");
    struct qp_tokenizer *t = open_json(json_object_get(o, "tokenizer"));
    static const char *const texts[] = {"ab\xff", "ab\xc3", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80", "ab\xc0\x80"};
    for (size_t i = 0; i < 5; i++) {
        struct qp_ids ids = {0};
        struct qp_err err = {0};
        assert_int_equal(qp_tokenizer_encode(t, texts[i], strlen(texts[i]), 0, &ids, &err), QP_E_INPUT);
        assert_non_null(strstr(err.text, "invalid UTF-8 at byte 2"));
        qp_ids_release(&ids);
    }
    struct qp_buf out = QP_BUF_INIT;
    assert_int_equal(qp_tokenizer_decode(t, (int32_t[]){-1, 1 << 30, qp_tokenizer_id(t, "a")}, 3, false, &out, NULL), 0);
    assert_string_equal(out.data, "a"); /* ids outside of the vocabulary have no text */
    qp_buf_release(&out);
    qp_tokenizer_free(t);
    json_decref(o);
}

/* Replacements that feed each other would make any amount of text. */
static void test_growth(void **state)
{
    (void)state;
    struct qp_buf b = QP_BUF_INIT;
    struct qp_tokenizer *t;
    struct qp_ids ids = {0};
    struct qp_err err = {0};
    qp_buf_adds(&b, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 12; i++)
        qp_buf_addf(&b, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"%0100d\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"0\"},\"content\":\"a\"}", i ? "," : "", 0);
    qp_buf_adds(&b, "]}}");
    assert_int_equal(qp_tokenizer_open_memory(&t, b.data, b.len, &err), 0);
    assert_int_equal(qp_tokenizer_encode(t, "aaaa", 4, 0, &ids, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "normalizers make"));
    qp_ids_release(&ids);
    qp_buf_release(&b);
    qp_tokenizer_free(t);
}

/* A megabyte of one kind of character, for every family: nothing may be quadratic. */
static void test_linear(void **state)
{
    (void)state;
    static const char *const files[] = {"gpt2.json", "llama3.json", "llama2.json", "metaspace_first.json"};
    static const char *const units[] = {"a", " ", "1", "!", "\n", "the", "\n ", "<", "\xe6\x9d\xb1"};
    const size_t n = 1 << 20;
    char *text = malloc(n);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        json_t *o = golden_file(files[f]);
        struct qp_tokenizer *t = open_json(json_object_get(o, "tokenizer"));
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t k = strlen(units[u]), m = n / k * k;
            struct qp_ids ids = {0};
            struct qp_buf back = QP_BUF_INIT;
            struct qp_err err = {0};
            for (size_t i = 0; i < m; i++)
                text[i] = units[u][i % k];
            text[k - 1] = k == 1 ? 'x' : text[k - 1]; /* a leading space may be lost, as it is in SentencePiece */
            clock_t start = clock();
            if (qp_tokenizer_encode(t, text, m, 0, &ids, &err))
                fail_msg("%s, '%s': %s", files[f], units[u], err.text);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            if (seconds > 8) /* some tenths of a second; quadratic would be many minutes */
                fail_msg("%s, 1 MB of '%s': %.1f s", files[f], units[u], seconds);
            assert_int_equal(qp_tokenizer_decode(t, ids.v, ids.n, false, &back, &err), 0);
            assert_int_equal(back.len, m);
            assert_memory_equal(back.data, text, m);
            qp_ids_release(&ids);
            qp_buf_release(&back);
        }
        qp_tokenizer_free(t);
        json_decref(o);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),      cmocka_unit_test(test_gguf_names), cmocka_unit_test(test_scores), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_missing_file), cmocka_unit_test(test_bad_text),   cmocka_unit_test(test_growth), cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
