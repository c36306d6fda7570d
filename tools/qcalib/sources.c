/* Sources: reading, quotas, windows. */
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "qcalib.h"
#include "text/dataset.h"

#define MAX_TEXT ((size_t)1 << 32)

void qcalib_quotas(int64_t total, const double *weights, int n, int64_t *quota)
{
    double sum = 0;
    int64_t given = 0;
    for (int i = 0; i < n; i++)
        sum += weights[i];
    for (int i = 0; i < n; i++) {
        quota[i] = sum > 0 ? (int64_t)((double)total * weights[i] / sum) : 0;
        given += quota[i];
    }
    for (; given < total && sum > 0; given++) {
        int best = -1;
        double most = -1;
        for (int i = 0; i < n; i++) {
            double left = (double)total * weights[i] / sum - (double)quota[i];
            if (weights[i] > 0 && left > most + 1e-9) {
                most = left;
                best = i;
            }
        }
        quota[best]++;
    }
}

static int tokenize(struct qcalib *c, const char *path, struct qp_ids *ids, int64_t *docs, char sha[65], struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    int r = qp_sha256_file(sha, path, err);
    r = r ? r : qp_dataset_join(path, c->field, "\n\n", MAX_TEXT, &text, docs, err);
    if (!r && !text.len)
        r = qp_err_set(err, QP_E_INPUT, "'%s' holds no text", path);
    if (!r && qp_tokenizer_encode(c->tok, text.data, text.len, 0, ids, err))
        r = qp_err_context(err, "'%s'", path);
    qp_buf_release(&text);
    return r;
}

static void write_source(struct qp_writer *w, const char *role, const char *kind, const char *path, const char *sha, int64_t docs, size_t tokens)
{
    const char *slash = strrchr(path, '/');
    qp_w_begin(w, "source");
    qp_w_str(w, "role", role);
    qp_w_str(w, "kind", kind);
    qp_w_str(w, "name", slash ? slash + 1 : path);
    qp_w_str(w, "path", path);
    qp_w_str(w, "sha256", sha);
    qp_w_i64(w, "docs", docs);
    qp_w_i64(w, "tokens", (int64_t)tokens);
    qp_w_end(w);
}

static int read_excluded(struct qcalib *c, struct qp_tool_run *run)
{
    for (int i = 0; i < c->exclude.n; i++) {
        struct qp_ids ids = {0};
        char sha[65];
        int64_t docs;
        int r = tokenize(c, c->exclude.v[i], &ids, &docs, sha, &run->err);
        r = r ? r : qp_ngrams_add_ids(&c->excluded, ids.v, ids.n, &run->err);
        if (!r)
            write_source(run->out, "exclude", NULL, c->exclude.v[i], sha, docs, ids.n);
        qp_ids_release(&ids);
        if (r)
            return r;
    }
    qp_ngrams_sort(&c->excluded);
    return 0;
}

/* The quota of each kind, then of each file by its share of the kind's windows. */
static int set_quotas(struct qcalib *c, struct qp_err *err)
{
    int64_t kinds[2];
    double share[2] = {c->domain.n ? c->ratio : 1, c->domain.n ? 1 - c->ratio : 0};
    qcalib_quotas(c->samples, share, 2, kinds);
    if (c->general_samples >= 0 || c->domain_samples >= 0) {
        kinds[0] = c->general_samples >= 0 ? c->general_samples : 0;
        kinds[1] = c->domain_samples >= 0 ? c->domain_samples : 0;
    }
    double *weights = qp_alloc_n((size_t)c->n_sources, sizeof *weights, "quotas", err);
    int64_t *quota = qp_alloc_n((size_t)c->n_sources, sizeof *quota, "quotas", err);
    for (int kind = 0; weights && quota && kind < 2; kind++) {
        for (int i = 0; i < c->n_sources; i++)
            weights[i] = (int)c->sources[i].kind == kind ? (double)(c->sources[i].ids.n / (size_t)c->seq_len) + 1e-9 : 0;
        qcalib_quotas(kinds[kind], weights, c->n_sources, quota);
        for (int i = 0; i < c->n_sources; i++)
            if ((int)c->sources[i].kind == kind)
                c->sources[i].quota = quota[i];
    }
    int r = weights && quota ? 0 : QP_E_RESOURCE;
    qp_free(weights);
    qp_free(quota);
    return r;
}

int qcalib_read(struct qcalib *c, struct qp_tool_run *run)
{
    c->n_sources = c->general.n + c->domain.n;
    c->sources = qp_zalloc((size_t)c->n_sources * sizeof *c->sources, "sources", &run->err);
    if (!c->sources)
        return QP_E_RESOURCE;
    if (read_excluded(c, run))
        return run->err.code;
    for (int i = 0; i < c->n_sources; i++) {
        struct qcalib_source *s = &c->sources[i];
        s->kind = i < c->general.n ? QCALIB_GENERAL : QCALIB_DOMAIN;
        s->path = i < c->general.n ? c->general.v[i] : c->domain.v[i - c->general.n];
        if (tokenize(c, s->path, &s->ids, &s->docs, s->sha256, &run->err))
            return run->err.code;
    }
    return set_quotas(c, &run->err);
}

static int pick_from(struct qcalib *c, struct qcalib_source *s, struct qp_err *err)
{
    int64_t windows = (int64_t)s->ids.n / c->seq_len;
    for (int64_t w = 0; w < windows && s->taken < s->quota; w++) {
        int64_t at = w * c->seq_len;
        if (c->excluded.n && qp_ngrams_find(&c->excluded, s->ids.v + at, (size_t)c->seq_len) >= 0) {
            s->refused++;
            continue;
        }
        c->picked[c->n_picked++] = (struct qcalib_sample){s, at};
        s->taken++;
    }
    if (s->taken < s->quota)
        return qp_err_set(err, QP_E_INPUT, "'%s' gives %lld samples of %lld tokens, %lld are needed: it has %zu tokens, and %lld of its windows share 13 tokens with --exclude text",
                          s->path, (long long)s->taken, (long long)c->seq_len, (long long)s->quota, s->ids.n, (long long)s->refused);
    return 0;
}

int qcalib_pick(struct qcalib *c, struct qp_tool_run *run)
{
    int64_t total = 0;
    for (int i = 0; i < c->n_sources; i++)
        total += c->sources[i].quota;
    c->picked = qp_alloc_n((size_t)total + 1, sizeof *c->picked, "samples", &run->err);
    if (!c->picked)
        return QP_E_RESOURCE;
    for (int i = 0; i < c->n_sources; i++) {
        struct qcalib_source *s = &c->sources[i];
        if (pick_from(c, s, &run->err))
            return run->err.code;
        const char *kind = s->kind == QCALIB_GENERAL ? "general" : "domain", *slash = strrchr(s->path, '/');
        qp_w_begin(run->out, "source");
        qp_w_str(run->out, "role", "calib");
        qp_w_str(run->out, "kind", kind);
        qp_w_str(run->out, "name", slash ? slash + 1 : s->path);
        qp_w_str(run->out, "path", s->path);
        qp_w_str(run->out, "sha256", s->sha256);
        qp_w_i64(run->out, "docs", s->docs);
        qp_w_i64(run->out, "tokens", (int64_t)s->ids.n);
        qp_w_i64(run->out, "samples", s->taken);
        qp_w_i64(run->out, "refused", s->refused);
        qp_w_end(run->out);
        if (!run->quiet && (c->excluded.n || c->n_sources > 1))
            fprintf(stderr, "qcalib: %s: %lld %s samples of %lld tokens, %lld windows left out (13 tokens shared with --exclude text)\n", s->path, (long long)s->taken, kind,
                    (long long)c->seq_len, (long long)s->refused);
    }
    return 0;
}
