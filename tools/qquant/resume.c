/* -o DIR: the checkpoint, and going on with one that was cut off. What a run writes to the stream for a layer is kept in the checkpoint's journal beside it,
 * so that the run that goes on writes the same stream. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/machine.h"
#include "base/mem.h"
#include "qquant.h"

#define MAX_SETUP 64

struct note { /* then the layer's records */
    int64_t fallbacks, experts, few_experts, fewest_tokens;
};

/* Options that change nothing in the result. */
static bool is_neutral(const char *name)
{
    static const char *const names[] = {"output", "model", "verbose", "memory", "plan"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

struct setup {
    struct qp_setup v[MAX_SETUP];
    size_t n;
    struct qp_buf texts[MAX_SETUP];
};

static struct qp_buf *add(struct setup *s, const char *name)
{
    s->v[s->n].name = name;
    return &s->texts[s->n++];
}

static int describe(const struct qquant *q, struct qp_tool_run *run, struct setup *s)
{
    char hash[17];
    bool used = qquant_needs_samples(q);
    if (qp_model_hash(q->model, hash, &run->err))
        return run->err.code;
    qp_buf_adds(add(s, "model"), hash);
    qp_buf_addf(add(s, "calibration"), "%" PRIx64 ", %" PRId64 " samples of %" PRId64, used ? qp_xxh64(q->ids.v, (size_t)q->ids.n * sizeof *q->ids.v) : 0, used ? q->n_samples : 0,
                used ? q->sample_len : 0);
    struct qp_buf *formats = add(s, "formats of layers");
    for (size_t i = 0; q->opt.formats && i < qp_model_n_linears(q->model); i++) {
        char name[32];
        qp_format_name(&q->opt.formats[i], name);
        qp_buf_addf(formats, "%s ", name);
    }
    for (const struct qp_opt *o = run->tool->opts; o->kind != QP_OPT_K_END; o++)
        if (o->kind != QP_OPT_K_GROUP && !is_neutral(o->name) && s->n < MAX_SETUP - 2)
            qp_opt_value(o, add(s, o->name));
    qp_buf_adds(add(s, "instruction set"), q->ops.isa);
    qp_buf_adds(add(s, "version"), QP_VERSION);
    for (size_t i = 0; i < s->n; i++) {
        if (qp_buf_check(&s->texts[i], &run->err))
            return QP_E_RESOURCE;
        s->v[i].value = s->texts[i].data ? s->texts[i].data : "";
    }
    return 0;
}

static int replay(void *ctx, const void *data, size_t bytes)
{
    struct qp_tool_run *run = ctx;
    struct qquant *q = run->tool->ctx;
    struct note n;
    if (bytes < sizeof n)
        return qp_err_set(&run->err, QP_E_INPUT, "'%s' holds a note of %zu bytes; remove it to begin again", qp_checkpoint_part(q->dir), bytes);
    memcpy(&n, data, sizeof n);
    q->fallbacks = n.fallbacks;
    q->experts = n.experts;
    q->few_experts = n.few_experts;
    q->fewest_tokens = n.fewest_tokens;
    return qp_w_records(run->out, (const char *)data + sizeof n, bytes - sizeof n, &run->err);
}

static int load(void *ctx, float *const *streams, int n_streams, size_t n, struct qp_err *err)
{
    return qp_checkpoint_load_streams(ctx, streams, n_streams, n, err);
}

static int done(void *ctx, int64_t layer, const float *const *streams, int n_streams, size_t n, struct qp_err *err)
{
    return qp_checkpoint_end_block(ctx, layer, streams, n_streams, n, err);
}

size_t qquant_memory(const struct qquant *q)
{
    return q->memory > 0 ? (size_t)q->memory : qp_memory_available() ? qp_memory_available() / 2 : SIZE_MAX;
}

int qquant_open_spool(struct qquant *q, struct qp_err *err)
{
    const char *tmp = getenv("TMPDIR");
    char *folder = tmp && *tmp ? qp_strdup(tmp, err) : q->out ? qp_path_parent(q->out, err) : qp_strdup("/var/tmp", err);
    int r = folder ? qp_spool_new(&q->spool, qquant_memory(q), folder, err) : QP_E_RESOURCE;
    q->opt.spool = q->spool;
    qp_free(folder);
    return r;
}

int qquant_open_checkpoint(struct qquant *q, struct qp_tool_run *run)
{
    struct setup *s = qp_zalloc(sizeof *s, "options", &run->err);
    int r = s ? describe(q, run, s) : QP_E_RESOURCE;
    struct qp_checkpoint_options o = qquant_checkpoint_options(q);
    o.setup = s ? s->v : NULL;
    o.n_setup = s ? s->n : 0;
    r = r ? r : qp_checkpoint_open(&q->dir, q->out, q->model, &o, &run->err);
    for (size_t i = 0; s && i < s->n; i++)
        qp_buf_release(&s->texts[i]);
    qp_free(s);
    if (r)
        return r;
    q->blocks = (struct qp_quantize_blocks){.first = qp_checkpoint_blocks(q->dir), .load = load, .done = done, .ctx = q->dir};
    q->opt.blocks = &q->blocks;
    if (q->blocks.first && !run->quiet)
        fprintf(stderr, "qquant: going on with '%s' behind block %" PRId64 " of %" PRId64 "\n", qp_checkpoint_part(q->dir), q->blocks.first, qp_model_config(q->model)->n_layers);
    return qp_checkpoint_notes(q->dir, replay, run);
}

int qquant_put_layer(struct qquant *q, struct qp_writer *w, const struct qp_layer_report *rep, const struct qp_qweight *layer, struct qp_err *err)
{
    struct note n = {q->fallbacks, q->experts, q->few_experts, q->fewest_tokens};
    struct qp_buf note = QP_BUF_INIT;
    if (!q->dir)
        return qquant_write_layer(q, w, rep, layer, err);
    qp_buf_add(&note, &n, sizeof n);
    qp_w_tee(w, &note);
    int r = qquant_set_changed(q, rep, err);
    r = r ? r : qquant_write_layer(q, w, rep, layer, err);
    qp_w_tee(w, NULL);
    r = r ? r : qp_buf_check(&note, err);
    r = r ? r : qp_checkpoint_add(q->dir, rep->name, layer, note.data, note.len, err);
    qp_buf_release(&note);
    return r;
}

/* Memory, disk and signals are nothing that a second try would meet again; input that is bad is. */
void qquant_leave_checkpoint(struct qquant *q, struct qp_tool_run *run)
{
    bool keep = q->dir && run->err.code == QP_E_RESOURCE && qp_checkpoint_blocks(q->dir) > 0;
    if (keep)
        fprintf(stderr, "qquant: %" PRId64 " of %" PRId64 " blocks are done and kept in '%s'; the same command goes on from there\n", qp_checkpoint_blocks(q->dir),
                qp_model_config(q->model)->n_layers, qp_checkpoint_part(q->dir));
    qp_checkpoint_close(q->dir, keep);
    q->dir = NULL;
}
