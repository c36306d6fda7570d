/* What a pass must compute and read, and how long the machine's limits allow for it. */
#include <math.h>

#include "eval/latency.h"

/* Weights of the linear layers by who passes them: every token, or in the last layer, behind its keys and values, only the token whose successor is wanted. */
struct counts {
    double each, last, experts, last_experts;
};

static struct counts count_weights(const struct qp_model *m)
{
    struct counts c = {0};
    int64_t n_layers = qp_model_config(m)->n_layers;
    for (size_t i = 0; i < qp_model_n_linears(m); i++) {
        const struct qp_linear *l = qp_model_linear(m, i);
        bool input = l->role == QP_ROLE_Q || l->role == QP_ROLE_K || l->role == QP_ROLE_V || l->role == QP_ROLE_QKV, last = l->layer == n_layers - 1 && !input;
        *(l->expert >= 0 ? last ? &c.last_experts : &c.experts : last ? &c.last : &c.each) += (double)l->weight->rows * (double)l->weight->cols;
    }
    return c;
}

/* Sum over layers of the keys that queries at positions from .. from+n-1 see; in the last layer only the last of them asks. */
static double keys_seen(const struct qp_model_config *c, double from, double n)
{
    double sum = 0;
    for (int64_t l = 0; l < c->n_layers; l++) {
        bool last = l == c->n_layers - 1;
        double window = (double)qp_config_window(c, l), each = last ? from + n : from + (n + 1) / 2;
        sum += (last ? 1 : n) * (window > 0 && window < each ? window : each);
    }
    return sum;
}

/* What a pass feeds, over all sequences. */
struct fed {
    double sequences, tokens, keys, held; /* keys: seen by the tokens, in all layers; held: tokens in the caches in the end */
};

static struct qp_work work_of(const struct qp_engine *e, const struct qp_model *m, const struct fed *f)
{
    const struct qp_model_config *c = qp_engine_config(e);
    struct counts w = count_weights(m);
    double used = c->n_experts ? (double)c->n_experts_used / (double)c->n_experts : 0, head = (double)c->d_model * (double)c->vocab_size;
    double dense = w.each + w.last + head, experts = w.experts + w.last_experts, touched = 1 - pow(1 - used, f->tokens);
    double kv_token = (double)qp_kv_cache_bytes(c, qp_engine_ops(e), qp_engine_kv(e), 4096) / 4096; /* of all layers */
    return (struct qp_work){
        .flops = 2 * (f->tokens * (w.each + w.experts * used) + f->sequences * (w.last + w.last_experts * used + head) + 2 * (double)(c->n_heads * c->head_dim) * f->keys),
        .bytes = (double)qp_engine_weight_bytes(e) * (dense + experts * touched) / (dense + experts) + kv_token * f->held,
    };
}

static void feed(struct fed *f, const struct qp_model_config *c, double from, double tokens)
{
    f->sequences++;
    f->tokens += tokens;
    f->keys += keys_seen(c, from, tokens);
    f->held += from + tokens;
}

struct qp_work qp_latency_prefill_work(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *s)
{
    struct fed f = {0};
    for (int64_t i = 0; i < s->batch; i++)
        feed(&f, qp_engine_config(e), (double)s->depth, (double)s->prompt_lens[i]);
    return work_of(e, m, &f);
}

struct qp_work qp_latency_decode_work(const struct qp_engine *e, const struct qp_model *m, const struct qp_latency_shape *s)
{
    struct fed f = {0};
    for (int64_t i = 0; i < s->batch; i++)
        feed(&f, qp_engine_config(e), (double)(s->depth + s->prompt_lens[i]) + (double)(s->new_tokens - 1) / 2, 1);
    return work_of(e, m, &f);
}

struct qp_machine_limits qp_machine_limits_of(const double limits[QP_LIMIT_COUNT], enum qp_compute compute)
{
    double f32 = fmax(limits[QP_LIMIT_F32_AVX512], limits[QP_LIMIT_F32_AVX2]);
    double best = compute == QP_COMPUTE_F32 ? f32 : fmax(limits[QP_LIMIT_BF16], f32);
    return (struct qp_machine_limits){compute == QP_COMPUTE_INT8 ? fmax(limits[QP_LIMIT_INT8], best) : best, limits[QP_LIMIT_READ]};
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
