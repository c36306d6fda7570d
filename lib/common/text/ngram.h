/* Runs of 13 tokens, by which calibration and evaluation text are kept apart: a run that both have is contamination.
 * A set holds the hashes of all runs of some token lists; hashes travel in `sample` records (field ngrams, uint64 little-endian). */
#ifndef QP_TEXT_NGRAM_H
#define QP_TEXT_NGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream/stream.h"

#define QP_NGRAM 13

/* XXH64 (seed 0) of the 13 ids as int32 little-endian. */
uint64_t qp_ngram_hash(const int32_t *ids);

struct qp_ngrams { /* zero-initialize */
    uint64_t *v;
    size_t n, cap;
    bool sorted;
};
void qp_ngrams_release(struct qp_ngrams *s);
int qp_ngrams_add(struct qp_ngrams *s, const uint64_t *hashes, size_t n, struct qp_err *err) QP_MUST_USE;
/* Adds the hashes of a `sample` record, if it has any. */
int qp_ngrams_read(struct qp_ngrams *s, const struct qp_record *rec, struct qp_err *err) QP_MUST_USE;
/* Adds every run of ids. */
int qp_ngrams_add_ids(struct qp_ngrams *s, const int32_t *ids, size_t n, struct qp_err *err) QP_MUST_USE;
/* Sorts once all are added; before it qp_ngrams_has may not be called. */
void qp_ngrams_sort(struct qp_ngrams *s);
bool qp_ngrams_has(const struct qp_ngrams *s, uint64_t hash);
/* The first i such that ids[i .. i+12] is in the set, or -1. */
int64_t qp_ngrams_find(const struct qp_ngrams *s, const int32_t *ids, size_t n);

#endif
