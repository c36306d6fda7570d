/* --plan: what the run would need, on standard error for people and as a record; nothing is done. */
#include <inttypes.h>
#include <stdio.h>

#include "base/buf.h"
#include "qquant.h"
#include "quant/plan.h"

struct report {
    struct qp_tool_run *run;
    const char *layout;
};

static void problem(void *ctx, const char *weight, const char *reason)
{
    const struct report *r = ctx;
    fprintf(stderr, "qquant: '%s' cannot be stored as %s: %s\n", weight, r->layout, reason);
    qp_w_map_begin(r->run->out, NULL);
    qp_w_str(r->run->out, "name", weight);
    qp_w_str(r->run->out, "reason", reason);
    qp_w_map_end(r->run->out);
}

static void write_numbers(const struct qp_plan *p, struct qp_writer *w)
{
    qp_w_i64(w, "layers", (int64_t)p->layers);
    qp_w_i64(w, "peak_bytes", (int64_t)p->peak_bytes);
    qp_w_i64(w, "activation_bytes", (int64_t)p->activation_bytes);
    qp_w_i64(w, "spooled_bytes", (int64_t)p->spooled_bytes);
    qp_w_i64(w, "result_bytes", (int64_t)p->result_bytes);
    qp_w_i64(w, "state_bytes", (int64_t)p->state_bytes);
    qp_w_f64(w, "seconds", p->seconds);
}

static void print(const struct qquant *q, const struct qp_plan *p, bool unmeasured)
{
    fprintf(stderr, "qquant: plan of %s: %zu layers, %zu that cannot be stored\n", q->id, p->layers, p->problems);
    if (unmeasured)
        fprintf(stderr, "qquant:   formats  all layers alike: which are to differ is measured in the run itself, in time that is not counted here\n");
    fprintf(stderr, "qquant:   memory   %.2f GB at most, %.2f GB of activations in it, %.2f GB more of them in files\n", (double)p->peak_bytes / 1e9,
            (double)(p->activation_bytes - p->spooled_bytes) / 1e9, (double)p->spooled_bytes / 1e9);
    fprintf(stderr, "qquant:   disk     %.2f GB of weights%s", (double)p->result_bytes / 1e9, q->out ? "" : " in the stream");
    fprintf(stderr, p->state_bytes ? ", %.2f GB beside them until the end\n" : "\n", (double)p->state_bytes / 1e9);
    fprintf(stderr, "qquant:   time     %.1f minutes, from parts timed on this machine\n", p->seconds / 60);
}

int qquant_plan(struct qquant *q, struct qp_tool_run *run)
{
    const struct qp_layout *layout = q->out ? qquant_layout(q) : NULL;
    bool unmeasured = qquant_needs_sensitivity(q), samples = qquant_needs_samples(q);
    if (!unmeasured && qquant_choose_formats(q, run))
        return run->err.code;
    struct qp_checkpoint_options ck = qquant_checkpoint_options(q);
    size_t dense;
    ck.layout = q->method == QQUANT_NONE ? NULL : qquant_layout(q); /* of a stream, too: the same weights stay as they are */
    if (qp_checkpoint_check(&dense, q->model, &ck, &run->err))
        return run->err.code;
    struct qp_plan_options o = {.quantize = &q->opt, .layout = layout, .held = qquant_layout_options(q), .dense = q->method == QQUANT_NONE, .dense_bytes = dense,
                                .n_seq = samples ? q->n_samples : 0, .len = samples ? q->sample_len : 0, .memory = qquant_memory(q), .resumable = q->out != NULL};
    struct report r = {run, layout ? layout->name : "stream"};
    struct qp_plan p;
    qp_w_begin(run->out, "plan");
    qp_w_str(run->out, "model", q->id);
    qp_w_array_begin(run->out, "problems");
    int failed = qp_plan_make(&p, q->model, &o, &q->ops, q->pool, problem, &r, &run->err);
    qp_w_array_end(run->out);
    if (!failed)
        write_numbers(&p, run->out);
    qp_w_end(run->out);
    if (failed || qp_writer_flush(run->out, &run->err))
        return run->err.code;
    print(q, &p, unmeasured);
    return p.problems ? qp_err_set(&run->err, QP_E_INPUT, "%zu of %zu layers cannot be stored as %s; see --format, --bits, --group-size and --keep", p.problems, p.layers, r.layout) : 0;
}
