/* What qlat's files share: options, the shapes to measure, and what was measured. */
#ifndef QP_TOOLS_QLAT_H
#define QP_TOOLS_QLAT_H

#include <jansson.h>

#include "eval/latency_sweep.h"
#include "model/model_set.h"
#include "stats/quantiles.h"
#include "stream/tool.h"

#define QLAT_MAX_MODELS 64
#define QLAT_MAX_LIST 32
#define QLAT_CONFIDENCE 0.95
#define QLAT_TAG 64

struct qlat_list {
    int64_t v[QLAT_MAX_LIST], to[QLAT_MAX_LIST]; /* to: of a range, else as v */
    int n;
};

struct qlat_prompt {
    char *text;
    int64_t tokens; /* by the first model's tokenizer */
};

struct qlat_spread {
    int64_t least, most, total;
    double median;
};

struct qlat {
    const char *model, *batch_text, *prompt_len_text, *new_text, *depth_text, *kv_text, *prompt_path, *llama_path;
    int64_t requests, cache, warmup, runs, seed;
    double seconds, memory_limit_mb;
    int compute;
    bool pin, one_by_one, measure_limits;

    struct qp_model_set *models;
    struct qp_sweep_model list[QLAT_MAX_MODELS];
    size_t n_models;
    struct qlat_list batches, prompt_lens, new_lens, depths, kvs; /* new_lens: one; kvs: of qp_kv_choices */
    struct qlat_prompt *prompts; /* of --prompt, as many as a run takes at most */
    size_t n_prompts, prompts_cap;
    const char **texts;          /* [n_prompts] theirs */
    int64_t *prompt_tokens, *new_tokens; /* [prompts of a run] of the shape that qlat_shape gave last */
    double *sorted;              /* [prompts of a run] scratch */
    struct qlat_spread of_prompts, of_answers;
    double limits[QP_LIMIT_COUNT];
    char cpu[128], governor[32];
    struct qp_tool_run *run;
    json_t *llama;          /* array of llama-bench's objects */
    int64_t steps_done, steps; /* progress: requests of this shape */
    char tag[QLAT_TAG];     /* of this shape: "bs8", "bs8-d1024-int8" */
};

/* ---- plan.c ---- */
/* Reads the lists of the options; QP_E_USAGE names the option. */
int qlat_parse_lists(struct qlat *a, struct qp_err *err) QP_MUST_USE;
/* Prompts of a run at most: --requests, or the greatest number of --batch. */
int64_t qlat_most_prompts(const struct qlat *a);
/* The shapes in order, batches fastest, and the part of a metric's name that tells them apart (a->tag): batch always; depth and KV type where one was asked
 * for; prompt length where several were; requests that are queued. The shape borrows a's lengths, until the next call. False after the last. */
bool qlat_shape(struct qlat *a, int i, struct qp_latency_shape *out);

/* ---- prompts.c ---- */
/* Reads --prompt, if any, and makes room for the lengths of a shape. */
int qlat_read_prompts(struct qlat *a, struct qp_err *err) QP_MUST_USE;
/* Lengths of n prompts and their answers into a->prompt_tokens, a->new_tokens and their spreads. Answers, and prompts without texts, are spread evenly over
 * their range, in an order by seed where they queue. Texts have their own lengths, those that are longer than least cut to it (0: none is), and all are of
 * that length where no text has as many: the child says so. */
void qlat_lengths(struct qlat *a, int64_t n, int64_t least, int64_t most);
void qlat_release_prompts(struct qlat *a);

/* ---- run.c ---- */
int qlat_measure(struct qlat *a);

/* ---- figures.c ---- */
struct qlat_series {
    const char *name, *unit;
    bool higher;  /* is better: a throughput */
    bool steps;   /* values are steps or requests within runs, not runs */
    bool seq;     /* of one sequence: the batch's, divided */
    bool shown;   /* in the lines for people */
    bool queued;  /* of requests that queue for the batch */
    bool either;  /* of those, too */
    bool decode;  /* needs two new tokens or more */
    bool prefill; /* its limit has the prefill's work; decode: that of the steps */
};
extern const struct qlat_series qlat_series[];
#define QLAT_SERIES 11
bool qlat_has(const struct qlat_series *s, const struct qp_latency_shape *shape);
const char *qlat_of(const struct qlat_series *s); /* what its values are of: "runs", "steps", "requests" */
/* One value for each run (of steps: the mean of each), in the series' unit. */
void qlat_values(const struct qlat_series *s, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape, double *out);
/* What the machine's limits allow, in the series' unit, and which of them binds; 0: unknown. */
double qlat_limit(const struct qlat_series *s, const struct qlat *a, const struct qp_sweep_outcome *o, const struct qp_latency_shape *shape, bool *memory);
struct qlat_point {
    const char *name; /* "p50" */
    double q;
};
/* The quantiles that are reported: p50, p90, p95, p99, of throughputs p50 and p5. Returns how many. */
size_t qlat_points(const struct qlat_series *s, const struct qlat_point **out);

/* ---- report.c ---- */
int qlat_report(struct qlat *a, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *out, const struct qp_sweep_setting *setting);
/* ---- lines.c: for people, on standard error ---- */
void qlat_print_machine(const struct qlat *a);
void qlat_print(const struct qlat *a, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *out, const struct qp_sweep_setting *setting);
/* ---- llama_bench.c ---- */
int qlat_llama_add(struct qlat *a, size_t model, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *o);
int qlat_llama_write(struct qlat *a);

#endif
