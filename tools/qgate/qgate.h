/* What qgate's files share. */
#ifndef QP_TOOLS_QGATE_H
#define QP_TOOLS_QGATE_H

#include "eval/history.h"
#include "stream/tool.h"

#define QGATE_MAX_MODELS 64
#define QGATE_MAX_CHAIN 64

struct qgate_model {
    char *id, *base;
    bool quantized, judged;
    struct qp_verdict verdict;
};

struct qgate {
    const char *json, *junit, *history_path, *gate_path;
    int64_t show;
    char gate_sha[65];
    struct qp_gate gate;
    struct qp_results results;
    struct qgate_model models[QGATE_MAX_MODELS];
    size_t n_models, n_judged;
    struct qp_history *history;
    char chain[QGATE_MAX_CHAIN][17]; /* checksums of the parts that the verdict rests on */
    size_t n_chain;
};

/* The verdict record of one model. */
void qgate_write(const struct qgate *a, const struct qgate_model *m, struct qp_writer *w);
/* PASS, FAIL or UNDECIDED with every check, on standard error; in colour on a terminal without NO_COLOR. */
void qgate_print(const struct qgate *a, const struct qgate_model *m);
int qgate_write_json(const struct qgate *a, const char *path, struct qp_err *err);
int qgate_write_junit(const struct qgate *a, const char *path, struct qp_err *err);

#endif
