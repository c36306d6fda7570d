/* The messages between latency_sweep.c and its children. Private to eval/: both sides are one binary, so structs travel as they are. */
#ifndef QP_EVAL_LATENCY_CHILD_H
#define QP_EVAL_LATENCY_CHILD_H

#include "eval/latency_sweep.h"

enum {
    QP_SAY_RUN,    /* to the child: one request */
    QP_SAY_FINISH, /* to the child: send the facts and end */
    QP_SAY_READY,  /* from the child: loaded; struct qp_sweep_facts as far as they are known */
    QP_SAY_DONE,   /* struct qp_latency_run and the steps */
    QP_SAY_FACTS,  /* struct qp_sweep_facts, whole */
    QP_SAY_ERROR   /* struct qp_err */
};

struct qp_latency_job {
    const struct qp_sweep_model *models;
    size_t model;
    const struct qp_latency_shape *shape;
    const struct qp_sweep_options *options;
};
/* A qp_child_fn over a struct qp_latency_job. */
void qp_latency_serve(void *job, int from, int to);

#endif
