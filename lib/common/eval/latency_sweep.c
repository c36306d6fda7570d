#include "eval/latency_sweep.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/child.h"
#include "base/mem.h"
#include "eval/latency_child.h"

struct sweep {
    struct qp_sweep_outcome *out;
    struct qp_sweep_setting *setting;
    struct qp_child *children; /* [n] */
    struct qp_latency_job *jobs;
    size_t n;
    const struct qp_latency_shape *shape;
    const struct qp_sweep_options *o;
    struct qp_buf message;
};

const char *qp_sweep_status_name(enum qp_sweep_status s)
{
    static const char *const names[] = {"ok", "interrupted", "out_of_memory", "failed", "skipped"};
    return names[s];
}

void qp_sweep_release(struct qp_sweep_outcome *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        qp_free(out[i].runs);
        qp_free(out[i].steps);
        out[i] = (struct qp_sweep_outcome){0};
    }
}

static bool stopped(const struct sweep *s)
{
    return s->o->stop && s->o->stop();
}

/* ---- outcomes ---- */

static void fail(struct qp_sweep_outcome *out, enum qp_sweep_status status, int code, const char *reason)
{
    out->status = status;
    out->code = code;
    snprintf(out->reason, sizeof out->reason, "%s", reason);
}

/* The child is no more, or said why it cannot go on. */
static void bury(struct sweep *s, size_t i, const char *said, int code)
{
    char how[96], reason[sizeof s->out->reason];
    enum qp_child_end end = qp_child_end(&s->children[i], false, how, sizeof how);
    if (said) {
        fail(&s->out[i], code == QP_E_RESOURCE ? QP_SWEEP_NO_MEMORY : QP_SWEEP_FAILED, code, said);
        return;
    }
    snprintf(reason, sizeof reason, "the process that measured %s%s", how, end == QP_CHILD_KILLED ? ", as the system does when memory is short" : "");
    fail(&s->out[i], end == QP_CHILD_KILLED ? QP_SWEEP_NO_MEMORY : QP_SWEEP_FAILED, end == QP_CHILD_KILLED ? QP_E_RESOURCE : QP_E_INTERNAL, reason);
}

/* True when child i answered with that kind; else its outcome says why not. */
static bool expect(struct sweep *s, size_t i, uint32_t want, size_t bytes)
{
    uint32_t kind = 0;
    struct qp_err said;
    int r = qp_message_receive(s->children[i].from, &kind, &s->message, s->o->stop);
    if (r == 1 && kind == want && s->message.len == bytes)
        return true;
    if (r < 0) {
        s->out[i].status = QP_SWEEP_INTERRUPTED;
        return false;
    }
    if (r == 1 && kind == QP_SAY_ERROR && s->message.len == sizeof said) {
        memcpy(&said, s->message.data, sizeof said);
        bury(s, i, said.text, said.code);
    } else
        bury(s, i, NULL, 0);
    return false;
}

static int keep_run(struct sweep *s, size_t i, struct qp_err *err)
{
    struct qp_sweep_outcome *out = &s->out[i];
    size_t steps = (size_t)out->n_steps, cap = out->cap;
    if (out->n_runs == cap) {
        cap = cap ? 2 * cap : (size_t)s->o->runs;
        struct qp_latency_run *runs = qp_alloc_n(cap, sizeof *runs, "runs", err);
        double *all = qp_alloc_n(cap, (steps ? steps : 1) * sizeof *all, "runs", err);
        if (!runs || !all) {
            qp_free(runs);
            qp_free(all);
            return QP_E_RESOURCE;
        }
        if (out->n_runs) {
            memcpy(runs, out->runs, out->n_runs * sizeof *runs);
            memcpy(all, out->steps, out->n_runs * steps * sizeof *all);
        }
        qp_free(out->runs);
        qp_free(out->steps);
        out->runs = runs;
        out->steps = all;
        out->cap = cap;
    }
    memcpy(&out->runs[out->n_runs], s->message.data, sizeof *out->runs);
    memcpy(out->steps + out->n_runs * steps, s->message.data + sizeof *out->runs, steps * sizeof(double));
    out->n_runs++;
    return 0;
}

/* ---- a group of models in turns ---- */

static void spin(struct qp_sweep_setting *t)
{
    double rate = qp_spin_rate();
    if (!(t->clock_first > 0))
        t->clock_first = t->clock_min = t->clock_max = rate;
    t->clock_last = rate;
    t->clock_min = fmin(t->clock_min, rate);
    t->clock_max = fmax(t->clock_max, rate);
}

static void take_facts(struct sweep *s, size_t i, uint32_t kind)
{
    if (expect(s, i, kind, sizeof s->out[i].facts))
        memcpy(&s->out[i].facts, s->message.data, sizeof s->out[i].facts);
}

static int start(struct sweep *s, size_t i, struct qp_err *err)
{
    if (qp_child_start(&s->children[i], qp_latency_serve, &s->jobs[i], err))
        return err->code;
    take_facts(s, i, QP_SAY_READY);
    return 0;
}

/* One request of every model that still takes part; true while any does. */
static bool round_of(struct sweep *s, size_t from, size_t to, int64_t round, bool counts, struct qp_err *err)
{
    bool any = false;
    size_t bytes = sizeof(struct qp_latency_run) + (size_t)qp_latency_steps(s->shape) * sizeof(double);
    for (size_t i = from; i < to && !err->code; i++) {
        if (s->out[i].status != QP_SWEEP_OK)
            continue;
        if (!qp_message_send(s->children[i].to, QP_SAY_RUN, NULL, 0))
            bury(s, i, NULL, 0);
        else if (expect(s, i, QP_SAY_DONE, bytes)) {
            if (counts && keep_run(s, i, err))
                return false;
            any = true;
            if (s->o->tick)
                s->o->tick(s->o->ctx, i, round, counts);
        }
    }
    return any;
}

static void finish(struct sweep *s, size_t i)
{
    char how[96];
    bool whole = s->out[i].status == QP_SWEEP_OK;
    if (s->children[i].pid && whole && qp_message_send(s->children[i].to, QP_SAY_FINISH, NULL, 0))
        take_facts(s, i, QP_SAY_FACTS);
    qp_child_end(&s->children[i], !whole, how, sizeof how);
}

/* A child that is interrupted within a request is ended at once; those that wait still say what they found. */
static int run_group(struct sweep *s, size_t from, size_t to, struct qp_err *err)
{
    bool on = true;
    for (size_t i = from; i < to && !err->code; i++)
        if (s->out[i].status == QP_SWEEP_OK && start(s, i, err))
            break;
    for (int64_t w = 0; on && !err->code && w < s->o->warmup && !stopped(s); w++)
        on = round_of(s, from, to, w, false, err);
    double begin = qp_now();
    for (int64_t r = 0; on && !err->code && !stopped(s) && (r < s->o->runs || qp_now() - begin < s->o->seconds); r++) {
        spin(s->setting);
        on = round_of(s, from, to, r, true, err);
        s->setting->rounds += on;
    }
    for (size_t i = from; i < to; i++) {
        finish(s, i);
        if (s->out[i].status == QP_SWEEP_OK && s->out[i].n_runs < (size_t)s->o->runs)
            s->out[i].status = QP_SWEEP_INTERRUPTED;
    }
    return err->code;
}

/* ---- a sweep's step ---- */

static void check_shape(struct qp_sweep_outcome *out, const struct qp_model *m, const struct qp_latency_shape *shape, const struct qp_latency_prompts *prompts)
{
    char reason[sizeof out->reason], which[300] = "";
    int64_t at = qp_latency_longest(shape), len = shape->prompt_lens[at], need = shape->depth + len + shape->new_tokens, context = qp_model_config(m)->max_positions;
    int64_t room = context < shape->capacity ? context : shape->capacity;
    if (need <= room)
        return;
    if (prompts->n)
        snprintf(which, sizeof which, "prompt %zu of '%.200s': ", (size_t)at % prompts->n + 1, prompts->path);
    snprintf(reason, sizeof reason, "%s%lld tokens of context, %lld of prompt and %lld new ones are more than the %s of %lld", which, (long long)shape->depth, (long long)len,
             (long long)shape->new_tokens, need > context ? "model's context" : "cache", (long long)(need > context ? context : shape->capacity));
    fail(out, QP_SWEEP_FAILED, QP_E_USAGE, reason);
}

int qp_sweep_run(struct qp_sweep_outcome *out, struct qp_sweep_setting *setting, const struct qp_sweep_model *models, size_t n,
                 const struct qp_latency_shape *shape, const struct qp_sweep_options *o, struct qp_err *err)
{
    struct qp_err local = {0};
    struct qp_latency_shape whole = *shape;
    struct sweep s = {.out = out, .setting = setting, .n = n, .shape = &whole, .o = o};
    err = err ? err : &local;
    *setting = (struct qp_sweep_setting){.steal = NAN, .others = NAN};
    if (!whole.capacity)
        whole.capacity = whole.depth + whole.prompt_lens[qp_latency_longest(&whole)] + whole.new_tokens;
    s.children = qp_zalloc(n * sizeof *s.children, "children", err);
    s.jobs = qp_zalloc(n * sizeof *s.jobs, "children", err);
    for (size_t i = 0; i < n && !err->code; i++) {
        s.jobs[i] = (struct qp_latency_job){models, i, &whole, o};
        out[i].n_steps = qp_latency_steps(&whole);
        if (out[i].status == QP_SWEEP_OK)
            check_shape(&out[i], models[i].model, &whole, &o->prompts);
    }
    spin(setting);
    qp_activity_read(&setting->before);
    for (size_t i = 0; i < n && !err->code; i += o->in_turns ? n : 1)
        if (run_group(&s, i, o->in_turns ? n : i + 1, err))
            break;
    qp_activity_read(&setting->after);
    spin(setting);
    setting->steal = qp_activity_steal(&setting->before, &setting->after);
    setting->others = qp_activity_others(&setting->before, &setting->after);
    qp_buf_release(&s.message);
    qp_free(s.children);
    qp_free(s.jobs);
    return err->code;
}

size_t qp_sweep_flags(const struct qp_sweep_setting *s, char flags[QP_SWEEP_FLAGS][96])
{
    size_t n = 0;
    double drift = 1 - s->clock_min / s->clock_max;
    if (drift > 0.05)
        snprintf(flags[n++], 96, "the processor's speed moved by %.1f %%", 100 * drift);
    if (s->others > 0.05)
        snprintf(flags[n++], 96, "other programs used %.1f %% of the processors' time", 100 * s->others);
    if (s->steal > 0.01)
        snprintf(flags[n++], 96, "the host took %.1f %% of the processors' time", 100 * s->steal);
    return n;
}
