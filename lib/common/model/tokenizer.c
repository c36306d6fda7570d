/* A model's tokenizer: tokenizer.json beside the weights, or what the GGUF file holds. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "model/internal.h"

struct lists {
    const char **tokens, **merges;
    size_t *token_bytes, *merge_bytes, n_tokens, n_merges, n_scores, n_types;
    float *scores;
    int32_t *types;
};

static int read_lists(struct qp_gguf *g, struct lists *l, struct qp_err *err)
{
    int r = qp_gguf_strs(g, "tokenizer.ggml.tokens", &l->tokens, &l->token_bytes, &l->n_tokens, err);
    if (r == 0)
        return qp_err_set(err, QP_E_INPUT, "metadata 'tokenizer.ggml.tokens' is missing");
    if (r > 0)
        r = qp_gguf_strs(g, "tokenizer.ggml.merges", &l->merges, &l->merge_bytes, &l->n_merges, err);
    if (r >= 0)
        r = qp_gguf_f32s(g, "tokenizer.ggml.scores", &l->scores, &l->n_scores, err);
    if (r >= 0)
        r = qp_gguf_i32s(g, "tokenizer.ggml.token_type", &l->types, &l->n_types, err);
    if (r >= 0 && ((l->scores && l->n_scores != l->n_tokens) || (l->types && l->n_types != l->n_tokens)))
        return qp_err_set(err, QP_E_INPUT, "tokenizer metadata: %zu tokens, %zu scores, %zu types", l->n_tokens, l->n_scores, l->n_types);
    return r < 0 ? r : 0;
}

static int read_spec(struct qp_gguf *g, struct qp_tokenizer_spec *s, struct qp_err *err)
{
    *s = (struct qp_tokenizer_spec){.model = "", .bos = -1, .eos = -1, .unk = -1, .pad = -1};
    /* SentencePiece models add BOS and a leading space unless the file says otherwise. */
    if (qp_gguf_str(g, "tokenizer.ggml.model", &s->model, err) < 0)
        return err->code;
    s->add_bos = s->add_space_prefix = !strcmp(s->model, "llama");
    if (qp_gguf_str(g, "tokenizer.ggml.pre", &s->pre, err) < 0 || qp_gguf_i64(g, "tokenizer.ggml.bos_token_id", &s->bos, err) < 0 ||
        qp_gguf_i64(g, "tokenizer.ggml.eos_token_id", &s->eos, err) < 0 || qp_gguf_i64(g, "tokenizer.ggml.unknown_token_id", &s->unk, err) < 0 ||
        qp_gguf_i64(g, "tokenizer.ggml.padding_token_id", &s->pad, err) < 0 || qp_gguf_bool(g, "tokenizer.ggml.add_bos_token", &s->add_bos, err) < 0 ||
        qp_gguf_bool(g, "tokenizer.ggml.add_eos_token", &s->add_eos, err) < 0 ||
        qp_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &s->add_space_prefix, err) < 0 || qp_gguf_str(g, "tokenizer.chat_template", &s->chat_template, err) < 0)
        return err->code;
    return 0;
}

static int from_gguf(const struct qp_model *m, struct qp_tokenizer **out, struct qp_err *err)
{
    struct lists l = {0};
    struct qp_tokenizer_spec s;
    int r = read_spec(m->gguf, &s, err);
    r = r ? r : read_lists(m->gguf, &l, err);
    if (!r) {
        s.tokens = l.tokens;
        s.token_bytes = l.token_bytes;
        s.n_tokens = l.n_tokens;
        s.scores = l.scores;
        s.types = l.types;
        s.merges = l.merges;
        s.n_merges = l.n_merges;
        r = qp_tokenizer_new(out, &s, err);
    }
    qp_free((void *)l.tokens);
    qp_free((void *)l.merges);
    qp_free(l.token_bytes);
    qp_free(l.merge_bytes);
    qp_free(l.scores);
    qp_free(l.types);
    return r ? qp_err_context(err, "'%s'", m->path) : 0;
}

int qp_model_tokenizer(const struct qp_model *m, struct qp_tokenizer **out, struct qp_err *err)
{
    *out = NULL;
    if (m->base)
        return qp_model_tokenizer(m->base, out, err);
    if (m->gguf)
        return from_gguf(m, out, err);
    char *path = qp_path_join(m->path, "tokenizer.json", err);
    int r = path ? qp_tokenizer_open_json(out, path, err) : QP_E_RESOURCE;
    qp_free(path);
    return r;
}
