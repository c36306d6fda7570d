#include "model/config.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"

#define MAX_EXPERTS (1 << 18) /* of all layers together */

/* Sizes and ratios that arithmetic and memory depend on. `what` names the file's key. */
static int check_size(const char *path, const char *what, int64_t v, int64_t max, struct qp_err *err)
{
    if (v >= 1 && v <= max)
        return 0;
    return qp_err_set(err, QP_E_INPUT, "'%s': %s is %lld, expected 1 to %lld", path, what, (long long)v, (long long)max);
}

int qp_config_check(struct qp_model_config *c, const char *path, struct qp_err *err)
{
    if (check_size(path, "number of layers", c->n_layers, QP_MAX_LAYERS, err) || check_size(path, "model width", c->d_model, 1 << 20, err) ||
        check_size(path, "feed-forward width", c->d_ff, 1 << 22, err) || check_size(path, "number of attention heads", c->n_heads, 65536, err) ||
        check_size(path, "number of key-value heads", c->n_kv_heads, 65536, err) || check_size(path, "vocabulary size", c->vocab_size, 1 << 26, err) ||
        check_size(path, "context length", c->max_positions, (int64_t)1 << 31, err))
        return err->code;
    if (!c->head_dim) {
        if (c->d_model % c->n_heads)
            return qp_err_set(err, QP_E_INPUT, "'%s': model width %lld does not divide into %lld heads", path, (long long)c->d_model, (long long)c->n_heads);
        c->head_dim = c->d_model / c->n_heads;
    }
    if (check_size(path, "head width", c->head_dim, 256, err))
        return err->code;
    if (c->head_dim % 2)
        return qp_err_set(err, QP_E_INPUT, "'%s': head width %lld is odd", path, (long long)c->head_dim);
    if (c->n_heads % c->n_kv_heads)
        return qp_err_set(err, QP_E_INPUT, "'%s': %lld attention heads do not divide into %lld key-value heads", path, (long long)c->n_heads, (long long)c->n_kv_heads);
    if (!(c->norm_eps > 0) || !isfinite(c->norm_eps) || !(c->rope_theta > 0) || !isfinite(c->rope_theta))
        return qp_err_set(err, QP_E_INPUT, "'%s': norm epsilon %g and rope theta %g must be positive", path, c->norm_eps, c->rope_theta);
    return 0;
}

int qp_config_check_experts(const struct qp_model_config *c, const char *path, struct qp_err *err)
{
    if (check_size(path, "number of experts", c->n_experts, MAX_EXPERTS / c->n_layers, err) ||
        check_size(path, "number of experts that a token passes", c->n_experts_used, c->n_experts, err) ||
        check_size(path, "an expert's width", c->d_ff_expert, 1 << 22, err))
        return err->code;
    return c->d_ff_shared ? check_size(path, "the shared expert's width", c->d_ff_shared, 1 << 22, err) : 0;
}

void qp_config_set_family(struct qp_model_config *c, const struct qp_arch *a)
{
    snprintf(c->arch, sizeof c->arch, "%s", a->hf);
    c->norm = a->norm;
    c->activation = a->activation;
    c->gated = !a->plain;
    c->qk_norm = a->qk_norm;
    c->qk_norm_wide = a->qk_norm_wide;
    c->parallel_residual = a->parallel;
    c->norm_topk = a->norm_topk;
    for (const struct qp_part *p = a->layer_parts; p->hf; p++)
        c->qkv_by_head |= (p->flags & QP_PART_BY_HEAD) != 0;
    for (const struct qp_part *p = a->model_parts; p->hf; p++)
        c->learned_positions |= p->role == QP_ROLE_POSITIONS;
}

/* ---- config.json ---- */

static bool is_gemma(const struct qp_model_config *c)
{
    return !strcmp(c->arch, "gemma2") || !strcmp(c->arch, "gemma3_text");
}

static int get_int(json_t *o, const char *path, const char *key, int64_t fallback, int64_t *out, struct qp_err *err)
{
    json_t *v = json_object_get(o, key);
    *out = fallback;
    if (!v || json_is_null(v)) {
        if (fallback == INT64_MIN)
            return qp_err_set(err, QP_E_INPUT, "'%s': '%s' is missing", path, key);
        return 0;
    }
    if (!json_is_integer(v))
        return qp_err_set(err, QP_E_INPUT, "'%s': '%s' is not a whole number", path, key);
    *out = json_integer_value(v);
    return 0;
}

static double get_num(json_t *o, const char *key, double fallback)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

static bool get_bool(json_t *o, const char *key, bool fallback)
{
    json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_boolean_value(v) : fallback;
}

static int read_llama3(struct qp_model_config *c, json_t *scaling, const char *path, struct qp_err *err)
{
    c->rope_scaling = QP_ROPE_LLAMA3;
    c->rope_low_freq_factor = get_num(scaling, "low_freq_factor", 0);
    c->rope_high_freq_factor = get_num(scaling, "high_freq_factor", 0);
    c->rope_original_positions = (int64_t)get_num(scaling, "original_max_position_embeddings", 0);
    if (!(c->rope_low_freq_factor > 0) || !(c->rope_high_freq_factor > c->rope_low_freq_factor) || c->rope_original_positions < 1)
        return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling 'llama3' needs low_freq_factor, high_freq_factor and original_max_position_embeddings", path);
    return 0;
}

/* Phi-3's two sets of factors: up to the original context length the short one counts, and that is what is read. */
static int read_longrope(struct qp_model_config *c, json_t *root, json_t *scaling, const char *path, struct qp_err *err)
{
    json_t *factors = json_object_get(scaling, "short_factor"), *v;
    size_t i, dims = (size_t)(c->rope_dims ? c->rope_dims : c->head_dim);
    c->rope_scaling = QP_ROPE_LONG;
    c->rope_original_positions = (int64_t)get_num(root, "original_max_position_embeddings", get_num(scaling, "original_max_position_embeddings", 0));
    if (c->rope_original_positions < 2 || json_array_size(factors) != dims / 2 || dims / 2 > sizeof c->rope_factors / sizeof *c->rope_factors)
        return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling 'longrope' needs original_max_position_embeddings and short_factor with %zu numbers", path, dims / 2);
    json_array_foreach(factors, i, v)
    {
        c->rope_factors[i] = (float)json_number_value(v);
        if (!(c->rope_factors[i] > 0))
            return qp_err_set(err, QP_E_INPUT, "'%s': short_factor[%zu] is not a positive number", path, i);
    }
    c->has_rope_factors = true;
    double factor = (double)c->max_positions / (double)c->rope_original_positions;
    c->rope_attention_factor = get_num(scaling, "attention_factor", factor > 1 ? sqrt(1 + log(factor) / log((double)c->rope_original_positions)) : 1);
    return 0;
}

static int read_scaling(struct qp_model_config *c, json_t *root, json_t *scaling, const char *path, struct qp_err *err)
{
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(scaling, "type"));
    if (!json_is_object(scaling) || !type || !strcmp(type, "default"))
        return 0;
    if (!strcmp(type, "longrope") || !strcmp(type, "su"))
        return read_longrope(c, root, scaling, path, err);
    if (strcmp(type, "linear") && strcmp(type, "llama3"))
        return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling '%s' is not supported; supported: default, linear, llama3, longrope", path, type);
    c->rope_factor = get_num(scaling, "factor", 0);
    if (!(c->rope_factor > 0))
        return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling '%s' needs a positive factor", path, type);
    c->rope_scaling = QP_ROPE_LINEAR;
    return strcmp(type, "llama3") ? 0 : read_llama3(c, scaling, path, err);
}

/* rope_theta stands at top level, or with the scaling inside rope_parameters (newer transformers), there by type of layer where they differ. */
static int read_rope(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    json_t *params = json_object_get(root, "rope_parameters"), *scaling = json_object_get(root, "rope_scaling");
    json_t *local = json_object_get(params, "sliding_attention"), *full = json_object_get(params, "full_attention");
    params = full ? full : params;
    c->rope_theta = get_num(root, "rope_theta", get_num(root, "rotary_emb_base", get_num(params, "rope_theta", strcmp(c->arch, "gemma3_text") ? 10000.0 : 1e6)));
    if (!strcmp(c->arch, "gemma3_text"))
        c->rope_theta_local = get_num(root, "rope_local_base_freq", get_num(local, "rope_theta", 10000.0));
    double usual = !strcmp(c->arch, "gpt_neox") || !strcmp(c->arch, "stablelm") ? 0.25 : !strcmp(c->arch, "phi") ? 0.5 : 1;
    double part = get_num(root, "partial_rotary_factor", get_num(root, "rotary_pct", get_num(params, "partial_rotary_factor", usual)));
    c->rope_dims = part > 0 && part < 1 ? (int64_t)((double)c->head_dim * part) : 0;
    if (!(part > 0) || part > 1 || (part < 1 && (c->rope_dims < 2 || c->rope_dims % 2)))
        return qp_err_set(err, QP_E_INPUT, "'%s': a rotary share of %g leaves no even number of a head's %lld dimensions", path, part, (long long)c->head_dim);
    return read_scaling(c, root, json_is_object(scaling) ? scaling : params, path, err);
}

/* The first of two names that is there; GPT-2 has its own. */
static int get_size(json_t *root, const char *path, const char *key, const char *other, int64_t fallback, int64_t *out, struct qp_err *err)
{
    return get_int(root, path, json_object_get(root, key) || !json_object_get(root, other) ? key : other, fallback, out, err);
}

static int read_sizes(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    bool gpt2 = !strcmp(c->arch, "gpt2"), gemma = is_gemma(c);
    int r = get_size(root, path, "num_hidden_layers", "n_layer", INT64_MIN, &c->n_layers, err);
    r = r ? r : get_size(root, path, "hidden_size", "n_embd", INT64_MIN, &c->d_model, err);
    r = r ? r : get_size(root, path, "intermediate_size", "n_inner", !gpt2 ? INT64_MIN : c->d_model <= 1 << 20 ? 4 * c->d_model : 0, &c->d_ff, err);
    r = r ? r : get_size(root, path, "num_attention_heads", "n_head", INT64_MIN, &c->n_heads, err);
    r = r ? r : get_int(root, path, "num_key_value_heads", c->n_heads, &c->n_kv_heads, err);
    r = r ? r : get_int(root, path, "head_dim", gemma ? 256 : 0, &c->head_dim, err);
    r = r ? r : get_int(root, path, "vocab_size", INT64_MIN, &c->vocab_size, err);
    r = r ? r : get_size(root, path, "max_position_embeddings", "n_positions", gpt2 ? 1024 : 2048, &c->max_positions, err);
    r = r ? r : get_int(root, path, "sliding_window", 0, &c->sliding_window, err);
    c->norm_eps = c->rope_theta = 1; /* read later; what follows can rely on the sizes */
    return r ? r : qp_config_check(c, path, err);
}

static void set_bit(uint8_t *bits, int64_t i)
{
    bits[i / 8] |= (uint8_t)(1u << i % 8);
}

/* Which layers see a window only: listed, or by Gemma 3's pattern, or Qwen's first layers that see all. */
static int read_windows(struct qp_model_config *c, const struct qp_arch *arch, json_t *root, const char *path, struct qp_err *err)
{
    json_t *types = json_object_get(root, "layer_types");
    int64_t pattern = 0, first = 0;
    if (!get_bool(root, "use_sliding_window", arch->windowed) || c->sliding_window < 0)
        c->sliding_window = 0;
    if (!c->sliding_window)
        return 0;
    if (json_is_array(types) && json_array_size(types) != (size_t)c->n_layers)
        return qp_err_set(err, QP_E_INPUT, "'%s': layer_types lists %zu layers of %lld", path, json_array_size(types), (long long)c->n_layers);
    int r = !strcmp(c->arch, "gemma3_text") ? get_size(root, path, "sliding_window_pattern", "_sliding_window_pattern", 6, &pattern, err) : 0;
    if (!strcmp(c->arch, "gemma2"))
        pattern = 2;
    r = r || arch->windowed ? r : get_int(root, path, "max_window_layers", 0, &first, err);
    for (int64_t l = 0; l < c->n_layers && !r; l++) {
        const char *type = json_string_value(json_array_get(types, (size_t)l));
        if (type ? !strcmp(type, "full_attention") : pattern > 0 ? (l + 1) % pattern == 0 : l < first)
            set_bit(c->global, l);
        else if (type && strcmp(type, "sliding_attention"))
            r = qp_err_set(err, QP_E_INPUT, "'%s': layer type '%s' is not supported; supported: full_attention, sliding_attention", path, type);
    }
    return r;
}

static int read_activation(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    static const struct {
        const char *name;
        enum qp_activation activation;
    } known[] = {{"silu", QP_ACT_SILU}, {"gelu_pytorch_tanh", QP_ACT_GELU_TANH}, {"gelu_new", QP_ACT_GELU_TANH}, {"gelu_fast", QP_ACT_GELU_TANH}, {"gelu", QP_ACT_GELU_ERF}};
    static const char *const keys[] = {"hidden_activation", "activation_function", "hidden_act"};
    const char *name = NULL;
    for (size_t i = 0; i < 3 && !name; i++)
        name = json_string_value(json_object_get(root, keys[i]));
    if (!name)
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name) && (known[i].activation == QP_ACT_SILU) == (c->activation == QP_ACT_SILU)) {
            c->activation = known[i].activation;
            return c->gated && c->activation == QP_ACT_GELU_ERF ? qp_err_set(err, QP_E_INPUT, "'%s': activation 'gelu' behind a gate is not supported", path) : 0;
        }
    return qp_err_set(err, QP_E_INPUT, "'%s': activation '%s' is not supported for %s", path, name, c->arch);
}

static double get_cap(json_t *root, const char *key, double fallback)
{
    json_t *v = json_object_get(root, key);
    double cap = v ? json_number_value(v) : fallback; /* null: none */
    return cap > 0 ? cap : 0;
}

/* What only some families have. */
static int read_family(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    bool neox = !strcmp(c->arch, "gpt_neox");
    if (is_gemma(c)) {
        bool two = !strcmp(c->arch, "gemma2");
        c->embed_scale = sqrt((double)c->d_model);
        c->attention_scale = 1 / sqrt(get_num(root, "query_pre_attn_scalar", 256));
        c->attention_cap = get_cap(root, "attn_logit_softcapping", two ? 50 : 0);
        c->logit_cap = get_cap(root, "final_logit_softcapping", two ? 30 : 0);
    }
    if (neox)
        c->parallel_residual = get_bool(root, "use_parallel_residual", true);
    else if (get_bool(root, "use_parallel_residual", false) || get_bool(root, "qk_layernorm", false))
        return qp_err_set(err, QP_E_INPUT, "'%s': 'use_parallel_residual' and 'qk_layernorm' are not supported for %s", path, c->arch);
    if (get_bool(root, "scale_attn_by_inverse_layer_idx", false) || !get_bool(root, "scale_attn_weights", true) || get_bool(root, "use_bidirectional_attention", false))
        return qp_err_set(err, QP_E_INPUT, "'%s': attention that is scaled by layer, not scaled, or bidirectional is not supported", path);
    return read_activation(c, root, path, err);
}

/* Layers with a plain MLP: listed, or all but every decoder_sparse_step-th. */
static int read_dense_layers(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    int64_t step = 1;
    size_t i;
    json_t *v, *listed = json_object_get(root, "mlp_only_layers");
    if (get_int(root, path, "decoder_sparse_step", 1, &step, err))
        return err->code;
    if (step < 1)
        return qp_err_set(err, QP_E_INPUT, "'%s': decoder_sparse_step is %lld, expected 1 or more", path, (long long)step);
    for (int64_t l = 0; l < c->n_layers; l++)
        if ((l + 1) % step)
            set_bit(c->dense, l);
    json_array_foreach(listed, i, v)
    {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= c->n_layers)
            return qp_err_set(err, QP_E_INPUT, "'%s': mlp_only_layers[%zu] is no layer of %lld", path, i, (long long)c->n_layers);
        set_bit(c->dense, json_integer_value(v));
    }
    return 0;
}

static int read_experts(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    bool mixtral = !strcmp(c->arch, "mixtral");
    int r = get_size(root, path, "num_experts", "num_local_experts", INT64_MIN, &c->n_experts, err);
    r = r ? r : get_int(root, path, "num_experts_per_tok", INT64_MIN, &c->n_experts_used, err);
    r = r ? r : get_int(root, path, mixtral ? "intermediate_size" : "moe_intermediate_size", INT64_MIN, &c->d_ff_expert, err);
    if (!strcmp(c->arch, "qwen2_moe"))
        r = r ? r : get_int(root, path, "shared_expert_intermediate_size", INT64_MIN, &c->d_ff_shared, err);
    c->norm_topk = mixtral || get_bool(root, "norm_topk_prob", false);
    r = r || mixtral ? r : read_dense_layers(c, root, path, err);
    return r ? r : qp_config_check_experts(c, path, err);
}

static int64_t token_id(json_t *root, const char *key)
{
    json_t *v = json_object_get(root, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

int qp_config_from_json(struct qp_model_config *c, struct qp_quant_config *q, const struct qp_arch **found, const char *path, struct qp_err *err)
{
    *c = (struct qp_model_config){0};
    json_error_t je;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(root)) {
        json_decref(root);
        return qp_err_set(err, QP_E_INPUT, "cannot read '%s': %s", path, root ? "not a JSON object" : je.text);
    }
    const char *type = json_string_value(json_object_get(root, "model_type"));
    const struct qp_arch *arch = type ? qp_arch_by_hf(type) : NULL;
    int r = 0;
    *found = arch;
    if (!arch)
        r = qp_err_set(err, QP_E_INPUT, "'%s': model_type '%s' is not supported; supported: %s", path, type ? type : "(missing)", qp_arch_list());
    if (!r)
        qp_config_set_family(c, arch);
    r = r ? r : read_sizes(c, root, path, err);
    r = r ? r : read_rope(c, root, path, err);
    r = r ? r : qp_config_read_quant(q, root, path, err);
    r = r ? r : read_windows(c, arch, root, path, err);
    r = r ? r : read_family(c, root, path, err);
    r = r || !arch->experts ? r : read_experts(c, root, path, err);
    if (!r) {
        bool neox = !strcmp(c->arch, "gpt_neox");
        c->norm_eps = get_num(root, "rms_norm_eps", get_num(root, "layer_norm_eps", get_num(root, "layer_norm_epsilon", arch->plain ? 1e-5 : 1e-6)));
        c->tied_embeddings = get_bool(root, "tie_word_embeddings", is_gemma(c) || !strcmp(c->arch, "gpt2"));
        c->qkv_bias = arch->qkv_bias ? get_bool(root, "qkv_bias", true) : get_bool(root, "use_qkv_bias", get_bool(root, "attention_bias", neox));
        c->o_bias = !arch->qkv_bias && get_bool(root, "attention_bias", neox);
        c->mlp_bias = get_bool(root, "mlp_bias", false);
        c->bos = token_id(root, "bos_token_id");
        c->eos = token_id(root, "eos_token_id");
        r = qp_config_check(c, path, err);
    }
    json_decref(root);
    return r;
}
