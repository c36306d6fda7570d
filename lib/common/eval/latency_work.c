/* What a pass must compute and read, and how long the machine's limits allow for it. */
#include <math.h>

#include "eval/latency.h"

/* Weights of the linear layers that every token passes, and of experts. */
static void count_weights(const struct qp_model *m, double *all, double *experts)
{
    *all = *experts = 0;
    for (size_t i = 0; i < qp_model_n_linears(m); i++) {
        const struct qp_linear *l = qp_model_linear(m, i);
        *(l->expert >= 0 ? experts : all) += (double)l->weight->rows * (double)l->weight->cols;
    }
}

/* Sum over layers of the keys that queries at positions from .. from+n-1 see. */
static double keys_seen(const struct qp_model_config *c, double from, double n)
{
    double sum = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        double window = (double)qp_config_window(c, l), each = from + (n + 1) / 2;
        sum += n * (window > 0 && window < each ? window : each);
    }
    return sum;
}

static struct qp_work work_of(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *s, double from, double tokens)
{
    const struct qp_model_config *c = qp_engine_config(e);
    double all, experts, B = (double)s->batch, used = c->n_experts ? (double)c->n_experts_used / (double)c->n_experts : 0;
    double head = (double)c->d_model * (double)c->vocab_size, keys = keys_seen(c, from, tokens);
    count_weights(m, &all, &experts);
    double touched = 1 - pow(1 - used, B * tokens), whole = all + experts + head;
    double kv_token = (double)qp_kv_cache_bytes(c, qp_engine_ops(e), qp_engine_kv(e), 4096) / 4096 / (double)c->n_layers; /* of a layer */
    return (struct qp_work){
        .flops = 2 * B * (tokens * (all + experts * used) + head + 2 * (double)(c->n_heads * c->head_dim) * keys),
        .bytes = (double)qp_engine_weight_bytes(e) * (all + experts * touched + head) / whole + B * kv_token * keys / tokens,
    };
}

struct qp_work qp_latency_prefill_work(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *s)
{
    return work_of(e, m, s, (double)s->depth, (double)s->prompt_len);
}

struct qp_work qp_latency_decode_work(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *s)
{
    return work_of(e, m, s, (double)s->depth + (double)s->prompt_len + (double)(s->new_tokens - 1) / 2, 1);
}

struct qp_machine_limits qp_machine_limits_of(const double limits[QP_LIMIT_COUNT], enum qp_compute compute)
{
    double f32 = fmax(limits[QP_LIMIT_F32_AVX512], limits[QP_LIMIT_F32_AVX2]);
    return (struct qp_machine_limits){compute == QP_COMPUTE_BF16 ? fmax(limits[QP_LIMIT_BF16], f32) : f32, limits[QP_LIMIT_READ]};
}

double qp_work_seconds(struct qp_work w, struct qp_machine_limits limits, bool *memory)
{
    *memory = false;
    if (!(limits.gflops > 0 && limits.gbytes > 0))
        return 0;
    double arithmetic = w.flops / limits.gflops / 1e9, reading = w.bytes / limits.gbytes / 1e9;
    *memory = reading > arithmetic;
    return *memory ? reading : arithmetic;
}
