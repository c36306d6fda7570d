/* A tokenizer from GGUF metadata. */
#include <string.h>

#include "base/mem.h"
#include "text/internal.h"

static int add_tokens(struct qp_tokenizer *t, const struct qp_tokenizer_spec *s, struct qp_err *err)
{
    for (size_t i = 0; i < s->n_tokens; i++) {
        if (qp_tok_set_token(t, (int64_t)i, s->tokens[i], s->token_bytes[i], err))
            return err->code;
        int type = s->types ? s->types[i] : 1;
        t->tokens[i].type = (uint8_t)(type >= 1 && type <= 6 ? type : 1);
        t->tokens[i].score = s->scores ? s->scores[i] : 0;
        struct qp_added a = {.text = t->tokens[i].text, .n = strlen(t->tokens[i].text), .id = (int32_t)i, .special = type == 2 || type == 3};
        if (type >= 2 && type <= 4 && qp_tok_add_added(t, a, err))
            return err->code;
    }
    return 0;
}

static int add_merges(struct qp_tokenizer *t, const struct qp_tokenizer_spec *s, struct qp_err *err)
{
    if (qp_tok_reserve_merges(t, s->n_merges, err))
        return err->code;
    for (size_t i = 0; i < s->n_merges; i++) {
        const char *text = s->merges[i], *space = *text ? strchr(text + 1, ' ') : NULL;
        if (!space)
            return qp_err_set(err, QP_E_INPUT, "tokenizer.ggml.merges: merge %zu ('%.64s') is no pair", i, text);
        if (qp_tok_add_merge(t, i, text, (size_t)(space - text), space + 1, strlen(space + 1), err))
            return qp_err_context(err, "tokenizer.ggml.merges");
    }
    return 0;
}

static int one_id(int32_t **list, size_t *n, int64_t id, const struct qp_tokenizer_spec *s, const char *what, struct qp_err *err)
{
    if (id < 0 || (size_t)id >= s->n_tokens)
        return qp_err_set(err, QP_E_INPUT, "tokenizer metadata: the %s token's id is missing or outside of the vocabulary", what);
    if (!(*list = qp_alloc(sizeof **list, "tokenizer", err)))
        return QP_E_RESOURCE;
    **list = (int32_t)id;
    *n = 1;
    return 0;
}

static int byte_level(struct qp_tokenizer *t, const struct qp_tokenizer_spec *s, struct qp_err *err)
{
    const struct qp_pre *pre = qp_tok_pre(s->pre ? s->pre : "default");
    if (!pre)
        return qp_err_set(err, QP_E_INPUT,
                          "tokenizer.ggml.pre '%s' is not supported; supported: default, gpt-2, phi-2, olmo, mpt, smollm, starcoder, refact, command-r, codeshell, "
                          "exaone, llama-bpe, qwen2", s->pre);
    t->byte_level = true;
    t->ignore_merges = pre->ignore_merges;
    if (!(t->pre = qp_strdup(pre->name, err)))
        return QP_E_RESOURCE;
    for (int i = 0; i < 4 && pre->patterns[i]; i++)
        if (qp_tok_add_split(t, pre->patterns[i], QP_SPLIT_ISOLATED, false, err))
            return err->code;
    if (qp_tok_index(t, err))
        return err->code;
    return add_merges(t, s, err);
}

static int sentencepiece(struct qp_tokenizer *t, const struct qp_tokenizer_spec *s, struct qp_err *err)
{
    if (!s->scores)
        return qp_err_set(err, QP_E_INPUT, "tokenizer.ggml.scores is missing");
    t->by_score = true;
    t->byte_fallback = true;
    t->metaspace = s->add_space_prefix ? 4 : 3; /* llama.cpp: before each piece of text between added tokens, as Llama 2's own tokenizer.json has it */
    t->strip_first = s->add_space_prefix;
    return qp_tok_index(t, err);
}

static int build(struct qp_tokenizer *t, const struct qp_tokenizer_spec *s, struct qp_err *err)
{
    if (add_tokens(t, s, err))
        return err->code;
    t->unk = s->unk >= 0 && (size_t)s->unk < s->n_tokens ? (int32_t)s->unk : -1;
    t->bos = s->bos >= 0 && (size_t)s->bos < s->n_tokens ? (int32_t)s->bos : -1;
    t->eos = s->eos >= 0 && (size_t)s->eos < s->n_tokens ? (int32_t)s->eos : -1;
    int r;
    if (!strcmp(s->model, "gpt2"))
        r = byte_level(t, s, err);
    else if (!strcmp(s->model, "llama"))
        r = sentencepiece(t, s, err);
    else
        r = qp_err_set(err, QP_E_INPUT, "tokenizer.ggml.model '%s' is not supported; supported: gpt2, llama", s->model);
    if (!r && s->add_bos)
        r = one_id(&t->prefix, &t->n_prefix, s->bos, s, "BOS", err);
    if (!r && s->add_eos)
        r = one_id(&t->suffix, &t->n_suffix, s->eos, s, "EOS", err);
    if (!r && s->chat_template && !(t->chat_template = qp_strdup(s->chat_template, err)))
        r = QP_E_RESOURCE;
    return r ? r : qp_tok_finish(t, err);
}

int qp_tokenizer_new(struct qp_tokenizer **out, const struct qp_tokenizer_spec *spec, struct qp_err *err)
{
    *out = NULL;
    struct qp_tokenizer *t = qp_zalloc(sizeof *t, "tokenizer", err);
    if (!t)
        return QP_E_RESOURCE;
    int r = build(t, spec, err);
    if (r) {
        qp_tokenizer_free(t);
        return r;
    }
    *out = t;
    return 0;
}
