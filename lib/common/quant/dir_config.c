#include "quant/dir_config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/arch.h"
#include "text/tokenizer.h"

static int write_text(const char *dir, const char *name, const char *text, size_t n, struct qp_err *err)
{
    struct qp_outfile out;
    char *path = qp_path_join(dir, name, err);
    int r = path ? qp_outfile_open(&out, path, err) : QP_E_RESOURCE;
    qp_free(path);
    if (r)
        return r;
    fwrite(text, 1, n, out.file); /* commit reports errors */
    return qp_outfile_commit(&out, err);
}

int qp_dir_write_json(const char *dir, const char *name, const json_t *o, struct qp_err *err)
{
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    int r = text ? write_text(dir, name, text, strlen(text), err) : qp_err_set(err, QP_E_RESOURCE, "no memory for '%s'", name);
    free(text);
    return r;
}

/* What a GGUF model's config.json would have been. */
static json_t *config_of(const struct qp_model_config *c)
{
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:b, s:b, s:b, s:s}", "model_type", c->arch, "hidden_size", (json_int_t)c->d_model,
                          "intermediate_size", (json_int_t)c->d_ff, "num_hidden_layers", (json_int_t)c->n_layers, "num_attention_heads", (json_int_t)c->n_heads,
                          "num_key_value_heads", (json_int_t)c->n_kv_heads, "head_dim", (json_int_t)c->head_dim, "vocab_size", (json_int_t)c->vocab_size,
                          "max_position_embeddings", (json_int_t)c->max_positions, "rms_norm_eps", c->norm_eps, "rope_theta", c->rope_theta, "tie_word_embeddings",
                          c->tied_embeddings, "attention_bias", c->qkv_bias && strcmp(c->arch, "qwen2"), "mlp_bias", c->mlp_bias, "hidden_act", "silu");
    if (o)
        json_object_set_new(o, "architectures", json_pack("[s]", qp_arch_by_hf(c->arch)->class_name));
    if (c->bos >= 0)
        json_object_set_new(o, "bos_token_id", json_integer(c->bos));
    if (c->eos >= 0)
        json_object_set_new(o, "eos_token_id", json_integer(c->eos));
    if (c->sliding_window) {
        json_object_set_new(o, "sliding_window", json_integer(c->sliding_window));
        json_object_set_new(o, "use_sliding_window", json_true());
    }
    if (c->rope_scaling == QP_ROPE_LINEAR)
        json_object_set_new(o, "rope_scaling", json_pack("{s:s, s:f}", "rope_type", "linear", "factor", c->rope_factor));
    return o;
}

/* A model without config.json, from GGUF, must be one that config_of can describe. */
static int check_expressible(const struct qp_model *m, struct qp_err *err)
{
    const struct qp_model_config *c = qp_model_config(m);
    if (c->has_rope_factors)
        return qp_err_set(err, QP_E_INPUT, "'%s' carries rope_freqs factors, which config.json cannot express: start from the Hugging Face directory", qp_model_path(m));
    if (!qp_arch_by_hf(c->arch)->class_name)
        return qp_err_set(err, QP_E_INPUT, "'%s' is a GGUF file of the architecture '%s', whose config.json is not written: start from the Hugging Face directory",
                          qp_model_path(m), c->arch);
    return 0;
}

static int write_configs(const char *dir, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err)
{
    char *source = qp_path_join(qp_model_path(m), "config.json", err);
    json_t *config = source ? json_load_file(source, 0, NULL) : NULL, *quant = o->layout ? o->layout->config(&o->quant, m) : NULL;
    qp_free(source);
    if (!config && check_expressible(m, err)) {
        json_decref(quant);
        return err->code;
    }
    if (!config)
        config = config_of(qp_model_config(m));
    int r = config && (quant || !o->layout) ? 0 : qp_err_set(err, QP_E_RESOURCE, "no memory for config.json");
    if (!r) {
        json_object_set_new(config, "torch_dtype", json_string("float16"));
        json_object_del(config, "dtype");
        if (quant)
            json_object_set(config, "quantization_config", quant);
        r = qp_dir_write_json(dir, "config.json", config, err);
    }
    if (!r && quant && o->layout->config_file)
        r = qp_dir_write_json(dir, o->layout->config_file, quant, err);
    json_decref(quant);
    json_decref(config);
    return r;
}

/* Files beside the weights that a loader may want, copied as they are. */
static int copy_files(const char *dir, const struct qp_model *m, bool *has_tokenizer, struct qp_err *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "vocab.json", "merges.txt",
                                        "added_tokens.json", "generation_config.json", "chat_template.jinja"};
    *has_tokenizer = false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct stat st;
        struct qp_buf text = QP_BUF_INIT;
        char *path = qp_path_join(qp_model_path(m), names[i], err);
        int r = path ? 0 : QP_E_RESOURCE;
        bool there = path && stat(path, &st) == 0;
        if (there) {
            r = qp_file_read(&text, path, (size_t)512 << 20, err);
            r = r ? r : write_text(dir, names[i], text.data ? text.data : "", text.len, err);
            *has_tokenizer |= i == 0;
        }
        qp_buf_release(&text);
        qp_free(path);
        if (r)
            return r;
    }
    return 0;
}

int qp_dir_config_write(const char *dir, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err)
{
    bool has_tokenizer;
    struct qp_tokenizer *tok;
    int r = write_configs(dir, m, o, err);
    r = r ? r : copy_files(dir, m, &has_tokenizer, err);
    if (r || has_tokenizer)
        return r;
    r = qp_model_tokenizer(m, &tok, err);
    if (!r) {
        r = qp_tokenizer_save(tok, dir, err);
        qp_tokenizer_free(tok);
    }
    return r;
}
