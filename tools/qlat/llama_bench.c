/* The runs under the field names of llama.cpp's llama-bench (-o json), for those who track those: for each shape one object for the prompt (n_gen 0) and one
 * for the tokens after the first (n_prompt 0). n_seq, the batch, is ours: llama-bench has one sequence. n_prompt is the mean where lengths differ. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/mem.h"
#include "qlat.h"
#include "stats/stats.h"

static json_t *numbers(const double *v, size_t n, bool whole)
{
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, whole ? json_integer(llround(v[i])) : json_real(v[i]));
    return a;
}

static void set_samples(json_t *o, double *ns, size_t n, double tokens)
{
    double spread = sqrt((double)n);
    struct qp_mean m = qp_mean_of(ns, n);
    json_object_set_new(o, "avg_ns", json_integer(llround(m.mean)));
    json_object_set_new(o, "stddev_ns", json_integer(n > 1 ? llround(m.stderr_ * spread) : 0));
    json_t *samples = numbers(ns, n, true);
    for (size_t i = 0; i < n; i++)
        ns[i] = tokens * 1e9 / ns[i];
    m = qp_mean_of(ns, n);
    json_object_set_new(o, "avg_ts", json_real(m.mean));
    json_object_set_new(o, "stddev_ts", json_real(n > 1 ? m.stderr_ * spread : 0));
    json_object_set_new(o, "samples_ns", samples);
    json_object_set_new(o, "samples_ts", numbers(ns, n, false));
}

static json_t *object(const struct qlat *a, size_t model, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *o)
{
    const struct qp_model *m = a->list[model].model;
    const char *kv = qp_kv_name(o->facts.kv);
    char when[32];
    struct tm tm;
    time_t t = time(NULL);
    gmtime_r(&t, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_pack("{s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:s, s:s, s:i, s:b, s:b, s:I, s:I, s:s}", "build_commit", QP_VERSION, "build_number", 0,
                     "cpu_info", a->cpu, "gpu_info", "", "backends", "quantpipe", "model_filename", qp_model_path(m), "model_type", a->list[model].id, "model_size",
                     (json_int_t)qp_model_bytes(m), "model_n_params", (json_int_t)qp_model_params(m), "n_batch", (json_int_t)QP_ENGINE_BLOCK, "n_ubatch",
                     (json_int_t)QP_ENGINE_BLOCK, "n_threads", o->facts.threads, "type_k", kv, "type_v", kv, "n_gpu_layers", 0, "use_mmap", 1, "embeddings", 0, "n_depth",
                     (json_int_t)shape->depth, "n_seq", (json_int_t)shape->batch, "test_time", when);
}

static void add(struct qlat *a, size_t model, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *o, double *ns, bool decode)
{
    json_t *j = object(a, model, shape, o);
    double tokens = (double)(decode ? shape->batch * o->n_steps : qp_latency_prompt_tokens(shape));
    for (size_t i = 0; i < o->n_runs; i++)
        ns[i] = 1e9 * (decode ? o->runs[i].decode : o->runs[i].prefill);
    json_object_set_new(j, "n_prompt", json_integer(decode ? 0 : llround(tokens / (double)shape->batch)));
    json_object_set_new(j, "n_gen", json_integer(decode ? o->n_steps : 0));
    set_samples(j, ns, o->n_runs, tokens);
    json_array_append_new(a->llama, j);
}

int qlat_llama_add(struct qlat *a, size_t model, const struct qp_latency_shape *shape, const struct qp_sweep_outcome *o)
{
    a->llama = a->llama ? a->llama : json_array();
    if (!o->n_runs || (o->status != QP_SWEEP_OK && o->status != QP_SWEEP_INTERRUPTED))
        return 0;
    double *ns = qp_alloc_n(o->n_runs, sizeof *ns, "figures", &a->run->err);
    if (!ns)
        return QP_E_RESOURCE;
    add(a, model, shape, o, ns, false);
    if (o->n_steps)
        add(a, model, shape, o, ns, true);
    qp_free(ns);
    return 0;
}

int qlat_llama_write(struct qlat *a)
{
    struct qp_outfile f;
    struct qp_err *err = &a->run->err;
    if (qp_outfile_open(&f, a->llama_path, err))
        return err->code;
    if (json_dumpf(a->llama, f.file, JSON_INDENT(2) | JSON_PRESERVE_ORDER) || fputc('\n', f.file) == EOF) {
        qp_outfile_abort(&f);
        return qp_err_set(err, QP_E_RESOURCE, "cannot write '%s'", a->llama_path);
    }
    return qp_outfile_commit(&f, err);
}
