/* A GGUF file's metadata as a configuration. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"

struct gguf_reader {
    const struct qp_gguf *g;
    const char *path, *arch;
    struct qp_err *err;
    int r;
};

static int64_t meta_int(struct gguf_reader *m, const char *key, int64_t fallback)
{
    char full[160];
    int64_t v = fallback;
    snprintf(full, sizeof full, "%s.%s", m->arch, key);
    int found = m->r ? 0 : qp_gguf_i64(m->g, full, &v, m->err);
    if (found < 0)
        m->r = found;
    if (!m->r && !found && fallback == INT64_MIN)
        m->r = qp_err_set(m->err, QP_E_INPUT, "'%s': metadata '%s' is missing", m->path, full);
    return v;
}

static double meta_num(struct gguf_reader *m, const char *key, double fallback)
{
    char full[160];
    double v = fallback;
    snprintf(full, sizeof full, "%s.%s", m->arch, key);
    int found = m->r ? 0 : qp_gguf_f64(m->g, full, &v, m->err);
    if (found < 0)
        m->r = found;
    return v;
}

/* Frequencies are divided by one tensor's numbers, or by the shorter one of Phi-3's two. */
static int rope_factors(struct qp_model_config *c, struct gguf_reader *m)
{
    const struct qp_tensor *f = qp_gguf_find(m->g, "rope_freqs.weight"), *shorter = qp_gguf_find(m->g, "rope_factors_short.weight");
    size_t n = (size_t)(c->rope_dims ? c->rope_dims : c->head_dim) / 2;
    if (shorter) {
        f = shorter;
        c->rope_scaling = QP_ROPE_LONG;
        c->rope_attention_factor = meta_num(m, "rope.scaling.attn_factor", 1.0);
        c->rope_original_positions = meta_int(m, "rope.scaling.original_context_length", c->max_positions);
    }
    if (!f || m->r)
        return m->r;
    if (f->dtype != QP_DT_F32 || f->bytes / 4 != n || f->bytes > sizeof c->rope_factors)
        return m->r = qp_err_set(m->err, QP_E_INPUT, "'%s': tensor '%s' does not hold %zu float32", m->path, f->name, n);
    memcpy(c->rope_factors, f->data, f->bytes);
    c->has_rope_factors = true;
    return 0;
}

static int gguf_rope(struct qp_model_config *c, struct gguf_reader *m)
{
    char key[160];
    const char *type = "none";
    c->rope_theta = meta_num(m, "rope.freq_base", 10000.0);
    snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch);
    if (!m->r && qp_gguf_str(m->g, key, &type, m->err) < 0)
        m->r = m->err->code;
    c->rope_factor = meta_num(m, "rope.scaling.factor", 1.0);
    if (m->r)
        return m->r;
    if (!strcmp(type, "linear") && c->rope_factor > 0)
        c->rope_scaling = QP_ROPE_LINEAR;
    else if (strcmp(type, "none"))
        return m->r = qp_err_set(m->err, QP_E_INPUT, "'%s': rope scaling '%s' is not supported; supported: none, linear, rope_freqs", m->path, type);
    return rope_factors(c, m);
}

/* As llama.cpp reads it: the pattern of windows, the local base and the scale of queries are the family's, not the file's. */
static void gguf_gemma(struct qp_model_config *c, struct gguf_reader *m)
{
    bool two = !strcmp(m->arch, "gemma2");
    int64_t pattern = two ? 2 : 6;
    c->embed_scale = sqrt((double)c->d_model);
    c->rope_theta_local = two ? 0 : 10000.0;
    if (c->n_layers == (two ? 46 : 62)) /* the 27B models */
        c->attention_scale = 1 / sqrt((double)c->d_model / (double)c->n_heads);
    for (int64_t l = pattern - 1; l < c->n_layers; l += pattern)
        c->global[l / 8] |= (uint8_t)(1u << l % 8);
    c->attention_cap = meta_num(m, "attn_logit_softcapping", two ? 50 : 0);
    c->logit_cap = meta_num(m, "final_logit_softcapping", two ? 30 : 0);
}

/* What only some families have. */
static int gguf_family(struct qp_model_config *c, struct gguf_reader *m)
{
    int64_t dims = meta_int(m, "rope.dimension_count", c->head_dim);
    c->rope_dims = dims == c->head_dim ? 0 : dims;
    if (c->learned_positions)
        c->rope_dims = 0;
    else if (!m->r && (dims < 2 || dims % 2 || dims > c->head_dim))
        m->r = qp_err_set(m->err, QP_E_INPUT, "'%s': metadata '%s.rope.dimension_count' is %lld, expected an even number up to %lld", m->path, m->arch, (long long)dims,
                          (long long)c->head_dim);
    if (!strcmp(m->arch, "gptneox")) {
        c->parallel_residual = true;
        if (!m->r && qp_gguf_bool(m->g, "gptneox.use_parallel_residual", &c->parallel_residual, m->err) < 0)
            m->r = m->err->code;
    }
    if (!strcmp(m->arch, "olmo2") && c->sliding_window > 0 && !m->r)
        m->r = qp_err_set(m->err, QP_E_INPUT, "'%s': metadata 'olmo2.attention.sliding_window' (OLMo 3) is not supported", m->path);
    if (!strcmp(m->arch, "gemma2") || !strcmp(m->arch, "gemma3"))
        gguf_gemma(c, m);
    return m->r;
}

/* All layers have them: no converter writes the models that mix. */
static int gguf_experts(struct qp_model_config *c, struct gguf_reader *m)
{
    c->n_experts_used = meta_int(m, "expert_used_count", INT64_MIN);
    c->d_ff_expert = meta_int(m, "expert_feed_forward_length", c->d_ff);
    if (!m->r && !strcmp(m->arch, "qwen2moe"))
        c->d_ff_shared = meta_int(m, "expert_shared_feed_forward_length", c->d_ff);
    return m->r ? m->r : qp_config_check_experts(c, m->path, m->err);
}

int qp_config_from_gguf(struct qp_model_config *c, const struct qp_arch **arch, const struct qp_gguf *g, const char *path, struct qp_err *err)
{
    *c = (struct qp_model_config){0};
    const char *name = NULL;
    int found = qp_gguf_str(g, "general.architecture", &name, err);
    if (found < 0)
        return found;
    struct gguf_reader m = {g, path, name, err, 0};
    c->n_experts = name ? meta_int(&m, "expert_count", 0) : 0;
    *arch = name ? qp_arch_by_gguf(name, c->n_experts > 0) : NULL;
    if (!*arch)
        return m.r ? m.r : qp_err_set(err, QP_E_INPUT, "'%s': architecture '%s' is not supported; supported: %s", path, name ? name : "(missing)", qp_arch_list());
    qp_config_set_family(c, *arch);
    c->n_layers = meta_int(&m, "block_count", INT64_MIN);
    c->d_model = meta_int(&m, "embedding_length", INT64_MIN);
    c->d_ff = meta_int(&m, "feed_forward_length", INT64_MIN);
    c->n_heads = meta_int(&m, "attention.head_count", INT64_MIN);
    c->n_kv_heads = meta_int(&m, "attention.head_count_kv", c->n_heads);
    c->head_dim = meta_int(&m, "attention.key_length", 0);
    c->max_positions = meta_int(&m, "context_length", 2048);
    c->sliding_window = meta_int(&m, "attention.sliding_window", 0);
    c->norm_eps = meta_num(&m, c->norm == QP_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-6);
    const struct qp_tensor *embed = qp_gguf_find(g, "token_embd.weight");
    if (!m.r && (!embed || embed->ndim != 2))
        m.r = qp_err_set(err, QP_E_INPUT, "'%s': no matrix 'token_embd.weight'", path);
    c->vocab_size = embed ? embed->shape[0] : 0;
    c->tied_embeddings = !qp_gguf_find(g, "output.weight");
    c->qkv_bias = qp_gguf_find(g, "blk.0.attn_q.bias") || qp_gguf_find(g, "blk.0.attn_qkv.bias");
    c->o_bias = qp_gguf_find(g, "blk.0.attn_output.bias") != NULL;
    c->mlp_bias = qp_gguf_find(g, "blk.0.ffn_up.bias") != NULL;
    c->bos = c->eos = -1;
    c->rope_theta = 1; /* read below, once head_dim is known to be sane */
    int r = m.r ? m.r : qp_config_check(c, path, err);
    r = r || !c->n_experts ? r : gguf_experts(c, &m);
    r = r ? r : gguf_family(c, &m);
    r = r ? r : gguf_rope(c, &m);
    if (!r && (qp_gguf_i64(g, "tokenizer.ggml.bos_token_id", &c->bos, err) < 0 || qp_gguf_i64(g, "tokenizer.ggml.eos_token_id", &c->eos, err) < 0))
        r = err->code;
    return r ? r : qp_config_check(c, path, err);
}
