#include "eval/paired.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "stats/paired.h"
#include "stats/stats.h"

#define MANY_CLUSTERS 10

/* What is resampled: items, or clusters of them, by their sums. */
struct units {
    double *quant, *base, *count;
    size_t n;
};

static int units_new(struct units *u, size_t n, struct qp_err *err)
{
    *u = (struct units){.n = n};
    double *all = qp_zalloc(n * 3 * sizeof *all, "paired scores", err);
    if (!all)
        return QP_E_RESOURCE;
    u->quant = all;
    u->base = all + n;
    u->count = all + 2 * n;
    return 0;
}

static void units_release(struct units *u)
{
    qp_free(u->quant);
}

/* ---- groups ---- */

/* group_of [n]: index of each item's group in order of appearance; returns how many groups there are. names [n]. */
static size_t index_groups(const struct qp_paired_items *t, size_t *group_of, const char **names)
{
    size_t n = 0, last = 0;
    for (size_t i = 0; i < t->n; i++) {
        size_t g = last;
        if (!n || strcmp(names[g], t->groups[i])) /* items of a group mostly follow each other */
            for (g = 0; g < n && strcmp(names[g], t->groups[i]); g++)
                ;
        if (g == n)
            names[n++] = t->groups[i];
        group_of[i] = last = g;
    }
    return n;
}

static bool is_binary(const struct qp_paired_items *t)
{
    for (size_t i = 0; i < t->n; i++)
        if ((t->base[i] != 0 && t->base[i] != 1) || (t->quant[i] != 0 && t->quant[i] != 1))
            return false;
    return true;
}

/* ---- one part ---- */

/* Standard errors of the difference and of the ratio of the means (not in percent), by linearization over units. */
static void errors_of(const struct units *u, double *scratch, double *diff, double *ratio)
{
    double q = qp_sum(u->quant, u->n), b = qp_sum(u->base, u->n), n = qp_sum(u->count, u->n);
    for (size_t i = 0; i < u->n; i++)
        scratch[i] = u->quant[i] - u->base[i];
    *diff = qp_cluster_stderr(scratch, u->count, u->n);
    for (size_t i = 0; i < u->n; i++)
        scratch[i] = u->quant[i] - q / b * u->base[i];
    *ratio = b > 0 ? qp_cluster_stderr(scratch, u->count, u->n) / (b / n) : NAN;
}

struct replicates {
    double *diff, *ratio; /* [R] */
    double *kept;         /* [R] the ratio's replicates in the order in which they were drawn */
};

struct interval {
    double lo, hi;
};

/* Both intervals from the same draws. */
static void resample(const struct units *u, const struct qp_paired_options *o, const char *task, struct replicates *x, struct interval *diff, struct interval *ratio)
{
    struct qp_rng rng = qp_rng_seed(o->seed ^ qp_xxh64(task, strlen(task)));
    const double *const columns[] = {u->quant, u->base, u->count};
    double sums[3];
    for (size_t r = 0; r < o->resamples; r++) {
        qp_resample_sums(columns, 3, u->n, &rng, sums);
        x->diff[r] = (sums[0] - sums[1]) / sums[2];
        x->ratio[r] = x->kept[r] = sums[1] > 0 ? sums[0] / sums[1] : NAN;
    }
    qp_percentile_interval(x->diff, o->resamples, o->confidence, &diff->lo, &diff->hi);
    qp_percentile_interval(x->ratio, o->resamples, o->confidence, &ratio->lo, &ratio->hi);
}

static double greater(double a, double b)
{
    return isnan(b) || a >= b ? a : b;
}

static bool wider(struct interval a, struct interval b)
{
    return a.hi - a.lo > b.hi - b.lo;
}

static void count_flips(struct qp_paired_part *p, const struct units *items)
{
    for (size_t i = 0; i < items->n; i++) {
        bool b = items->base[i] > 0, q = items->quant[i] > 0;
        p->both += b && q;
        p->neither += !b && !q;
        p->lost += b && !q;
        p->gained += !b && q;
    }
    p->p = qp_mcnemar_exact(p->lost, p->gained);
}

/* clusters.n = 0: items are resampled. x->kept holds the ratio's replicates afterwards, those of the interval that was taken. */
static int measure(struct qp_paired_part *p, const struct qp_paired_items *t, const struct units *items, const struct units *clusters,
                   const struct qp_paired_options *o, struct replicates *x, struct qp_err *err)
{
    double n = (double)items->n, *scratch = qp_alloc(items->n * sizeof *scratch, "paired scores", err);
    if (!scratch)
        return QP_E_RESOURCE;
    double diff_se, ratio_se, diff_se2 = NAN, ratio_se2 = NAN, b = qp_sum(items->base, items->n) / n, q = qp_sum(items->quant, items->n) / n;
    errors_of(items, scratch, &diff_se, &ratio_se);
    if (clusters->n)
        errors_of(clusters, scratch, &diff_se2, &ratio_se2);
    qp_free(scratch);
    struct interval di, ri, di2, ri2;
    bool whole = clusters->n >= MANY_CLUSTERS;
    if (clusters->n && !whole) {
        resample(items, o, t->task, x, &di, &ri);
        resample(clusters, o, t->task, x, &di2, &ri2);
        whole = wider(di2, di);
    }
    resample(whole ? clusters : items, o, t->task, x, &di, &ri); /* again: the kept replicates are those of the interval that is given */
    p->n_clusters = whole ? clusters->n : 0;
    p->base = b;
    p->quant = q;
    p->diff = (struct qp_estimate){q - b, greater(diff_se, diff_se2), di.lo, di.hi};
    p->significant = p->diff.value != 0 && fabs(p->diff.value) >= 2 * p->diff.stderr_;
    p->retained = (struct qp_estimate){b > 0 ? 100 * q / b : NAN, 100 * greater(ratio_se, ratio_se2), 100 * ri.lo, 100 * ri.hi};
    return 0;
}

/* Fills one part; only without: leaves out the items that overlap. */
static int run_part(struct qp_paired_part *p, const struct qp_paired_items *t, const size_t *group_of, size_t n_groups, bool without,
                    const struct qp_paired_options *o, struct replicates *x, struct qp_err *err)
{
    struct units items = {0}, groups = {0}, clusters = {0};
    *p = (struct qp_paired_part){.p = NAN, .p_holm = NAN, .base = NAN, .quant = NAN, .diff = {NAN, NAN, NAN, NAN}, .retained = {NAN, NAN, NAN, NAN}};
    for (size_t i = 0; i < t->n; i++)
        p->n += !(without && t->overlap[i]);
    if (!p->n)
        return 0;
    int r = units_new(&items, p->n, err);
    r = r ? r : units_new(&groups, n_groups, err);
    for (size_t i = 0, k = 0; !r && i < t->n; i++) {
        if (without && t->overlap[i])
            continue;
        items.quant[k] = t->quant[i];
        items.base[k] = t->base[i];
        items.count[k++] = 1;
        if (n_groups) {
            groups.quant[group_of[i]] += t->quant[i];
            groups.base[group_of[i]] += t->base[i];
            groups.count[group_of[i]] += 1;
        }
    }
    if (!r && t->clustered) { /* groups may be empty without overlapping items */
        clusters = (struct units){groups.quant, groups.base, groups.count, 0};
        for (size_t g = 0; g < n_groups; g++)
            if (groups.count[g] > 0) {
                clusters.quant[clusters.n] = groups.quant[g];
                clusters.base[clusters.n] = groups.base[g];
                clusters.count[clusters.n++] = groups.count[g];
            }
        clusters.n = clusters.n < 2 ? 0 : clusters.n;
    }
    if (!r && (p->binary = is_binary(t)))
        count_flips(p, &items);
    r = r ? r : measure(p, t, &items, &clusters, o, x, err);
    units_release(&items);
    units_release(&groups);
    return r;
}

/* ---- groups of a task ---- */

static int worst_first(const void *a, const void *b)
{
    const struct qp_paired_group *x = a, *y = b;
    return x->diff != y->diff ? (x->diff > y->diff) - (x->diff < y->diff) : strcmp(x->name, y->name);
}

static int finish_groups(struct qp_paired_task *t, bool binary, struct qp_err *err)
{
    double *p = qp_alloc(t->n_groups * 2 * sizeof *p, "group tests", err), *adjusted = p + t->n_groups;
    if (!p)
        return QP_E_RESOURCE;
    qsort(t->groups, t->n_groups, sizeof *t->groups, worst_first);
    for (size_t g = 0; g < t->n_groups; g++)
        p[g] = t->groups[g].p = binary ? qp_mcnemar_exact(t->groups[g].lost, t->groups[g].gained) : NAN;
    qp_holm(p, t->n_groups, adjusted);
    for (size_t g = 0; g < t->n_groups; g++)
        t->groups[g].p_holm = adjusted[g];
    qp_free(p);
    return 0;
}

static int run_groups(struct qp_paired_task *t, const size_t *group_of, const char *const *names, size_t n_groups, struct qp_err *err)
{
    const struct qp_paired_items *it = t->items;
    if (!n_groups)
        return 0;
    if (!(t->groups = qp_zalloc(n_groups * sizeof *t->groups, "groups", err)))
        return QP_E_RESOURCE;
    t->n_groups = n_groups;
    for (size_t g = 0; g < n_groups; g++)
        t->groups[g].name = names[g];
    for (size_t i = 0; i < it->n; i++) {
        struct qp_paired_group *x = &t->groups[group_of[i]];
        x->n++;
        x->base += it->base[i];
        x->quant += it->quant[i];
        x->lost += it->base[i] > it->quant[i];
        x->gained += it->base[i] < it->quant[i];
    }
    for (size_t g = 0; g < n_groups; g++) {
        struct qp_paired_group *x = &t->groups[g];
        x->base /= (double)x->n;
        x->quant /= (double)x->n;
        x->diff = x->quant - x->base;
    }
    for (size_t i = 0; i < it->n; i++) {
        struct qp_paired_group *x = &t->groups[group_of[i]];
        double d = it->quant[i] - it->base[i] - x->diff;
        x->stderr_ += d * d; /* a sum of squares until all are in */
    }
    for (size_t g = 0; g < n_groups; g++) {
        struct qp_paired_group *x = &t->groups[g];
        x->stderr_ = x->n > 1 ? sqrt(x->stderr_ / (double)(x->n - 1) / (double)x->n) : NAN;
        x->significant = x->diff != 0 && fabs(x->diff) >= 2 * x->stderr_;
    }
    return finish_groups(t, t->all.binary, err);
}

/* ---- all tasks ---- */

static int check_items(const struct qp_paired_items *t, struct qp_err *err)
{
    if (!t->n || t->n >= UINT32_MAX)
        return qp_err_set(err, QP_E_INPUT, "task '%s': %zu items to compare; 1 to 2^32 - 2 are possible", t->task, t->n);
    for (size_t i = 0; i < t->n; i++)
        if (!(t->base[i] >= 0 && t->quant[i] >= 0) || isinf(t->base[i]) || isinf(t->quant[i]))
            return qp_err_set(err, QP_E_INPUT, "task '%s' item %zu: scores %g and %g; finite values from 0 on are compared", t->task, i, t->base[i], t->quant[i]);
    return 0;
}

struct totals { /* of the quality score: sums over tasks of ratios, variances and replicates */
    double ratio, variance, *replicates;
};

static void add_ratio(struct totals *s, struct qp_quality *q, const struct qp_paired_items *t, const struct qp_paired_part *p, const struct replicates *x, size_t R)
{
    if (!t->primary || !p->n)
        return;
    if (isnan(p->retained.value)) {
        q->n_left_out++;
        return;
    }
    q->n_tasks++;
    s->ratio += p->retained.value / 100;
    s->variance += p->retained.stderr_ / 100 * p->retained.stderr_ / 100;
    for (size_t r = 0; r < R; r++)
        s->replicates[r] += x->kept[r];
}

static void finish_quality(struct qp_quality *q, struct totals *s, const struct qp_paired_options *o)
{
    double n = (double)q->n_tasks;
    q->score = (struct qp_estimate){NAN, NAN, NAN, NAN};
    if (!q->n_tasks)
        return;
    for (size_t r = 0; r < o->resamples; r++)
        s->replicates[r] /= n;
    q->score.value = s->ratio / n;
    q->score.stderr_ = sqrt(s->variance) / n;
    qp_percentile_interval(s->replicates, o->resamples, o->confidence, &q->score.lo, &q->score.hi);
}

static int run_task(struct qp_paired *p, size_t k, struct replicates *x, struct totals *all, struct totals *clean, struct qp_err *err)
{
    struct qp_paired_task *t = &p->tasks[k];
    const struct qp_paired_items *it = t->items;
    size_t *group_of = qp_zalloc(it->n * sizeof *group_of, "groups", err), n_groups = 0, R = p->options.resamples;
    const char **names = qp_zalloc(it->n * sizeof *names, "groups", err);
    int r = group_of && names ? 0 : QP_E_RESOURCE;
    if (!r && it->groups)
        n_groups = index_groups(it, group_of, names);
    t->marked = it->overlap != NULL;
    r = r ? r : run_part(&t->all, it, group_of, n_groups, false, &p->options, x, err);
    if (!r) {
        add_ratio(all, &p->all, it, &t->all, x, R);
        if (!t->marked)
            add_ratio(clean, &p->clean, it, &t->all, x, R);
        r = run_groups(t, group_of, names, n_groups, err);
    }
    if (!r && t->marked) {
        p->marked = true;
        r = run_part(&t->clean, it, group_of, n_groups, true, &p->options, x, err);
        if (!r)
            add_ratio(clean, &p->clean, it, &t->clean, x, R);
    }
    qp_free(group_of);
    qp_free(names);
    return r;
}

static int correct(struct qp_paired *p, bool clean, struct qp_err *err)
{
    double *raw = qp_alloc(p->n_tasks * 2 * sizeof *raw, "tests", err), *adjusted = raw + p->n_tasks;
    if (!raw)
        return QP_E_RESOURCE;
    for (size_t k = 0; k < p->n_tasks; k++) {
        const struct qp_paired_task *t = &p->tasks[k];
        raw[k] = t->items->primary ? (clean && t->marked ? t->clean.p : t->all.p) : NAN;
    }
    qp_holm(raw, p->n_tasks, adjusted);
    for (size_t k = 0; k < p->n_tasks; k++)
        *(clean ? &p->tasks[k].clean.p_holm : &p->tasks[k].all.p_holm) = adjusted[k];
    qp_free(raw);
    return 0;
}

int qp_paired_run(struct qp_paired *out, const struct qp_paired_items *items, size_t n_tasks, const struct qp_paired_options *options, struct qp_err *err)
{
    *out = (struct qp_paired){.n_tasks = n_tasks, .options = *options};
    size_t R = options->resamples;
    double *x = qp_zalloc(R * 5 * sizeof *x, "bootstrap replicates", err);
    out->tasks = qp_zalloc(n_tasks * sizeof *out->tasks, "tasks", err);
    int r = x && out->tasks ? 0 : QP_E_RESOURCE;
    struct replicates draws = {x, x + R, x + 2 * R};
    struct totals all = {.replicates = x + 3 * R}, clean = {.replicates = x + 4 * R};
    for (size_t k = 0; !r && k < n_tasks; k++) {
        out->tasks[k].items = &items[k];
        r = check_items(&items[k], err);
        r = r ? r : run_task(out, k, &draws, &all, &clean, err);
    }
    r = r ? r : correct(out, false, err);
    r = r ? r : correct(out, true, err);
    if (!r) {
        finish_quality(&out->all, &all, options);
        finish_quality(&out->clean, &clean, options);
    }
    qp_free(x);
    if (r)
        qp_paired_release(out);
    return r;
}

void qp_paired_release(struct qp_paired *p)
{
    for (size_t k = 0; p->tasks && k < p->n_tasks; k++)
        qp_free(p->tasks[k].groups);
    qp_free(p->tasks);
    *p = (struct qp_paired){0};
}
