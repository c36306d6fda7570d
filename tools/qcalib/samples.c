/* The sample records: shuffled by seed, each with the hashes by which evaluators recognize its text. */
#include <inttypes.h>
#include <stdio.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "qcalib.h"

static void shuffle(struct qcalib *c)
{
    struct qp_rng rng = qp_rng_seed((uint64_t)c->seed);
    for (int64_t i = c->n_picked - 1; i > 0; i--) { /* Fisher-Yates */
        int64_t k = qp_rng_below(&rng, (uint32_t)i + 1);
        struct qcalib_sample s = c->picked[i];
        c->picked[i] = c->picked[k];
        c->picked[k] = s;
    }
}

static void write_sample(const struct qcalib *c, struct qp_writer *w, int64_t i, uint64_t *runs)
{
    const struct qcalib_sample *s = &c->picked[i];
    const int32_t *ids = s->source->ids.v + s->at;
    size_t n = 0, len = (size_t)c->seq_len;
    char hash[17];
    for (; n + QP_NGRAM <= len; n++)
        runs[n] = qp_ngram_hash(ids + n);
    snprintf(hash, sizeof hash, "%016" PRIx64, qp_xxh64(ids, len * sizeof *ids));
    qp_w_begin(w, "sample");
    qp_w_i64(w, "i", i);
    qp_w_str(w, "source", s->source->path);
    qp_w_str(w, "kind", s->source->kind == QCALIB_GENERAL ? "general" : "domain");
    qp_w_bin(w, "ids", ids, len * sizeof *ids);
    qp_w_str(w, "hash", hash);
    qp_w_bin(w, "ngrams", runs, n * sizeof *runs);
    qp_w_end(w);
}

int qcalib_write(struct qcalib *c, struct qp_tool_run *run)
{
    uint64_t *runs = qp_alloc_n((size_t)c->seq_len, sizeof *runs, "token runs", &run->err);
    if (!runs)
        return QP_E_RESOURCE;
    shuffle(c);
    for (int64_t i = 0; i < c->n_picked; i++)
        write_sample(c, run->out, i, runs);
    qp_free(runs);
    return qp_writer_check(run->out, &run->err);
}
