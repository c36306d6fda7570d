/* Formats by layer: --keep, --keep-sensitive, --bpw and --budget-mb, and the sensitivities that the latter rest on: measured here, or read from the stream. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "qquant.h"

/* ---- options ---- */

static int parse_keep(struct qquant *q, const char *text, struct qp_err *err)
{
    const char *eq = strrchr(text, '=');
    if (!eq || eq == text)
        return qp_err_set(err, QP_E_USAGE, "--keep takes GLOB=FORMAT ('*.v_proj=fp16'), not '%s'", text);
    if (q->n_keeps == QQUANT_MAX_KEEPS)
        return qp_err_set(err, QP_E_USAGE, "more than %d --keep", QQUANT_MAX_KEEPS);
    struct qquant_keep *k = &q->keeps[q->n_keeps++];
    snprintf(k->glob, sizeof k->glob, "%.*s", (int)(eq - text), text);
    return qp_format_parse(&k->format, eq + 1, err) ? qp_err_context(err, "--keep '%s'", text) : 0;
}

/* "0.15", "0.15:fp8" */
static int parse_sensitive(struct qquant *q, struct qp_err *err)
{
    char *end;
    q->keep_share = strtod(q->keep_sensitive, &end);
    if (end == q->keep_sensitive || !(q->keep_share > 0 && q->keep_share <= 1) || (*end && *end != ':'))
        return qp_err_set(err, QP_E_USAGE, "--keep-sensitive takes a share of the weights above 0 up to 1, and a format (0.15, 0.15:fp8), not '%s'", q->keep_sensitive);
    return qp_format_parse(&q->keep_format, *end ? end + 1 : "fp16", err) ? qp_err_context(err, "--keep-sensitive") : 0;
}

bool qquant_needs_sensitivity(const struct qquant *q)
{
    return q->measure || q->keep_sensitive || q->bpw > 0 || q->budget_mb > 0;
}

int qquant_check_mixed(struct qquant *q, struct qp_err *err)
{
    if ((q->bpw > 0) + (q->budget_mb > 0) + (q->keep_sensitive != NULL) > 1)
        return qp_err_set(err, QP_E_USAGE, "--bpw, --budget-mb and --keep-sensitive exclude each other");
    if (q->method == QQUANT_NONE && (q->keep.n || q->keep_sensitive || q->bpw > 0 || q->budget_mb > 0))
        return qp_err_set(err, QP_E_USAGE, "--method none quantizes nothing: no layer has a format to choose");
    for (int i = 0; i < q->keep.n; i++)
        if (parse_keep(q, q->keep.v[i], err))
            return err->code;
    return q->keep_sensitive ? parse_sensitive(q, err) : 0;
}

/* ---- candidates: the method's own format first ---- */

static void add_candidate(struct qquant *q, const struct qp_format *f)
{
    char name[32], other[32];
    qp_format_name(f, name);
    for (int i = 0; i < q->n_candidates; i++) {
        qp_format_name(&q->candidates[i], other);
        if (!strcmp(name, other))
            return;
    }
    if (q->n_candidates < QP_MAX_FORMATS)
        q->candidates[q->n_candidates++] = *f;
}

static void add_ints(struct qquant *q, int bits, int64_t group)
{
    struct qp_format f = q->opt.format;
    f.grid.bits = bits;
    f.grid.group_size = group;
    if (f.id == QP_FMT_INT && (!group || (group >= 16 && group % 8 == 0)))
        add_candidate(q, &f);
}

/* Formats of a command line round as the method's own does. */
static void adapt(const struct qquant *q, struct qp_format *f)
{
    if (f->id != QP_FMT_INT)
        return;
    f->grid.search = q->opt.format.grid.search;
    f->permuted = q->opt.format.permuted;
    f->grid.blocks = qquant_is_gguf(q);
}

/* What GGUF files hold: Q4_0, Q4_1, Q8_0. */
static void add_blocks(struct qquant *q)
{
    static const char *const names[] = {"w4g32", "w4g32-asym", "w8g32", "f16"};
    struct qp_err never = {0};
    struct qp_format f;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!qp_format_parse(&f, names[i], &never)) {
            adapt(q, &f);
            add_candidate(q, &f);
        }
}

static int list_candidates(struct qquant *q, struct qp_err *err)
{
    struct qp_format f = q->opt.format;
    int64_t group = f.grid.group_size;
    add_candidate(q, &f);
    for (int i = 0; i < q->choose.n; i++) {
        if (qp_format_parse(&f, q->choose.v[i], err))
            return qp_err_context(err, "--choose");
        adapt(q, &f);
        add_candidate(q, &f);
    }
    adapt(q, &q->keep_format);
    if (q->keep_sensitive)
        add_candidate(q, &q->keep_format);
    if (q->choose.n)
        return 0;
    if (qquant_is_gguf(q)) {
        add_blocks(q);
        return 0;
    }
    add_ints(q, 3, group);
    add_ints(q, 4, 2 * group);
    add_ints(q, 4, group);
    add_ints(q, 4, group / 2);
    add_ints(q, 8, 2 * group);
    add_candidate(q, &(struct qp_format){.id = QP_FMT_F16});
    return 0;
}

static bool fits(const struct qquant *q, const struct qp_format *f, const struct qp_weight *w)
{
    struct qp_parts parts;
    if (qp_pack(qquant_is_gguf(q) ? QP_PACK_GGUF : qp_stream_packing(f), f, w->rows, w->cols, NULL, &parts, NULL))
        return false;
    qp_parts_release(&parts);
    return true;
}

/* ---- sensitivities ---- */

static int on_sensitivity(void *ctx, const struct qp_sensitivity *s)
{
    struct qquant_ctx *c = ctx;
    struct qquant *q = c->q;
    if (qp_tool_interrupted())
        return qp_err_set(&c->run->err, QP_E_RESOURCE, "interrupted");
    if (!s->index)
        qp_progress_begin(c->run->progress, "measuring", "layers", s->total);
    qp_progress_update(c->run->progress, s->index + 1, s->name);
    q->found[s->index] = *s;
    if (q->verbose)
        fprintf(stderr, "qquant: %s  loss %+.5f +- %.5f  kl %.5f\n", s->name, s->dloss, s->dloss_stderr, s->kl);
    qquant_write_sensitivity(q, c->run->out, s);
    return qp_writer_check(c->run->out, &c->run->err);
}

/* One layer's sensitivity as an earlier qquant --measure wrote it. */
struct told {
    char name[256];
    double kl, dloss, energy;
    int n;
    struct {
        char format[32];
        double error;
    } of[QP_MAX_FORMATS];
};

int qquant_take_sensitivity(struct qquant *q, const struct qp_record *rec, struct qp_err *err)
{
    struct told t = {0};
    struct qp_record e;
    const char *name, *format;
    int r = 0;
    if (qp_record_need_str(rec, "name", &name, err) || qp_record_need_f64(rec, "kl", &t.kl, err) || qp_record_need_f64(rec, "energy", &t.energy, err))
        return err->code;
    snprintf(t.name, sizeof t.name, "%s", name);
    for (; t.n < QP_MAX_FORMATS && (r = qp_record_at(rec, "formats", (size_t)t.n, &e, err)) == 1; t.n++) {
        if (qp_record_need_str(&e, "format", &format, err) || qp_record_need_f64(&e, "output_error", &t.of[t.n].error, err))
            return err->code;
        snprintf(t.of[t.n].format, sizeof t.of[t.n].format, "%s", format);
    }
    if (r < 0)
        return r;
    if (!(t.kl >= 0) || !isfinite(t.kl) || !t.n)
        return qp_err_set(err, QP_E_INPUT, "sensitivity record of '%s': kl is %g, formats are %d", name, t.kl, t.n);
    qp_buf_add(&q->told, &t, sizeof t);
    return qp_buf_check(&q->told, err);
}

static const struct told *find_told(const struct qquant *q, const char *name)
{
    const struct told *t = (const struct told *)(const void *)q->told.data;
    for (size_t i = 0; i < q->told.len / sizeof *t; i++)
        if (!strcmp(t[i].name, name))
            return &t[i];
    return NULL;
}

/* The records' first format is what was run; errors of the others are put into the order of the candidates. */
static int read_told(struct qquant *q, struct qp_err *err)
{
    for (size_t i = 0; i < qp_model_n_linears(q->model); i++) {
        const char *name = qp_model_linear(q->model, i)->weight->name;
        const struct told *t = find_told(q, name);
        if (!t)
            return qp_err_set(err, QP_E_INPUT, "the stream's sensitivity records lack layer '%s'; measure it again", name);
        q->found[i] = (struct qp_sensitivity){.name = name, .kl = t->kl, .energy = t->energy, .run_error = t->of[0].error};
        for (int j = 0; j < q->n_candidates; j++) {
            char format[32];
            int k = 0;
            qp_format_name(&q->candidates[j], format);
            while (k < t->n && strcmp(t->of[k].format, format))
                k++;
            if (k == t->n)
                return qp_err_set(err, QP_E_INPUT, "the stream's sensitivity records lack format '%s'; measure again with --choose, or without those records", format);
            q->found[i].error[j] = t->of[k].error;
        }
    }
    return 0;
}

static int measure(struct qquant_ctx *c)
{
    struct qquant *q = c->q;
    struct qp_calibration cal = {q->ids.v, q->n_samples, q->sample_len};
    struct qp_measure_options o = {.formats = q->candidates, .n_formats = q->n_candidates, .compute = q->opt.compute, .tokens = q->measure_tokens};
    if (q->told.len)
        return read_told(q, &c->run->err);
    if (!q->n_samples)
        return qp_err_set(&c->run->err, QP_E_INPUT, "the stream has no sample records; sensitivities are measured on calibration text: qcalib --general F ... | qquant");
    int r = qp_measure_model(q->model, &cal, &o, &q->ops, q->pool, on_sensitivity, c, &c->run->err);
    qp_progress_end(c->run->progress);
    return r;
}

/* ---- choices ---- */

static bool matches(const char *glob, const char *weight)
{
    char module[256];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(weight) - strlen(".weight")), weight);
    return !fnmatch(glob, weight, 0) || !fnmatch(glob, module, 0);
}

/* Formats that --keep fixes; kept [n_linears]. The last that matches counts. */
static int apply_keeps(struct qquant *q, bool *kept, struct qp_err *err)
{
    for (int k = 0; k < q->n_keeps; k++) {
        size_t hits = 0;
        adapt(q, &q->keeps[k].format);
        for (size_t i = 0; i < qp_model_n_linears(q->model); i++) {
            const struct qp_weight *w = qp_model_linear(q->model, i)->weight;
            if (!matches(q->keeps[k].glob, w->name))
                continue;
            if (!fits(q, &q->keeps[k].format, w))
                return qp_err_set(err, QP_E_USAGE, "--keep '%s': '%s' is %lld x %lld, which that format cannot hold", q->keeps[k].glob, w->name, (long long)w->rows, (long long)w->cols);
            q->formats[i] = q->keeps[k].format;
            kept[i] = true;
            hits++;
        }
        if (!hits)
            return qp_err_set(err, QP_E_USAGE, "--keep '%s' matches no linear layer; they have names like '%s'", q->keeps[k].glob, qp_model_linear(q->model, 0)->weight->name);
    }
    return 0;
}

static int64_t cost_of(const struct qp_format *f, const struct qp_weight *w)
{
    return llround(qp_format_bpw(f, w->rows, w->cols) * (double)w->rows * (double)w->cols);
}

/* Bits for the linear layers: --bpw of them, or what --budget-mb leaves beside the rest of the model. */
static int64_t budget_bits(const struct qquant *q)
{
    double weights = 0;
    for (size_t i = 0; i < qp_model_n_linears(q->model); i++)
        weights += (double)qp_model_linear(q->model, i)->weight->rows * (double)qp_model_linear(q->model, i)->weight->cols;
    if (q->bpw > 0)
        return (int64_t)(q->bpw * weights * (1 + 1e-12));
    return (int64_t)(q->budget_mb * 8e6 - (8 * (double)qp_model_bytes(q->model) - qp_model_linear_bpw(q->model) * weights));
}

static int allocate(struct qquant *q, const bool *kept, struct qp_err *err)
{
    int64_t n = (int64_t)qp_model_n_linears(q->model), k = q->n_candidates;
    struct qp_choice *c = qp_alloc_n((size_t)(n * k), sizeof *c, "allocation", err);
    int *chosen = qp_alloc_n((size_t)n, sizeof *chosen, "allocation", err);
    int r = c && chosen ? 0 : QP_E_RESOURCE;
    for (int64_t i = 0; i < n * k && !r; i++) {
        const struct qp_weight *w = qp_model_linear(q->model, (size_t)(i / k))->weight;
        const struct qp_format *f = kept[i / k] ? &q->formats[i / k] : &q->candidates[i % k];
        c[i] = (struct qp_choice){.cost = cost_of(f, w), .loss = kept[i / k] ? 0 : qp_sensitivity_of(&q->found[i / k], (int)(i % k))};
        if (!kept[i / k] && i % k && !fits(q, f, w))
            c[i] = (struct qp_choice){.cost = cost_of(&q->candidates[0], w), .loss = INFINITY};
    }
    r = r ? r : qp_allocate(chosen, &q->allocation, c, n, (int)k, budget_bits(q), err);
    if (r)
        qp_err_context(err, q->bpw > 0 ? "--bpw" : "--budget-mb");
    for (int64_t i = 0; i < n && !r; i++)
        if (!kept[i])
            q->formats[i] = q->candidates[chosen[i]];
    qp_free(c);
    qp_free(chosen);
    return r;
}

struct rank {
    double gain; /* KL divergence a weight */
    size_t i;
};

static int by_gain(const void *a, const void *b)
{
    const struct rank *x = a, *y = b;
    return x->gain != y->gain ? (x->gain > y->gain ? -1 : 1) : x->i < y->i ? -1 : 1;
}

/* The layers that lose most for each weight, until they hold the share of all weights. */
static int keep_sensitive(struct qquant *q, const bool *kept, struct qp_err *err)
{
    size_t n = qp_model_n_linears(q->model);
    double weights = 0, left;
    struct rank *ranks = qp_alloc_n(n + 1, sizeof *ranks, "allocation", err);
    if (!ranks)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < n; i++) {
        const struct qp_weight *w = qp_model_linear(q->model, i)->weight;
        double size = (double)w->rows * (double)w->cols;
        weights += size;
        ranks[i] = (struct rank){kept[i] ? 0 : q->found[i].kl / size, i};
    }
    qsort(ranks, n, sizeof *ranks, by_gain);
    left = q->keep_share * weights;
    adapt(q, &q->keep_format);
    for (size_t k = 0; k < n; k++) {
        const struct qp_weight *w = qp_model_linear(q->model, ranks[k].i)->weight;
        double size = (double)w->rows * (double)w->cols;
        if (kept[ranks[k].i] || size > left || !fits(q, &q->keep_format, w))
            continue;
        q->formats[ranks[k].i] = q->keep_format;
        left -= size;
    }
    qp_free(ranks);
    return 0;
}

int qquant_choose_formats(struct qquant *q, struct qp_tool_run *run)
{
    struct qquant_ctx c = {q, run};
    size_t n = qp_model_n_linears(q->model);
    if (!qquant_needs_sensitivity(q) && !q->n_keeps)
        return 0;
    q->formats = qp_alloc_n(n + 1, sizeof *q->formats, "formats", &run->err);
    q->found = qp_zalloc((n + 1) * sizeof *q->found, "sensitivities", &run->err);
    bool *kept = qp_zalloc(n + 1, "formats", &run->err);
    int r = q->formats && q->found && kept ? 0 : QP_E_RESOURCE;
    for (size_t i = 0; i < n && !r; i++)
        q->formats[i] = q->opt.format;
    r = r ? r : apply_keeps(q, kept, &run->err);
    if (!r && qquant_needs_sensitivity(q)) {
        r = list_candidates(q, &run->err);
        r = r ? r : measure(&c);
    }
    if (!r && (q->bpw > 0 || q->budget_mb > 0))
        r = allocate(q, kept, &run->err);
    else if (!r && q->keep_sensitive)
        r = keep_sensitive(q, kept, &run->err);
    qp_free(kept);
    if (!r && (q->n_keeps || q->bpw > 0 || q->budget_mb > 0 || q->keep_sensitive))
        q->opt.formats = q->formats;
    return r;
}
