/* The models of a stream: collects `model` and `tensor` records, opens paths, lays inline quantized weights over their baselines.
 *
 *     qp_model_set_record(set, rec, &err);              // for every record; other types are ignored
 *     qp_model_set_finish(set, &err);                   // at the stream's end
 *     for (i = 0; i < qp_model_set_count(set); i++) qp_model_set_at(set, i)->model ...   // baselines first
 */
#ifndef QP_MODEL_MODEL_SET_H
#define QP_MODEL_MODEL_SET_H

#include <stdbool.h>

#include "model/model.h"
#include "stream/stream.h"

struct qp_model_entry {
    char *id, *role, *base; /* role "baseline" or "quantized"; base: id of the baseline or NULL */
    char *method;           /* NULL: unknown */
    struct qp_model *model; /* owned by the set */
};

struct qp_model_set;
int qp_model_set_new(struct qp_model_set **out, struct qp_err *err) QP_MUST_USE;
void qp_model_set_free(struct qp_model_set *s);
/* Ignores records of other types. Tensor chunks must come in order; sizes are bounded by shape and dtype, and by the baseline's weights. */
int qp_model_set_record(struct qp_model_set *s, const struct qp_record *rec, struct qp_err *err) QP_MUST_USE;
/* A baseline from the command line; its id is the path's last part without ".gguf". */
int qp_model_set_add_path(struct qp_model_set *s, const char *path, struct qp_err *err) QP_MUST_USE;
/* Checks that all inline tensors came whole; at least one model. Puts baselines first, else in the stream's order. */
int qp_model_set_finish(struct qp_model_set *s, struct qp_err *err) QP_MUST_USE;
size_t qp_model_set_count(const struct qp_model_set *s);
const struct qp_model_entry *qp_model_set_at(const struct qp_model_set *s, size_t i);
/* Lets go of every model but the ith (and what it lies over), whose entries stay with model NULL: a process that needs only one. */
void qp_model_set_keep(struct qp_model_set *s, size_t i);

/* id of a baseline at that path, newly allocated (qp_free). */
char *qp_model_id(const char *path, struct qp_err *err) QP_MUST_USE;
/* The baseline's `model` record. */
void qp_model_write_record(struct qp_writer *w, const struct qp_model *m, const char *id);

#endif
