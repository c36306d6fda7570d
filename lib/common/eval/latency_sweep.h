/* One shape of request measured on several models, each in a child process of its own, run by run in turns (A B A B): what slows the machine down meanwhile
 * slows all of them, so that runs pair up. A child's memory is the model's alone; one that dies for want of it is an outcome, not an error.
 *
 *     struct qp_sweep_outcome out[2] = {0};
 *     qp_sweep_run(out, &setting, models, 2, &shape, &options, &err);
 *     out[i].status, out[i].runs[r].first, out[i].facts.peak
 *     qp_sweep_release(out, 2);
 */
#ifndef QP_EVAL_LATENCY_SWEEP_H
#define QP_EVAL_LATENCY_SWEEP_H

#include "base/machine.h"
#include "eval/latency.h"

struct qp_sweep_model {
    const char *id;
    struct qp_model *model;
};

struct qp_sweep_options {
    int64_t warmup, runs; /* requests thrown away, requests that count */
    double seconds;       /* go on for so long at least */
    uint64_t seed;        /* of synthetic prompts */
    struct qp_latency_prompts prompts;
    const char *backend;  /* as --backend */
    int threads;          /* 0: all */
    int compute;          /* of qp_compute_choices */
    bool pin;             /* tie threads to processors */
    bool in_turns;        /* false: one model after the other; the runs do not pair up then */
    size_t memory_limit;  /* address space of each child, bytes; 0: none */
    void (*keep)(void *ctx, size_t model);                             /* in the child, first of all: lets go of the other models. May be NULL */
    void (*tick)(void *ctx, size_t model, int64_t round, bool counts); /* in the parent, after each request. May be NULL */
    bool (*stop)(void);                                                /* true: end with the runs so far. May be NULL */
    void *ctx;
};

enum qp_sweep_status {
    QP_SWEEP_OK,
    QP_SWEEP_INTERRUPTED, /* fewer runs than asked for */
    QP_SWEEP_NO_MEMORY,   /* an allocation was refused, more is needed than there is, or the system killed the child */
    QP_SWEEP_FAILED,      /* the shape does not fit the model, or an error */
    QP_SWEEP_SKIPPED      /* by the caller */
};
const char *qp_sweep_status_name(enum qp_sweep_status s); /* "ok", "interrupted", "out_of_memory", "failed", "skipped" */

/* What the child found out. */
struct qp_sweep_facts {
    enum qp_compute compute;
    enum qp_kv kv;
    char isa[24];
    int threads;
    size_t weights, scratch; /* bytes: packed weights; activations and scratch of the ops */
    struct qp_latency_kv cache;
    size_t load_peak;        /* resident bytes at most while the model was loaded */
    size_t peak;             /* resident bytes at most from then on: while requests ran */
    bool peak_is_runs;       /* false: the system could not start the peak again, and it covers loading, too */
    size_t anonymous, file;  /* resident at the end: the process's own, pages of mapped files */
    bool has_device;
    struct qp_device_memory device;
    struct qp_work prefill, decode; /* of a batch in step; else 0 */
};

struct qp_sweep_outcome {
    enum qp_sweep_status status;
    int code;         /* QP_E_* of what went wrong, 0 where nothing did */
    char reason[512]; /* and why */
    size_t n_runs, cap;
    int64_t n_steps;  /* of a run: qp_latency_steps */
    struct qp_latency_run *runs; /* [n_runs], in order */
    double *steps;    /* [n_runs, n_steps] */
    struct qp_sweep_facts facts; /* of a child that was interrupted within a request, as they were before the first one */
};

/* What the machine did meanwhile. */
struct qp_sweep_setting {
    struct qp_activity before, after;
    double steal, others;                     /* shares of all processors' time, 0 to 1; NaN: unknown */
    double clock_first, clock_last, clock_min, clock_max; /* qp_spin_rate before, after, and over all rounds */
    int64_t rounds;                           /* that counted */
};

/* Runs the models whose outcome's status is OK on entry (zero-initialize) and that the shape fits; the others are left as they are, or FAILED. Errors are
 * outcomes; returns an error only where the parent itself cannot go on. The calling process may have no other threads. */
int qp_sweep_run(struct qp_sweep_outcome *out, struct qp_sweep_setting *setting, const struct qp_sweep_model *models, size_t n,
                 const struct qp_latency_shape *shape, const struct qp_sweep_options *o, struct qp_err *err) QP_MUST_USE;
void qp_sweep_release(struct qp_sweep_outcome *out, size_t n);

/* What casts doubt on the figures, one line each: a speed that moved by more than 5 %, other programs with more than 5 % of the processors' time, more than
 * 1 % stolen by the host. Returns how many. */
#define QP_SWEEP_FLAGS 3
size_t qp_sweep_flags(const struct qp_sweep_setting *s, char flags[QP_SWEEP_FLAGS][96]);

#endif
