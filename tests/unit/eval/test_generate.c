/* The continuous batch: answers equal those of greedy decoding one by one, for any batch, number of threads, compute and cache type, whatever is
 * shared between prompts; ends; bounds. On small random models, and on the demo model against transformers' five greedy texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "eval/generate.h"

#define PROMPTS 23
#define LONGEST 90

static struct {
    struct qp_ops ops;
    struct qp_pool *pool[2]; /* of 1 and of 2 threads */
    struct qp_model *model, *brief; /* brief: a context of 48 */
    struct qp_tokenizer *tok;
    struct qp_gen_request r[PROMPTS];
    int32_t ids[PROMPTS][LONGEST];
    char dir[64];
} fix;

/* Prompts of 1 to 90 tokens; every third begins with the same 30. */
static void make_prompts(void)
{
    for (int i = 0; i < PROMPTS; i++) {
        int n = i % 3 ? 1 + (i * 17) % LONGEST : 31 + (i * 7) % 50;
        for (int k = 0; k < n; k++)
            fix.ids[i][k] = i % 3 == 0 && k < 30 ? (k * k + 5) % 300 : (i * 31 + k * 7) % 300;
        fix.r[i] = (struct qp_gen_request){.ids = fix.ids[i], .n = n, .max_new = i % 5 ? 0 : 3 + i};
    }
}

static int set_up(void **state)
{
    struct qp_err err = {0};
    char command[9000], path[80];
    const char *tools = getenv("QP_TOOLS");
    (void)state;
    strcpy(fix.dir, "/tmp/qp-generate-XXXXXX");
    if (!tools || !mkdtemp(fix.dir))
        return 0;
    snprintf(command, sizeof command, "'%.4000s/mkmodel' %s/m && '%.4000s/mkmodel' %s/brief && sed -i 's/\"max_position_embeddings\": 2048/\"max_position_embeddings\": 48/' %s/brief/config.json",
             tools, fix.dir, tools, fix.dir, fix.dir);
    if (system(command))
        return -1;
    snprintf(path, sizeof path, "%s/m", fix.dir);
    int r = qp_model_open(&fix.model, path, &err);
    snprintf(path, sizeof path, "%s/brief", fix.dir);
    if (r || qp_model_open(&fix.brief, path, &err) || qp_backend_cpu_init(&fix.ops, NULL, &err) || qp_pool_new(&fix.pool[0], 1, &err) ||
        qp_pool_new(&fix.pool[1], 2, &err) || qp_model_tokenizer(fix.model, &fix.tok, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return -1;
    }
    make_prompts();
    return 0;
}

static int tear_down(void **state)
{
    char command[96];
    (void)state;
    qp_tokenizer_free(fix.tok);
    qp_model_free(fix.model);
    qp_model_free(fix.brief);
    for (int i = 0; i < 2; i++)
        qp_pool_free(fix.pool[i]);
    snprintf(command, sizeof command, "rm -rf %s", fix.dir);
    return fix.model && system(command) ? -1 : 0;
}

static void need_model(void)
{
    if (!fix.model) {
        print_message("needs mkmodel (QP_TOOLS)\n");
        skip();
    }
}

static struct qp_engine *engine_of(struct qp_model *m, int pool, enum qp_compute compute)
{
    struct qp_engine *e;
    struct qp_err err = {0};
    if (qp_engine_new(&e, m, &fix.ops, fix.pool[pool], compute, &err))
        fail_msg("%s", err.text);
    return e;
}

static void finish(struct qp_gen *g, struct qp_gen_step *sum)
{
    struct qp_gen_step step;
    struct qp_err err = {0};
    int s;
    *sum = (struct qp_gen_step){0};
    while ((s = qp_gen_step(g, &step, &err)) == 1) {
        assert_true(step.live >= 1 && step.live <= qp_gen_slots(g) && step.begun <= step.live);
        sum->live += step.live;
        sum->begun += step.begun;
        sum->fed += step.fed;
        sum->reused += step.reused;
        sum->finished += step.finished;
    }
    if (s < 0)
        fail_msg("%s", err.text);
}

static struct qp_gen *run(struct qp_engine *e, const struct qp_gen_request *r, size_t n, const struct qp_gen_options *o, struct qp_gen_step *sum)
{
    struct qp_gen *g;
    struct qp_err err = {0};
    if (qp_gen_new(&g, e, r, n, o, &err))
        fail_msg("%s", err.text);
    assert_true(qp_gen_slots(g) <= o->batch);
    finish(g, sum);
    assert_int_equal(sum->begun, n);
    assert_int_equal(sum->finished, n);
    return g;
}

/* One by one, by the engine's own decoding. */
static void alone(struct qp_engine *e, size_t i, int64_t max, int32_t eos, struct qp_ids *out)
{
    struct qp_seq *s;
    struct qp_err err = {0};
    assert_int_equal(qp_seq_new(&s, e, fix.r[i].n + max + PROMPTS, &err), 0);
    assert_int_equal(qp_engine_greedy(e, s, fix.r[i].ids, fix.r[i].n, fix.r[i].max_new ? fix.r[i].max_new : max, eos, out, &err), 0);
    qp_seq_free(s);
}

static void compare(enum qp_compute compute, enum qp_kv kv, int32_t eos)
{
    struct qp_ids want[PROMPTS] = {{0}};
    struct qp_engine *e[2] = {engine_of(fix.model, 0, compute), engine_of(fix.model, 1, compute)};
    for (int i = 0; i < 2; i++)
        qp_engine_set_kv(e[i], kv);
    for (size_t i = 0; i < PROMPTS; i++)
        alone(e[0], i, 20, eos, &want[i]);
    static const int64_t batches[] = {1, 2, 7, 16, 40};
    for (size_t b = 0; b < sizeof batches / sizeof *batches; b++)
        for (int reuse = 0; reuse < 2; reuse++) {
            struct qp_gen_step sum;
            struct qp_gen_options o = {.batch = batches[b], .max_new = 20, .eos = &eos, .n_eos = eos >= 0};
            struct qp_gen_request r[PROMPTS];
            for (size_t i = 0; i < PROMPTS; i++) {
                r[i] = fix.r[i];
                r[i].fresh = reuse ? 0 : r[i].n;
            }
            struct qp_gen *g = run(e[b % 2], r, PROMPTS, &o, &sum);
            for (size_t i = 0; i < PROMPTS; i++) {
                const struct qp_gen_answer *a = qp_gen_answer(g, i);
                assert_int_equal(a->ids.n, want[i].n);
                if (want[i].n)
                    assert_memory_equal(a->ids.v, want[i].v, want[i].n * sizeof *want[i].v);
                assert_int_equal(a->end, want[i].n < (size_t)(fix.r[i].max_new ? fix.r[i].max_new : 20) ? QP_GEN_EOS : QP_GEN_LENGTH);
            }
            if (!reuse)
                assert_int_equal(sum.reused, 0);
            qp_gen_free(g);
        }
    for (size_t i = 0; i < PROMPTS; i++)
        qp_ids_release(&want[i]);
    for (int i = 0; i < 2; i++)
        qp_engine_free(e[i]);
}

static void test_equal_f32(void **state)
{
    (void)state;
    need_model();
    compare(QP_COMPUTE_F32, QP_KV_F32, -1);
}

static void test_equal_bf16(void **state)
{
    (void)state;
    need_model();
    compare(QP_COMPUTE_BF16, QP_KV_BF16, -1);
    compare(QP_COMPUTE_BF16, QP_KV_INT8, -1);
}

/* The token that some answers give soon as EOS: slots are freed at different times. */
static void test_eos(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.model, 0, QP_COMPUTE_F32);
    struct qp_ids out = {0};
    alone(e, 1, 20, -1, &out);
    int32_t eos = out.v[2];
    qp_ids_release(&out);
    qp_engine_free(e);
    compare(QP_COMPUTE_F32, QP_KV_F32, eos);
}

/* Prompts with a common beginning: with one slot, all but the first feed only their own end. */
static void test_shared_prefix(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.model, 1, QP_COMPUTE_F32);
    struct qp_gen_request r[4];
    struct qp_gen_step sum;
    for (int i = 0; i < 4; i++) {
        r[i] = fix.r[3 * i];
        r[i].max_new = 4;
    }
    struct qp_gen *g = run(e, r, 4, &(struct qp_gen_options){.batch = 1, .max_new = 4}, &sum);
    assert_int_equal(sum.reused, 3 * 30);
    assert_int_equal(sum.fed + sum.reused, r[0].n + r[1].n + r[2].n + r[3].n);
    qp_gen_free(g);
    struct qp_gen_request same[2] = {r[1], r[1]}; /* a prompt twice: its last token is fed again */
    g = run(e, same, 2, &(struct qp_gen_options){.batch = 1, .max_new = 4}, &sum);
    assert_int_equal(sum.reused, r[1].n - 1);
    assert_memory_equal(qp_gen_answer(g, 0)->ids.v, qp_gen_answer(g, 1)->ids.v, 4 * sizeof(int32_t));
    qp_gen_free(g);
    qp_engine_free(e);
}

static void assert_equal_answers(const struct qp_gen *a, const struct qp_gen *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct qp_ids *x = &qp_gen_answer(a, i)->ids, *y = &qp_gen_answer(b, i)->ids;
        assert_int_equal(qp_gen_answer(a, i)->end, qp_gen_answer(b, i)->end);
        assert_int_equal(x->n, y->n);
        assert_memory_equal(x->v, y->v, x->n * sizeof *x->v);
    }
}

/* The same requests again, whole or after some steps: from the caches at first, but for what is to be fresh; and with caches that were away meanwhile. */
static void test_restart(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.model, 1, QP_COMPUTE_F32);
    struct qp_err err = {0};
    struct qp_gen_step sum, step;
    struct qp_gen_options o = {.batch = 4, .max_new = 6, .tok = fix.tok};
    struct qp_gen *want = run(e, fix.r, 4, &o, &sum), *g = run(e, fix.r, 4, &o, &sum);
    struct qp_gen_request r[4];
    int64_t prompts = sum.fed;
    assert_int_equal(qp_gen_restart(g, fix.r, &err), 0);
    assert_int_equal(qp_gen_answer(g, 0)->end, QP_GEN_PENDING);
    assert_int_equal(qp_gen_step(g, &step, &err), 1);
    assert_int_equal(step.reused, prompts - 4);
    qp_gen_free_caches(g); /* under way: what was there is computed again */
    finish(g, &sum);
    assert_equal_answers(g, want, 4);
    for (int i = 0; i < 4; i++) {
        r[i] = fix.r[i];
        r[i].fresh = r[i].n - i;
    }
    assert_int_equal(qp_gen_restart(g, r, &err), 0);
    assert_int_equal(qp_gen_step(g, &step, &err), 1);
    assert_int_equal(step.reused, 1 + 2 + 3);
    assert_int_equal(qp_gen_restart(g, r, &err), 0); /* answers under way are forgotten */
    finish(g, &sum);
    assert_int_equal(sum.finished, 4);
    assert_int_equal(sum.reused, 1 + 2 + 3);
    assert_equal_answers(g, want, 4);
    r[1].max_new = 2000;
    assert_int_equal(qp_gen_restart(g, r, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "the caches hold"));
    qp_gen_free(g);
    qp_gen_free(want);
    qp_engine_free(e);
}

/* Every prompt behind the same 30 tokens that were computed once; only what is behind them is fed, also the second time. */
static void test_fill(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.model, 1, QP_COMPUTE_BF16);
    struct qp_err err = {0};
    struct qp_gen_step sum;
    struct qp_gen_request r[3];
    int64_t behind = 0;
    for (int i = 0; i < 3; i++) {
        r[i] = fix.r[3 * i];
        r[i].fresh = r[i].n - 30;
        behind += r[i].fresh;
    }
    struct qp_gen_options o = {.batch = 3, .max_new = 5, .capacity = 200};
    struct qp_gen *want = run(e, r, 3, &(struct qp_gen_options){.batch = 1, .max_new = 5}, &sum), *g;
    assert_int_equal(qp_gen_new(&g, e, r, 3, &o, &err), 0);
    assert_int_equal(qp_gen_kv_bytes(g), 3 * qp_kv_cache_bytes(qp_engine_config(e), qp_engine_ops(e), qp_engine_kv(e), 200));
    assert_int_equal(qp_gen_fill_caches(g, fix.ids[0], 30, &err), 0);
    for (int round = 0; round < 2; round++) {
        finish(g, &sum);
        assert_int_equal(sum.fed, behind);
        assert_int_equal(sum.reused, 3 * 30);
        assert_equal_answers(g, want, 3);
        assert_int_equal(qp_gen_restart(g, r, &err), 0);
    }
    qp_gen_free(g);
    qp_gen_free(want);
    qp_engine_free(e);
}

static void test_stop_strings(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.model, 1, QP_COMPUTE_F32);
    struct qp_gen_step sum;
    struct qp_gen *g = run(e, fix.r, PROMPTS, &(struct qp_gen_options){.batch = 5, .max_new = 20, .tok = fix.tok}, &sum);
    const struct qp_gen_answer *free_run = qp_gen_answer(g, 1);
    struct qp_buf whole = QP_BUF_INIT;
    qp_buf_add(&whole, free_run->text.data, free_run->text.len);
    assert_int_equal(free_run->end, QP_GEN_LENGTH);
    qp_gen_free(g);
    size_t cut = 0;
    char stop[8] = ""; /* two letters from the middle of the text, where they are plain */
    for (size_t i = 5; i + 2 < whole.len && !*stop; i++)
        if ((whole.data[i] & 0x80) == 0 && (whole.data[i + 1] & 0x80) == 0 && whole.data[i] != '?' && whole.data[i + 1] != '?') {
            memcpy(stop, whole.data + i, 2);
            cut = (size_t)(strstr(whole.data, stop) - whole.data);
        }
    assert_true(*stop);
    const char *stops[] = {"this never comes", stop};
    for (int64_t batch = 1; batch < 20; batch += 9) {
        g = run(e, fix.r, PROMPTS, &(struct qp_gen_options){.batch = batch, .max_new = 20, .tok = fix.tok, .stops = stops, .n_stops = 2}, &sum);
        const struct qp_gen_answer *a = qp_gen_answer(g, 1);
        assert_int_equal(a->end, QP_GEN_STOP);
        assert_int_equal(a->text.len, cut);
        assert_memory_equal(a->text.data, whole.data, cut);
        assert_true(a->ids.n < 20);
        qp_gen_free(g);
    }
    qp_buf_release(&whole);
    qp_engine_free(e);
}

static void test_context(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.brief, 1, QP_COMPUTE_F32);
    struct qp_err err = {0};
    struct qp_gen *g;
    struct qp_gen_step sum;
    struct qp_gen_request r[2] = {{.ids = fix.ids[0], .n = 40}, {.ids = fix.ids[0], .n = 47}};
    g = run(e, r, 2, &(struct qp_gen_options){.batch = 2, .max_new = 20}, &sum);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(qp_gen_answer(g, i)->end, QP_GEN_CONTEXT);
        assert_int_equal(qp_gen_answer(g, i)->ids.n, i ? 1 : 8);
    }
    qp_gen_free(g);
    r[1].n = 48;
    assert_int_equal(qp_gen_new(&g, e, r, 2, &(struct qp_gen_options){.batch = 2, .max_new = 20}, &err), QP_E_INPUT);
    assert_string_equal(err.text, "prompt 2 has 48 tokens; the model takes 1 to 47 and one to answer");
    err.code = 0;
    r[1].n = 0;
    assert_int_equal(qp_gen_new(&g, e, r, 2, &(struct qp_gen_options){.batch = 2, .max_new = 20}, &err), QP_E_INPUT);
    assert_null(g);
    qp_engine_free(e);
}

static void test_memory_bound(void **state)
{
    (void)state;
    need_model();
    struct qp_engine *e = engine_of(fix.model, 1, QP_COMPUTE_F32);
    struct qp_err err = {0};
    struct qp_gen *g;
    struct qp_gen_step sum;
    struct qp_gen_options o = {.batch = 16, .max_new = 20};
    g = run(e, fix.r, PROMPTS, &o, &sum);
    size_t all = qp_gen_kv_bytes(g);
    assert_int_equal(qp_gen_slots(g), 16);
    qp_gen_free(g);
    o.kv_bytes = all / 4;
    g = run(e, fix.r, PROMPTS, &o, &sum);
    assert_int_equal(qp_gen_slots(g), 4);
    assert_true(qp_gen_kv_bytes(g) <= o.kv_bytes);
    qp_gen_free(g);
    o.kv_bytes = all / 17;
    assert_int_equal(qp_gen_new(&g, e, fix.r, PROMPTS, &o, &err), QP_E_RESOURCE);
    assert_non_null(strstr(err.text, "KV cache"));
    g = run(e, fix.r, 0, &(struct qp_gen_options){.batch = 1, .max_new = 1}, &sum); /* nothing to do */
    assert_int_equal(sum.live, 0);
    qp_gen_free(g);
    qp_engine_free(e);
}

/* Five texts of 50 tokens in one batch, float32, against transformers. The demo model holds 4-bit blocks that the peer read rounded to float16; its
 * texts are the same. */
static void test_reference(void **state)
{
    (void)state;
    char path[4096];
    const char *dir = getenv("QP_SHARED"), *model = getenv("QP_MODEL");
    snprintf(path, sizeof path, "%s/reference/smollm2-forward.json", dir ? dir : "../shared");
    if (!model || access(model, R_OK) || access(path, R_OK) || !fix.pool[1]) {
        print_message("needs the demo model (QP_MODEL) and reference values (QP_SHARED)\n");
        skip();
    }
    struct qp_err err = {0};
    struct qp_model *m;
    struct qp_tokenizer *tok;
    struct qp_gen_request r[5];
    struct qp_ids ids[5] = {{0}};
    struct qp_gen_step sum;
    json_t *ref = json_load_file(path, 0, NULL), *texts = json_object_get(ref, "greedy");
    assert_int_equal(json_array_size(texts), 5);
    if (qp_model_open(&m, model, &err) || qp_model_tokenizer(m, &tok, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < 5; i++) {
        const char *text = json_string_value(json_object_get(json_array_get(texts, i), "prompt"));
        assert_int_equal(qp_tokenizer_encode(tok, text, strlen(text), 0, &ids[i], &err), 0);
        r[i] = (struct qp_gen_request){.ids = ids[i].v, .n = (int64_t)ids[i].n, .max_new = (int64_t)json_array_size(json_object_get(json_array_get(texts, i), "new_ids"))};
    }
    struct qp_engine *e = engine_of(m, 1, QP_COMPUTE_F32);
    for (int64_t batch = 2; batch < 6; batch += 3) {
        struct qp_gen *g = run(e, r, 5, &(struct qp_gen_options){.batch = batch, .max_new = 50, .tok = tok}, &sum);
        for (size_t i = 0; i < 5; i++) {
            json_t *want = json_object_get(json_array_get(texts, i), "new_ids");
            assert_int_equal(qp_gen_answer(g, i)->ids.n, json_array_size(want));
            for (size_t k = 0; k < json_array_size(want); k++)
                assert_int_equal(qp_gen_answer(g, i)->ids.v[k], json_integer_value(json_array_get(want, k)));
            /* the peer's text has control tokens, an answer's has not */
            const char *text = json_string_value(json_object_get(json_array_get(texts, i), "text"));
            assert_memory_equal(text, qp_gen_answer(g, i)->text.data, strstr(text, "<|im_end|>") ? strcspn(text, "<") : strlen(text));
        }
        qp_gen_free(g);
    }
    for (size_t i = 0; i < 5; i++)
        qp_ids_release(&ids[i]);
    qp_engine_free(e);
    qp_tokenizer_free(tok);
    qp_model_free(m);
    json_decref(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_f32), cmocka_unit_test(test_equal_bf16), cmocka_unit_test(test_eos), cmocka_unit_test(test_shared_prefix), cmocka_unit_test(test_restart), cmocka_unit_test(test_fill),
        cmocka_unit_test(test_stop_strings), cmocka_unit_test(test_context), cmocka_unit_test(test_memory_bound), cmocka_unit_test(test_reference)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
