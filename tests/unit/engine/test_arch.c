/* Tiny random models of every architecture and variation (golden/arch and golden/gguf, made by golden/make_arch.py and make_gguf.py) against transformers: biases, norms of heads,
 * sliding windows, scaled rotary frequencies, tied and untied output layers, experts. The quantizers' steps give the same hidden states; cuts change no bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/block.h"
#include "engine/engine.h"

#define MAX_IDS 64

static void path_of(char out[4096], const char *folder, const char *name, const char *file)
{
    const char *root = getenv("QP_ROOT");
    snprintf(out, 4096, "%.2000s/tests/golden/%s/%.200s%s", root ? root : ".", folder, name, file);
}

/* The final hidden states of one text by the steps of block.h. */
static void by_steps(struct qp_model *m, const struct qp_ops *ops, struct qp_exec *ex, const int32_t *ids, int64_t n, float *hidden)
{
    const struct qp_model_config *c = qp_model_config(m);
    struct qp_err err = {0};
    struct qp_pass *p;
    size_t linears = 0;
    if (qp_pass_new(&p, m, 1, n, &err) || qp_embed(m, ids, 1, n, qp_pass_stream(p), &err))
        fail_msg("%s", err.text);
    for (int64_t l = 0; l < c->n_layers; l++) {
        struct qp_block *b;
        struct qp_stage s;
        int r = qp_block_load(&b, m, l, ops, ex, QP_COMPUTE_F32, &err);
        for (r = r ? r : qp_pass_enter(p, b, &s, &err); r == 1; r = qp_pass_next(p, &s, &err)) {
            assert_ptr_equal(s.linears, qp_model_linear(m, linears));
            for (int i = 0; i < s.count; i++)
                assert_int_equal(s.linears[i].weight->cols, s.width);
            linears += (size_t)s.count;
        }
        if (r)
            fail_msg("%s", err.text);
        qp_block_free(b);
    }
    assert_int_equal(linears, qp_model_n_linears(m));
    assert_int_equal(qp_final_norm(m, ops, ex, hidden, qp_pass_stream(p), n, &err), 0);
    qp_pass_free(p);
}

/* The same one token at a time: not a bit may change. */
static void by_ones(struct qp_engine *e, const int32_t *ids, int64_t n, const float *want)
{
    int64_t D = qp_engine_config(e)->d_model;
    float *hidden = qp_alloc((size_t)D * 4, "test", NULL);
    struct qp_seq *s;
    struct qp_err err = {0};
    assert_int_equal(qp_seq_new(&s, e, MAX_IDS, &err), 0);
    for (int64_t i = 0; i < n; i++) {
        struct qp_segment one = {.seq = s, .ids = ids + i, .n = 1};
        assert_int_equal(qp_engine_forward(e, &one, 1, hidden, &err), 0);
        assert_memory_equal(hidden, want + i * D, (size_t)D * 4);
    }
    qp_seq_free(s);
    qp_free(hidden);
}

static void compare(struct qp_engine *e, struct qp_model *m, const char *name, json_t *ref)
{
    int32_t ids[MAX_IDS];
    size_t n = json_array_size(json_object_get(ref, "ids")), i, v;
    int64_t D = qp_engine_config(e)->d_model, V = qp_engine_config(e)->vocab_size;
    float *hidden = qp_alloc(n * (size_t)D * 4, "test", NULL), *steps = qp_alloc(n * (size_t)D * 4, "test", NULL), *logits = qp_alloc(n * (size_t)V * 4, "test", NULL);
    double worst = 0, greatest = 0;
    struct qp_seq *s;
    struct qp_err err = {0};
    json_t *row, *want;
    assert_true(n > 0 && n <= MAX_IDS);
    for (i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(json_object_get(ref, "ids"), i));
    assert_int_equal(qp_seq_new(&s, e, MAX_IDS, &err), 0);
    struct qp_segment first = {.seq = s, .ids = ids, .n = 30}, rest = {.seq = s, .ids = ids + 30, .n = (int64_t)n - 30};
    if (qp_engine_forward(e, &first, 1, hidden, &err) || qp_engine_forward(e, &rest, 1, hidden + 30 * D, &err) ||
        qp_engine_logits(e, hidden, (int64_t)n, logits, &err))
        fail_msg("%s: %s", name, err.text);
    json_array_foreach(json_object_get(ref, "rows"), i, row)
    {
        json_array_foreach(json_array_get(json_object_get(ref, "logits"), i), v, want)
        {
            double w = json_number_value(want), d = fabs((double)logits[json_integer_value(row) * V + (int64_t)v] - w);
            worst = d > worst ? d : worst;
            greatest = fabs(w) > greatest ? fabs(w) : greatest;
        }
        assert_int_equal(v, V);
    }
    assert_int_equal(i, 3);
    print_message("%s: greatest difference %.1e of logits up to %.1f\n", name, worst, greatest);
    assert_true(worst <= 2e-5 * greatest);
    by_ones(e, ids, (int64_t)n, hidden);
    by_steps(m, qp_engine_ops(e), qp_engine_exec(e), ids, (int64_t)n, steps);
    for (i = 0; i < n * (size_t)D; i++)
        assert_true(fabsf(steps[i] - hidden[i]) <= 1e-4f);
    qp_seq_free(s);
    qp_free(hidden);
    qp_free(steps);
    qp_free(logits);
}

/* A folder NAME with logits.json, or NAME.gguf beside NAME.json. */
static void test_one(const char *folder, const char *name, const char *backend)
{
    bool gguf = !strcmp(folder, "gguf");
    struct qp_model *m;
    struct qp_engine *e;
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_err err = {0};
    char path[4096];
    path_of(path, folder, name, gguf ? ".json" : "/logits.json");
    json_t *ref = json_load_file(path, 0, NULL);
    if (!ref)
        fail_msg("cannot read %s", path);
    path_of(path, folder, name, gguf ? ".gguf" : "");
    if (qp_model_open(&m, path, &err) || qp_backend_cpu_init(&ops, backend, &err) || qp_pool_new(&pool, 2, &err) ||
        qp_engine_new(&e, m, &ops, pool, QP_COMPUTE_F32, &err))
        fail_msg("%s: %s", name, err.text);
    compare(e, m, name, ref);
    qp_engine_free(e);
    qp_pool_free(pool);
    qp_model_free(m);
    json_decref(ref);
}

static void test_all(const char *backend)
{
    static const char *const names[] = {"llama", "llama-rope3-bias", "llama-linear", "mistral-window", "qwen2", "qwen3",
                                        "gemma2", "gemma3", "olmo2", "stablelm", "phi", "phi3", "phi3-longrope", "gpt2", "gpt-neox", "gpt-neox-sequential", "mixtral", "qwen2-moe", "qwen3-moe"};
    static const char *const files[] = {"mixtral", "qwen2moe", "qwen3moe"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        test_one("arch", names[i], backend);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        test_one("gguf", files[i], backend);
}

static void test_fastest(void **state)
{
    (void)state;
    test_all(NULL);
}

static void test_reference(void **state)
{
    (void)state;
    test_all("ref");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fastest), cmocka_unit_test(test_reference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
