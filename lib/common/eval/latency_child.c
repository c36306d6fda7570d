/* The child's side of a sweep: one model, one engine, one shape; requests on demand. */
#include <string.h>
#include <sys/resource.h>

#include "base/child.h"
#include "base/mem.h"
#include "eval/latency_child.h"
#include "text/tokenizer.h"

struct served {
    const struct qp_latency_job *job;
    struct qp_ops ops;
    struct qp_pool *pool;
    struct qp_engine *e;
    struct qp_tokenizer *tok;
    struct qp_latency *l;
    struct qp_sweep_facts facts;
};

/* A system that lends more than it has would find out by killing. */
static int fits(size_t bytes, const char *what, struct qp_err *err)
{
    size_t have = qp_memory_available();
    if (have && bytes > have)
        return qp_err_set(err, QP_E_RESOURCE, "%s of %.1f MB, but %.1f MB of memory are free", what, (double)bytes / 1e6, (double)have / 1e6);
    return 0;
}

static int limit_memory(size_t bytes, struct qp_err *err)
{
    struct rlimit r = {bytes, bytes};
    if (bytes && setrlimit(RLIMIT_AS, &r))
        return qp_err_errno(err, QP_E_RESOURCE, "cannot limit memory to %zu bytes", bytes);
    return 0;
}

static int load(struct served *s, struct qp_err *err)
{
    const struct qp_sweep_options *o = s->job->options;
    const struct qp_latency_shape *shape = s->job->shape;
    struct qp_model *m = s->job->models[s->job->model].model;
    struct qp_sweep_facts *f = &s->facts;
    if (limit_memory(o->memory_limit, err) || fits((size_t)qp_model_bytes(m), "weights", err))
        return err->code;
    if (qp_backend_cpu_init(&s->ops, o->backend, err) || qp_pool_new(&s->pool, o->threads, err) || (o->pin && qp_pool_pin(s->pool, err)))
        return err->code;
    f->compute = qp_compute_chosen(o->compute, &s->ops);
    if (qp_engine_new(&s->e, m, &s->ops, s->pool, f->compute, err) || qp_model_tokenizer(m, &s->tok, err))
        return err->code;
    f->kv = qp_kv_chosen(shape->kv, f->compute);
    qp_engine_set_kv(s->e, f->kv);
    size_t each = qp_kv_cache_bytes(qp_engine_config(s->e), &s->ops, f->kv, shape->capacity), caches;
    if (!qp_mul(each, (size_t)shape->batch, &caches))
        caches = SIZE_MAX;
    if (fits(caches, "KV caches", err) || qp_latency_new(&s->l, s->e, s->tok, shape, &o->prompts, o->seed, err))
        return err->code;
    if (!shape->requests) {
        f->prefill = qp_latency_prefill_work(s->e, m, shape);
        f->decode = qp_latency_decode_work(s->e, m, shape);
    }
    return 0;
}

static void fill_facts(struct served *s)
{
    struct qp_sweep_facts *f = &s->facts;
    struct qp_resident r;
    strncpy(f->isa, s->ops.isa, sizeof f->isa - 1);
    f->threads = qp_pool_threads(s->pool);
    f->weights = qp_engine_weight_bytes(s->e);
    f->scratch = qp_engine_scratch_bytes(s->e);
    f->cache = qp_latency_kv(s->l);
    f->has_device = s->ops.device_memory(&f->device);
    if (qp_resident_read(&r)) {
        f->peak = r.peak;
        f->anonymous = r.anonymous;
        f->file = r.file;
    }
}

/* Answers until told to finish, or the parent has gone. */
static int answer(struct served *s, int from, int to, struct qp_err *err)
{
    struct qp_buf in = QP_BUF_INIT, out = QP_BUF_INIT;
    size_t steps = (size_t)qp_latency_steps(s->job->shape) * sizeof(double);
    uint32_t kind;
    char *reply = qp_buf_grow(&out, sizeof(struct qp_latency_run) + steps);
    int r = qp_buf_check(&out, err);
    bool on = !r && qp_message_send(to, QP_SAY_READY, &s->facts, sizeof s->facts);
    while (on && qp_message_receive(from, &kind, &in, NULL) == 1 && kind == QP_SAY_RUN) {
        r = qp_latency_once(s->l, (struct qp_latency_run *)(void *)reply, (double *)(void *)(reply + sizeof(struct qp_latency_run)), err);
        on = !r && qp_message_send(to, QP_SAY_DONE, reply, out.len);
    }
    if (on) {
        fill_facts(s);
        qp_message_send(to, QP_SAY_FACTS, &s->facts, sizeof s->facts);
    }
    qp_buf_release(&in);
    qp_buf_release(&out);
    return r;
}

void qp_latency_serve(void *arg, int from, int to)
{
    struct served s = {.job = arg};
    struct qp_resident r = {0};
    struct qp_err err = {0};
    if (s.job->options->keep)
        s.job->options->keep(s.job->options->ctx, s.job->model);
    qp_mem_trim();
    qp_resident_reset_peak(); /* what the parent needed at its greatest is not this model's */
    int bad = load(&s, &err);
    if (!bad && qp_resident_read(&r)) {
        s.facts.load_peak = r.peak;
        s.facts.peak_is_runs = qp_resident_reset_peak();
    }
    if (!bad) {
        fill_facts(&s);
        bad = answer(&s, from, to, &err);
    }
    if (bad)
        qp_message_send(to, QP_SAY_ERROR, &err, sizeof err);
    qp_latency_free(s.l);
    qp_tokenizer_free(s.tok);
    qp_engine_free(s.e);
    qp_pool_free(s.pool);
}
