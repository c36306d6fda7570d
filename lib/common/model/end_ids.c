/* The tokens that end an answer: the tokenizer's EOS, and what a model's own files name beside it (Llama 3 and Qwen end a turn with another token than a text). */
#include <jansson.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/internal.h"
#include "text/tokenizer.h"

struct ids {
    int32_t *v;
    size_t n;
    int64_t vocab;
};

static void add(struct ids *l, int64_t id)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i] == id)
            return;
    if (id >= 0 && id < l->vocab && l->n < QP_MAX_END_IDS)
        l->v[l->n++] = (int32_t)id;
}

/* eos_token_id of a JSON file of the model's folder: a number or a list. A file that is not there, or no JSON, adds nothing. */
static int add_file(struct ids *l, const char *dir, const char *name, struct qp_err *err)
{
    char *path = qp_path_join(dir, name, err);
    if (!path)
        return QP_E_RESOURCE;
    json_t *root = json_load_file(path, 0, NULL), *eos = json_object_get(root, "eos_token_id"), *v;
    size_t i;
    if (json_is_integer(eos))
        add(l, json_integer_value(eos));
    json_array_foreach(eos, i, v)
        if (json_is_integer(v))
            add(l, json_integer_value(v));
    json_decref(root);
    qp_free(path);
    return 0;
}

static int add_gguf(struct ids *l, const struct qp_gguf *g, struct qp_err *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t id = -1;
        if (qp_gguf_i64(g, keys[i], &id, err) < 0)
            return err->code;
        add(l, id);
    }
    return 0;
}

int qp_model_end_ids(const struct qp_model *m, const struct qp_tokenizer *tok, int32_t out[QP_MAX_END_IDS], size_t *n, struct qp_err *err)
{
    struct ids l = {.v = out, .vocab = qp_model_config(m)->vocab_size};
    while (m->base)
        m = m->base;
    add(&l, qp_tokenizer_eos(tok));
    int r = m->gguf ? add_gguf(&l, m->gguf, err) : add_file(&l, m->path, "config.json", err);
    r = r || m->gguf ? r : add_file(&l, m->path, "generation_config.json", err);
    *n = l.n;
    return r;
}
