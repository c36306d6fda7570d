/* Engines and answers, a model after the other: only one is in memory packed. */
#include <time.h>

#include "base/mem.h"
#include "qgen.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int judge(const struct qgen *a, const struct qgen_example *e, const char *answer, bool *right, struct qp_err *err)
{
    *right = false;
    for (size_t k = 0; k < e->n_expected && !*right; k++)
        if (qp_matcher_run(a->matcher, e->expected[k], answer, right, err))
            return qp_err_context(err, "'%s' line %lld", a->data, (long long)e->line);
    return 0;
}

static int keep_answers(struct qgen *a, const char *model, const struct qp_gen *g, struct qp_err *err)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct qp_gen_answer *x = qp_gen_answer(g, i);
        const struct qgen_example *e = &a->examples[i];
        struct qp_item item = QP_ITEM_INIT;
        if (x->end == QP_GEN_PENDING)
            continue;
        item.model = model;
        item.task = a->name;
        item.i = e->i;
        item.id = e->id;
        item.group = e->category;
        item.answer = x->text.data ? x->text.data : "";
        item.expected = e->expected[0];
        item.end = qp_gen_end_name(x->end);
        item.tokens = (int64_t)x->ids.n;
        item.cut = e->cut;
        item.overlap = a->calibration.n ? e->overlap : -1;
        a->new_tokens += item.tokens;
        if (judge(a, e, item.answer, &item.correct, err) || qp_items_add(&a->items, &item, err))
            return err->code;
    }
    return 0;
}

static int generate(struct qgen *a, struct qp_tool_run *run, struct qp_engine *e, const char *model, const int32_t *eos, size_t n_eos)
{
    struct qp_gen_options o = {.batch = a->batch, .max_new = a->max_new, .eos = eos, .n_eos = n_eos, .tok = a->tok, .stops = (const char *const *)a->stop_texts, .n_stops = (size_t)a->stops.n,
                               .kv_bytes = (size_t)a->kv_mb << 20};
    struct qp_gen_request *r = qp_zalloc(a->n * sizeof *r, "prompts", &run->err);
    struct qp_gen *g = NULL;
    struct qp_gen_step step;
    int64_t done = 0;
    if (!r)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < a->n; i++)
        r[i] = (struct qp_gen_request){.ids = a->examples[i].ids.v, .n = (int64_t)a->examples[i].ids.n};
    int s = qp_gen_new(&g, e, r, a->n, &o, &run->err);
    qp_progress_begin(run->progress, model, "examples", (int64_t)a->n);
    while (!s && !qp_tool_interrupted() && (s = qp_gen_step(g, &step, &run->err)) == 1) {
        a->fed += step.fed;
        a->reused += step.reused;
        done += step.finished;
        qp_progress_update(run->progress, done, "");
        s = 0;
    }
    qp_progress_end(run->progress);
    if (!s)
        s = keep_answers(a, model, g, &run->err);
    qp_gen_free(g);
    qp_free(r);
    return s;
}

static int answer_one(struct qgen *a, struct qp_tool_run *run, size_t m)
{
    const struct qp_model_entry *entry = qp_model_set_at(a->models, m);
    struct qp_engine *e;
    int32_t eos[QP_MAX_END_IDS];
    size_t n_eos = 0;
    qp_progress_begin(run->progress, "loading", "models", (int64_t)qp_model_set_count(a->models));
    qp_progress_update(run->progress, (int64_t)m, entry->id);
    if (qp_model_end_ids(entry->model, a->tok, eos, &n_eos, &run->err) || qp_engine_new(&e, entry->model, &a->ops, a->pool, a->compute_used, &run->err))
        return qp_err_context(&run->err, "model '%s'", entry->id);
    a->kv_used = qp_kv_chosen(a->kv, a->compute_used);
    qp_engine_set_kv(e, a->kv_used);
    double start = now();
    int r = generate(a, run, e, entry->id, eos, n_eos);
    a->seconds += now() - start;
    qp_engine_free(e);
    return r ? qp_err_context(&run->err, "model '%s'", entry->id) : 0;
}

int qgen_answer(struct qgen *a, struct qp_tool_run *run)
{
    if (qp_backend_cpu_init(&a->ops, run->backend, &run->err) || qp_pool_new(&a->pool, (int)run->threads, &run->err))
        return run->err.code;
    a->compute_used = qp_compute_chosen(a->compute, &a->ops);
    int r = 0;
    for (size_t m = 0; m < qp_model_set_count(a->models) && !r && !qp_tool_interrupted(); m++)
        r = answer_one(a, run, m);
    a->complete = !qp_tool_interrupted();
    return r;
}
