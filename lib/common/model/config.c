#include "model/config.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"

/* Sizes and ratios that arithmetic and memory depend on. `what` names the file's key. */
static int check_size(const char *path, const char *what, int64_t v, int64_t max, struct qp_err *err)
{
    if (v >= 1 && v <= max)
        return 0;
    return qp_err_set(err, QP_E_INPUT, "'%s': %s is %lld, expected 1 to %lld", path, what, (long long)v, (long long)max);
}

static int check_config(struct qp_model_config *c, const char *path, struct qp_err *err)
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

/* ---- config.json ---- */

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

/* rope_theta stands at top level, or with the scaling inside rope_parameters (newer transformers). */
static int read_rope(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    json_t *params = json_object_get(root, "rope_parameters"), *scaling = json_object_get(root, "rope_scaling");
    c->rope_theta = get_num(root, "rope_theta", get_num(params, "rope_theta", 10000.0));
    if (!json_is_object(scaling))
        scaling = params;
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type)
        type = json_string_value(json_object_get(scaling, "type"));
    if (!json_is_object(scaling) || !type || !strcmp(type, "default"))
        return 0;
    c->rope_factor = get_num(scaling, "factor", 0);
    if (!strcmp(type, "linear"))
        c->rope_scaling = QP_ROPE_LINEAR;
    else if (!strcmp(type, "llama3")) {
        c->rope_scaling = QP_ROPE_LLAMA3;
        c->rope_low_freq_factor = get_num(scaling, "low_freq_factor", 0);
        c->rope_high_freq_factor = get_num(scaling, "high_freq_factor", 0);
        c->rope_original_positions = (int64_t)get_num(scaling, "original_max_position_embeddings", 0);
        if (!(c->rope_low_freq_factor > 0) || !(c->rope_high_freq_factor > c->rope_low_freq_factor) || c->rope_original_positions < 1)
            return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling 'llama3' needs low_freq_factor, high_freq_factor and original_max_position_embeddings", path);
    } else
        return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling '%s' is not supported; supported: default, linear, llama3", path, type);
    if (!(c->rope_factor > 0))
        return qp_err_set(err, QP_E_INPUT, "'%s': rope scaling '%s' needs a positive factor", path, type);
    return 0;
}

static int read_quant(struct qp_quant_config *q, json_t *root, const char *path, struct qp_err *err)
{
    json_t *o = json_object_get(root, "quantization_config");
    *q = (struct qp_quant_config){0};
    if (!json_is_object(o))
        return 0;
    const char *method = json_string_value(json_object_get(o, "quant_method")), *format = json_string_value(json_object_get(o, "checkpoint_format"));
    if (!method || strcmp(method, "gptq"))
        return qp_err_set(err, QP_E_INPUT, "'%s': quantization_config: quant_method '%s' is not supported; supported: gptq", path, method ? method : "(missing)");
    if (format && strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return qp_err_set(err, QP_E_INPUT, "'%s': quantization_config: checkpoint_format '%s' is not supported; supported: gptq, gptq_v2", path, format);
    if (get_int(o, path, "bits", INT64_MIN, &q->bits, err) || get_int(o, path, "group_size", INT64_MIN, &q->group_size, err))
        return err->code;
    if (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8)
        return qp_err_set(err, QP_E_INPUT, "'%s': quantization_config: bits is %lld, expected 2, 3, 4 or 8", path, (long long)q->bits);
    q->present = true;
    q->sym = get_bool(o, "sym", true);
    q->zero_minus_one = !format || !strcmp(format, "gptq");
    return 0;
}

static int read_sizes(struct qp_model_config *c, json_t *root, const char *path, struct qp_err *err)
{
    int r = get_int(root, path, "num_hidden_layers", INT64_MIN, &c->n_layers, err);
    r = r ? r : get_int(root, path, "hidden_size", INT64_MIN, &c->d_model, err);
    r = r ? r : get_int(root, path, "intermediate_size", INT64_MIN, &c->d_ff, err);
    r = r ? r : get_int(root, path, "num_attention_heads", INT64_MIN, &c->n_heads, err);
    r = r ? r : get_int(root, path, "num_key_value_heads", c->n_heads, &c->n_kv_heads, err);
    r = r ? r : get_int(root, path, "head_dim", 0, &c->head_dim, err);
    r = r ? r : get_int(root, path, "vocab_size", INT64_MIN, &c->vocab_size, err);
    r = r ? r : get_int(root, path, "max_position_embeddings", 2048, &c->max_positions, err);
    r = r ? r : get_int(root, path, "sliding_window", 0, &c->sliding_window, err);
    return r;
}

static int64_t token_id(json_t *root, const char *key)
{
    json_t *v = json_object_get(root, key);
    if (json_is_array(v))
        v = json_array_get(v, 0);
    return json_is_integer(v) && json_integer_value(v) >= 0 ? json_integer_value(v) : -1;
}

static void set_family(struct qp_model_config *c, const struct qp_arch *a)
{
    snprintf(c->arch, sizeof c->arch, "%s", a->hf);
    c->norm = a->norm;
    c->activation = a->activation;
    c->gated = true;
    c->qk_norm = a->qk_norm;
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
    r = r ? r : read_sizes(c, root, path, err);
    r = r ? r : read_rope(c, root, path, err);
    r = r ? r : read_quant(q, root, path, err);
    if (!r) {
        set_family(c, arch);
        if (!get_bool(root, "use_sliding_window", strcmp(arch->hf, "mistral") == 0) || c->sliding_window < 0)
            c->sliding_window = 0;
        c->norm_eps = get_num(root, "rms_norm_eps", 1e-6);
        c->tied_embeddings = get_bool(root, "tie_word_embeddings", false);
        c->qkv_bias = arch->qkv_bias || get_bool(root, "attention_bias", false);
        c->o_bias = !arch->qkv_bias && get_bool(root, "attention_bias", false);
        c->mlp_bias = get_bool(root, "mlp_bias", false);
        c->bos = token_id(root, "bos_token_id");
        c->eos = token_id(root, "eos_token_id");
        r = check_config(c, path, err);
    }
    json_decref(root);
    return r;
}

/* ---- GGUF ---- */

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
    const struct qp_tensor *f = qp_gguf_find(m->g, "rope_freqs.weight");
    if (f) {
        if (f->dtype != QP_DT_F32 || f->bytes / 4 != (size_t)c->head_dim / 2 || f->bytes > sizeof c->rope_factors)
            return m->r = qp_err_set(m->err, QP_E_INPUT, "'%s': tensor 'rope_freqs.weight' does not hold %lld float32", m->path, (long long)c->head_dim / 2);
        memcpy(c->rope_factors, f->data, f->bytes);
        c->has_rope_factors = true;
    }
    return 0;
}

int qp_config_from_gguf(struct qp_model_config *c, const struct qp_arch **arch, const struct qp_gguf *g, const char *path, struct qp_err *err)
{
    *c = (struct qp_model_config){0};
    const char *name = NULL;
    int found = qp_gguf_str(g, "general.architecture", &name, err);
    if (found < 0)
        return found;
    *arch = name ? qp_arch_by_gguf(name, false) : NULL;
    if (!*arch)
        return qp_err_set(err, QP_E_INPUT, "'%s': architecture '%s' is not supported; supported: %s", path, name ? name : "(missing)", qp_arch_list());
    struct gguf_reader m = {g, path, name, err, 0};
    set_family(c, *arch);
    c->n_layers = meta_int(&m, "block_count", INT64_MIN);
    c->d_model = meta_int(&m, "embedding_length", INT64_MIN);
    c->d_ff = meta_int(&m, "feed_forward_length", INT64_MIN);
    c->n_heads = meta_int(&m, "attention.head_count", INT64_MIN);
    c->n_kv_heads = meta_int(&m, "attention.head_count_kv", c->n_heads);
    c->head_dim = meta_int(&m, "attention.key_length", 0);
    c->max_positions = meta_int(&m, "context_length", 2048);
    c->sliding_window = meta_int(&m, "attention.sliding_window", 0);
    c->norm_eps = meta_num(&m, "attention.layer_norm_rms_epsilon", 1e-6);
    const struct qp_tensor *embed = qp_gguf_find(g, "token_embd.weight");
    if (!m.r && (!embed || embed->ndim != 2))
        m.r = qp_err_set(err, QP_E_INPUT, "'%s': no matrix 'token_embd.weight'", path);
    c->vocab_size = embed ? embed->shape[0] : 0;
    c->tied_embeddings = !qp_gguf_find(g, "output.weight");
    c->qkv_bias = qp_gguf_find(g, "blk.0.attn_q.bias") != NULL;
    c->o_bias = qp_gguf_find(g, "blk.0.attn_output.bias") != NULL;
    c->mlp_bias = qp_gguf_find(g, "blk.0.ffn_up.bias") != NULL;
    c->bos = c->eos = -1;
    c->rope_theta = 1; /* read below, once head_dim is known to be sane */
    int r = m.r ? m.r : check_config(c, path, err);
    if (!r)
        r = gguf_rope(c, &m);
    if (!r && (qp_gguf_i64(g, "tokenizer.ggml.bos_token_id", &c->bos, err) < 0 || qp_gguf_i64(g, "tokenizer.ggml.eos_token_id", &c->eos, err) < 0))
        r = err->code;
    return r ? r : check_config(c, path, err);
}
