#include "eval/mc_task.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/pyrandom.h"
#include "eval/mc_rows.h"

struct leaf {
    const char *group;  /* NULL: the task has no subtasks */
    size_t *eval, n_eval, *pool, n_pool; /* indices of rows */
};

struct qp_mc_task {
    struct qp_mc_spec spec;
    struct qp_mc_options options;
    struct qp_mc_files files;
    struct qp_mc_rows eval, shots; /* shots: of a file of their own */
    bool own_pool;                 /* the pool's rows are in `shots`, else in `eval` */
    struct leaf *leaves;
    size_t n_leaves;
    struct qp_mc_doc *docs;
    size_t n_docs;
    uint32_t *drawn;               /* [n_docs, n_shots] indices into the leaf's pool */
};

void qp_mc_task_free(struct qp_mc_task *t)
{
    if (!t)
        return;
    for (size_t l = 0; l < t->n_leaves; l++) {
        qp_free(t->leaves[l].eval);
        qp_free(t->leaves[l].pool);
    }
    qp_free(t->leaves);
    qp_free(t->docs);
    qp_free(t->drawn);
    qp_mc_rows_release(&t->eval);
    qp_mc_rows_release(&t->shots);
    qp_mc_files_release(&t->files);
    qp_mc_spec_release(&t->spec);
    qp_free(t);
}

/* ---- loading ---- */

static int check_ids(const struct qp_mc_task *t, struct qp_err *err)
{
    json_t *seen = t->spec.id ? json_object() : NULL;
    for (size_t i = 0; seen && i < t->eval.n && !err->code; i++) {
        const struct qp_mc_row *row = &t->eval.v[i];
        const char *path = t->files.v[row->file].path;
        const json_t *v = qp_mc_field(row->doc, t->spec.id);
        char *dump = json_is_string(v) || json_is_integer(v) ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
        if (!dump)
            qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": field '%s' is %s", path, row->line, t->spec.id, v ? "neither text nor a whole number" : "missing");
        else if (json_object_get(seen, dump))
            qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": field '%s' is %.80s, as in line %lld", path, row->line, t->spec.id, dump,
                       (long long)json_integer_value(json_object_get(seen, dump)));
        else if (json_object_set_new(seen, dump, json_integer(row->line)))
            qp_err_set(err, QP_E_RESOURCE, "no memory for ids");
        free(dump);
    }
    json_decref(seen);
    return err->code;
}

/* Examples: a file of their own; else, where the task says so, the last rows of the evaluated file; else the evaluated rows themselves. */
static int load_shots(struct qp_mc_task *t, const char *dir, struct qp_err *err)
{
    struct qp_buf looked = QP_BUF_INIT;
    int r = t->spec.shots[0] ? qp_mc_rows_read(&t->shots, &t->files, &t->spec, dir, true, &looked, err) : 0;
    t->own_pool = r == 1;
    if (r == 1)
        t->spec.holdout = 0;
    else if (!r && t->spec.shots[0] && !t->spec.holdout)
        r = qp_err_set(err, QP_E_INPUT, "task '%s': no file of examples under '%s': looked for %s", t->spec.name, dir ? dir : t->spec.dir, looked.data);
    qp_buf_release(&looked);
    return r < 0 ? r : 0;
}

static int load(struct qp_mc_task *t, const char *dir, struct qp_err *err)
{
    struct qp_buf looked = QP_BUF_INIT;
    int r = qp_mc_rows_read(&t->eval, &t->files, &t->spec, dir, false, &looked, err);
    if (!r)
        r = qp_err_set(err, QP_E_INPUT, "task '%s': no questions under '%s': looked for %s (or .gz)", t->spec.name, dir ? dir : t->spec.dir ? t->spec.dir : "", looked.data);
    qp_buf_release(&looked);
    if (r < 0 || check_ids(t, err))
        return err->code;
    if (t->spec.n_shots ? load_shots(t, dir, err) : 0)
        return err->code;
    if (!t->spec.n_shots)
        t->spec.holdout = t->spec.holdout && t->eval.n > (size_t)t->spec.holdout ? t->spec.holdout : 0;
    if (t->spec.holdout && t->eval.n <= (size_t)t->spec.holdout)
        return qp_err_set(err, QP_E_INPUT, "task '%s': without a file of examples the last %" PRId64 " rows serve as such, but there are %zu in all", t->spec.name, t->spec.holdout, t->eval.n);
    return t->eval.n ? 0 : qp_err_set(err, QP_E_INPUT, "task '%s': its files hold no question of it", t->spec.name);
}

/* ---- subtasks ---- */

static struct leaf *leaf_of(struct qp_mc_task *t, const char *group, struct qp_err *err)
{
    for (size_t l = t->n_leaves; l-- > 0;)
        if (!t->spec.subtasks || !strcmp(t->leaves[l].group, group))
            return &t->leaves[l];
    struct leaf *grown = qp_alloc_n(t->n_leaves + 1, sizeof *grown, "subtasks", err);
    if (!grown)
        return NULL;
    if (t->n_leaves)
        memcpy(grown, t->leaves, t->n_leaves * sizeof *grown);
    qp_free(t->leaves);
    t->leaves = grown;
    grown[t->n_leaves] = (struct leaf){.group = t->spec.subtasks ? group : NULL};
    return &grown[t->n_leaves++];
}

static int add_index(size_t **v, size_t *n, size_t i, struct qp_err *err)
{
    if (!(*n & (*n - 1)) || !*n) { /* full at powers of two */
        size_t *grown = qp_alloc_n(*n ? 2 * *n : 1, sizeof *grown, "rows", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (*n)
            memcpy(grown, *v, *n * sizeof *grown);
        qp_free(*v);
        *v = grown;
    }
    (*v)[(*n)++] = i;
    return 0;
}

static int split(struct qp_mc_task *t, struct qp_err *err)
{
    size_t held = (size_t)t->spec.holdout, n_eval = t->eval.n - held;
    struct leaf *l;
    for (size_t i = 0; i < n_eval; i++)
        if (!(l = leaf_of(t, t->eval.v[i].group, err)) || add_index(&l->eval, &l->n_eval, i, err))
            return QP_E_RESOURCE;
    const struct qp_mc_rows *pool = t->own_pool ? &t->shots : &t->eval;
    size_t n_leaves = t->n_leaves;
    for (size_t i = held && !t->own_pool ? n_eval : 0; i < pool->n && t->spec.n_shots; i++) {
        l = leaf_of(t, pool->v[i].group, err);
        if (!l || add_index(&l->pool, &l->n_pool, i, err))
            return QP_E_RESOURCE;
    }
    for (size_t k = n_leaves; k < t->n_leaves; k++) /* examples of a subject without questions */
        qp_free(t->leaves[k].pool);
    t->n_leaves = n_leaves;
    return 0;
}

/* ---- which questions, and their examples ---- */

static size_t limited(const struct qp_mc_task *t, size_t n)
{
    double limit = t->options.limit, keep = limit < 0 ? (double)n : limit < 1 ? ceil(limit * (double)n) : floor(limit);
    return keep < (double)n ? (size_t)keep : n;
}

static const json_t *pool_row(const struct qp_mc_task *t, const struct leaf *l, uint32_t i)
{
    return (t->own_pool ? t->shots.v : t->eval.v)[l->pool[i]].doc;
}

/* Of candidates, the first n_shots that do not equal the question; returns how many there are. */
static int64_t without(const struct qp_mc_task *t, const struct leaf *l, const json_t *doc, const uint32_t *candidates, uint32_t n, uint32_t *out)
{
    int64_t kept = 0;
    for (uint32_t i = 0; i < n && kept < t->spec.n_shots; i++)
        if (!t->spec.excludes || !json_equal(pool_row(t, l, candidates[i]), doc))
            out[kept++] = candidates[i];
    return kept;
}

static int too_few(const struct qp_mc_task *t, const struct leaf *l, struct qp_err *err)
{
    return qp_err_set(err, QP_E_INPUT, "task '%s'%s%s: %" PRId64 " examples wanted, %zu rows to draw from", t->spec.name, l->group ? ", " : "", l->group ? l->group : "",
                      t->spec.n_shots, l->n_pool);
}

/* Copies of the question among the drawn ones have left too few: another draw from all that differ. */
static int draw_again(const struct qp_mc_task *t, const struct leaf *l, const json_t *doc, struct qp_pyrandom *rng, uint32_t *out, struct qp_err *err)
{
    uint32_t *differ = qp_alloc_n(l->n_pool, sizeof *differ, "examples", err), n = 0;
    if (!differ)
        return QP_E_RESOURCE;
    for (uint32_t i = 0; i < l->n_pool; i++)
        if (!json_equal(pool_row(t, l, i), doc))
            differ[n++] = i;
    int r = n < t->spec.n_shots ? too_few(t, l, err) : qp_pyrandom_sample(rng, n, (uint32_t)t->spec.n_shots, out, err);
    for (int64_t i = 0; i < t->spec.n_shots && !r; i++)
        out[i] = differ[out[i]];
    qp_free(differ);
    return r;
}

static int draw(const struct qp_mc_task *t, const struct leaf *l, const json_t *doc, struct qp_pyrandom *rng, uint32_t *candidates, uint32_t *out, struct qp_err *err)
{
    uint32_t k = (uint32_t)t->spec.n_shots + t->spec.excludes;
    if (t->spec.first_n) {
        k = (uint32_t)l->n_pool;
        for (uint32_t i = 0; i < k; i++)
            candidates[i] = i;
        return without(t, l, doc, candidates, k, out) < t->spec.n_shots ? too_few(t, l, err) : 0;
    }
    if (k > l->n_pool)
        return too_few(t, l, err);
    if (qp_pyrandom_sample(rng, (uint32_t)l->n_pool, k, candidates, err))
        return err->code;
    return without(t, l, doc, candidates, k, out) < t->spec.n_shots ? draw_again(t, l, doc, rng, out, err) : 0;
}

static void add_doc(struct qp_mc_task *t, size_t leaf, size_t d, const uint32_t *shots)
{
    const struct qp_mc_row *row = &t->eval.v[t->leaves[leaf].eval[d]];
    const json_t *id = t->spec.id ? qp_mc_field(row->doc, t->spec.id) : NULL;
    if (t->spec.n_shots)
        memcpy(t->drawn + t->n_docs * (size_t)t->spec.n_shots, shots, (size_t)t->spec.n_shots * sizeof *shots);
    t->docs[t->n_docs++] = (struct qp_mc_doc){.i = (int64_t)t->leaves[leaf].eval[d], .doc_id = (int64_t)d, .leaf = leaf, .group = row->group, .id = json_string_value(id),
                                              .path = t->files.v[row->file].path, .line = row->line};
}

static int choose(struct qp_mc_task *t, struct qp_err *err)
{
    size_t n = 0, widest = 1, at = 0, shots = (size_t)t->spec.n_shots;
    for (size_t l = 0; l < t->n_leaves; l++) {
        n += limited(t, t->leaves[l].n_eval);
        widest = t->leaves[l].n_pool > widest ? t->leaves[l].n_pool : widest;
    }
    t->docs = qp_alloc_n(n, sizeof *t->docs, "questions", err);
    t->drawn = qp_alloc_n(n * shots, sizeof *t->drawn, "examples", err);
    uint32_t *candidates = qp_alloc_n(widest + shots + 1, sizeof *candidates, "examples", err), *out = qp_alloc_n(shots + 1, sizeof *out, "examples", err);
    int r = t->docs && t->drawn && candidates && out ? 0 : QP_E_RESOURCE;
    for (size_t l = 0; l < t->n_leaves && !r; l++) {
        struct qp_pyrandom rng;
        qp_pyrandom_seed(&rng, t->options.seed);
        for (size_t d = 0; d < limited(t, t->leaves[l].n_eval) && !r; d++) {
            r = shots ? draw(t, &t->leaves[l], t->eval.v[t->leaves[l].eval[d]].doc, &rng, candidates, out, err) : 0;
            if (!r && (t->options.shards < 2 || (int64_t)(at % (size_t)t->options.shards) == t->options.shard))
                add_doc(t, l, d, out);
            at++;
        }
    }
    qp_free(candidates);
    qp_free(out);
    if (!r && !t->n_docs)
        r = qp_err_set(err, QP_E_INPUT, "task '%s': --limit and --shard leave no question", t->spec.name);
    return r;
}

int qp_mc_task_open(struct qp_mc_task **out, struct qp_mc_spec *spec, const char *dir, const struct qp_mc_options *o, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = NULL;
    struct qp_mc_task *t = qp_zalloc(sizeof *t, "task", err);
    if (!t) {
        qp_mc_spec_release(spec);
        return QP_E_RESOURCE;
    }
    t->spec = *spec;
    *spec = (struct qp_mc_spec){0};
    t->options = *o;
    t->options.seed = o->seed ? o->seed : QP_MC_SEED;
    if (o->n_shots >= 0)
        t->spec.n_shots = o->n_shots;
    if (o->sampler != QP_MC_SAMPLER_TASK)
        t->spec.first_n = o->sampler == QP_MC_SAMPLER_FIRST_N;
    int r = load(t, dir, err);
    r = r ? r : split(t, err);
    r = r ? r : choose(t, err);
    if (r)
        qp_mc_task_free(t);
    else
        *out = t;
    return r;
}

/* ---- views ---- */

const struct qp_mc_spec *qp_mc_task_spec(const struct qp_mc_task *t)
{
    return &t->spec;
}

const struct qp_mc_options *qp_mc_task_options(const struct qp_mc_task *t)
{
    return &t->options;
}

size_t qp_mc_task_count(const struct qp_mc_task *t)
{
    return t->n_docs;
}

const struct qp_mc_doc *qp_mc_task_doc(const struct qp_mc_task *t, size_t i)
{
    return &t->docs[i];
}

size_t qp_mc_task_leaves(const struct qp_mc_task *t)
{
    return t->n_leaves;
}

const char *qp_mc_task_leaf_group(const struct qp_mc_task *t, size_t leaf)
{
    return t->leaves[leaf].group;
}

int64_t qp_mc_task_total(const struct qp_mc_task *t, size_t leaf)
{
    return (int64_t)(leaf == SIZE_MAX ? t->eval.n - (size_t)t->spec.holdout : t->leaves[leaf].n_eval);
}

const json_t *qp_mc_task_row(const struct qp_mc_task *t, size_t i)
{
    return t->eval.v[t->docs[i].i].doc;
}

const uint32_t *qp_mc_task_shots(const struct qp_mc_task *t, size_t i, size_t *n)
{
    *n = (size_t)t->spec.n_shots;
    return t->drawn + i * *n;
}

size_t qp_mc_task_n_files(const struct qp_mc_task *t)
{
    return t->files.n;
}

const struct qp_mc_file *qp_mc_task_file(const struct qp_mc_task *t, size_t i)
{
    return &t->files.v[i];
}

/* ---- prompts ---- */

void qp_mc_prompt_release(struct qp_mc_prompt *p)
{
    qp_buf_release(&p->text);
    *p = (struct qp_mc_prompt){0};
}

/* An example: its question, or its sentence filled with the right option, and the right answer. */
static int add_example(struct qp_buf *out, const struct qp_mc_spec *s, const json_t *doc, struct qp_mc_prompt *scratch, struct qp_err *err)
{
    qp_buf_clear(&scratch->text);
    if (qp_mc_row_render(s, doc, scratch, err))
        return err->code;
    qp_buf_adds(out, scratch->text.data + scratch->own[scratch->gold]);
    qp_buf_adds(out, s->delimiter);
    qp_buf_adds(out, scratch->text.data + scratch->target);
    qp_buf_adds(out, s->shot_delimiter);
    return 0;
}

/* Description and examples. */
static int add_before(struct qp_buf *out, const struct qp_mc_task *t, size_t i, struct qp_err *err)
{
    const struct leaf *l = &t->leaves[t->docs[i].leaf];
    const uint32_t *shots = t->drawn + i * (size_t)t->spec.n_shots;
    struct qp_mc_prompt scratch = {0};
    int r = t->spec.description ? qp_mc_render(t->spec.description, qp_mc_task_row(t, i), out, err) : 0;
    for (int64_t k = 0; k < t->spec.n_shots && !r; k++)
        r = add_example(out, &t->spec, pool_row(t, l, shots[k]), &scratch, err);
    qp_mc_prompt_release(&scratch);
    return r ? r : qp_buf_check(out, err);
}

static size_t join(struct qp_buf *text, const char *before, const char *after)
{
    size_t at = text->len;
    qp_buf_adds(text, before);
    qp_buf_adds(text, after);
    qp_buf_add(text, "", 1);
    return at;
}

int qp_mc_prompt_make(struct qp_mc_prompt *p, const struct qp_mc_task *t, size_t i, struct qp_err *err)
{
    struct qp_buf before = QP_BUF_INIT;
    struct qp_mc_prompt row = {0};
    qp_buf_clear(&p->text);
    int r = add_before(&before, t, i, err);
    r = r ? r : qp_mc_row_render(&t->spec, qp_mc_task_row(t, i), &row, err);
    if (r) {
        qp_buf_release(&before);
        qp_mc_prompt_release(&row);
        return qp_err_context(err, "'%s' line %" PRId64, t->docs[i].path, t->docs[i].line);
    }
    const char *first = before.data ? before.data : "", *text = row.text.data;
    p->n = row.n;
    p->gold = row.gold;
    for (int c = 0; c < row.n; c++) {
        bool shared = c && row.own[c] == row.own[0]; /* all choices follow one context */
        p->context[c] = shared ? p->context[0] : join(&p->text, first, text + row.own[c]);
        p->own[c] = p->context[c] + before.len;
        p->continuation[c] = join(&p->text, t->spec.delimiter, text + (t->spec.blank ? row.target : row.choice[c]));
        p->choice[c] = join(&p->text, text + row.choice[c], "");
    }
    p->target = join(&p->text, text + row.target, "");
    qp_buf_release(&before);
    qp_mc_prompt_release(&row);
    return qp_buf_check(&p->text, err);
}
