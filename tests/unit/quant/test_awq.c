/* AWQ against its definition in double precision (tests/golden/make_awq.py), and folded scales against the model they came from, on the tiny models of every family. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/engine.h"
#include "quant/awq_block.h"

#define MAX_IDS 64
#define MAX_LAYERS 4 /* matrices of a case */

static uint32_t state;

static float uniform(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)((state >> 9) & 0x7fffu) / 16384 - 1;
}

static float *floats(int64_t n)
{
    float *p = qp_alloc_n((size_t)n, sizeof *p, "test", NULL);
    assert_non_null(p);
    return p;
}

struct fixture {
    struct qp_ops ops;
    struct qp_exec ex;
};

static int set_up(void **out)
{
    static struct fixture f;
    struct qp_err err = {0};
    f = (struct fixture){0};
    if (qp_backend_cpu_init(&f.ops, "auto", &err) || qp_pool_new(&f.ex.pool, 2, &err))
        return -1;
    *out = &f;
    return 0;
}

static int tear_down(void **in)
{
    struct fixture *f = *in;
    qp_pool_free(f->ex.pool);
    qp_exec_release(&f->ex);
    return 0;
}

static int64_t number(const json_t *c, const char *key)
{
    return json_integer_value(json_object_get(c, key));
}

static int64_t number_at(const json_t *c, const char *key, size_t i)
{
    return json_integer_value(json_array_get(json_object_get(c, key), i));
}

static double real(const json_t *c, const char *key)
{
    return json_number_value(json_object_get(c, key));
}

/* The generator of make_gptq.py, with the dead inputs and the zero groups of make_awq.py. */
static void make_data(const json_t *c, float *w, int64_t rows, float *x, int64_t tokens, int64_t cols)
{
    size_t i;
    json_t *at;
    int64_t size = number(c, "group_size");
    state = (uint32_t)number(c, "seed");
    for (int64_t k = 0; k < rows * cols; k++)
        w[k] = uniform();
    for (int64_t t = 0; t < tokens; t++) {
        float common[64];
        for (int64_t k = 0; k < (cols + 7) / 8; k++)
            common[k] = uniform();
        for (int64_t k = 0; k < cols; k++)
            x[t * cols + k] = (uniform() + 2 * common[k / 8]) * (float)(1 + k % 5);
    }
    json_array_foreach(json_object_get(c, "dead"), i, at)
        for (int64_t t = 0; t < tokens; t++)
            x[t * cols + json_integer_value(at)] = 0;
    json_array_foreach(json_object_get(c, "zero"), i, at)
        for (int64_t k = json_integer_value(json_array_get(at, 1)) * size, end = k + size < cols ? k + size : cols; k < end; k++)
            w[json_integer_value(json_array_get(at, 0)) * cols + k] = 0;
}

static void check_search(struct fixture *f, const json_t *c, const float *w, const float *activity, const struct qp_hessian *h, enum qp_compute compute)
{
    static const char *const duos[] = {"on", "off", "both"};
    const float *parts[MAX_LAYERS];
    int64_t rows[MAX_LAYERS], n = number(c, "cols"), at = 0;
    struct qp_grid grid = {.bits = (int)number(c, "bits"), .group_size = number(c, "group_size"), .sym = json_is_true(json_object_get(c, "sym"))};
    struct qp_awq_options o = {.points = 20};
    struct qp_awq_inputs in = {.w = parts, .rows = rows, .count = (int)json_array_size(json_object_get(c, "rows")), .n = n, .h = h->h, .activity = activity};
    struct qp_awq_found found;
    struct qp_err err = {0};
    float *s = floats(n);
    double near = compute == QP_COMPUTE_BF16 ? 1e-2 : 1e-4;
    while (strcmp(duos[o.duo], json_string_value(json_object_get(c, "duo"))))
        o.duo++;
    for (int i = 0; i < in.count; at += rows[i++] * n) {
        parts[i] = w + at;
        rows[i] = number_at(c, "rows", (size_t)i);
    }
    assert_int_equal(qp_awq_search(s, &found, &in, &grid, &o, compute, &f->ops, &f->ex, &err), 0);
    assert_true(fabs(found.ratio - real(c, "ratio")) < 1e-9);
    assert_int_equal(found.duo, json_is_true(json_object_get(c, "found_duo")));
    assert_true(fabs(found.loss / real(c, "loss") - 1) < near);
    assert_true(fabs(found.unscaled / real(c, "unscaled") - 1) < near);
    for (int64_t i = 0; i < n; i++)
        assert_true(fabs((double)s[i] / json_number_value(json_array_get(json_object_get(c, "s"), (size_t)i)) - 1) < 1e-4);
    qp_free(s);
}

static void check_clip(struct fixture *f, const json_t *c, const float *w, int64_t rows, const struct qp_hessian *h)
{
    struct qp_grid grid = {.bits = (int)number(c, "bits"), .group_size = number(c, "group_size"), .sym = json_is_true(json_object_get(c, "sym"))};
    struct qp_qlinear q;
    struct qp_err err = {0};
    assert_int_equal(qp_awq_round(&q, w, rows, h, grid, &f->ex, &err), 0);
    for (int64_t r = 0; r < rows; r++) {
        const char *want = json_string_value(json_array_get(json_object_get(c, "codes"), (size_t)r));
        for (int64_t g = 0; g < q.n_groups; g++) {
            assert_true((double)q.scales[r * q.n_groups + g] == json_number_value(json_array_get(json_array_get(json_object_get(c, "scales"), (size_t)r), (size_t)g)));
            assert_int_equal(q.zeros[r * q.n_groups + g], json_integer_value(json_array_get(json_array_get(json_object_get(c, "zeros"), (size_t)r), (size_t)g)));
        }
        for (int64_t i = 0; i < q.cols; i++)
            assert_int_equal("0123456789abcdef"[q.codes[r * q.cols + i]], want[i]);
    }
    qp_qlinear_release(&q);
}

static void check_case(struct fixture *f, const json_t *c)
{
    int64_t rows = 0, n = number(c, "cols"), tokens = number(c, "tokens");
    struct qp_hessian h = {.n = n, .h = floats(n * n)}; /* as it is: qp_hessian_init fills the diagonal of dead inputs */
    for (size_t i = 0; i < json_array_size(json_object_get(c, "rows")); i++)
        rows += number_at(c, "rows", i);
    float *w = floats(rows * n), *x = floats(tokens * n), *activity = floats(n);
    make_data(c, w, rows, x, tokens, n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t t = 0; t < tokens; t++)
                sum += (double)x[t * n + i] * (double)x[t * n + j];
            h.h[i * n + j] = (float)(sum / (double)tokens);
        }
    qp_awq_activity(activity, x, tokens, n);
    check_search(f, c, w, activity, &h, QP_COMPUTE_F32);
    check_search(f, c, w, activity, &h, QP_COMPUTE_BF16);
    check_clip(f, c, w, rows, &h);
    qp_hessian_release(&h);
    qp_free(w);
    qp_free(x);
    qp_free(activity);
}

static void test_against_the_definition(void **in)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/awq.json", getenv("QP_ROOT") ? getenv("QP_ROOT") : ".");
    json_t *root = json_load_file(path, 0, NULL), *c;
    size_t i;
    assert_non_null(root);
    assert_int_equal(json_array_size(json_object_get(root, "cases")), 4);
    json_array_foreach(json_object_get(root, "cases"), i, c)
        check_case(*in, c);
    json_decref(root);
}

/* Inputs that are always zero, weights that are all zero or all equal: finite scales of 1, no gain out of nothing. */
static void test_nothing_to_scale(void **in)
{
    struct fixture *f = *in;
    enum { N = 64, ROWS = 3 };
    float w[ROWS * N] = {0}, h[N * N] = {0}, activity[N] = {0}, s[N];
    const float *parts[] = {w};
    const int64_t rows[] = {ROWS};
    const struct qp_grid grid = {.bits = 4, .group_size = 32};
    const struct qp_awq_options o = {.duo = QP_AWQ_DUO_BOTH, .points = 20};
    struct qp_awq_inputs inputs = {.w = parts, .rows = rows, .count = 1, .n = N, .h = h, .activity = activity};
    struct qp_awq_found found;
    struct qp_err err = {0};
    for (int pass = 0; pass < 3; pass++) {
        for (int i = 0; i < ROWS * N; i++)
            w[i] = pass ? -0.25f : 0;
        for (int i = 0; i < N && pass == 2; i++)
            h[i * N + i] = activity[i] = 1;
        assert_int_equal(qp_awq_search(s, &found, &inputs, &grid, &o, QP_COMPUTE_F32, &f->ops, &f->ex, &err), 0);
        for (int i = 0; i < N; i++)
            assert_true(s[i] > 0 && isfinite(s[i]) && (pass == 2 || s[i] == 1));
        assert_true(found.loss >= 0 && found.loss <= found.unscaled);
    }
}

/* ---- folding ---- */

/* Scales all that can be scaled by numbers between 1/2 and 2; tied inputs alike. *m becomes the folded model. */
static void fold_model(struct fixture *f, const struct qp_model *base, struct qp_model **out, const int32_t *ids, int64_t n, int *folds, int *left)
{
    struct qp_err err = {0};
    struct qp_folded *folded;
    struct qp_pass *p;
    float *s = floats(4096), *w = floats(1 << 16);
    assert_int_equal(qp_folded_new(&folded, (struct qp_model *)(uintptr_t)base, &err), 0);
    assert_int_equal(qp_model_overlay(out, (struct qp_model *)(uintptr_t)base, &err), 0);
    if (qp_pass_new(&p, base, 1, n, &err) || qp_embed(base, ids, 1, n, qp_pass_stream(p), &err))
        fail_msg("%s", err.text);
    for (int64_t l = 0; l < qp_model_config(base)->n_layers; l++) {
        struct qp_block *b;
        struct qp_stage st;
        struct qp_fold fold;
        int r = qp_block_load(&b, base, l, &f->ops, &f->ex, QP_COMPUTE_F32, &err), n_changed;
        qp_folded_begin(folded, l);
        for (r = r ? r : qp_pass_enter(p, b, &st, &err); r == 1; r = qp_pass_next(p, &st, &err)) {
            assert_int_equal(qp_fold_find(&fold, base, &st, &err), 0);
            for (int64_t i = 0; i < st.width && !fold.none; i++)
                s[i] = exp2f((float)(fold.row[i] * 37 % 41) / 20 - 1);
            if (!fold.none)
                assert_int_equal(qp_folded_add(folded, &fold, &st, s, &err), 0);
            *folds += !fold.none;
            *left += fold.none != NULL;
            qp_fold_release(&fold);
        }
        if (r)
            fail_msg("%s", err.text);
        const struct qp_weight *const *changed = qp_folded_changed(folded, &n_changed);
        for (int i = 0; i < n_changed; i++) {
            struct qp_tensor t = {.dtype = QP_DT_F32, .ndim = 1, .shape = {changed[i]->cols}, .bytes = (size_t)changed[i]->cols * 4, .data = w};
            assert_int_equal(qp_weight_read_rows(changed[i], 0, 1, w, &err), 0);
            assert_int_equal(qp_model_set_dense(*out, changed[i]->name, &t, &err), 0);
        }
        for (size_t i = qp_model_first_linear(base, l); i < qp_model_first_linear(base, l + 1); i++) {
            const struct qp_linear *k = qp_model_linear(base, i);
            struct qp_tensor t = {.dtype = QP_DT_F32, .ndim = 2, .shape = {k->weight->rows, k->weight->cols}, .bytes = (size_t)(k->weight->rows * k->weight->cols) * 4, .data = w};
            assert_int_equal(qp_weight_read_rows(k->weight, 0, k->weight->rows, w, &err), 0);
            qp_folded_scale(folded, k, w);
            assert_int_equal(qp_model_set_dense(*out, k->weight->name, &t, &err), 0);
        }
        qp_block_free(b);
    }
    qp_pass_free(p);
    qp_folded_free(folded);
    qp_free(s);
    qp_free(w);
}

static void logits_of(struct fixture *f, struct qp_model *m, const int32_t *ids, int64_t n, float *logits)
{
    struct qp_engine *e;
    struct qp_seq *s;
    struct qp_err err = {0};
    if (qp_engine_new(&e, m, &f->ops, f->ex.pool, QP_COMPUTE_F32, &err) || qp_seq_new(&s, e, MAX_IDS, &err))
        fail_msg("%s", err.text);
    struct qp_segment seg = {.seq = s, .ids = ids, .n = n};
    float *hidden = floats(n * qp_engine_config(e)->d_model);
    if (qp_engine_forward(e, &seg, 1, hidden, &err) || qp_engine_logits(e, hidden, n, logits, &err))
        fail_msg("%s", err.text);
    qp_free(hidden);
    qp_seq_free(s);
    qp_engine_free(e);
}

static void check_fold(struct fixture *f, const char *path, const char *name)
{
    struct qp_model *m, *folded;
    struct qp_err err = {0};
    int32_t ids[40];
    int folds = 0, left = 0;
    if (qp_model_open(&m, path, &err))
        fail_msg("%s: %s", name, err.text);
    int64_t V = qp_model_config(m)->vocab_size;
    float *before = floats(40 * V), *after = floats(40 * V), worst = 0, greatest = 0;
    for (int i = 0; i < 40; i++)
        ids[i] = (i * i * 7 + 3 * i) % 32;
    fold_model(f, m, &folded, ids, 40, &folds, &left);
    logits_of(f, m, ids, 40, before);
    logits_of(f, folded, ids, 40, after);
    for (int64_t i = 0; i < 40 * V; i++) {
        worst = fmaxf(worst, fabsf(before[i] - after[i]));
        greatest = fmaxf(greatest, fabsf(before[i]));
    }
    print_message("%s: %d stages folded, %d left; greatest difference %.1e of logits up to %.1f\n", name, folds, left, (double)worst, (double)greatest);
    /* Phi: a norm that attention and MLP share takes no scales, and its MLP has no gate */
    assert_true(folds >= (int)((strcmp(name, "phi") ? 2 : 1) * qp_model_config(m)->n_layers));
    assert_true(worst <= 1e-4f);
    qp_model_free(folded);
    qp_model_free(m);
    qp_free(before);
    qp_free(after);
}

static void test_folded_models(void **in)
{
    char root[2048], path[4096];
    int n = 0;
    snprintf(root, sizeof root, "%.1900s/tests/golden/arch", getenv("QP_ROOT") ? getenv("QP_ROOT") : ".");
    DIR *dir = opendir(root);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", root, e->d_name);
        if (e->d_name[0] == '.' || strchr(e->d_name, '.'))
            continue;
        check_fold(*in, path, e->d_name);
        n++;
    }
    closedir(dir);
    assert_true(n >= 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_the_definition), cmocka_unit_test(test_nothing_to_scale), cmocka_unit_test(test_folded_models)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
