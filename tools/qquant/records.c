/* The records that qquant appends. Nothing in them depends on time or on the number of threads. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "qquant.h"

static const char *const method_names[] = {"rtn", "gptq", "awq", "awq+gptq", "nf4", "fp4", "int8", "fp8", "none"};

bool qquant_is_gptq(const struct qquant *q)
{
    return q->method == QQUANT_GPTQ || q->method == QQUANT_AWQ_GPTQ;
}

bool qquant_needs_samples(const struct qquant *q)
{
    return qquant_is_gptq(q) || q->method == QQUANT_AWQ;
}

void qquant_name(struct qquant *q)
{
    char format[32];
    qp_format_name(&q->opt.format, format);
    if (q->method == QQUANT_NONE)
        snprintf(q->id, sizeof q->id, "%s-none", q->base_id);
    else if (q->opt.format.id == QP_FMT_INT)
        snprintf(q->id, sizeof q->id, "%s-%s-%s", q->base_id, method_names[q->method], format);
    else
        snprintf(q->id, sizeof q->id, "%s-%s", q->base_id, format);
    if (q->method == QQUANT_NONE)
        return;
    size_t n = strlen(q->id); /* departures from the default recipe */
    if (qquant_is_gptq(q))
        n += (size_t)snprintf(q->id + n, sizeof q->id - n, "%s%s%s", q->group_aware ? "-gar" : !q->act_order ? "-noact" : q->static_groups ? "" : "-act",
                              q->true_sequential ? "" : "-noseq", q->drift > 0 ? "-drift" : "");
    if (q->bpw > 0)
        snprintf(q->id + n, sizeof q->id - n, "-bpw%g", q->bpw);
    else if (q->budget_mb > 0)
        snprintf(q->id + n, sizeof q->id - n, "-%gmb", q->budget_mb);
    else if (q->keep_sensitive)
        snprintf(q->id + n, sizeof q->id - n, "-keep%s", q->keep_sensitive);
    else if (q->n_keeps)
        snprintf(q->id + n, sizeof q->id - n, "-keep");
}

/* Bits per linear weight and bytes of the whole model: known before the work, from the shapes. */
static void sizes(const struct qquant *q, double *bpw, int64_t *bytes)
{
    double bits = 0, weights = 0;
    for (size_t i = 0; i < qp_model_n_linears(q->model); i++) {
        const struct qp_weight *w = qp_model_linear(q->model, i)->weight;
        double n = (double)w->rows * (double)w->cols;
        bits += n * qp_format_bpw(qp_quantize_format(&q->opt, i), w->rows, w->cols);
        weights += n;
    }
    *bpw = q->method == QQUANT_NONE ? qp_model_linear_bpw(q->model) : bits / weights;
    *bytes = q->method == QQUANT_NONE ? qp_model_bytes(q->model)
                                      : qp_model_bytes(q->model) - (int64_t)(qp_model_linear_bpw(q->model) * weights / 8) + (int64_t)(bits / 8);
}

static void write_config(const struct qquant *q, struct qp_writer *w)
{
    const struct qp_layout *layout = qquant_layout(q);
    const struct qp_format *f = &q->opt.format;
    char format[32];
    qp_format_name(f, format);
    qp_w_map_begin(w, "config");
    qp_w_str(w, "quant_method", !layout ? "none" : f->id == QP_FMT_INT && !q->out ? "gptq" : layout->name);
    if (layout)
        qp_w_str(w, "format", format);
    qp_w_i64(w, "bits", layout ? qp_format_bits(f) : 16);
    qp_w_i64(w, "group_size", qp_format_group(f));
    if (f->id == QP_FMT_INT) {
        bool v1 = layout == &qp_layout_gptq && q->sym;
        qp_w_bool(w, "sym", q->sym);
        qp_w_bool(w, "desc_act", f->permuted);
        qp_w_bool(w, "group_aware", q->group_aware);
        qp_w_bool(w, "static_groups", q->act_order && q->static_groups);
        if (!q->out || !qquant_is_gguf(q))
            qp_w_str(w, "checkpoint_format", q->out && v1 ? "gptq" : "gptq_v2");
    }
    if (f->id == QP_FMT_INT8)
        qp_w_f64(w, "llm_int8_threshold", f->outlier_threshold);
    if (qquant_is_gptq(q)) {
        qp_w_f64(w, "damp_percent", q->damp);
        qp_w_bool(w, "true_sequential", q->true_sequential);
        qp_w_bool(w, "mse", q->mse);
        qp_w_i64(w, "sweeps", q->sweeps);
        qp_w_f64(w, "drift", q->drift);
    }
    qp_w_map_end(w);
}

void qquant_write_model(const struct qquant *q, struct qp_writer *w)
{
    double bpw;
    int64_t bytes;
    sizes(q, &bpw, &bytes);
    qp_w_begin(w, "model");
    qp_w_str(w, "id", q->id);
    qp_w_str(w, "role", "quantized");
    qp_w_str(w, "base", q->base_id);
    if (q->out) {
        struct qp_err none = {0};
        char *real = qp_path_real(q->out, &none);
        qp_w_str(w, "path", real ? real : q->out);
        qp_w_f64(w, "read_back_max_diff", q->read_back);
        qp_free(real);
    } else {
        qp_w_bool(w, "inline", true);
        qp_w_str(w, "base_path", q->base_path);
    }
    qp_w_str(w, "arch", qp_model_config(q->model)->arch);
    qp_w_i64(w, "params", qp_model_params(q->model));
    qp_w_str(w, "method", method_names[q->method]);
    const struct qp_format *f = &q->opt.format;
    qp_w_i64(w, "bits", q->method == QQUANT_NONE ? 16 : qp_format_bits(f));
    qp_w_i64(w, "group_size", qp_format_group(f));
    qp_w_f64(w, "bpw", bpw);
    qp_w_i64(w, "bytes", bytes);
    write_config(q, w);
    qp_w_end(w);
}

/* What stands before the last part of a weight's name. */
static int stem(const char *weight)
{
    return (int)(strrchr(weight, '.') - weight) + 1;
}

/* In pieces; t's name stands in place of "weight" at the end of the weight's. */
static void write_tensor(const struct qquant *q, struct qp_writer *w, const char *weight, const struct qp_tensor *t)
{
    char name[320];
    snprintf(name, sizeof name, "%.*s%s", stem(weight), weight, t->name);
    for (size_t at = 0; at < t->bytes; at += QP_TENSOR_CHUNK_BYTES) {
        qp_w_begin(w, "tensor");
        qp_w_str(w, "model", q->id);
        qp_w_str(w, "name", name);
        qp_w_str(w, "dtype", qp_dtype_info[t->dtype].name);
        qp_w_i64s(w, "shape", t->shape, (size_t)t->ndim);
        qp_w_i64(w, "offset", (int64_t)at);
        qp_w_i64(w, "bytes", (int64_t)t->bytes);
        qp_w_bin(w, "data", (const char *)t->data + at, t->bytes - at < QP_TENSOR_CHUNK_BYTES ? t->bytes - at : QP_TENSOR_CHUNK_BYTES);
        qp_w_end(w);
    }
}

/* Norms and biases into which scales were folded: down the pipe, or without w into the checkpoint. */
static int each_changed(const struct qquant *q, struct qp_writer *w, const struct qp_layer_report *rep, struct qp_err *err)
{
    int r = 0;
    for (int i = 0; i < rep->n_changed && !r; i++) {
        const struct qp_weight *c = rep->changed[i];
        float *v = qp_alloc_n((size_t)c->cols, sizeof *v, c->name, err);
        r = v ? qp_weight_read_rows(c, 0, 1, v, err) : QP_E_RESOURCE;
        if (!r && w)
            write_tensor(q, w, c->name, &(struct qp_tensor){.name = c->name + stem(c->name), .dtype = QP_DT_F32, .ndim = 1, .shape = {c->cols}, .data = v, .bytes = (size_t)c->cols * 4});
        else if (!r)
            r = qp_checkpoint_set_dense(q->dir, c->name, v, err);
        qp_free(v);
    }
    return r;
}

int qquant_set_changed(const struct qquant *q, const struct qp_layer_report *rep, struct qp_err *err)
{
    return each_changed(q, NULL, rep, err);
}

static void write_awq(struct qp_writer *w, const struct qp_awq_note *a)
{
    qp_w_map_begin(w, "awq");
    if (a->none)
        qp_w_str(w, "unscaled", a->none);
    else {
        qp_w_f64(w, "ratio", a->found.ratio);
        qp_w_bool(w, "duo", a->found.duo);
        qp_w_f64(w, "gain", a->found.unscaled > 0 ? 1 - a->found.loss / a->found.unscaled : 0);
    }
    qp_w_map_end(w);
}

static void write_report(const struct qquant *q, struct qp_writer *w, const struct qp_layer_report *rep, const struct qp_qweight *layer)
{
    char format[32];
    qp_format_name(&layer->format, format);
    qp_w_begin(w, "layer");
    qp_w_str(w, "model", q->id);
    qp_w_str(w, "name", rep->name);
    qp_w_str(w, "method", rep->fallback ? "rtn" : method_names[q->method]);
    qp_w_str(w, "format", format);
    qp_w_i64(w, "bits", qp_format_bits(&layer->format));
    qp_w_i64(w, "group_size", qp_format_group(&layer->format));
    qp_w_f64(w, "mse", rep->error.mse);
    qp_w_f64(w, "rel_error", rep->error.rel_error);
    qp_w_f64(w, "snr_db", rep->error.snr_db);
    qp_w_f64(w, "hessian_trace", rep->hessian_trace);
    qp_w_f64(w, "damp", rep->damp);
    qp_w_i64(w, "dead", rep->dead);
    qp_w_i64(w, "tokens", rep->tokens);
    qp_w_bool(w, "fallback", rep->fallback != NULL);
    if (rep->fallback)
        qp_w_str(w, "reason", rep->fallback);
    if (rep->awq)
        write_awq(w, rep->awq);
    qp_w_bool(w, "kept", qp_format_keeps(&layer->format));
    qp_w_end(w);
}

void qquant_write_sensitivity(const struct qquant *q, struct qp_writer *w, const struct qp_sensitivity *s)
{
    char format[32];
    qp_w_begin(w, "sensitivity");
    qp_w_str(w, "model", q->base_id);
    qp_w_str(w, "name", s->name);
    qp_w_i64(w, "weights", s->rows * s->cols);
    qp_w_i64(w, "tokens", s->tokens);
    qp_w_f64(w, "dloss", s->dloss);
    qp_w_f64(w, "dloss_stderr", s->dloss_stderr);
    qp_w_f64(w, "kl", s->kl);
    qp_w_f64(w, "energy", s->energy);
    qp_w_array_begin(w, "formats");
    for (int i = 0; i < q->n_candidates; i++) {
        qp_format_name(&q->candidates[i], format);
        qp_w_map_begin(w, NULL);
        qp_w_str(w, "format", format);
        qp_w_f64(w, "bpw", qp_format_bpw(&q->candidates[i], s->rows, s->cols));
        qp_w_f64(w, "output_error", s->error[i]);
        qp_w_f64(w, "kl", qp_sensitivity_of(s, i));
        qp_w_map_end(w);
    }
    qp_w_array_end(w);
    qp_w_end(w);
}

int qquant_write_layer(const struct qquant *q, struct qp_writer *w, const struct qp_layer_report *rep, const struct qp_qweight *layer, struct qp_err *err)
{
    struct qp_parts parts;
    write_report(q, w, rep, layer);
    if (q->dir)
        return qp_writer_check(w, err);
    if (each_changed(q, w, rep, err))
        return err->code;
    if (qp_pack(qp_stream_packing(&layer->format), &layer->format, layer->rows, layer->cols, layer, &parts, err))
        return qp_err_context(err, "'%s'", rep->name);
    for (size_t i = 0; i < parts.n; i++)
        write_tensor(q, w, rep->name, &parts.v[i]);
    qp_parts_release(&parts);
    return qp_writer_check(w, err);
}
