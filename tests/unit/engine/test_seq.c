/* Sequences: one copied after a shared prefix goes on exactly as one that was fed everything, and batches of any mixture have the bits of each alone, for every type of
 * cache, with and without a sliding window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/block.h"
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

/* Batches in which caches of two types and sizes alternate, one sequence comes twice, and parts or nothing of a segment is wanted. */
static void mixed_batch(struct fixture *f, enum qp_kv first, enum qp_kv second)
{
    static const struct {
        int seq;
        int64_t n, want_from;
    } steps[][6] = {{{0, 20, 3}, {1, 5, 0}, {2, 3, 3}, {0, 4, 1}, {3, 7, 6}, {1, 1, 0}}, {{3, 1, 0}, {1, 1, 1}, {2, 1, 0}, {0, 1, 0}, {1, 9, 2}, {0, 0, 0}}};
    struct qp_seq *together[4], *alone[4];
    struct qp_err err = {0};
    float *want = qp_alloc((size_t)(CAPACITY * f->D) * 4, "test", NULL), *got = qp_alloc((size_t)(CAPACITY * f->D) * 4, "test", NULL);
    for (int i = 0; i < 4; i++) {
        qp_engine_set_kv(f->e, i % 2 ? second : first);
        if (qp_seq_new(&together[i], f->e, CAPACITY - i, &err) || qp_seq_new(&alone[i], f->e, CAPACITY - i, &err))
            fail_msg("%s", err.text);
    }
    for (int s = 0; s < 2; s++) {
        struct qp_segment seg[6];
        int64_t rows = 0;
        for (int i = 0; i < 6; i++) {
            seg[i] = (struct qp_segment){.seq = alone[steps[s][i].seq], .ids = f->ids + 7 * i, .n = steps[s][i].n, .want_from = steps[s][i].want_from};
            assert_int_equal(qp_engine_forward(f->e, &seg[i], 1, want + rows * f->D, &err), 0);
            rows += seg[i].n - seg[i].want_from;
            seg[i].seq = together[steps[s][i].seq];
        }
        assert_int_equal(qp_engine_forward(f->e, seg, 6, got, &err), 0);
        assert_memory_equal(got, want, (size_t)(rows * f->D) * 4);
    }
    for (int i = 0; i < 4; i++)
        qp_seq_free(together[i]), qp_seq_free(alone[i]);
    qp_free(want), qp_free(got);
}

static void test_mixed_batch(void **state)
{
    static const char *const names[] = {"llama", "mistral-window"};
    (void)state;
    for (int k = 0; k < 4; k++) {
        struct fixture f;
        open_fixture(&f, names[k / 2], k % 2 ? QP_COMPUTE_BF16 : QP_COMPUTE_F32);
        mixed_batch(&f, QP_KV_BF16, QP_KV_INT8);
        mixed_batch(&f, QP_KV_F32, QP_KV_F16);
        close_fixture(&f);
    }
}

/* More pieces than go through the layers together, all of one sequence. */
static void test_many_segments(void **state)
{
    enum { N = QP_ATTN_SPANS + 50 };
    struct fixture f;
    struct qp_err err = {0};
    struct qp_seq *s;
    struct qp_segment seg[N];
    int32_t ids[N];
    (void)state;
    open_fixture(&f, "llama", QP_COMPUTE_BF16);
    float *want = qp_alloc((size_t)(N * f.D) * 4, "test", NULL), *got = qp_alloc((size_t)(N * f.D) * 4, "test", NULL);
    assert_int_equal(qp_seq_new(&s, f.e, N, &err), 0);
    for (int i = 0; i < N; i++) {
        ids[i] = f.ids[i % PREFIX];
        seg[i] = (struct qp_segment){.seq = s, .ids = ids + i, .n = 1};
    }
    feed(&f, s, ids, N, want);
    qp_seq_truncate(s, 0);
    assert_int_equal(qp_engine_forward(f.e, seg, N, got, &err), 0);
    assert_memory_equal(got, want, (size_t)(N * f.D) * 4);
    qp_seq_free(s);
    qp_free(want), qp_free(got);
    close_fixture(&f);
}

/* Attention of many sequences as the quantizers call it: more of them than have a cache at a time. */
static void test_block_attention(void **state)
{
    static const int64_t shapes[][2] = {{300, 3}, {25, 70}, {3, 900}};
    struct fixture f;
    struct qp_err err = {0};
    struct qp_exec ex = {0};
    struct qp_block *b;
    (void)state;
    open_fixture(&f, "mistral-window", QP_COMPUTE_BF16);
    const struct qp_model_config *c = qp_engine_config(f.e);
    assert_int_equal(qp_block_load(&b, f.m, 0, &f.ops, &ex, QP_COMPUTE_BF16, &err), 0);
    for (int i = 0; i < 3; i++) {
        int64_t n = shapes[i][0], len = shapes[i][1], q = c->n_heads * c->head_dim;
        float *h = qp_alloc((size_t)(n * len * f.D) * 4, "test", NULL), *together = qp_alloc((size_t)(n * len * q) * 4, "test", NULL);
        float *alone = qp_alloc((size_t)(len * q) * 4, "test", NULL);
        for (int64_t k = 0; k < n * len * f.D; k++)
            h[k] = (float)(k * 7919 % 1009) / 500 - 1;
        assert_int_equal(qp_block_attn(b, h, n, len, together, &err), 0);
        for (int64_t k = 0; k < n; k++) {
            assert_int_equal(qp_block_attn(b, h + k * len * f.D, 1, len, alone, &err), 0);
            assert_memory_equal(alone, together + k * len * q, (size_t)(len * q) * 4);
        }
        qp_free(h), qp_free(together), qp_free(alone);
    }
    qp_block_free(b);
    qp_exec_release(&ex);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_copy), cmocka_unit_test(test_other_kinds), cmocka_unit_test(test_mixed_batch), cmocka_unit_test(test_many_segments),
                                       cmocka_unit_test(test_block_attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
