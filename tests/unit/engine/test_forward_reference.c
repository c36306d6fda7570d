/* The forward pass in float32 against transformers (reference/smollm2-forward.json): token losses, greatest logits, greedy texts. And what must hold
 * whatever the values: cutting a text into pieces, batching sequences, the number of threads change nothing. */
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
#include <unistd.h>

#include "base/buf.h"
#include "base/half.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

struct fixture {
    struct qp_model *model;
    struct qp_tokenizer *tok;
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_engine *engine;
    struct qp_ids ids;
    json_t *ref;
};

static const char *shared(const char *name)
{
    static char path[4096];
    const char *dir = getenv("QP_SHARED");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "../shared", name);
    return path;
}

static void need_data(void)
{
    const char *path = getenv("QP_MODEL");
    if (!path || access(path, R_OK) || access(shared("reference"), R_OK)) {
        print_message("needs the demo model (QP_MODEL) and reference values (QP_SHARED)\n");
        skip();
    }
}

/* The reference was computed on weights that were rounded to float16: an overlay with the same rounding. */
static struct qp_model *rounded(struct qp_model *base)
{
    struct qp_model *m;
    struct qp_err err = {0};
    assert_int_equal(qp_model_overlay(&m, base, &err), 0);
    for (size_t i = 0; i < qp_model_n_weights(base); i++) {
        const struct qp_weight *w = qp_model_weight_at(base, i);
        size_t n = (size_t)(w->rows * w->cols);
        float *x = qp_alloc(n * 4, "test", NULL);
        uint16_t *h = qp_alloc(n * 2, "test", NULL);
        assert_int_equal(qp_weight_read_rows(w, 0, w->rows, x, &err), 0);
        for (size_t k = 0; k < n; k++)
            h[k] = qp_f32_to_f16(x[k]);
        struct qp_tensor t = {.name = w->name, .dtype = QP_DT_F16, .ndim = w->rows > 1 ? 2 : 1, .shape = {w->rows, w->cols}, .data = h, .bytes = n * 2};
        if (w->rows == 1)
            t.shape[0] = w->cols;
        assert_int_equal(qp_model_set_dense(m, w->name, &t, &err), 0);
        qp_free(x);
        qp_free(h);
    }
    qp_model_free(base); /* the overlay holds it */
    return m;
}

static void open_fixture(struct fixture *f, enum qp_compute compute, int threads)
{
    struct qp_err err = {0};
    struct qp_buf text = QP_BUF_INIT;
    memset(f, 0, sizeof *f);
    f->ref = json_load_file(shared("reference/smollm2-forward.json"), 0, NULL);
    assert_non_null(f->ref);
    if (qp_model_open(&f->model, getenv("QP_MODEL"), &err))
        fail_msg("%s", err.text);
    f->model = rounded(f->model);
    if (qp_model_tokenizer(f->model, &f->tok, &err) || qp_backend_cpu_init(&f->ops, NULL, &err) ||
        qp_pool_new(&f->pool, threads, &err) || qp_engine_new(&f->engine, f->model, &f->ops, f->pool, compute, &err) ||
        qp_dataset_join(shared("data/wikitext-2-raw-v1/test.jsonl"), "text", "\n\n", 1 << 30, &text, NULL, &err) ||
        qp_tokenizer_encode(f->tok, text.data, 20000, 0, &f->ids, &err))
        fail_msg("%s", err.text);
    qp_buf_release(&text);
}

static void close_fixture(struct fixture *f)
{
    qp_engine_free(f->engine);
    qp_pool_free(f->pool);
    qp_tokenizer_free(f->tok);
    qp_model_free(f->model);
    qp_ids_release(&f->ids);
    json_decref(f->ref);
}

/* Logits [n, V] of the first n tokens, fed in pieces of `step`. */
static float *logits_of(struct fixture *f, int64_t n, int64_t step)
{
    struct qp_err err = {0};
    struct qp_seq *s;
    int64_t D = qp_engine_config(f->engine)->d_model, V = qp_engine_config(f->engine)->vocab_size;
    float *hidden = qp_alloc((size_t)(n * D) * 4, "test", NULL), *logits = qp_alloc((size_t)(n * V) * 4, "test", NULL);
    assert_int_equal(qp_seq_new(&s, f->engine, n, &err), 0);
    for (int64_t at = 0; at < n; at += step) {
        struct qp_segment seg = {.seq = s, .ids = f->ids.v + at, .n = n - at < step ? n - at : step};
        if (qp_engine_forward(f->engine, &seg, 1, hidden + at * D, &err))
            fail_msg("%s", err.text);
    }
    assert_int_equal(qp_engine_logits(f->engine, hidden, n, logits, &err), 0);
    qp_seq_free(s);
    qp_free(hidden);
    return logits;
}

static void test_losses(void **state)
{
    (void)state;
    need_data();
    struct fixture f;
    open_fixture(&f, QP_COMPUTE_F32, 2);
    int64_t V = qp_engine_config(f.engine)->vocab_size;
    float *logits = logits_of(&f, 512, 512);
    double lse[512], worst = 0;
    f.ops.log_sum_exp(qp_engine_exec(f.engine), lse, NULL, logits, V, 512, V);
    json_t *nll = json_object_get(f.ref, "nll_first_512");
    for (int i = 0; i < 512; i++) {
        double d = fabs(lse[i] - (double)logits[i * V + f.ids.v[i + 1]] - json_number_value(json_array_get(nll, (size_t)i)));
        worst = d > worst ? d : worst;
    }
    print_message("greatest difference of a loss: %.2e\n", worst);
    assert_true(worst <= 2e-3);
    json_t *top = json_object_get(f.ref, "top10_after_512");
    for (size_t i = 0; i < json_array_size(top); i++) {
        json_t *pair = json_array_get(top, i);
        double want = json_number_value(json_array_get(pair, 1)), got = (double)logits[511 * V + json_integer_value(json_array_get(pair, 0))];
        assert_true(fabs(got - want) <= 2e-3);
    }
    qp_free(logits);
    close_fixture(&f);
}

static void test_greedy(void **state)
{
    (void)state;
    need_data();
    struct fixture f;
    size_t i;
    json_t *g;
    open_fixture(&f, QP_COMPUTE_F32, 2);
    json_array_foreach(json_object_get(f.ref, "greedy"), i, g)
    {
        struct qp_ids prompt = {0}, out = {0};
        struct qp_err err = {0};
        struct qp_seq *s;
        const char *text = json_string_value(json_object_get(g, "prompt"));
        json_t *want = json_object_get(g, "new_ids");
        assert_int_equal(qp_tokenizer_encode(f.tok, text, strlen(text), 0, &prompt, &err), 0);
        assert_int_equal(qp_seq_new(&s, f.engine, 200, &err), 0);
        assert_int_equal(qp_engine_greedy(f.engine, s, prompt.v, (int64_t)prompt.n, (int64_t)json_array_size(want), -1, &out, &err), 0);
        assert_int_equal(out.n, json_array_size(want));
        for (size_t k = 0; k < out.n; k++)
            assert_int_equal(out.v[k], json_integer_value(json_array_get(want, k)));
        struct qp_buf decoded = QP_BUF_INIT;
        assert_int_equal(qp_tokenizer_decode(f.tok, out.v, out.n, false, &decoded, &err), 0);
        assert_string_equal(decoded.data, json_string_value(json_object_get(g, "text")));
        qp_buf_release(&decoded);
        qp_seq_free(s);
        qp_ids_release(&prompt);
        qp_ids_release(&out);
    }
    close_fixture(&f);
}

static void test_pieces_and_threads(void **state)
{
    (void)state;
    need_data();
    for (int compute = 0; compute < 2; compute++) {
        struct fixture a, b;
        open_fixture(&a, (enum qp_compute)compute, 1);
        open_fixture(&b, (enum qp_compute)compute, 2);
        int64_t V = qp_engine_config(a.engine)->vocab_size;
        float *whole = logits_of(&a, 70, 70), *cut = logits_of(&b, 70, 9);
        assert_memory_equal(whole, cut, (size_t)(70 * V) * sizeof *whole);
        qp_free(whole);
        qp_free(cut);
        close_fixture(&a);
        close_fixture(&b);
    }
}

/* Two sequences in one batch, one wanting its last rows alone, equal the same sequences by themselves. */
static void test_batch(void **state)
{
    (void)state;
    need_data();
    struct fixture f;
    struct qp_err err = {0};
    struct qp_seq *s[2], *alone;
    open_fixture(&f, QP_COMPUTE_F32, 2);
    int64_t D = qp_engine_config(f.engine)->d_model;
    float *both = qp_alloc((size_t)(60 * D) * 4, "test", NULL), *one = qp_alloc((size_t)(60 * D) * 4, "test", NULL);
    for (int i = 0; i < 2; i++)
        assert_int_equal(qp_seq_new(&s[i], f.engine, 64, &err), 0);
    struct qp_segment seg[2] = {{s[0], f.ids.v, 40, 30}, {s[1], f.ids.v + 100, 25, 0}};
    assert_int_equal(qp_engine_forward(f.engine, seg, 2, both, &err), 0);
    assert_int_equal(qp_seq_length(s[0]), 40);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(qp_seq_new(&alone, f.engine, 64, &err), 0);
        seg[i].seq = alone;
        assert_int_equal(qp_engine_forward(f.engine, &seg[i], 1, one, &err), 0);
        assert_memory_equal(one, both + (i ? 10 * D : 0), (size_t)((i ? 25 : 10) * D) * 4);
        qp_seq_free(alone);
        qp_seq_free(s[i]);
    }
    qp_free(both);
    qp_free(one);
    close_fixture(&f);
}

static void test_bad_input(void **state)
{
    (void)state;
    need_data();
    struct fixture f;
    struct qp_err err = {0};
    struct qp_seq *s;
    float hidden[4096];
    open_fixture(&f, QP_COMPUTE_F32, 1);
    assert_int_equal(qp_seq_new(&s, f.engine, 4, &err), 0);
    int32_t ids[5] = {1, 2, 3, 4, 5}, wrong = 49152;
    struct qp_segment seg = {.seq = s, .ids = ids, .n = 5, .want_from = 5};
    assert_int_equal(qp_engine_forward(f.engine, &seg, 1, hidden, &err), QP_E_USAGE);
    err.code = 0;
    seg = (struct qp_segment){.seq = s, .ids = &wrong, .n = 1, .want_from = 1};
    assert_int_equal(qp_engine_forward(f.engine, &seg, 1, hidden, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "49152"));
    qp_seq_free(s);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_losses), cmocka_unit_test(test_greedy), cmocka_unit_test(test_pieces_and_threads),
                                       cmocka_unit_test(test_batch), cmocka_unit_test(test_bad_input)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
