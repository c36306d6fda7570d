#include "eval/item_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "eval/paired_report.h"

/* ---- accuracy ---- */

struct sums { /* of a group's items */
    const char *group;
    size_t n, right;
};

static double variance(const struct sums *s) /* sample variance of zeros and ones */
{
    double p = (double)s->right / (double)s->n;
    return s->n > 1 ? (double)s->n * p * (1 - p) / (double)(s->n - 1) : NAN;
}

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static bool counts(const struct qp_item *it, const char *model, const struct qp_item_task *t, const char *section, bool norm, bool clean)
{
    return same(it->model, model) && same(it->task, t->name) && !(norm && it->correct_norm < 0) && !(clean && it->overlap > 0) &&
           (!section || (it->group && same(t->section(it->group), section)));
}

/* Groups in the order of their first item; the items of a group stand together or not. */
static size_t add_up(struct sums *s, const struct qp_items *items, const char *model, const struct qp_item_task *t, const char *section, bool norm, bool clean)
{
    size_t n = 0, g = 0;
    for (size_t i = 0; i < items->n; i++) {
        const struct qp_item *it = &items->v[i];
        if (!counts(it, model, t, section, norm, clean))
            continue;
        if (!n || s[g].group != it->group) /* names are kept once */
            for (g = 0; g < n && s[g].group != it->group; g++)
                ;
        if (g == n)
            s[n++] = (struct sums){.group = it->group};
        s[g].n++;
        s[g].right += norm ? it->correct_norm > 0 : it->correct;
    }
    return n;
}

static struct qp_mean total(const struct sums *s, size_t n_groups, bool pooled)
{
    struct sums all = {0};
    double v = 0;
    for (size_t g = 0; g < n_groups; g++) {
        all.n += s[g].n;
        all.right += s[g].right;
        v += (double)(s[g].n - 1) * variance(&s[g]);
    }
    struct qp_mean m = {.n = all.n, .mean = all.n ? (double)all.right / (double)all.n : NAN, .stderr_ = NAN};
    if (pooled && n_groups > 1)
        m.stderr_ = sqrt(v / (double)(all.n - n_groups) / (double)all.n);
    else if (all.n)
        m.stderr_ = sqrt(variance(&all) / (double)all.n);
    return m;
}

struct qp_mean qp_items_accuracy(const struct qp_items *items, const char *model, const struct qp_item_task *task, const char *section, bool norm, bool clean)
{
    struct sums *s = qp_alloc_n(items->n_names + 1, sizeof *s, "groups", NULL);
    struct qp_mean m = {.mean = NAN, .stderr_ = NAN};
    if (s)
        m = total(s, add_up(s, items, model, task, section, norm, clean), task->pooled);
    qp_free(s);
    return m;
}

/* ---- results of one model ---- */

static void write_groups(struct qp_writer *w, const struct sums *s, size_t n)
{
    if (n == 1 && !s[0].group)
        return;
    qp_w_array_begin(w, "groups");
    for (size_t g = 0; g < n; g++) {
        struct qp_mean m = total(&s[g], 1, false);
        qp_w_map_begin(w, NULL);
        qp_w_str(w, "group", s[g].group ? s[g].group : "");
        qp_w_i64(w, "n", (int64_t)m.n);
        qp_w_f64(w, "value", m.mean);
        qp_w_f64(w, "stderr", m.stderr_);
        qp_w_map_end(w);
    }
    qp_w_array_end(w);
}

/* Items that calibration has seen, and the accuracy of the others. */
static void write_overlap(struct qp_writer *w, const struct qp_item_report *r, const char *model, const struct qp_item_task *t, const char *section, bool norm, size_t n)
{
    bool known = false;
    for (size_t i = 0; i < r->items->n && !known; i++)
        known = counts(&r->items->v[i], model, t, section, norm, false) && r->items->v[i].overlap >= 0;
    if (!known)
        return;
    struct qp_mean m = qp_items_accuracy(r->items, model, t, section, norm, true);
    qp_w_map_begin(w, "overlap");
    qp_w_i64(w, "items", (int64_t)(n - m.n));
    if (m.n) {
        qp_w_f64(w, "value_without", m.mean);
        qp_w_f64(w, "stderr_without", m.stderr_);
    }
    qp_w_map_end(w);
}

static int64_t n_cut(const struct qp_item_report *r, const char *model, const struct qp_item_task *t, const char *section)
{
    int64_t n = 0;
    for (size_t i = 0; i < r->items->n; i++)
        n += counts(&r->items->v[i], model, t, section, false, false) && r->items->v[i].cut > 0;
    return n;
}

static int write_accuracy(struct qp_writer *w, const struct qp_item_report *r, const char *model, const struct qp_item_task *t, const char *section, bool norm,
                          struct qp_mean *out, struct qp_err *err)
{
    char metric[256];
    struct sums *s = qp_alloc_n(r->items->n_names + 1, sizeof *s, "groups", err);
    if (!s)
        return QP_E_RESOURCE;
    size_t n = add_up(s, r->items, model, t, section, norm, false);
    struct qp_mean m = *out = total(s, n, t->pooled);
    if (m.n) {
        snprintf(metric, sizeof metric, "%s/%s%s%s", norm ? "acc_norm" : "acc", t->name, section ? "_" : "", section ? section : "");
        qp_w_begin(w, "result");
        qp_w_str(w, "model", model);
        qp_w_str(w, "metric", metric);
        qp_w_f64(w, "value", m.mean);
        qp_w_f64(w, "stderr", m.stderr_);
        qp_w_i64(w, "n", (int64_t)m.n);
        qp_w_bool(w, "higher_is_better", true);
        qp_w_map_begin(w, "detail");
        qp_w_bool(w, "pooled", t->pooled);
        int64_t cut = n_cut(r, model, t, section);
        if (cut)
            qp_w_i64(w, "cut", cut);
        write_overlap(w, r, model, t, section, norm, m.n);
        write_groups(w, s, n);
        if (r->protocol)
            r->protocol(w, r->ctx, t->name);
        qp_w_map_end(w);
        qp_w_end(w);
    }
    qp_free(s);
    return 0;
}

#define MAX_SECTIONS 64

static size_t sections_of(const struct qp_item_report *r, const char *model, const struct qp_item_task *t, const char *out[MAX_SECTIONS])
{
    size_t n = 0;
    for (size_t i = 0; t->section && i < r->items->n; i++) {
        const struct qp_item *it = &r->items->v[i];
        const char *name = same(it->model, model) && same(it->task, t->name) && it->group ? t->section(it->group) : NULL;
        size_t k = 0;
        while (k < n && name && strcmp(out[k], name))
            k++;
        if (name && k == n && n < MAX_SECTIONS)
            out[n++] = name;
    }
    return n;
}

static int report_model(struct qp_writer *w, const struct qp_item_report *r, const char *model, const char *prefix, struct qp_buf *lines, struct qp_err *err)
{
    for (size_t k = 0; k < r->n_tasks; k++) {
        const char *sections[MAX_SECTIONS];
        const struct qp_item_task *t = &r->tasks[k];
        struct qp_mean acc, norm, part;
        if (write_accuracy(w, r, model, t, NULL, false, &acc, err) || write_accuracy(w, r, model, t, NULL, true, &norm, err))
            return err->code;
        size_t n = sections_of(r, model, t, sections);
        for (size_t i = 0; i < n; i++)
            if (write_accuracy(w, r, model, t, sections[i], false, &part, err))
                return err->code;
        if (!lines || !acc.n)
            continue;
        qp_buf_addf(lines, "%s", prefix);
        qp_buf_add_clean(lines, model);
        qp_buf_addf(lines, "  acc/%s %.2f %% +- %.2f", t->name, 100 * acc.mean, 100 * acc.stderr_);
        if (norm.n)
            qp_buf_addf(lines, "  acc_norm %.2f %% +- %.2f", 100 * norm.mean, 100 * norm.stderr_);
        qp_buf_addf(lines, "  (%zu items)\n", acc.n);
    }
    return 0;
}

/* ---- pairs ---- */

struct pair {
    double *base, *quant;
    const char **groups;
    bool *overlap;
};

static void release(struct pair *p, struct qp_paired_items *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        qp_free(p[i].base);
        qp_free(p[i].quant);
        qp_free(p[i].groups);
        qp_free(p[i].overlap);
    }
    qp_free(p);
    qp_free(items);
}

static double score(const struct qp_item *it, bool norm)
{
    return norm ? it->correct_norm > 0 : it->correct;
}

/* The next item of that model and task at or after *at; NULL: none. */
static const struct qp_item *next(const struct qp_items *items, const char *model, const struct qp_item_task *t, bool norm, size_t *at)
{
    while (*at < items->n)
        if (counts(&items->v[(*at)++], model, t, NULL, norm, false))
            return &items->v[*at - 1];
    return NULL;
}

/* 1: the two models' items side by side; 0: they have none. */
static int pair_up(struct pair *p, struct qp_paired_items *out, const struct qp_item_report *r, const struct qp_item_model *m, const struct qp_item_task *t, bool norm,
                   struct qp_err *err)
{
    const struct qp_item *a, *b;
    size_t at = 0, bt = 0, n = 0;
    bool grouped = false, marked = false;
    p->base = qp_alloc_n(r->items->n, sizeof *p->base, "pairs", err);
    p->quant = qp_alloc_n(r->items->n, sizeof *p->quant, "pairs", err);
    p->groups = qp_alloc_n(r->items->n, sizeof *p->groups, "pairs", err);
    p->overlap = qp_alloc_n(r->items->n, sizeof *p->overlap, "pairs", err);
    if (!p->base || !p->quant || !p->groups || !p->overlap)
        return QP_E_RESOURCE;
    for (;; n++) {
        a = next(r->items, m->base, t, norm, &at);
        b = next(r->items, m->id, t, norm, &bt);
        if (!a && !b)
            break;
        if (!a || !b || a->i != b->i)
            return qp_err_set(err, QP_E_INPUT, "task '%s': '%s' has an item %lld that '%s' has not, so they cannot be paired", t->name, !a || (b && b->i < a->i) ? m->id : m->base,
                              (long long)(!a || (b && b->i < a->i) ? b->i : a->i), !a || (b && b->i < a->i) ? m->base : m->id);
        p->base[n] = score(a, norm);
        p->quant[n] = score(b, norm);
        p->groups[n] = b->group ? b->group : "";
        p->overlap[n] = b->overlap > 0;
        grouped = grouped || b->group;
        marked = marked || b->overlap >= 0;
    }
    *out = (struct qp_paired_items){.task = t->name, .metric = norm ? "acc_norm" : "acc", .primary = !norm, .clustered = t->pooled, .n = n, .base = p->base,
                                    .quant = p->quant, .groups = grouped ? p->groups : NULL, .overlap = marked ? p->overlap : NULL};
    return n > 0;
}

struct bridge {
    const struct qp_item_report *r;
};

static void protocol(struct qp_writer *w, void *ctx, const struct qp_paired_items *items)
{
    const struct bridge *b = ctx;
    if (b->r->protocol)
        b->r->protocol(w, b->r->ctx, items->task);
}

static int report_pair(struct qp_writer *w, const struct qp_item_report *r, const struct qp_item_model *m, const char *prefix, struct qp_buf *lines, struct qp_err *err)
{
    struct pair *p = qp_zalloc(2 * r->n_tasks * sizeof *p, "pairs", err);
    struct qp_paired_items *items = qp_zalloc(2 * r->n_tasks * sizeof *items, "pairs", err);
    struct qp_paired_options o = QP_PAIRED_DEFAULTS;
    struct qp_paired paired;
    size_t used = 0, n = 0;
    int status = p && items ? 0 : QP_E_RESOURCE;
    for (size_t k = 0; k < 2 * r->n_tasks && status >= 0; k++) {
        status = pair_up(&p[used++], &items[n], r, m, &r->tasks[k / 2], k % 2, err);
        n += status == 1;
    }
    status = status < 0 ? status : 0;
    o.seed = r->seed;
    if (!status && n && !(status = qp_paired_run(&paired, items, n, &o, err))) {
        qp_paired_write(w, &paired, m->id, m->base, protocol, &(struct bridge){r});
        if (lines)
            qp_paired_print(&paired, prefix, lines);
        qp_paired_release(&paired);
    }
    release(p, items, p ? used : 0);
    return status;
}

int qp_items_report(struct qp_writer *w, const struct qp_item_report *r, const char *prefix, struct qp_buf *lines, struct qp_err *err)
{
    for (size_t m = 0; m < r->n_models; m++)
        if (report_model(w, r, r->models[m].id, prefix, lines, err))
            return err->code;
    for (size_t m = 0; m < r->n_models; m++)
        if (r->models[m].base && report_pair(w, r, &r->models[m], prefix, lines, err))
            return err->code;
    return 0;
}
