#include "text/ngram.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

uint64_t qp_ngram_hash(const int32_t *ids)
{
    return qp_xxh64(ids, QP_NGRAM * sizeof *ids);
}

void qp_ngrams_release(struct qp_ngrams *s)
{
    free(s->v);
    *s = (struct qp_ngrams){0};
}

int qp_ngrams_add(struct qp_ngrams *s, const uint64_t *hashes, size_t n, struct qp_err *err)
{
    if (s->n + n > s->cap) {
        size_t cap = (s->n + n) * 2;
        uint64_t *grown = realloc(s->v, cap * sizeof *grown);
        if (!grown)
            return qp_err_set(err, QP_E_RESOURCE, "no memory for %zu token runs", cap);
        s->v = grown;
        s->cap = cap;
    }
    if (n)
        memcpy(s->v + s->n, hashes, n * sizeof *hashes);
    s->n += n;
    s->sorted = false;
    return 0;
}

int qp_ngrams_read(struct qp_ngrams *s, const struct qp_record *rec, struct qp_err *err)
{
    const uint8_t *data;
    size_t n;
    int r = qp_record_bin(rec, "ngrams", &data, &n, err);
    if (r < 0 || (r && n % 8))
        return r < 0 ? r : qp_err_set(err, QP_E_INPUT, "sample record: field 'ngrams' is no list of 64-bit hashes");
    return r ? qp_ngrams_add(s, (const uint64_t *)(const void *)data, n / 8, err) : 0;
}

int qp_ngrams_add_ids(struct qp_ngrams *s, const int32_t *ids, size_t n, struct qp_err *err)
{
    for (size_t i = 0; i + QP_NGRAM <= n; i++) {
        uint64_t h = qp_ngram_hash(ids + i);
        if (qp_ngrams_add(s, &h, 1, err))
            return err ? err->code : QP_E_RESOURCE;
    }
    return 0;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void qp_ngrams_sort(struct qp_ngrams *s)
{
    if (s->n)
        qsort(s->v, s->n, sizeof *s->v, ascending);
    s->sorted = true;
}

bool qp_ngrams_has(const struct qp_ngrams *s, uint64_t hash)
{
    return s->n && bsearch(&hash, s->v, s->n, sizeof hash, ascending);
}

int64_t qp_ngrams_find(const struct qp_ngrams *s, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i + QP_NGRAM <= n; i++)
        if (qp_ngrams_has(s, qp_ngram_hash(ids + i)))
            return (int64_t)i;
    return -1;
}
