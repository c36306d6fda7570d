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

static const struct qp_latency_shape small = {.batch = 3, .prompt_len = 40, .new_tokens = 4};

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
        {{.batch = 1, .prompt_len = 2047, .new_tokens = 2}, "0 tokens of context, 2047 of prompt and 2 new ones are more than the model's context of 2048"},
        {{.batch = 1, .prompt_len = 40, .new_tokens = 2, .depth = 2040}, "2040 tokens of context, 40 of prompt and 2 new ones are more than the model's context of 2048"},
        {{.batch = 1, .prompt_len = 40, .new_tokens = 5, .capacity = 44}, "0 tokens of context, 40 of prompt and 5 new ones are more than the cache of 44"},
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
        struct qp_latency_shape s = {.batch = 2, .prompt_len = 8, .new_tokens = 2, .depth = 100, .kv = kv + 1};
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
    struct qp_latency_shape s = {.batch = 4096, .prompt_len = 500, .new_tokens = 2, .kv = QP_KV_F32 + 1};
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
    struct qp_work prefill = qp_latency_prefill_work(e, fix.models[0].model, &(struct qp_latency_shape){.batch = 2, .prompt_len = 10, .new_tokens = 5});
    assert_true(fabs(prefill.flops - 2 * 2 * (10 * (2 * qkv + rest) + rest + head + 2 * 64 * (55 + 10))) < 1); /* the last layer: one token of each */
    struct qp_work step = qp_latency_decode_work(e, fix.models[0].model, &(struct qp_latency_shape){.batch = 2, .prompt_len = 10, .new_tokens = 5});
    assert_true(fabs(step.flops - 2 * 2 * (2 * (qkv + rest) + head + 2 * 64 * 2 * 13)) < 1); /* 12 before, and itself */
    assert_true(step.bytes > (double)qp_engine_weight_bytes(e) && step.bytes < 1.2 * (double)qp_engine_weight_bytes(e));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts),  cmocka_unit_test(test_one_by_one),   cmocka_unit_test(test_shapes_that_do_not_fit), cmocka_unit_test(test_depth_and_types),
                                       cmocka_unit_test(test_death),   cmocka_unit_test(test_memory_limit), cmocka_unit_test(test_peak),                   cmocka_unit_test(test_stopped),
                                       cmocka_unit_test(test_work),    cmocka_unit_test(test_flags)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
