/* The sliding window against its definition (the Hugging Face guide's labels, masked and shifted, softmax in double precision) on two small random
 * models, for many texts, windows and strides; shards; standard errors; and against transformers on the demo model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "eval/ppl.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

#define N_IDS 150
#define IGNORED (-100)

struct fixture {
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_model *models[3];
    struct qp_engine *engines[3]; /* two of one shape, one with another vocabulary */
    int32_t ids[N_IDS];
    char dir[64];
};

static struct fixture fix;

static int set_up(void **state)
{
    static const char *const variants[] = {"seed=1", "seed=2", "seed=3 vocab=310"};
    struct qp_err err = {0};
    char command[4500];
    const char *tools = getenv("QP_TOOLS");
    (void)state;
    strcpy(fix.dir, "/tmp/qp-ppl-XXXXXX");
    if (!tools || !mkdtemp(fix.dir))
        return 0;
    if (qp_backend_cpu_init(&fix.ops, NULL, &err) || qp_pool_new(&fix.pool, 2, &err))
        return -1;
    for (int i = 0; i < 3; i++) {
        char path[80];
        snprintf(path, sizeof path, "%s/m%d", fix.dir, i);
        snprintf(command, sizeof command, "'%.4000s/mkmodel' %s %s", tools, path, variants[i]);
        if (system(command) || qp_model_open(&fix.models[i], path, &err) ||
            qp_engine_new(&fix.engines[i], fix.models[i], &fix.ops, fix.pool, QP_COMPUTE_F32, &err)) {
            fprintf(stderr, "%s: %s\n", command, err.text);
            return -1;
        }
    }
    for (int i = 0; i < N_IDS; i++)
        fix.ids[i] = (i * i * 7 + i * 13) % 300;
    return 0;
}

static int tear_down(void **state)
{
    char command[100];
    (void)state;
    for (int i = 0; i < 3; i++) {
        qp_engine_free(fix.engines[i]);
        qp_model_free(fix.models[i]);
    }
    qp_pool_free(fix.pool);
    snprintf(command, sizeof command, "rm -rf %s", fix.dir);
    return fix.pool ? system(command) : 0;
}

static void need_models(void)
{
    if (!fix.engines[2]) {
        print_message("needs tests/tools/mkmodel (QP_TOOLS)\n");
        skip();
    }
}

/* log softmax [n, V] of a text by itself, in double precision. */
static double *log_probs(struct qp_engine *e, const int32_t *ids, int64_t n)
{
    int64_t V = qp_engine_config(e)->vocab_size, D = qp_engine_config(e)->d_model;
    float *hidden = qp_alloc((size_t)(n * D) * 4, "test", NULL), *logits = qp_alloc((size_t)(n * V) * 4, "test", NULL);
    double *p = malloc((size_t)(n * V) * sizeof *p);
    struct qp_seq *s;
    struct qp_err err = {0};
    struct qp_segment seg = {.ids = ids, .n = n};
    assert_int_equal(qp_seq_new(&s, e, n, &err), 0);
    seg.seq = s;
    assert_int_equal(qp_engine_forward(e, &seg, 1, hidden, &err), 0);
    assert_int_equal(qp_engine_logits(e, hidden, n, logits, &err), 0);
    for (int64_t t = 0; t < n; t++) {
        double sum = 0;
        for (int64_t v = 0; v < V; v++)
            sum += exp((double)logits[t * V + v]);
        for (int64_t v = 0; v < V; v++)
            p[t * V + v] = (double)logits[t * V + v] - log(sum);
    }
    qp_seq_free(s);
    qp_free(hidden);
    qp_free(logits);
    return p;
}

struct expected {
    double nll[2][2 * N_IDS], kl[2 * N_IDS], agree[2 * N_IDS], window_means[2];
    int64_t position[2 * N_IDS];
    size_t n, windows;
};

static int64_t greatest(const double *p, int64_t V)
{
    int64_t best = 0;
    for (int64_t v = 1; v < V; v++)
        best = p[v] > p[best] ? v : best;
    return best;
}

/* What the guide's loop does with labels = ids.clone(); labels[:, :-(end - prev)] = -100; loss over labels[:, 1:]. */
static void by_definition(struct expected *x, int64_t total, int64_t window, int64_t stride)
{
    int64_t prev = 0, V = qp_engine_config(fix.engines[0])->vocab_size;
    memset(x, 0, sizeof *x);
    for (int64_t begin = 0;; begin += stride) {
        int64_t end = begin + window < total ? begin + window : total, n = end - begin, target[N_IDS];
        double *p[2] = {log_probs(fix.engines[0], fix.ids + begin, n), log_probs(fix.engines[1], fix.ids + begin, n)}, sum[2] = {0};
        size_t before = x->n;
        for (int64_t i = 0; i < n; i++)
            target[i] = i < n - (end - prev) ? IGNORED : fix.ids[begin + i];
        for (int64_t i = 1; i < n; i++) {
            if (target[i] == IGNORED)
                continue;
            const double *a = p[0] + (i - 1) * V, *b = p[1] + (i - 1) * V;
            for (int m = 0; m < 2; m++)
                sum[m] += x->nll[m][x->n] = -(m ? b : a)[target[i]];
            for (int64_t v = 0; v < V; v++)
                x->kl[x->n] += exp(a[v]) * (a[v] - b[v]);
            x->agree[x->n] = greatest(a, V) == greatest(b, V);
            x->position[x->n++] = begin + i;
        }
        for (int m = 0; m < 2; m++) {
            if (x->n > before)
                x->window_means[m] += sum[m] / (double)(x->n - before);
            free(p[m]);
        }
        x->windows += x->n > before;
        prev = end;
        if (end == total)
            break;
    }
}

static void compare(int64_t total, int64_t window, int64_t stride)
{
    struct expected *x = malloc(sizeof *x);
    struct qp_ppl_result r;
    struct qp_err err = {0};
    by_definition(x, total, window, stride);
    if (qp_ppl_run(&r, fix.engines, 2, fix.ids, (size_t)total, &(struct qp_ppl_options){.window = window, .stride = stride}, NULL, NULL, &err))
        fail_msg("%s", err.text);
    assert_int_equal(r.n, x->n);
    assert_int_equal(r.n_windows, x->windows);
    for (size_t i = 0; i < r.n; i++) {
        assert_int_equal(r.position[i], x->position[i]);
        assert_true(fabs(r.nll[0][i] - x->nll[0][i]) < 1e-5 && fabs(r.nll[1][i] - x->nll[1][i]) < 1e-5);
        assert_true(fabs(r.kl[1][i] - x->kl[i]) < 1e-5);
        assert_true(r.agree[1][i] == x->agree[i]);
    }
    for (size_t m = 0; m < 2; m++) {
        double mean = qp_sum(x->nll[m], x->n) / (double)x->n;
        assert_true(fabs(qp_ppl_of(&r, m).mean / exp(mean) - 1) < 1e-5);
        assert_true(fabs(qp_ppl_window_mean(&r, m) / exp(x->window_means[m] / (double)x->windows) - 1) < 1e-5);
    }
    qp_ppl_release(&r);
    free(x);
}

static void test_definition(void **state)
{
    static const int64_t cases[][3] = {{150, 64, 16}, {150, 64, 63}, {150, 64, 64}, {129, 64, 64}, {150, 50, 1}, {64, 64, 16}, {65, 64, 16},
                                       {63, 64, 16},  {2, 64, 16},   {3, 2, 1},     {150, 2, 2},   {80, 64, 16}, {150, 150, 50}};
    (void)state;
    need_models();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        compare(cases[i][0], cases[i][1], cases[i][2]);
}

/* The shards' tokens are those of the whole, each once and with the same loss. */
static void test_shards(void **state)
{
    struct qp_ppl_result whole, part;
    struct qp_err err = {0};
    struct qp_ppl_options o = {.window = 40, .stride = 12};
    size_t n = 0;
    (void)state;
    need_models();
    assert_int_equal(qp_ppl_run(&whole, fix.engines, 2, fix.ids, N_IDS, &o, NULL, NULL, &err), 0);
    for (o.shards = 3, o.shard = 0; o.shard < 3; o.shard++) {
        assert_int_equal(qp_ppl_run(&part, fix.engines, 2, fix.ids, N_IDS, &o, NULL, NULL, &err), 0);
        for (size_t i = 0; i < part.n; i++) {
            size_t at = (size_t)part.position[i] - 1; /* all tokens but the first are scored, in order */
            assert_true(part.nll[1][i] == whole.nll[1][at] && part.kl[1][i] == whole.kl[1][at]);
        }
        n += part.n;
        qp_ppl_release(&part);
    }
    assert_int_equal(n, whole.n);
    qp_ppl_release(&whole);
    o.shards = 1000;
    o.shard = 999;
    assert_int_equal(qp_ppl_run(&part, fix.engines, 1, fix.ids, N_IDS, &o, NULL, NULL, &err), QP_E_INPUT);
}

/* A model against itself: no difference at all. */
static void test_same_model(void **state)
{
    struct qp_engine *twice[2] = {fix.engines[0], fix.engines[0]};
    struct qp_ppl_result r;
    struct qp_err err = {0};
    (void)state;
    need_models();
    assert_int_equal(qp_ppl_run(&r, twice, 2, fix.ids, N_IDS, &(struct qp_ppl_options){.window = 40, .stride = 12}, NULL, NULL, &err), 0);
    struct qp_mean d = qp_ppl_paired(&r, 1);
    assert_true(d.mean == 0 && d.stderr_ == 0);
    for (size_t i = 0; i < r.n; i++)
        assert_true(fabs(r.kl[1][i]) < 1e-6 && r.agree[1][i] == 1);
    qp_ppl_release(&r);
}

static int stop_at_two(void *ctx, int64_t done, int64_t total)
{
    *(int64_t *)ctx = total;
    return done == 2;
}

static void test_progress_and_bad_input(void **state)
{
    struct qp_ppl_result r;
    struct qp_err err = {0};
    struct qp_ppl_options o = {.window = 40, .stride = 12};
    int64_t total = 0;
    (void)state;
    need_models();
    assert_int_equal(qp_ppl_run(&r, fix.engines, 1, fix.ids, N_IDS, &o, stop_at_two, &total, &err), 0);
    assert_int_equal(r.n_windows, 2);
    assert_int_equal(r.n, 39 + 12);
    assert_int_equal(total, 11);
    qp_ppl_release(&r);
    assert_int_equal(qp_ppl_run(&r, fix.engines, 1, fix.ids, 1, &o, NULL, NULL, &err), QP_E_INPUT);
    assert_int_equal(qp_ppl_run(&r, fix.engines, 1, fix.ids, 0, &o, NULL, NULL, &err), QP_E_INPUT);
    assert_int_equal(qp_ppl_run(&r, fix.engines, 3, fix.ids, N_IDS, &o, NULL, NULL, &err), QP_E_INPUT);
    err.code = 0;
    o.stride = 41;
    assert_int_equal(qp_ppl_run(&r, fix.engines, 1, fix.ids, N_IDS, &o, NULL, NULL, &err), QP_E_USAGE);
    assert_non_null(strstr(err.text, "stride 41"));
    err.code = 0;
    int32_t wrong[3] = {1, 400, 2};
    assert_int_equal(qp_ppl_run(&r, fix.engines, 1, wrong, 3, &(struct qp_ppl_options){.window = 3, .stride = 1}, NULL, NULL, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "400"));
    err.code = 0;
    wrong[1] = 1, wrong[2] = 400; /* a token that is only predicted is bounded too */
    assert_int_equal(qp_ppl_run(&r, fix.engines, 1, wrong, 3, &(struct qp_ppl_options){.window = 3, .stride = 1}, NULL, NULL, &err), QP_E_INPUT);
}

/* exp(mean)'s error by the delta method, from the greater of two errors of the mean: losses that come in runs must not look more certain than they are. */
static void test_errors(void **state)
{
    enum { N = 2048 };
    static double runs[N], mixed[N];
    double *nll[2] = {runs, mixed};
    struct qp_ppl_result r = {.n_models = 2, .n = N, .nll = nll};
    (void)state;
    for (int i = 0; i < N; i++) {
        runs[i] = 2 + (i / 512) % 2; /* blocks of 512 equal losses */
        mixed[i] = 2 + i % 2;
    }
    struct qp_mean a = qp_ppl_of(&r, 0), b = qp_ppl_of(&r, 1);
    assert_true(fabs(a.mean - exp(2.5)) < 1e-9 && fabs(b.mean - exp(2.5)) < 1e-9);
    assert_true(fabs(a.stderr_ - exp(2.5) * sqrt(1.0 / 12)) < 1e-9);             /* four block means 2, 3, 2, 3 */
    assert_true(fabs(b.stderr_ - exp(2.5) * 0.5 / sqrt((double)N - 1)) < 1e-9); /* 2,048 alternating values */
    struct qp_mean d = qp_ppl_paired(&r, 1);
    assert_true(fabs(d.mean) < 1e-12 && fabs(d.stderr_ - sqrt(1.0 / 12)) < 1e-9);
}

/* transformers 5.23.0, torch 2.9.1, float32 and bfloat16, on the same weights as float16 (shared/peers/ppl_transformers.py, 2,560 tokens of WikiText-2). */
static void test_transformers(void **state)
{
    static const double tokens[] = {15.913737345882081, 15.917358013676695}, windows[] = {17.138383927679094, 17.138751165433032}, within[] = {1e-4, 1e-3};
    const char *shared = getenv("QP_SHARED"), *model = getenv("QP_MODEL");
    char path[4096];
    (void)state;
    snprintf(path, sizeof path, "%s/data/wikitext-2-raw-v1/test.jsonl", shared ? shared : "../shared");
    if (!model || access(model, R_OK) || access(path, R_OK)) {
        print_message("needs the demo model (QP_MODEL) and WikiText-2 (QP_SHARED)\n");
        skip();
    }
    struct qp_model *m;
    struct qp_tokenizer *tok;
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_ids ids = {0};
    struct qp_buf text = QP_BUF_INIT;
    struct qp_err err = {0};
    assert_int_equal(qp_model_open(&m, model, &err), 0);
    assert_int_equal(qp_model_tokenizer(m, &tok, &err), 0);
    assert_int_equal(qp_backend_cpu_init(&ops, NULL, &err), 0);
    assert_int_equal(qp_pool_new(&pool, 2, &err), 0);
    assert_int_equal(qp_dataset_join(path, "text", "\n\n", 1 << 30, &text, NULL, &err), 0);
    assert_int_equal(qp_tokenizer_encode(tok, text.data, 20000, 0, &ids, &err), 0);
    assert_true(ids.n > 2560);
    for (int compute = 0; compute < (ops.has_bf16 ? 2 : 1); compute++) {
        struct qp_engine *e;
        struct qp_ppl_result r;
        assert_int_equal(qp_engine_new(&e, m, &ops, pool, (enum qp_compute)compute, &err), 0);
        assert_int_equal(qp_ppl_run(&r, &e, 1, ids.v, 2560, &(struct qp_ppl_options){.window = 2048, .stride = 512}, NULL, NULL, &err), 0);
        print_message("%s: %.6f, transformers %.6f\n", compute ? "bf16" : "f32", qp_ppl_of(&r, 0).mean, tokens[compute]);
        assert_int_equal(r.n, 2559);
        assert_true(fabs(qp_ppl_of(&r, 0).mean / tokens[compute] - 1) < within[compute]);
        assert_true(fabs(qp_ppl_window_mean(&r, 0) / windows[compute] - 1) < within[compute]);
        qp_ppl_release(&r);
        qp_engine_free(e);
    }
    qp_buf_release(&text);
    qp_ids_release(&ids);
    qp_tokenizer_free(tok);
    qp_model_free(m);
    qp_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_definition),  cmocka_unit_test(test_shards),
                                       cmocka_unit_test(test_same_model),  cmocka_unit_test(test_progress_and_bad_input),
                                       cmocka_unit_test(test_errors),      cmocka_unit_test(test_transformers)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
