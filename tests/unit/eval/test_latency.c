/* Sweeps on small random models: what is counted, the order of models in turns, outcomes that are no figures, memory of children. No time is judged. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/latency_sweep.h"
#include "text/tokenizer.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true /* its shadow is most of the address space, and of what is resident */
#else
#define SANITIZED false
#endif

#define MODELS 2

static struct {
    struct qp_sweep_model models[MODELS];
    char dir[64];
    char order[4096]; /* 'A' or 'B' for each request that counts, lower case for a warm-up */
    size_t n_order, stop_at;
    int kill;         /* the child of this model kills itself */
} fix;

static int set_up(void **state)
{
    static const char *const names[MODELS] = {"a", "b"};
    const char *tools = getenv("QP_TOOLS");
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    strcpy(fix.dir, "/tmp/qp-latency-XXXXXX");
    if (!tools || !mkdtemp(fix.dir))
        return 0;
    for (int i = 0; i < MODELS; i++) {
        char command[9000];
        struct qp_err err = {0};
        snprintf(command, sizeof command, "'%.4000s/mkmodel' %s/%s seed=%d", tools, fix.dir, names[i], i + 1);
        if (system(command))
            return -1;
        snprintf(command, sizeof command, "%s/%s", fix.dir, names[i]);
        fix.models[i].id = names[i];
        if (qp_model_open(&fix.models[i].model, command, &err)) {
            print_message("# %s\n", err.text);
            return -1;
        }
    }
    return 0;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    for (int i = 0; i < MODELS; i++)
        qp_model_free(fix.models[i].model);
    snprintf(command, sizeof command, "rm -rf '%s'", fix.dir);
    return fix.models[0].id ? system(command) : 0;
}

static void tick(void *ctx, size_t model, int64_t round, bool counts)
{
    (void)ctx, (void)round;
    if (fix.n_order + 1 < sizeof fix.order)
        fix.order[fix.n_order++] = (char)((counts ? 'A' : 'a') + (int)model);
}

static bool stop(void)
{
    return fix.stop_at && fix.n_order >= fix.stop_at;
}

static void keep(void *ctx, size_t model)
{
    (void)ctx;
    if ((int)model == fix.kill)
        raise(SIGKILL);
}

static struct qp_sweep_options options(void)
{
    memset(fix.order, 0, sizeof fix.order);
    fix.n_order = fix.stop_at = 0;
    fix.kill = -1;
    return (struct qp_sweep_options){.warmup = 2, .runs = 5, .seed = 1, .threads = 2, .in_turns = true, .keep = keep, .tick = tick, .stop = stop};
}

static const int64_t forty[] = {40, 40, 40}, mixed[] = {17, 40, 5};
static const struct qp_latency_shape small = {.batch = 3, .prompt_lens = forty, .new_tokens = 4};

static void sweep(struct qp_sweep_outcome *out, struct qp_sweep_setting *setting, const struct qp_latency_shape *shape, const struct qp_sweep_options *o)
{
    struct qp_err err = {0};
    if (!fix.models[0].id)
        skip();
    if (qp_sweep_run(out, setting, fix.models, MODELS, shape, o, &err))
        fail_msg("%s", err.text);
}

static void test_counts(void **state)
{
    (void)state;
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    sweep(out, &t, &small, &o);
    assert_string_equal(fix.order, "ababABABABABAB");
    assert_int_equal(t.rounds, 5);
    assert_true(t.clock_min > 0 && t.clock_min <= t.clock_first && t.clock_last <= t.clock_max);
    for (int i = 0; i < MODELS; i++) {
        const struct qp_sweep_facts *f = &out[i].facts;
        assert_int_equal(out[i].status, QP_SWEEP_OK);
        assert_int_equal(out[i].n_runs, 5);
        assert_int_equal(out[i].n_steps, 3);
        for (size_t r = 0; r < 5; r++) {
            const struct qp_latency_run *x = &out[i].runs[r];
            double steps = 0;
            for (int k = 0; k < 3; k++) {
                assert_true(out[i].steps[r * 3 + (size_t)k] > 0);
                steps += out[i].steps[r * 3 + (size_t)k];
            }
            assert_true(x->tokenize > 0 && x->allocate > 0 && x->prefill > 0 && x->detokenize > 0);
            assert_true(fabs(x->first - x->tokenize - x->allocate - x->prefill) < 1e-9);
            assert_true(fabs(x->decode - steps) < 1e-9 && fabs(x->total - x->first - x->decode - x->detokenize) < 1e-9);
        }
        assert_true(f->weights > 0 && f->scratch > 0 && f->threads == 2 && f->isa[0] && !f->has_device);
        assert_true(f->cache.computed > 0 && (!f->cache.allocated || (f->cache.allocated >= f->cache.computed && f->cache.allocated < 2 * f->cache.computed)));
    }
    qp_sweep_release(out, MODELS);
}

/* Sequences of different lengths: each step takes all of them (else the child ends with an error), caches are as long as the longest needs. */
static void test_lengths(void **state)
{
    (void)state;
    struct qp_sweep_outcome out[MODELS] = {0}, same[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    struct qp_latency_shape s = small;
    s.prompt_lens = mixed;
    assert_int_equal(qp_latency_prompt_tokens(&s), 62);
    assert_int_equal(qp_latency_longest(&s), 1);
    sweep(out, &t, &s, &o);
    sweep(same, &t, &small, &o);
    for (int i = 0; i < MODELS; i++) {
        assert_int_equal(out[i].status, QP_SWEEP_OK);
        assert_int_equal(out[i].n_runs, 5);
        assert_int_equal(out[i].facts.cache.computed, same[i].facts.cache.computed);
        assert_true(out[i].facts.prefill.flops < same[i].facts.prefill.flops && out[i].facts.decode.flops < same[i].facts.decode.flops);
    }
    qp_sweep_release(out, MODELS);
    qp_sweep_release(same, MODELS);
}

/* More requests than places: every run answers all of them, each at its own length; waiting does not count, the texts are made within. */
static void test_queued(void **state)
{
    (void)state;
    static const int64_t prompts[] = {17, 40, 5, 9, 30}, answers[] = {2, 9, 1, 4, 3};
    for (int depth = 0; depth < 20; depth += 10) {
        struct qp_sweep_outcome out[MODELS] = {0};
        struct qp_sweep_setting t;
        struct qp_sweep_options o = options();
        struct qp_latency_shape s = {.batch = 2, .requests = 5, .prompt_lens = prompts, .new_lens = answers, .new_tokens = 9, .depth = depth};
        assert_int_equal(qp_latency_new_tokens(&s), 19);
        assert_int_equal(qp_latency_prompt_tokens(&s), 101);
        sweep(out, &t, &s, &o);
        for (int i = 0; i < MODELS; i++) {
            assert_int_equal(out[i].status, QP_SWEEP_OK);
            assert_int_equal(out[i].n_runs, 5);
            assert_int_equal(out[i].n_steps, 5);
            for (size_t r = 0; r < 5; r++) {
                const struct qp_latency_run *x = &out[i].runs[r];
                const double *each = out[i].steps + r * 5;
                double sum = 0;
                for (int k = 0; k < 5; k++) {
                    assert_true(each[k] > 0 && each[k] < x->total - x->tokenize - x->allocate);
                    sum += each[k];
                }
                assert_true(sum <= 2 * x->total); /* two at a time */
                assert_true(each[1] > each[2] && x->prefill == 0 && x->decode == 0 && x->first == 0);
            }
        }
        qp_sweep_release(out, MODELS);
    }
}

/* Texts are taken in turn; one that is too short or too long is named. */
static void test_prompts(void **state)
{
    (void)state;
    static const char *const texts[] = {"the cat sat on the mat and looked out", "a dog"};
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    struct qp_latency_shape s = {.batch = 3, .prompt_lens = (const int64_t[]){6, 2, 5}, .new_tokens = 3};
    o.prompts = (struct qp_latency_prompts){texts, 2, "f.jsonl"};
    sweep(out, &t, &s, &o);
    assert_int_equal(out[1].status, QP_SWEEP_OK);
    qp_sweep_release(out, MODELS);
    s.prompt_lens = (const int64_t[]){6, 30, 5};
    sweep(out, &t, &s, &o);
    assert_int_equal(out[1].status, QP_SWEEP_FAILED);
    assert_int_equal(out[1].code, QP_E_INPUT);
    assert_non_null(strstr(out[1].reason, "prompt 2 of 'f.jsonl' has "));
    assert_non_null(strstr(out[1].reason, " tokens, not 30"));
    qp_sweep_release(out, MODELS);
    s.prompt_lens = (const int64_t[]){6, 2046, 5};
    sweep(out, &t, &s, &o);
    assert_string_equal(out[0].reason, "prompt 2 of 'f.jsonl': 0 tokens of context, 2046 of prompt and 3 new ones are more than the model's context of 2048");
    qp_sweep_release(out, MODELS);
}

static void test_one_by_one(void **state)
{
    (void)state;
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    o.in_turns = false;
    sweep(out, &t, &small, &o);
    assert_string_equal(fix.order, "aaAAAAAbbBBBBB");
    qp_sweep_release(out, MODELS);
    o = options();
    out[0].status = QP_SWEEP_SKIPPED; /* the caller's word */
    sweep(out, &t, &small, &o);
    assert_string_equal(fix.order, "bbBBBBB");
    assert_int_equal(out[0].status, QP_SWEEP_SKIPPED);
    qp_sweep_release(out, MODELS);
}

static void test_shapes_that_do_not_fit(void **state)
{
    (void)state;
    const struct {
        struct qp_latency_shape shape;
        const char *says;
    } cases[] = {
        {{.batch = 1, .prompt_lens = (const int64_t[]){2047}, .new_tokens = 2}, "0 tokens of context, 2047 of prompt and 2 new ones are more than the model's context of 2048"},
        {{.batch = 1, .prompt_lens = forty, .new_tokens = 2, .depth = 2040}, "2040 tokens of context, 40 of prompt and 2 new ones are more than the model's context of 2048"},
        {{.batch = 1, .prompt_lens = forty, .new_tokens = 5, .capacity = 44}, "0 tokens of context, 40 of prompt and 5 new ones are more than the cache of 44"},
        {{.batch = 3, .prompt_lens = mixed, .new_tokens = 5, .capacity = 44}, "0 tokens of context, 40 of prompt and 5 new ones are more than the cache of 44"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct qp_sweep_outcome out[MODELS] = {0};
        struct qp_sweep_setting t;
        struct qp_sweep_options o = options();
        sweep(out, &t, &cases[k].shape, &o);
        for (int i = 0; i < MODELS; i++) {
            assert_int_equal(out[i].status, QP_SWEEP_FAILED);
            assert_int_equal(out[i].code, QP_E_USAGE);
            assert_string_equal(out[i].reason, cases[k].says);
        }
        assert_int_equal(fix.n_order, 0);
        qp_sweep_release(out, MODELS);
    }
}

static void test_depth_and_types(void **state)
{
    (void)state;
    size_t bytes[QP_KV_COUNT];
    for (int kv = 0; kv < QP_KV_COUNT; kv++) {
        struct qp_sweep_outcome out[MODELS] = {0};
        struct qp_sweep_setting t;
        struct qp_sweep_options o = options();
        struct qp_latency_shape s = {.batch = 2, .prompt_lens = (const int64_t[]){8, 3}, .new_tokens = 2, .depth = 100, .kv = kv + 1};
        sweep(out, &t, &s, &o);
        assert_int_equal(out[1].status, QP_SWEEP_OK);
        assert_int_equal(out[1].facts.kv, kv);
        assert_true(out[1].runs[0].allocate == 0); /* caches are kept */
        bytes[kv] = out[1].facts.cache.computed;
        qp_sweep_release(out, MODELS);
    }
    assert_true(bytes[QP_KV_BF16] < bytes[QP_KV_F32] && bytes[QP_KV_INT8] < bytes[QP_KV_F16]);
}

static void test_death(void **state)
{
    (void)state;
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    fix.kill = 0;
    sweep(out, &t, &small, &o);
    assert_int_equal(out[0].status, QP_SWEEP_NO_MEMORY);
    assert_int_equal(out[0].code, QP_E_RESOURCE);
    assert_string_equal(out[0].reason, "the process that measured was ended by signal 9, as the system does when memory is short");
    assert_int_equal(out[1].status, QP_SWEEP_OK); /* goes on */
    assert_string_equal(fix.order, "bbBBBBB");
    qp_sweep_release(out, MODELS);
}

static void test_memory_limit(void **state)
{
    (void)state;
    if (SANITIZED)
        skip();
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    static int64_t lens[4096];
    struct qp_latency_shape s = {.batch = 4096, .prompt_lens = lens, .new_tokens = 2, .kv = QP_KV_F32 + 1};
    for (int i = 0; i < 4096; i++)
        lens[i] = 500;
    o.memory_limit = (size_t)300 << 20;
    sweep(out, &t, &s, &o);
    for (int i = 0; i < MODELS; i++) {
        assert_int_equal(out[i].status, QP_SWEEP_NO_MEMORY);
        assert_non_null(strstr(out[i].reason, "memory"));
    }
    qp_sweep_release(out, MODELS);
    o = options();
    o.memory_limit = (size_t)300 << 20;
    sweep(out, &t, &small, &o); /* the parent is not limited, nor the next */
    assert_int_equal(out[0].status, QP_SWEEP_OK);
    qp_sweep_release(out, MODELS);
}

static void test_peak(void **state)
{
    (void)state;
    const size_t big = (size_t)300 << 20;
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    void *p = qp_alloc(big, "test", NULL); /* a parent that was big once */
    assert_non_null(p);
    memset(p, 1, big);
    qp_free(p);
    sweep(out, &t, &small, &o);
    struct qp_sweep_facts f = out[0].facts;
    qp_sweep_release(out, MODELS);
    if (SANITIZED || !f.peak)
        skip();
    assert_true(f.peak < big / 2 && f.load_peak < big / 2);
    assert_true(f.anonymous + f.file <= f.peak + (1 << 20));
}

static void test_stopped(void **state)
{
    (void)state;
    struct qp_sweep_outcome out[MODELS] = {0};
    struct qp_sweep_setting t;
    struct qp_sweep_options o = options();
    fix.stop_at = 9; /* a b a b A B A B A */
    sweep(out, &t, &small, &o);
    assert_string_equal(fix.order, "ababABABA");
    assert_int_equal(out[0].status, QP_SWEEP_INTERRUPTED);
    assert_int_equal(out[1].status, QP_SWEEP_INTERRUPTED);
    assert_int_equal(out[0].n_runs, 3);
    assert_int_equal(out[1].n_runs, 2);
    assert_true(out[1].facts.weights > 0);
    qp_sweep_release(out, MODELS);
}

/* The tiny model: 2 layers, D 64, F 96, 4 heads of 16, 2 KV heads, vocabulary 300. */
static void test_work(void **state)
{
    (void)state;
    struct qp_ops ops;
    struct qp_engine *e;
    bool memory;
    if (!fix.models[0].id)
        skip();
    assert_int_equal(qp_backend_cpu_init(&ops, "ref", NULL), 0);
    assert_int_equal(qp_engine_new(&e, fix.models[0].model, &ops, NULL, QP_COMPUTE_F32, NULL), 0);
    const double qkv = 64 * 64 + 2 * 32 * 64, rest = 64 * 64 + 3 * 64 * 96, head = 64 * 300;
    struct qp_latency_shape s10 = {.batch = 2, .prompt_lens = (const int64_t[]){10, 10}, .new_tokens = 5}, s3 = s10, apart = s10;
    struct qp_work prefill = qp_latency_prefill_work(e, fix.models[0].model, &s10);
    assert_true(fabs(prefill.flops - 2 * 2 * (10 * (2 * qkv + rest) + rest + head + 2 * 64 * (55 + 10))) < 1); /* the last layer: one token of each */
    struct qp_work step = qp_latency_decode_work(e, fix.models[0].model, &s10);
    assert_true(fabs(step.flops - 2 * 2 * (2 * (qkv + rest) + head + 2 * 64 * 2 * 13)) < 1); /* 12 before, and itself */
    assert_true(step.bytes > (double)qp_engine_weight_bytes(e) && step.bytes < 1.2 * (double)qp_engine_weight_bytes(e));
    s3.prompt_lens = (const int64_t[]){3, 3};
    apart.prompt_lens = (const int64_t[]){10, 3}; /* half of each, the weights once */
    for (int d = 0; d < 2; d++) {
        struct qp_work (*work)(const struct qp_engine *, const struct qp_model *, const struct qp_latency_shape *) = d ? qp_latency_decode_work : qp_latency_prefill_work;
        struct qp_work a = work(e, fix.models[0].model, &s10), b = work(e, fix.models[0].model, &s3), c = work(e, fix.models[0].model, &apart);
        assert_true(a.flops > b.flops && fabs(c.flops - (a.flops + b.flops) / 2) < 1 && a.bytes > b.bytes && fabs(c.bytes - (a.bytes + b.bytes) / 2) < 1);
    }
    double s = qp_work_seconds((struct qp_work){2e9, 1e9}, (struct qp_machine_limits){100, 10}, &memory);
    assert_true(memory && fabs(s - 0.1) < 1e-12);
    s = qp_work_seconds((struct qp_work){2e12, 1e9}, (struct qp_machine_limits){100, 10}, &memory);
    assert_true(!memory && fabs(s - 20) < 1e-9);
    assert_true(qp_work_seconds((struct qp_work){2e12, 1e9}, (struct qp_machine_limits){0, 10}, &memory) == 0);
    qp_engine_free(e);
}

static void test_flags(void **state)
{
    (void)state;
    char flags[QP_SWEEP_FLAGS][96];
    struct qp_sweep_setting t = {.steal = NAN, .others = 0.04, .clock_min = 96, .clock_max = 100};
    assert_int_equal(qp_sweep_flags(&t, flags), 0);
    t = (struct qp_sweep_setting){.steal = 0.02, .others = 0.5, .clock_min = 90, .clock_max = 100};
    assert_int_equal(qp_sweep_flags(&t, flags), 3);
    assert_string_equal(flags[0], "the processor's speed moved by 10.0 %");
    assert_string_equal(flags[1], "other programs used 50.0 % of the processors' time");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts),  cmocka_unit_test(test_lengths), cmocka_unit_test(test_prompts), cmocka_unit_test(test_queued), cmocka_unit_test(test_one_by_one),   cmocka_unit_test(test_shapes_that_do_not_fit), cmocka_unit_test(test_depth_and_types),
                                       cmocka_unit_test(test_death),   cmocka_unit_test(test_memory_limit), cmocka_unit_test(test_peak),                   cmocka_unit_test(test_stopped),
                                       cmocka_unit_test(test_work),    cmocka_unit_test(test_flags)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
