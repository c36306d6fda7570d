/* bench_engine [MODEL [WORD...]]: prefill, logits and decoding of one model (default: the demo's), as tokens per second and as a share of what this
 * machine can do: multiply-adds for prefill, reading the weights for decoding. Best of several runs, all threads. Words filter by the lines' names
 * ("bf16 prefill T=512"). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "limits.h"
#include "eval/latency.h"
#include "model/model.h"

struct bench {
    struct qp_engine *e;
    struct qp_seq *seqs[64];
    int32_t *ids;
    float *hidden, *logits;
    double limits[QP_LIMIT_COUNT];
    enum qp_compute compute;
    char **words;
    int n_words;
};

static bool wanted(const struct bench *b, const char *what)
{
    char line[96];
    snprintf(line, sizeof line, "%s %s", qp_compute_name(b->compute), what);
    for (int i = 0; i < b->n_words; i++)
        if (!strstr(line, b->words[i]))
            return false;
    return true;
}

/* Multiply-adds of the linear layers and of attention (causal) for T tokens behind pos0, times two; the last layer's output not counted apart. */
static double flops_of(const struct qp_model_config *c, double T, double pos0)
{
    double q = (double)(c->n_heads * c->head_dim), kv = (double)(c->n_kv_heads * c->head_dim), D = (double)c->d_model, F = (double)c->d_ff;
    double linear = T * D * (q + 2 * kv + q + 3 * F), attention = 2 * q * (T * pos0 + T * (T + 1) / 2);
    return 2 * (double)c->n_layers * (linear + attention);
}

static double forward(struct bench *b, int n_seq, int64_t n, int64_t keep, int reps)
{
    struct qp_segment seg[64];
    double best = 1e30;
    for (int r = 0; r <= reps; r++) {
        for (int i = 0; i < n_seq; i++) {
            qp_seq_truncate(b->seqs[i], keep);
            seg[i] = (struct qp_segment){.seq = b->seqs[i], .ids = b->ids, .n = n, .want_from = 0};
        }
        struct qp_err err = {0};
        double t = now();
        if (qp_engine_forward(b->e, seg, n_seq, b->hidden, &err)) {
            fprintf(stderr, "bench_engine: %s\n", err.text);
            exit(5);
        }
        t = now() - t;
        best = r && t < best ? t : best;
    }
    return best;
}

static void line(const char *what, double seconds, double tokens, double rate, const char *unit, double limit)
{
    printf("%-28s %10.2f ms %10.0f tokens/s %8.1f %-7s", what, seconds * 1e3, tokens / seconds, rate / 1e9, unit);
    if (limit > 0)
        printf(" %5.1f%%", 100 * rate / 1e9 / limit);
    printf("\n");
    fflush(stdout);
}

static void prefill(struct bench *b, int64_t T)
{
    char what[64];
    const struct qp_model_config *c = qp_engine_config(b->e);
    snprintf(what, sizeof what, "prefill T=%d", (int)T);
    if (!wanted(b, what))
        return;
    double s = forward(b, 1, T, 0, 5), limit = qp_machine_limits_of(b->limits, b->compute).gflops;
    line(what, s, (double)T, flops_of(c, (double)T, 0) / s, "GFLOP/s", limit);
}

static void logits(struct bench *b)
{
    const struct qp_model_config *c = qp_engine_config(b->e);
    int64_t n = qp_engine_logit_rows(b->e);
    struct qp_err err = {0};
    double best = 1e30;
    char what[64];
    snprintf(what, sizeof what, "logits n=%d", (int)n);
    if (!wanted(b, what))
        return;
    for (int r = 0; r < 5; r++) {
        double t = now();
        if (qp_engine_logits(b->e, b->hidden, n, b->logits, &err))
            exit(5);
        t = now() - t;
        best = t < best ? t : best;
    }
    line(what, best, (double)n, 2 * (double)(n * c->d_model * c->vocab_size) / best, "GFLOP/s",
         qp_machine_limits_of(b->limits, b->compute).gflops);
}

static void decode(struct bench *b, int n_seq, int64_t pos0)
{
    char what[64];
    struct qp_err err = {0};
    snprintf(what, sizeof what, "decode batch=%d at %d", n_seq, (int)pos0);
    if (!wanted(b, what))
        return;
    forward(b, n_seq, pos0, 0, 0);
    double s = forward(b, n_seq, 1, pos0, 60), head = 1e30;
    for (int r = 0; r < 20; r++) {
        double t = now();
        if (qp_engine_logits(b->e, b->hidden, n_seq, b->logits, &err))
            exit(5);
        t = now() - t;
        head = t < head ? t : head;
    }
    line(what, s + head, n_seq, (double)qp_engine_weight_bytes(b->e) / (s + head), "GB/s", b->limits[QP_LIMIT_READ]);
}

static int run(struct bench *b, struct qp_model *m, struct qp_pool *pool, const struct qp_ops *ops, struct qp_err *err)
{
    printf("\n%s on %s\n", qp_compute_name(b->compute), ops->isa);
    if (qp_engine_new(&b->e, m, ops, pool, b->compute, err))
        return err->code;
    for (int i = 0; i < 64; i++)
        if (qp_seq_new(&b->seqs[i], b->e, i ? 160 : 2048, err))
            return err->code;
    const int64_t lengths[] = {2048, 512, 128, 16};
    for (int i = 0; i < 4; i++)
        prefill(b, lengths[i]);
    logits(b);
    decode(b, 1, 128);
    decode(b, 1, 512);
    decode(b, 1, 2000);
    decode(b, 4, 128);
    decode(b, 8, 128);
    decode(b, 16, 128);
    decode(b, 64, 128);
    for (int i = 0; i < 64; i++)
        qp_seq_free(b->seqs[i]);
    qp_engine_free(b->e);
    return 0;
}

int main(int argc, char **argv)
{
    char path[4096];
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *model = argc > 1 ? argv[1] : getenv("QP_MODEL");
    snprintf(path, sizeof path, "%s%s/quantpipe/SmolLM2-135M-Instruct.Q4_1.gguf", cache ? cache : home ? home : ".", cache ? "" : "/.cache");
    struct bench b = {.words = argv + 2, .n_words = argc > 2 ? argc - 2 : 0};
    struct qp_ops ops;
    struct qp_pool *pool = NULL;
    struct qp_model *m = NULL;
    struct qp_err err = {0};
    if (qp_backend_cpu_init(&ops, "auto", &err) || qp_pool_new(&pool, on_cpu_time(), &err))
        goto failed;
    if (qp_model_open(&m, model ? model : path, &err)) {
        printf("skipped: %s (make fetch-model)\n", err.text);
        return 0;
    }
    qp_limits_measure(b.limits, pool, bench_clock());
    printf("limits on %d threads: float32 %.0f (avx512), bf16 %.0f, int8 %.0f GFLOP/s; memory read %.1f GB/s\n", qp_pool_threads(pool), b.limits[QP_LIMIT_F32_AVX512],
           b.limits[QP_LIMIT_BF16], b.limits[QP_LIMIT_INT8], b.limits[QP_LIMIT_READ]);
    const struct qp_model_config *c = qp_model_config(m);
    b.ids = qp_zalloc(4096 * sizeof *b.ids, "bench", &err);
    b.hidden = qp_alloc_n((size_t)(64 * 160 * c->d_model), sizeof *b.hidden, "bench", &err);
    b.logits = qp_alloc((size_t)128 << 20, "bench", &err);
    if (!b.ids || !b.hidden || !b.logits)
        goto failed;
    for (int i = 0; i < 4096; i++)
        b.ids[i] = (int32_t)(i * 7919 % c->vocab_size);
    const enum qp_compute computes[] = {QP_COMPUTE_BF16, QP_COMPUTE_INT8, QP_COMPUTE_F32};
    for (int i = 0; i < 3; i++) {
        b.compute = computes[i];
        if (run(&b, m, pool, &ops, &err))
            goto failed;
    }
    qp_free(b.ids), qp_free(b.hidden), qp_free(b.logits);
    qp_model_free(m);
    qp_pool_free(pool);
    return 0;
failed:
    fprintf(stderr, "bench_engine: %s\n", err.text);
    return 5;
}
