/* Items of runs before: of a file that a run has written, cut off or not, and of the cache of baselines. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "qmc.h"

static int by_key(const void *x, const void *y)
{
    const struct qp_item *a = x, *b = y;
    int c = strcmp(a->key, b->key);
    return c ? c : a->i < b->i ? -1 : a->i > b->i;
}

const struct qp_item *qmc_find_known(const struct qmc *a, const char *key, int64_t i)
{
    struct qp_item want = {.key = key, .i = i};
    return a->known.n ? bsearch(&want, a->known.v, a->known.n, sizeof want, by_key) : NULL;
}

/* Items that have a key. A stream that ends early has them, too. */
static int read_items(struct qp_items *out, const char *path, bool whole, struct qp_err *err)
{
    struct qp_reader *rd;
    struct qp_record rec;
    struct qp_err cut = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC), r;
    if (fd < 0)
        return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
    if (!(r = qp_reader_new(&rd, fd, path, err))) {
        while ((r = qp_reader_next(rd, &rec, &cut)) == 1) {
            const char *key = NULL;
            if (!qp_record_is(&rec, "item"))
                continue;
            if (qp_record_str(&rec, "key", &key, err) < 0 || (key && qp_items_read(out, &rec, err))) {
                r = qp_err_context(err, "'%s'", path);
                break;
            }
        }
        qp_reader_free(rd);
    }
    close(fd);
    if (err->code)
        return err->code;
    return r < 0 && whole ? qp_err_set(err, cut.code, "%s", cut.text) : 0;
}

static void cache_path(const struct qmc *a, const char *key, char out[4096])
{
    snprintf(out, 4096, "%.4000s/qmc-%s.qp", a->cache, key);
}

int qmc_read_known(struct qmc *a, struct qp_tool_run *run)
{
    char path[4096];
    size_t before;
    if (a->resume && read_items(&a->known, a->resume, false, &run->err))
        return run->err.code;
    before = a->known.n;
    if (a->resume && !run->quiet)
        fprintf(stderr, "qmc: %zu items in '%s'\n", before, a->resume);
    for (size_t m = 0; a->cache && m < a->n_models; m++)
        for (size_t k = 0; k < a->n_tasks && !a->m[m].base; k++) {
            cache_path(a, a->task[k].key[m], path);
            if (!access(path, F_OK) && read_items(&a->known, path, true, &run->err))
                return run->err.code;
        }
    if (a->cache && !run->quiet)
        fprintf(stderr, "qmc: %zu items in the cache\n", a->known.n - before);
    if (a->known.n)
        qsort(a->known.v, a->known.n, sizeof *a->known.v, by_key);
    return 0;
}

/* All that is known of one key, as a stream of its own: this run's items, and what an earlier run with other limits has left. */
static void write_items(struct qmc *a, const struct qmc_task *t, const char *key, bool *written, struct qp_writer *w)
{
    int64_t total = qp_mc_task_total(t->t, SIZE_MAX);
    const struct qp_items *const lists[] = {&a->items, &a->known};
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->n; i++) {
            const struct qp_item *it = &lists[l]->v[i];
            if (strcmp(it->key, key) || it->i < 0 || it->i >= total || written[it->i])
                continue;
            written[it->i] = true;
            qp_item_write(w, it);
        }
}

static int write_file(struct qmc *a, const struct qmc_task *t, const char *key, struct qp_err *err)
{
    char path[4096], *argv[] = {"qmc", NULL};
    struct qp_outfile out;
    struct qp_writer *w;
    bool *written = qp_zalloc((size_t)qp_mc_task_total(t->t, SIZE_MAX), "items", err);
    cache_path(a, key, path);
    if (!written || qp_outfile_open(&out, path, err)) {
        qp_free(written);
        return err->code;
    }
    int r = qp_writer_new(&w, fileno(out.file), err);
    if (!r) {
        qp_w_head(w, "qmc", 1, argv, a->seed);
        write_items(a, t, key, written, w);
        qp_w_tail(w, "qmc", "ok");
        r = qp_writer_flush(w, err);
        qp_writer_free(w);
    }
    qp_free(written);
    if (!r)
        return qp_outfile_commit(&out, err);
    qp_outfile_abort(&out);
    return r;
}

int qmc_write_cache(struct qmc *a, struct qp_err *err)
{
    if (!a->fresh)
        return 0;
    if (mkdir(a->cache, 0777) && access(a->cache, W_OK))
        return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", a->cache);
    for (size_t m = 0; m < a->n_models; m++)
        for (size_t k = 0; k < a->n_tasks && !a->m[m].base; k++)
            if (write_file(a, &a->task[k], a->task[k].key[m], err))
                return err->code;
    return 0;
}
