/* Options that name questions; tasks with their data. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qmc.h"

int qmc_parse(struct qmc *a, struct qp_err *err)
{
    struct qp_mc_options *o = &a->options;
    char *end;
    *o = (struct qp_mc_options){.n_shots = a->n_shots, .sampler = (enum qp_mc_sampler)a->sampler, .seed = (uint64_t)a->seed, .limit = -1};
    if (a->limit_text) {
        o->limit = strtod(a->limit_text, &end);
        if (end == a->limit_text || *end || !(o->limit > 0) || !isfinite(o->limit))
            return qp_err_set(err, QP_E_USAGE, "--limit takes a number of questions, or a share below 1, not '%s'", a->limit_text);
    }
    if (qp_tool_shard(a->shard_text, &o->shard, &o->shards, err))
        return err->code;
    return 0;
}

static void write_sources(const struct qp_mc_task *t, struct qp_writer *w)
{
    for (size_t i = 0; i < qp_mc_task_n_files(t); i++) {
        const struct qp_mc_file *f = qp_mc_task_file(t, i);
        qp_w_begin(w, "source");
        qp_w_str(w, "role", f->shots ? "examples" : "eval");
        qp_w_str(w, "name", qp_mc_task_spec(t)->name);
        qp_w_str(w, "path", f->path);
        qp_w_str(w, "sha256", f->sha256);
        qp_w_i64(w, "docs", f->rows);
        qp_w_end(w);
    }
}

static int open_task(struct qmc *a, struct qp_tool_run *run, const char *name)
{
    struct qp_mc_spec spec;
    if (a->n_tasks == QMC_MAX_TASKS)
        return qp_err_set(&run->err, QP_E_USAGE, "--task: more than %d tasks", QMC_MAX_TASKS);
    if (qp_mc_spec_open(&spec, name, &run->err))
        return run->err.code;
    if (!spec.dir && !a->data) {
        qp_mc_spec_release(&spec);
        return qp_err_set(&run->err, QP_E_USAGE, "--data DIR is needed for task '%s': a folder with the data sets (make data brings them)", name);
    }
    for (size_t i = 0; i < a->n_tasks; i++)
        if (!strcmp(qp_mc_task_spec(a->task[i].t)->name, spec.name)) {
            qp_err_set(&run->err, QP_E_USAGE, "--task: '%s' is named twice", spec.name);
            qp_mc_spec_release(&spec);
            return run->err.code;
        }
    if (qp_mc_task_open(&a->task[a->n_tasks].t, &spec, a->data, &a->options, &run->err))
        return run->err.code;
    write_sources(a->task[a->n_tasks++].t, run->out);
    return 0;
}

int qmc_open_tasks(struct qmc *a, struct qp_tool_run *run)
{
    for (const char *p = a->tasks; *p;) {
        char name[4096];
        size_t n = strcspn(p, ",");
        if (!n || n >= sizeof name)
            return qp_err_set(&run->err, QP_E_USAGE, "--task takes names with commas between, not '%s'", a->tasks);
        memcpy(name, p, n);
        name[n] = 0;
        if (open_task(a, run, name))
            return run->err.code;
        p += n + (p[n] == ',');
    }
    return a->n_tasks ? 0 : qp_err_set(&run->err, QP_E_USAGE, "--task takes one name at least");
}
