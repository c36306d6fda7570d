/* QP_COMPUTE_INT8: the output layer as GGUF's Q8_0 rounds it, against sums in double; hidden states of a model without codes as with bf16. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "engine/engine.h"

#define N 13

struct fixture {
    struct qp_model *m;
    struct qp_ops ops;
    struct qp_engine *e;
};

static void open_fixture(struct fixture *f, const char *backend, enum qp_compute compute)
{
    char path[4096];
    const char *root = getenv("QP_ROOT");
    struct qp_err err = {0};
    snprintf(path, sizeof path, "%.2000s/tests/golden/arch/llama", root ? root : ".");
    if (qp_model_open(&f->m, path, &err) || qp_backend_cpu_init(&f->ops, backend, &err) || qp_engine_new(&f->e, f->m, &f->ops, NULL, compute, &err))
        fail_msg("%s", err.text);
}

static void close_fixture(struct fixture *f)
{
    qp_engine_free(f->e);
    qp_model_free(f->m);
}

static void forward(struct fixture *f, float *hidden)
{
    struct qp_seq *s;
    struct qp_err err = {0};
    int32_t ids[N];
    for (int i = 0; i < N; i++)
        ids[i] = i * 7 % 32;
    assert_int_equal(qp_seq_new(&s, f->e, N, &err), 0);
    struct qp_segment seg = {.seq = s, .ids = ids, .n = N};
    assert_int_equal(qp_engine_forward(f->e, &seg, 1, hidden, &err), 0);
    qp_seq_free(s);
}

/* n values, at most 32 of them with one scale: what code * scale stands for. */
static void rounded(double *to, const float *x, int64_t n, bool half)
{
    float most = 0;
    for (int64_t k = 0; k < n; k++)
        most = fmaxf(most, fabsf(x[k]));
    float scale = half ? qp_f16_to_f32(qp_f32_to_f16(most / 127)) : most / 127;
    for (int64_t k = 0; k < n; k++)
        to[k] = (double)nearbyintf(half ? x[k] / scale : x[k] * (127 / most)) * (double)scale;
}

static void test_output_layer(void **state)
{
    (void)state;
    const char *const backends[] = {"ref", "avx2", "avx512", "auto"};
    for (int b = 0; b < 4; b++) {
        struct fixture f;
        struct qp_err err = {0};
        struct qp_ops ops;
        if (qp_backend_cpu_init(&ops, backends[b], &err))
            continue;
        open_fixture(&f, backends[b], QP_COMPUTE_INT8);
        const struct qp_model_config *c = qp_engine_config(f.e);
        int64_t D = c->d_model, V = c->vocab_size;
        const struct qp_weight *w = qp_model_part(f.m, -1, QP_ROLE_HEAD, -1, false);
        float *hidden = qp_alloc_n((size_t)(N * D), 4, "test", NULL), *got = qp_alloc_n((size_t)(N * V), 4, "test", NULL), *rows = qp_alloc_n((size_t)(V * D), 4, "test", NULL);
        double *a = qp_alloc_n((size_t)D, 8, "test", NULL), *x = qp_alloc_n((size_t)D, 8, "test", NULL), exact = 0;
        assert_int_equal(D % 32, 0);
        assert_int_equal(qp_weight_read_rows(w, 0, V, rows, &err), 0);
        forward(&f, hidden);
        assert_int_equal(qp_engine_logits(f.e, hidden, N, got, &err), 0);
        for (int64_t t = 0; t < N; t++)
            for (int64_t n = 0; n < V; n++) {
                double want = 0, size = 0;
                exact = 0;
                for (int64_t k = 0; k < D; k += 32) {
                    rounded(a + k, rows + n * D + k, 32, true);
                    rounded(x + k, hidden + t * D + k, 32, false);
                }
                for (int64_t k = 0; k < D; k++) {
                    want += a[k] * x[k];
                    size += fabs(a[k] * x[k]);
                    exact += (double)rows[n * D + k] * (double)hidden[t * D + k];
                }
                assert_true(fabs((double)got[t * V + n] - want) <= 1e-5 * size);
                assert_true(fabs((double)got[t * V + n] - exact) <= 0.02 * size);
            }
        qp_free(hidden), qp_free(got), qp_free(rows), qp_free(a), qp_free(x);
        close_fixture(&f);
    }
}

static void test_dense_layers_as_bf16(void **state)
{
    (void)state;
    struct fixture f, g;
    open_fixture(&f, NULL, QP_COMPUTE_INT8);
    open_fixture(&g, NULL, QP_COMPUTE_BF16);
    size_t bytes = (size_t)(N * qp_engine_config(f.e)->d_model) * sizeof(float);
    float *a = qp_alloc(bytes, "test", NULL), *b = qp_alloc(bytes, "test", NULL);
    forward(&f, a);
    forward(&g, b);
    assert_memory_equal(a, b, bytes);
    assert_int_equal(qp_engine_kv(f.e), QP_KV_BF16);
    qp_free(a), qp_free(b);
    close_fixture(&f);
    close_fixture(&g);
}

static void test_choices(void **state)
{
    (void)state;
    struct qp_ops ops = {.has_bf16 = true};
    assert_int_equal(qp_compute_chosen(0, &ops), QP_COMPUTE_BF16);
    ops.has_bf16 = false;
    assert_int_equal(qp_compute_chosen(0, &ops), QP_COMPUTE_F32);
    for (int i = 1; qp_compute_choices[i]; i++)
        assert_string_equal(qp_compute_name(qp_compute_chosen(i, &ops)), qp_compute_choices[i]);
    assert_int_equal(qp_kv_chosen(0, QP_COMPUTE_F32), QP_KV_F32);
    assert_int_equal(qp_kv_chosen(0, QP_COMPUTE_INT8), QP_KV_BF16);
    for (int i = 0; i < QP_KV_COUNT; i++)
        assert_string_equal(qp_kv_name(qp_kv_chosen(i + 1, QP_COMPUTE_F32)), qp_kv_choices[i + 1]);
    assert_null(qp_kv_choices[QP_KV_COUNT + 1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_output_layer), cmocka_unit_test(test_dense_layers_as_bf16), cmocka_unit_test(test_choices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
