/* The metadata of a GGUF file made from a Hugging Face folder, as other converters write them: hyperparameters by the architecture's names, the tokenizer. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/gguf_place.h"
#include "quant/gguf_meta.h"
#include "text/tokenizer.h"

int qp_gguf_check_folder(const struct qp_model *m, struct qp_err *err)
{
    const struct qp_model_config *c = qp_model_config(m);
    const char *why = NULL;
    if (strcmp(c->arch, "llama") && strcmp(c->arch, "qwen2") && strcmp(c->arch, "qwen3"))
        return qp_err_set(err, QP_E_INPUT, "'%s' is a folder of the architecture '%s'; GGUF files are written from folders of llama, qwen2 and qwen3, and from GGUF files of any other",
                          qp_model_path(m), c->arch);
    if (c->sliding_window)
        why = "a sliding window";
    else if (c->qkv_bias && !strcmp(c->arch, "llama"))
        why = "biases of q and k";
    else if (c->rope_scaling == QP_ROPE_LONG)
        why = "two sets of rotary factors";
    else if (c->rope_dims || c->has_rope_factors)
        why = "heads that rotate in part";
    return why ? qp_err_set(err, QP_E_INPUT, "'%s' has %s, which is not written into GGUF files of '%s'", qp_model_path(m), why, c->arch) : 0;
}

/* Llama 3.1's scaling is a tensor in GGUF files: what each frequency is divided by. 0: the model needs none. */
size_t qp_gguf_rope_factors(const struct qp_model_config *c, float out[128])
{
    size_t n = (size_t)c->head_dim / 2;
    if (c->rope_scaling != QP_ROPE_LLAMA3 || n > 128)
        return 0;
    for (size_t i = 0; i < n; i++) {
        double turns = (double)c->rope_original_positions / (2 * M_PI) * pow(c->rope_theta, -2.0 * (double)i / (double)c->head_dim); /* within the original context */
        double smooth = (turns - c->rope_low_freq_factor) / (c->rope_high_freq_factor - c->rope_low_freq_factor);
        smooth = turns > c->rope_high_freq_factor ? 1 : turns < c->rope_low_freq_factor ? 0 : smooth;
        out[i] = (float)(1 / ((1 - smooth) / c->rope_factor + smooth));
    }
    return n;
}

static const char *key(char out[96], const char *arch, const char *name)
{
    snprintf(out, 96, "%s.%s", arch, name);
    return out;
}

static void put_config(struct qp_gguf_meta *meta, const struct qp_model *m)
{
    const struct qp_model_config *c = qp_model_config(m);
    const char *arch = qp_model_gguf_arch(m);
    const struct {
        const char *name;
        int64_t value;
    } counts[] = {{"block_count", c->n_layers}, {"context_length", c->max_positions}, {"embedding_length", c->d_model}, {"feed_forward_length", c->d_ff},
                  {"attention.head_count", c->n_heads}, {"attention.head_count_kv", c->n_kv_heads}, {"attention.key_length", c->head_dim}, {"attention.value_length", c->head_dim},
                  {"rope.dimension_count", c->head_dim}, {"vocab_size", c->vocab_size}};
    char k[96];
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        qp_gguf_put_u32(meta, key(k, arch, counts[i].name), (uint32_t)counts[i].value);
    qp_gguf_put_f32(meta, key(k, arch, "attention.layer_norm_rms_epsilon"), (float)c->norm_eps);
    qp_gguf_put_f32(meta, key(k, arch, "rope.freq_base"), (float)c->rope_theta);
    if (c->rope_scaling == QP_ROPE_LINEAR) {
        qp_gguf_put_str(meta, key(k, arch, "rope.scaling.type"), "linear");
        qp_gguf_put_f32(meta, key(k, arch, "rope.scaling.factor"), (float)c->rope_factor);
    }
}

static void put_id(struct qp_gguf_meta *meta, const char *name, int64_t id, int64_t otherwise)
{
    id = id < 0 ? otherwise : id;
    if (id >= 0)
        qp_gguf_put_u32(meta, name, (uint32_t)id);
}

static void put_tokenizer(struct qp_gguf_meta *meta, const struct qp_tokenizer_spec *s, const struct qp_model_config *c)
{
    qp_gguf_put_str(meta, "tokenizer.ggml.model", s->model);
    qp_gguf_put_str(meta, "tokenizer.ggml.pre", s->pre);
    qp_gguf_put_strs(meta, "tokenizer.ggml.tokens", s->tokens, s->token_bytes, s->n_tokens);
    qp_gguf_put_i32s(meta, "tokenizer.ggml.token_type", s->types, s->n_tokens);
    qp_gguf_put_texts(meta, "tokenizer.ggml.merges", s->merges, s->n_merges);
    put_id(meta, "tokenizer.ggml.bos_token_id", s->bos, c->bos);
    put_id(meta, "tokenizer.ggml.eos_token_id", s->eos, c->eos);
    put_id(meta, "tokenizer.ggml.unknown_token_id", s->unk, -1);
    qp_gguf_put_bool(meta, "tokenizer.ggml.add_bos_token", s->add_bos);
    qp_gguf_put_bool(meta, "tokenizer.ggml.add_eos_token", s->add_eos);
    qp_gguf_put_bool(meta, "tokenizer.ggml.add_space_prefix", false);
    if (s->chat_template)
        qp_gguf_put_str(meta, "tokenizer.chat_template", s->chat_template);
}

int qp_gguf_metadata_of_folder(struct qp_gguf_meta *meta, const struct qp_model *m, uint32_t type, struct qp_err *err)
{
    struct qp_tokenizer *tok;
    struct qp_tokenizer_spec spec = {0};
    const char *slash = strrchr(qp_model_path(m), '/');
    if (qp_gguf_check_folder(m, err) || qp_model_tokenizer(m, &tok, err))
        return err->code;
    int r = qp_tokenizer_describe(tok, (size_t)qp_model_config(m)->vocab_size, &spec, err);
    if (r)
        qp_err_context(err, "the tokenizer of '%s'", qp_model_path(m));
    else {
        qp_gguf_put_str(meta, "general.architecture", qp_model_gguf_arch(m));
        qp_gguf_put_str(meta, "general.type", "model");
        qp_gguf_put_str(meta, "general.name", slash ? slash + 1 : qp_model_path(m));
        put_config(meta, m);
        qp_gguf_put_u32(meta, "general.file_type", type);
        put_tokenizer(meta, &spec, qp_model_config(m));
        qp_gguf_put_u32(meta, "general.quantization_version", 2);
    }
    qp_tokenizer_spec_release(&spec);
    qp_tokenizer_free(tok);
    return r;
}
