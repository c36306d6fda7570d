/* What qcalib's files share: sources, quotas, the samples. */
#ifndef QP_TOOLS_QCALIB_H
#define QP_TOOLS_QCALIB_H

#include "stream/tool.h"
#include "text/ngram.h"
#include "text/tokenizer.h"

enum qcalib_kind { QCALIB_GENERAL, QCALIB_DOMAIN };

/* A text file, tokenized whole; its windows are taken in order. */
struct qcalib_source {
    const char *path;
    enum qcalib_kind kind;
    char sha256[65];
    struct qp_ids ids;
    int64_t docs, quota, taken, refused; /* refused: windows that shared a run with an --exclude file */
};

struct qcalib_sample {
    const struct qcalib_source *source;
    int64_t at; /* index of the window's first token in the source */
};

struct qcalib {
    /* options */
    const char *model, *field;
    struct qp_strs general, domain, exclude;
    double ratio;
    int64_t samples, general_samples, domain_samples, seq_len, seed;

    struct qp_model *m;
    struct qp_tokenizer *tok;
    char *id;
    struct qp_ngrams excluded;
    struct qcalib_source *sources;
    int n_sources;
    struct qcalib_sample *picked;
    int64_t n_picked;
};

/* Shares `total` in proportion to the weights, whole numbers by the largest remainder (ties: the earlier). */
void qcalib_quotas(int64_t total, const double *weights, int n, int64_t *quota);
/* Reads and tokenizes the sources and the excluded files, writes their records. */
int qcalib_read(struct qcalib *c, struct qp_tool_run *run);
/* Fills every quota with windows that share no run with the excluded text; an error names the source that runs short. */
int qcalib_pick(struct qcalib *c, struct qp_tool_run *run);
/* Shuffles by seed and writes the sample records. */
int qcalib_write(struct qcalib *c, struct qp_tool_run *run);

#endif
