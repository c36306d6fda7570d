/* Text, engines, the pass. */
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "qppl.h"
#include "text/dataset.h"

#define DEFAULT_WINDOW 2048
#define MAX_TEXT ((size_t)1 << 32)

static bool is_rows(const char *path)
{
    return strstr(path, ".json") != NULL;
}

/* "wiki.test.raw" gives "wiki.test", "test.jsonl.gz" gives "test". */
static void default_name(struct qppl *a)
{
    const char *slash = strrchr(a->text, '/');
    snprintf(a->name_buf, sizeof a->name_buf, "%s", slash ? slash + 1 : a->text);
    for (int i = 0; i < 2; i++) {
        char *dot = strrchr(a->name_buf, '.');
        if (dot && dot > a->name_buf && (i == 0 || !strcmp(dot, ".jsonl") || !strcmp(dot, ".json")))
            *dot = 0;
    }
    a->name = a->name_buf;
}

static void write_source(const struct qppl *a, struct qp_tool_run *run, const char *sum)
{
    qp_w_begin(run->out, "source");
    qp_w_str(run->out, "role", "eval");
    qp_w_str(run->out, "name", a->name);
    qp_w_str(run->out, "path", a->text);
    qp_w_str(run->out, "sha256", sum);
    qp_w_i64(run->out, "docs", a->docs);
    qp_w_i64(run->out, "tokens", (int64_t)a->ids.n);
    qp_w_end(run->out);
}

int qppl_read_text(struct qppl *a, struct qp_tool_run *run)
{
    char sum[QP_SHA256_HEX];
    struct qp_buf text = QP_BUF_INIT;
    a->joined = is_rows(a->text);
    if (!a->name)
        default_name(a);
    int r = qp_model_tokenizer(qp_model_set_at(a->models, 0)->model, &a->tok, &run->err);
    r = r ? r : qp_dataset_join(a->text, a->field, a->joined ? "\n\n" : "", MAX_TEXT, &text, &a->docs, &run->err);
    r = r ? r : qp_sha256_file(sum, a->text, &run->err);
    if (!r && !text.len)
        r = qp_err_set(&run->err, QP_E_INPUT, "'%s' holds no text", a->text);
    int32_t bos = a->tok ? qp_tokenizer_bos(a->tok) : -1;
    a->bos_added = a->bos == BOS_ALWAYS || (a->bos == BOS_AUTO && a->tok && qp_tokenizer_adds_bos(a->tok));
    if (!r && a->bos_added && bos < 0)
        r = qp_err_set(&run->err, QP_E_INPUT, "--bos always: the tokenizer has no BOS token");
    if (!r && a->bos_added)
        r = qp_ids_add(&a->ids, bos, &run->err);
    if (!r && qp_tokenizer_encode(a->tok, text.data, text.len, 0, &a->ids, &run->err))
        r = qp_err_context(&run->err, "'%s'", a->text);
    qp_buf_release(&text);
    if (r)
        return r;
    if (a->max_tokens && a->ids.n > (size_t)a->max_tokens)
        a->ids.n = (size_t)a->max_tokens;
    if (a->ids.n < 2)
        return qp_err_set(&run->err, QP_E_INPUT, "'%s' has %zu tokens; perplexity needs two at least", a->text, a->ids.n);
    write_source(a, run, sum);
    return 0;
}

/* Beyond the positions that a model was made for its losses mean nothing, so the default ends there; who asks for more gets it. */
static int choose_windows(struct qppl *a, struct qp_tool_run *run)
{
    int64_t longest = DEFAULT_WINDOW;
    for (size_t i = 0; i < qp_model_set_count(a->models); i++) {
        int64_t n = qp_model_config(qp_model_set_at(a->models, i)->model)->max_positions;
        longest = n < longest ? n : longest;
    }
    a->window = a->window ? a->window : longest > 2 ? longest : 2;
    a->stride = a->stride ? a->stride : a->window > 4 ? a->window / 4 : 1;
    if (a->stride > a->window)
        return qp_err_set(&run->err, QP_E_USAGE, "--stride %lld is more than the window of %lld tokens: text would be left out", (long long)a->stride, (long long)a->window);
    return 0;
}

int qppl_open_engines(struct qppl *a, struct qp_tool_run *run)
{
    if (choose_windows(a, run))
        return run->err.code;
    if (qp_backend_cpu_init(&a->ops, run->backend, &run->err) || qp_pool_new(&a->pool, (int)run->threads, &run->err))
        return run->err.code;
    a->compute_used = qp_compute_chosen(a->compute, &a->ops);
    size_t n = qp_model_set_count(a->models);
    qp_progress_begin(run->progress, "loading", "models", (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        const struct qp_model_entry *e = qp_model_set_at(a->models, i);
        qp_progress_update(run->progress, (int64_t)i, e->id);
        if (qp_engine_new(&a->engines[i], e->model, &a->ops, a->pool, a->compute_used, &run->err))
            return qp_err_context(&run->err, "model '%s'", e->id);
        qp_engine_set_kv(a->engines[i], qp_kv_chosen(a->kv, a->compute_used));
        a->n_models++;
    }
    return 0;
}

struct progress {
    struct qp_tool_run *run;
};

static int tick(void *ctx, int64_t done, int64_t total)
{
    struct progress *p = ctx;
    if (done == 1)
        qp_progress_begin(p->run->progress, "scoring", "windows", total);
    qp_progress_update(p->run->progress, done, "");
    return qp_tool_interrupted();
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int qppl_score(struct qppl *a, struct qp_tool_run *run)
{
    struct qp_ppl_options o = {.window = a->window, .stride = a->stride, .shard = a->shard, .shards = a->shards};
    struct progress p = {run};
    double start = now();
    int r = qp_ppl_run(&a->result, a->engines, a->n_models, a->ids.v, a->ids.n, &o, tick, &p, &run->err);
    a->seconds = now() - start;
    qp_progress_end(run->progress);
    return r ? qp_err_context(&run->err, "'%s'", a->text) : 0;
}
