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

struct qlat {
    const char *model, *batch_text, *prompt_len_text, *depth_text, *kv_text, *prompt_path, *llama_path;
    int64_t new_tokens, cache, warmup, runs, seed;
    double seconds, memory_limit_mb;
    int compute;
    bool pin, one_by_one, measure_limits;

    struct qp_model_set *models;
    struct qp_sweep_model list[QLAT_MAX_MODELS];
    size_t n_models;
    struct qlat_list batches, prompt_lens, depths, kvs; /* kvs: of qp_kv_choices */
    struct qlat_prompt *prompts; /* of --prompt, as many as the greatest batch takes */
    size_t n_prompts, prompts_cap;
    const char **texts;          /* [n_prompts] theirs */
    int64_t *lens;               /* [greatest batch] of the shape that qlat_shape gave last */
    double *sorted;              /* [greatest batch] the same, ascending */
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
/* The greatest number of --batch. */
int64_t qlat_greatest_batch(const struct qlat *a);
/* The shapes in order, batches fastest, and the part of a metric's name that tells them apart (a->tag): batch always; depth and KV type where one was asked
 * for; prompt length where several were. The shape borrows a->lens, until the next call. False after the last. */
bool qlat_shape(struct qlat *a, int i, struct qp_latency_shape *out);

/* ---- prompts.c ---- */
/* Reads --prompt, if any, and makes room for the lengths of a shape. */
int qlat_read_prompts(struct qlat *a, struct qp_err *err) QP_MUST_USE;
/* a->lens and a->sorted of so many sequences. Without texts spread evenly from least to most; else the texts' own, those that are longer cut to least (0:
 * none is), and all of that length where no text has as many: the child says so. */
void qlat_lengths(struct qlat *a, int64_t batch, int64_t least, int64_t most);
bool qlat_same_lengths(const struct qlat *a, const struct qp_latency_shape *s);
double qlat_median_length(const struct qlat *a, const struct qp_latency_shape *s);
void qlat_release_prompts(struct qlat *a);

/* ---- run.c ---- */
int qlat_measure(struct qlat *a);

/* ---- figures.c ---- */
struct qlat_series {
    const char *name, *unit;
    bool higher;  /* is better: a throughput */
    bool steps;   /* values are steps within runs, not runs */
    bool decode;  /* needs two new tokens or more */
    bool prefill; /* its limit has the prefill's work; decode: that of the steps */
};
extern const struct qlat_series qlat_series[];
#define QLAT_SERIES 7
/* One value for each run (of steps: the mean step of each), in the series' unit. */
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
