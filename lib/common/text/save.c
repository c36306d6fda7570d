/* Writing tokenizer.json and tokenizer_config.json for a tokenizer that came from elsewhere. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/internal.h"

static json_t *byte_level_pre(const struct qp_tokenizer *t)
{
    const struct qp_pre *pre = qp_tok_pre(t->pre);
    json_t *list = json_array();
    for (int i = 0; pre && i < 4 && pre->patterns[i]; i++)
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pre->patterns[i], "behavior", "Isolated", "invert", 0));
    json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static json_t *post_processor(const struct qp_tokenizer *t)
{
    if (!t->n_prefix && !t->n_suffix)
        return json_null();
    json_t *single = json_array(), *pair = json_array(), *special = json_object();
    for (int part = 0; part < 2; part++) {
        for (size_t i = 0; i < (part ? t->n_suffix : t->n_prefix); i++) {
            int32_t id = part ? t->suffix[i] : t->prefix[i];
            const char *name = t->tokens[id].text;
            json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", 0));
            json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", 0));
            json_object_set_new(special, name, json_pack("{s:s, s:[i], s:[s]}", "id", name, "ids", (int)id, "tokens", name));
        }
        if (!part) {
            json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
            json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
            json_array_append_new(pair, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
        }
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair", pair, "special_tokens", special);
}

struct pair {
    const char *text;
    size_t n;
    float score;
    int32_t left, right;
};

static int by_score(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->left != y->left ? (x->left < y->left ? -1 : 1) : (x->right > y->right) - (x->right < y->right);
}

/* A vocabulary with scores merges whatever gives a known token, best score first: every split of every token is a merge. */
static json_t *merges_from_scores(const struct qp_tokenizer *t)
{
    struct pair *p = NULL;
    size_t n = 0, cap = 0;
    for (size_t id = 0; id < t->n_tokens; id++) {
        const struct qp_token *k = &t->tokens[id];
        for (uint32_t cut = 1; k->present && k->type == 1 && cut < k->n; cut++) {
            int32_t l = ((uint8_t)k->bytes[cut] & 0xc0) == 0x80 ? -1 : qp_tok_find(t, k->bytes, cut), r = l < 0 ? -1 : qp_tok_find(t, k->bytes + cut, k->n - cut);
            if (r < 0)
                continue;
            if (n == cap) {
                cap = cap ? 2 * cap : 1024;
                struct pair *grown = realloc(p, cap * sizeof *p);
                if (!grown) {
                    free(p);
                    return NULL;
                }
                p = grown;
            }
            p[n++] = (struct pair){NULL, 0, k->score, l, r};
        }
    }
    if (n)
        qsort(p, n, sizeof *p, by_score);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("[s, s]", t->tokens[p[i].left].text, t->tokens[p[i].right].text));
    free(p);
    return list;
}

static json_t *model(const struct qp_tokenizer *t)
{
    json_t *vocab = json_object(), *merges = NULL;
    for (size_t i = 0; i < t->n_tokens; i++)
        if (t->tokens[i].present)
            json_object_set_new(vocab, t->tokens[i].text, json_integer((json_int_t)i));
    if (t->by_score)
        merges = merges_from_scores(t);
    else {
        merges = json_array();
        for (size_t i = 0; i < t->n_merges; i++)
            json_array_append_new(merges, json_string(t->merge_text[i]));
    }
    json_t *unk = t->unk >= 0 && !t->byte_level ? json_string(t->tokens[t->unk].text) : json_null();
    return json_pack("{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token", unk, "continuing_subword_prefix", "end_of_word_suffix",
                     "fuse_unk", t->by_score, "byte_fallback", t->byte_fallback, "ignore_merges", t->ignore_merges, "vocab", vocab, "merges", merges);
}

/* Spaces as SentencePiece has them; "Prepend" puts one in front in any case. */
static json_t *space_normalizer(const struct qp_tokenizer *t)
{
    json_t *list = json_array(), *replace = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content", "\xe2\x96\x81");
    if (t->metaspace == 4)
        json_array_append_new(list, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", "\xe2\x96\x81"));
    json_array_append_new(list, replace);
    return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", list);
}

static json_t *decoder(const struct qp_tokenizer *t)
{
    if (t->byte_level)
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1, "trim_offsets", 1, "use_regex", 1);
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}, {s:s, s:s, s:i, s:i}]}", "type", "Sequence", "decoders", "type", "Replace", "pattern", "String",
                     "\xe2\x96\x81", "content", " ", "type", "ByteFallback", "type", "Fuse", "type", "Strip", "content", " ", "start", t->strip_first, "stop", 0);
}

static json_t *tokenizer_json(const struct qp_tokenizer *t)
{
    json_t *added = json_array(), *pre = json_null(), *norm = json_null();
    for (size_t id = 0; id < t->n_tokens; id++) /* in order of their ids */
        for (size_t i = 0; i < t->n_added; i++)
            if (t->added[i].id == (int32_t)id)
                json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content", t->added[i].text, "single_word", 0, "lstrip", 0,
                                                       "rstrip", 0, "normalized", 0, "special", t->added[i].special));
    if (t->byte_level)
        pre = byte_level_pre(t);
    else
        norm = space_normalizer(t);
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer", norm, "pre_tokenizer",
                     pre, "post_processor", post_processor(t), "decoder", decoder(t), "model", model(t));
}

static json_t *config_json(const struct qp_tokenizer *t)
{
    json_t *c = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0);
    if (t->bos >= 0)
        json_object_set_new(c, "bos_token", json_string(t->tokens[t->bos].text));
    if (t->eos >= 0)
        json_object_set_new(c, "eos_token", json_string(t->tokens[t->eos].text));
    if (t->chat_template)
        json_object_set_new(c, "chat_template", json_string(t->chat_template));
    return c;
}

static int write_text(const char *dir, const char *name, const char *text, struct qp_err *err)
{
    struct qp_outfile out;
    char *path = qp_path_join(dir, name, err);
    int r = path ? qp_outfile_open(&out, path, err) : QP_E_RESOURCE;
    qp_free(path);
    if (r)
        return r;
    fputs(text, out.file); /* commit reports errors */
    return qp_outfile_commit(&out, err);
}

static int write_json(const char *dir, const char *name, json_t *o, struct qp_err *err)
{
    char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    int r = text ? write_text(dir, name, text, err) : qp_err_set(err, QP_E_RESOURCE, "no memory for '%s'", name);
    free(text);
    return r;
}

int qp_tokenizer_save(const struct qp_tokenizer *t, const char *dir, struct qp_err *err)
{
    int r = t->json ? write_text(dir, "tokenizer.json", t->json, err) : write_json(dir, "tokenizer.json", tokenizer_json(t), err);
    return r ? r : write_json(dir, "tokenizer_config.json", config_json(t), err);
}
