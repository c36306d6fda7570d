/* A sequence copied after a shared prefix goes on exactly as one that was fed everything: every type of cache, with and without a sliding window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/engine.h"

#define PREFIX 37
#define REST 11
#define CAPACITY 64

struct fixture {
    struct qp_model *m;
    struct qp_ops ops;
    struct qp_engine *e;
    int32_t ids[PREFIX + 2 * REST];
    int64_t D;
};

static void open_fixture(struct fixture *f, const char *name, enum qp_compute compute)
{
    char path[4096];
    const char *root = getenv("QP_ROOT");
    struct qp_err err = {0};
    snprintf(path, sizeof path, "%.2000s/tests/golden/arch/%s", root ? root : ".", name);
    if (qp_model_open(&f->m, path, &err) || qp_backend_cpu_init(&f->ops, NULL, &err) || qp_engine_new(&f->e, f->m, &f->ops, NULL, compute, &err))
        fail_msg("%s: %s", name, err.text);
    f->D = qp_engine_config(f->e)->d_model;
    for (int i = 0; i < PREFIX + 2 * REST; i++)
        f->ids[i] = (int32_t)((i * 7 + 3) % qp_engine_config(f->e)->vocab_size);
}

static void close_fixture(struct fixture *f)
{
    qp_engine_free(f->e);
    qp_model_free(f->m);
}

static void feed(struct fixture *f, struct qp_seq *s, const int32_t *ids, int64_t n, float *hidden)
{
    struct qp_err err = {0};
    struct qp_segment seg = {.seq = s, .ids = ids, .n = n};
    assert_int_equal(qp_engine_forward(f->e, &seg, 1, hidden, &err), 0);
}

static void test_copy(void **state)
{
    static const char *const names[] = {"llama", "mistral-window"};
    (void)state;
    for (int k = 0; k < 2 * QP_KV_COUNT; k++) {
        struct fixture f;
        struct qp_err err = {0};
        struct qp_seq *prefix, *slot, *alone;
        open_fixture(&f, names[k / QP_KV_COUNT], k % QP_KV_COUNT == QP_KV_BF16 ? QP_COMPUTE_BF16 : QP_COMPUTE_F32);
        float *want = qp_alloc((size_t)((PREFIX + REST) * f.D) * 4, "test", NULL), *got = qp_alloc((size_t)(PREFIX * f.D) * 4, "test", NULL);
        qp_engine_set_kv(f.e, (enum qp_kv)(k % QP_KV_COUNT));
        if (qp_seq_new(&prefix, f.e, CAPACITY, &err) || qp_seq_new(&slot, f.e, CAPACITY, &err) || qp_seq_new(&alone, f.e, CAPACITY, &err))
            fail_msg("%s", err.text);
        feed(&f, prefix, f.ids, PREFIX, got);
        feed(&f, slot, f.ids + REST, PREFIX, got); /* what a slot held before does not matter */
        for (int text = 0; text < 2; text++) {
            const int32_t *rest = f.ids + PREFIX + text * REST;
            assert_int_equal(qp_seq_copy(slot, prefix, &err), 0);
            assert_int_equal(qp_seq_length(slot), PREFIX);
            feed(&f, slot, rest, REST, got);
            qp_seq_truncate(alone, 0);
            feed(&f, alone, f.ids, PREFIX, want);
            feed(&f, alone, rest, REST, want);
            assert_memory_equal(got, want, (size_t)(REST * f.D) * 4);
        }
        assert_int_equal(qp_seq_length(prefix), PREFIX);
        qp_seq_free(prefix);
        qp_seq_free(slot);
        qp_seq_free(alone);
        qp_free(want);
        qp_free(got);
        close_fixture(&f);
    }
}

static void test_other_kinds(void **state)
{
    (void)state;
    struct fixture f;
    struct qp_err err = {0};
    struct qp_seq *a, *longer, *coarse;
    open_fixture(&f, "llama", QP_COMPUTE_F32);
    assert_int_equal(qp_seq_new(&a, f.e, CAPACITY, &err), 0);
    assert_int_equal(qp_seq_new(&longer, f.e, 2 * CAPACITY, &err), 0);
    qp_engine_set_kv(f.e, QP_KV_INT8);
    assert_int_equal(qp_seq_new(&coarse, f.e, CAPACITY, &err), 0);
    assert_int_equal(qp_seq_copy(longer, a, &err), QP_E_INTERNAL);
    err = (struct qp_err){0};
    assert_int_equal(qp_seq_copy(coarse, a, &err), QP_E_INTERNAL);
    qp_seq_free(a);
    qp_seq_free(longer);
    qp_seq_free(coarse);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_copy), cmocka_unit_test(test_other_kinds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
