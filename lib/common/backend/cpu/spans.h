/* A call over several spans as one loop: the tasks of all spans under one running number, so that threads share them evenly however long each span is.
 *
 *     qp_span_tasks_init(&t, spans);
 *     for (int i = 0; i < n; i++)
 *         qp_span_tasks_add(&t, tasks of span i);
 *     qp_pool_for(pool, qp_span_tasks_count(&t), 1, fn, ...);   // in fn, for each task of [begin, end): qp_span_task_at(&t, task)
 */
#ifndef QP_BACKEND_CPU_SPANS_H
#define QP_BACKEND_CPU_SPANS_H

#include "backend/ops.h"

struct qp_span_tasks {
    const struct qp_attn_span *spans;
    int n;
    int64_t first[QP_ATTN_SPANS + 1]; /* span i has the tasks [first[i], first[i + 1]) */
};

struct qp_span_task {
    const struct qp_attn_span *span;
    int64_t i; /* which one of the span's tasks */
};

static inline void qp_span_tasks_init(struct qp_span_tasks *t, const struct qp_attn_span *spans)
{
    t->spans = spans;
    t->n = 0;
    t->first[0] = 0;
}

static inline void qp_span_tasks_add(struct qp_span_tasks *t, int64_t tasks)
{
    t->first[t->n + 1] = t->first[t->n] + tasks;
    t->n++;
}

static inline int64_t qp_span_tasks_count(const struct qp_span_tasks *t)
{
    return t->first[t->n];
}

static inline struct qp_span_task qp_span_task_at(const struct qp_span_tasks *t, int64_t task)
{
    int i = 0, above = t->n; /* first[i] <= task < first[above] */
    while (above - i > 1) {
        int middle = (i + above) / 2;
        if (t->first[middle] <= task)
            i = middle;
        else
            above = middle;
    }
    return (struct qp_span_task){&t->spans[i], task - t->first[i]};
}

/* Storing: a task is what a span has of 64 positions that begin at a multiple of 64, so that two threads write to no cache line of a panel in common. */
#define QP_STORE_POSITIONS 64

static inline int64_t qp_span_store_tasks(const struct qp_attn_span *s)
{
    return s->T > 0 ? (s->pos0 + s->T - 1) / QP_STORE_POSITIONS - s->pos0 / QP_STORE_POSITIONS + 1 : 0;
}

/* Its positions: [*pos, *end). */
static inline void qp_span_store_range(struct qp_span_task t, int64_t *pos, int64_t *end)
{
    const struct qp_attn_span *s = t.span;
    *pos = (s->pos0 / QP_STORE_POSITIONS + t.i) * QP_STORE_POSITIONS;
    *end = *pos + QP_STORE_POSITIONS;
    *pos = *pos > s->pos0 ? *pos : s->pos0;
    *end = *end < s->pos0 + s->T ? *end : s->pos0 + s->T;
}

#endif
