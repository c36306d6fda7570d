/* A tokenizer from tokenizer.json (Hugging Face tokenizers) and the tokenizer_config.json beside it. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "text/internal.h"

#define MAX_JSON ((size_t)256 << 20)

static const char *str(json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static bool flag(json_t *o, const char *key, bool fallback)
{
    json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_boolean_value(v) : fallback;
}

static bool is(json_t *o, const char *type)
{
    const char *t = str(o, "type");
    return t && !strcmp(t, type);
}

static int unsupported(json_t *o, const char *part, struct qp_err *err)
{
    const char *t = str(o, "type");
    return qp_err_set(err, QP_E_INPUT, "%s of type '%s' is not supported", part, t ? t : "(missing)");
}

/* A pattern is {"String": s} or {"Regex": s}: as a regular expression, newly allocated. */
static char *pattern_text(json_t *p, struct qp_err *err)
{
    const char *s = str(p, "String"), *re = str(p, "Regex");
    if (re)
        return qp_strdup(re, err);
    if (!s) {
        qp_err_set(err, QP_E_INPUT, "a pattern is neither String nor Regex");
        return NULL;
    }
    struct qp_buf b = QP_BUF_INIT;
    for (; *s; s++)
        qp_buf_addf(&b, strchr("\\^$.|?*+()[]{}", *s) ? "\\%c" : "%c", *s);
    char *out = qp_strdup(b.data ? b.data : "", err);
    qp_buf_release(&b);
    return out;
}

/* ---- normalizers ---- */

static int replace(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    json_t *p = json_object_get(o, "pattern");
    const char *s = str(p, "String"), *re = str(p, "Regex"), *to = str(o, "content");
    if ((!s && !re) || !to)
        return qp_err_set(err, QP_E_INPUT, "normalizer Replace: 'pattern' or 'content' is missing");
    struct qp_norm n = {.kind = QP_NORM_REPLACE, .to = qp_strdup(to, err), .from = s ? qp_strdup(s, err) : NULL, .regex = s ? NULL : qp_tok_regex(re, err)};
    if (!n.to || (!n.from && !n.regex)) {
        qp_free(n.to);
        return err->code;
    }
    return qp_tok_add_norm(t, n, err);
}

static int normalizer(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    static const struct {
        const char *type;
        enum qp_norm_kind kind;
    } simple[] = {{"NFC", QP_NORM_NFC}, {"NFD", QP_NORM_NFD}, {"NFKC", QP_NORM_NFKC}, {"NFKD", QP_NORM_NFKD}, {"Lowercase", QP_NORM_LOWER}};
    size_t i;
    json_t *v;
    if (!o || json_is_null(o))
        return 0;
    if (is(o, "Sequence")) {
        json_array_foreach(json_object_get(o, "normalizers"), i, v)
            if (normalizer(t, v, err))
                return err->code;
        return 0;
    }
    for (i = 0; i < sizeof simple / sizeof *simple; i++)
        if (is(o, simple[i].type))
            return qp_tok_add_norm(t, (struct qp_norm){.kind = simple[i].kind}, err);
    if (is(o, "Strip"))
        return qp_tok_add_norm(t, (struct qp_norm){.kind = QP_NORM_STRIP, .left = flag(o, "strip_left", true), .right = flag(o, "strip_right", true)}, err);
    if (is(o, "Prepend")) {
        char *to = qp_strdup(str(o, "prepend") ? str(o, "prepend") : "", err);
        return to ? qp_tok_add_norm(t, (struct qp_norm){.kind = QP_NORM_PREPEND, .to = to}, err) : QP_E_RESOURCE;
    }
    return is(o, "Replace") ? replace(t, o, err) : unsupported(o, "normalizer", err);
}

/* ---- pre-tokenizers ---- */

/* Rust's \w (Unicode's Alphabetic, marks, decimal digits, connectors, joiners), which PCRE2's differs from. */
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}\\x{200c}\\x{200d}"

static int split_by(struct qp_tokenizer *t, json_t *o, const char *pattern, const char *behavior, struct qp_err *err)
{
    static const struct {
        const char *name;
        enum qp_split_behavior b;
    } names[] = {{"Removed", QP_SPLIT_REMOVED}, {"Isolated", QP_SPLIT_ISOLATED}, {"MergedWithPrevious", QP_SPLIT_PREVIOUS}, {"MergedWithNext", QP_SPLIT_NEXT},
                 {"Contiguous", QP_SPLIT_CONTIGUOUS}};
    for (size_t i = 0; behavior && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, behavior))
            return qp_tok_add_split(t, pattern, names[i].b, flag(o, "invert", false), err);
    return qp_err_set(err, QP_E_INPUT, "pre_tokenizer %s: behavior '%s' is not supported", str(o, "type"), behavior ? behavior : "(missing)");
}

static int split(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    char *p = pattern_text(json_object_get(o, "pattern"), err);
    int r = p ? split_by(t, o, p, str(o, "behavior"), err) : err->code;
    qp_free(p);
    return r;
}

static int metaspace(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    const char *scheme = str(o, "prepend_scheme"), *mark = str(o, "replacement");
    if (mark && strcmp(mark, "\xe2\x96\x81"))
        return qp_err_set(err, QP_E_INPUT, "Metaspace: replacement '%s' is not supported, expected U+2581", mark);
    if (!scheme)
        scheme = flag(o, "add_prefix_space", true) ? "always" : "never";
    t->metaspace = !strcmp(scheme, "first") ? 1 : !strcmp(scheme, "always") ? 2 : 3;
    return flag(o, "split", true) ? qp_tok_add_split(t, "\xe2\x96\x81", QP_SPLIT_NEXT, false, err) : 0;
}

/* A decoder that drops the first space: Strip, or Metaspace where encoding puts one in front. */
static bool strips_first(json_t *o)
{
    size_t i;
    json_t *part;
    const char *type = str(o, "type"), *content = str(o, "content"), *scheme = str(o, "prepend_scheme");
    json_array_foreach(json_object_get(o, "decoders"), i, part)
        if (strips_first(part))
            return true;
    if (type && !strcmp(type, "Metaspace"))
        return scheme ? strcmp(scheme, "never") != 0 : flag(o, "add_prefix_space", true);
    return type && !strcmp(type, "Strip") && content && !strcmp(content, " ") && json_integer_value(json_object_get(o, "start")) > 0;
}

static int pre_tokenizer(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    size_t i;
    json_t *v;
    if (!o || json_is_null(o))
        return 0;
    if (is(o, "Sequence")) {
        json_array_foreach(json_object_get(o, "pretokenizers"), i, v)
            if (pre_tokenizer(t, v, err))
                return err->code;
        return 0;
    }
    if (t->byte_level) /* it would see bytes as characters */
        return qp_err_set(err, QP_E_INPUT, "pre_tokenizer: '%s' after ByteLevel is not supported", str(o, "type") ? str(o, "type") : "(missing)");
    if (t->n_splits && ((is(o, "ByteLevel") && flag(o, "add_prefix_space", true)) || is(o, "Metaspace")))
        return qp_err_set(err, QP_E_INPUT, "pre_tokenizer: %s after another pre-tokenizer is not supported", is(o, "Metaspace") ? "Metaspace" : "ByteLevel with add_prefix_space");
    if (is(o, "ByteLevel")) {
        t->byte_level = true;
        t->prefix_space = flag(o, "add_prefix_space", true);
        return flag(o, "use_regex", true) ? qp_tok_add_split(t, QP_GPT2_PATTERN, QP_SPLIT_ISOLATED, false, err) : 0;
    }
    if (is(o, "Digits"))
        return qp_tok_add_split(t, flag(o, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", QP_SPLIT_ISOLATED, false, err);
    if (is(o, "Whitespace"))
        return qp_tok_add_split(t, "[" WORD "]+|[^\\s" WORD "]+", QP_SPLIT_REMOVED, true, err);
    if (is(o, "WhitespaceSplit"))
        return qp_tok_add_split(t, "\\s", QP_SPLIT_REMOVED, false, err);
    if (is(o, "Punctuation"))
        return split_by(t, o, "[!-/:-@\\[-`{-~\\p{P}]", str(o, "behavior") ? str(o, "behavior") : "Isolated", err);
    if (is(o, "Metaspace"))
        return metaspace(t, o, err);
    return is(o, "Split") ? split(t, o, err) : unsupported(o, "pre_tokenizer", err);
}

/* ---- the model ---- */

static int add_merges(struct qp_tokenizer *t, json_t *merges, struct qp_err *err)
{
    size_t i;
    json_t *m;
    if (!json_is_array(merges))
        return qp_err_set(err, QP_E_INPUT, "model: 'merges' is not an array");
    if (qp_tok_reserve_merges(t, json_array_size(merges), err))
        return err->code;
    json_array_foreach(merges, i, m)
    {
        const char *a = json_string_value(m), *b = NULL;
        size_t na = 0;
        if (a) { /* "a b" */
            b = *a ? strchr(a + 1, ' ') : NULL;
            na = b ? (size_t)(b - a) : 0;
            b = b ? b + 1 : NULL;
        } else if (json_array_size(m) == 2) { /* ["a", "b"] */
            a = json_string_value(json_array_get(m, 0));
            b = json_string_value(json_array_get(m, 1));
            na = a ? strlen(a) : 0;
        }
        if (!a || !b || !na || !*b)
            return qp_err_set(err, QP_E_INPUT, "model: merge %zu is no pair of tokens", i);
        if (qp_tok_add_merge(t, i, a, na, b, strlen(b), err))
            return qp_err_context(err, "model");
    }
    return 0;
}

static int add_vocab(struct qp_tokenizer *t, json_t *vocab, struct qp_err *err)
{
    const char *text;
    json_t *id;
    if (!json_is_object(vocab))
        return qp_err_set(err, QP_E_INPUT, "model: 'vocab' is not an object");
    json_object_foreach(vocab, text, id)
    {
        if (!json_is_integer(id))
            return qp_err_set(err, QP_E_INPUT, "model: vocab: the id of '%s' is not a number", text);
        /* an honest vocabulary is dense: ids reach not far beyond its size */
        if (json_integer_value(id) > (json_int_t)(4 * json_object_size(vocab) + 65536))
            return qp_err_set(err, QP_E_INPUT, "model: vocab: the id %lld of '%s' is far beyond its %zu tokens", (long long)json_integer_value(id), text, json_object_size(vocab));
        if (qp_tok_set_token(t, json_integer_value(id), text, strlen(text), err))
            return err->code;
    }
    return 0;
}

static int add_added(struct qp_tokenizer *t, json_t *list, struct qp_err *err)
{
    size_t i;
    json_t *a;
    json_array_foreach(list, i, a)
    {
        const char *text = str(a, "content");
        json_t *id = json_object_get(a, "id");
        if (!text || !json_is_integer(id))
            return qp_err_set(err, QP_E_INPUT, "added_tokens: entry %zu has no content or no id", i);
        if (json_integer_value(id) > (json_int_t)(4 * t->n_tokens + 65536))
            return qp_err_set(err, QP_E_INPUT, "added_tokens: the id %lld of '%s' is far beyond the vocabulary", (long long)json_integer_value(id), text);
        if (qp_tok_set_token(t, json_integer_value(id), text, strlen(text), err))
            return qp_err_context(err, "added_tokens");
        t->tokens[json_integer_value(id)].type = flag(a, "special", false) ? 3 : 4;
        struct qp_added add = {.text = t->tokens[json_integer_value(id)].text, .n = strlen(text), .id = (int32_t)json_integer_value(id), .special = flag(a, "special", false),
                               .lstrip = flag(a, "lstrip", false), .rstrip = flag(a, "rstrip", false), .single_word = flag(a, "single_word", false)};
        if (qp_tok_add_added(t, add, err))
            return err->code;
    }
    return 0;
}

/* ---- what is put around a text ---- */

static int template_ids(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    json_t *item, *special = json_object_get(o, "special_tokens");
    size_t i, n = json_array_size(json_object_get(o, "single"));
    bool after = false;
    if (n > 64)
        return qp_err_set(err, QP_E_INPUT, "post_processor: a template of %zu items", n);
    t->prefix = qp_alloc_n(n + 1, sizeof *t->prefix, "template", err);
    t->suffix = qp_alloc_n(n + 1, sizeof *t->suffix, "template", err);
    if (!t->prefix || !t->suffix)
        return QP_E_RESOURCE;
    json_array_foreach(json_object_get(o, "single"), i, item)
    {
        const char *name = str(json_object_get(item, "SpecialToken"), "id");
        if (!name) {
            after = true;
            continue;
        }
        json_t *ids = json_object_get(json_object_get(special, name), "ids");
        int32_t id = json_array_size(ids) == 1 ? (int32_t)json_integer_value(json_array_get(ids, 0)) : qp_tokenizer_id(t, name);
        if (id < 0 || (size_t)id >= t->n_tokens)
            return qp_err_set(err, QP_E_INPUT, "post_processor: special token '%s' is not in the vocabulary", name);
        if (after)
            t->suffix[t->n_suffix++] = id;
        else
            t->prefix[t->n_prefix++] = id;
    }
    return 0;
}

static int post_processor(struct qp_tokenizer *t, json_t *o, struct qp_err *err)
{
    size_t i;
    json_t *v;
    if (!o || json_is_null(o) || is(o, "ByteLevel"))
        return 0;
    if (is(o, "Sequence")) {
        json_array_foreach(json_object_get(o, "processors"), i, v)
            if (post_processor(t, v, err))
                return err->code;
        return 0;
    }
    if (is(o, "TemplateProcessing"))
        return t->prefix ? 0 : template_ids(t, o, err);
    return unsupported(o, "post_processor", err);
}

/* ---- tokenizer_config.json ---- */

static int32_t named_token(const struct qp_tokenizer *t, json_t *config, const char *key)
{
    json_t *v = json_object_get(config, key);
    const char *name = json_is_object(v) ? str(v, "content") : json_string_value(v);
    return name ? qp_tokenizer_id(t, name) : -1;
}

/* One template, or a list of {name, template}: the one named "default", else the first. */
static const char *chat_of(const json_t *v)
{
    const char *first = json_is_array(v) ? str(json_array_get(v, 0), "template") : json_string_value(v);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *name = str(json_array_get(v, i), "name");
        if (name && !strcmp(name, "default"))
            return str(json_array_get(v, i), "template");
    }
    return first;
}

static int read_config(struct qp_tokenizer *t, const char *path, struct qp_err *err)
{
    const char *slash = strrchr(path, '/');
    struct qp_buf name = QP_BUF_INIT;
    qp_buf_addf(&name, "%.*stokenizer_config.json", slash ? (int)(slash - path + 1) : 0, path);
    json_t *c = name.failed ? NULL : json_load_file(name.data, 0, NULL);
    t->bos = named_token(t, c, "bos_token");
    t->eos = named_token(t, c, "eos_token");
    qp_buf_clear(&name);
    qp_buf_addf(&name, "%.*schat_template.jinja", slash ? (int)(slash - path + 1) : 0, path);
    struct qp_buf text = QP_BUF_INIT;
    struct qp_err none = {0};
    const char *chat = !qp_file_read(&text, name.data, 4u << 20, &none) && text.data ? text.data : chat_of(json_object_get(c, "chat_template"));
    int r = chat && !(t->chat_template = qp_strdup(chat, err)) ? QP_E_RESOURCE : 0;
    json_decref(c);
    qp_buf_release(&text);
    qp_buf_release(&name);
    return r;
}

static int build(struct qp_tokenizer *t, json_t *root, struct qp_err *err)
{
    json_t *model = json_object_get(root, "model"), *unk = json_object_get(model, "unk_token");
    const char *type = str(model, "type");
    if (!json_is_object(model) || (type && strcmp(type, "BPE")))
        return qp_err_set(err, QP_E_INPUT, "model of type '%s' is not supported; supported: BPE", type ? type : "(missing)");
    t->byte_fallback = flag(model, "byte_fallback", false);
    t->ignore_merges = flag(model, "ignore_merges", false);
    t->fuse_unk = flag(model, "fuse_unk", false);
    t->strip_first = strips_first(json_object_get(root, "decoder"));
    int r = normalizer(t, json_object_get(root, "normalizer"), err);
    r = r ? r : pre_tokenizer(t, json_object_get(root, "pre_tokenizer"), err);
    r = r ? r : add_vocab(t, json_object_get(model, "vocab"), err);
    r = r ? r : add_added(t, json_object_get(root, "added_tokens"), err);
    r = r ? r : qp_tok_index(t, err);
    r = r ? r : add_merges(t, json_object_get(model, "merges"), err);
    r = r ? r : post_processor(t, json_object_get(root, "post_processor"), err);
    t->unk = json_is_string(unk) ? qp_tokenizer_id(t, json_string_value(unk)) : -1;
    return r ? r : qp_tok_finish(t, err);
}

int qp_tokenizer_open_memory(struct qp_tokenizer **out, const char *json, size_t n, struct qp_err *err)
{
    *out = NULL;
    json_error_t je;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(root)) {
        json_decref(root);
        return qp_err_set(err, QP_E_INPUT, "line %d: %s", je.line, root ? "not a JSON object" : je.text);
    }
    struct qp_tokenizer *t = qp_zalloc(sizeof *t, "tokenizer", err);
    struct qp_err local = {0};
    int r = t ? build(t, root, err ? err : &local) : QP_E_RESOURCE;
    json_decref(root);
    if (t)
        t->bos = t->eos = -1;
    if (r) {
        qp_tokenizer_free(t);
        return r;
    }
    *out = t;
    return 0;
}

int qp_tokenizer_open_json(struct qp_tokenizer **out, const char *path, struct qp_err *err)
{
    *out = NULL;
    struct qp_buf text = QP_BUF_INIT;
    struct qp_tokenizer *t = NULL;
    int r = qp_file_read(&text, path, MAX_JSON, err);
    if (!r && (r = qp_tokenizer_open_memory(&t, text.data ? text.data : "", text.len, err)))
        qp_err_context(err, "'%s'", path);
    if (!r)
        r = read_config(t, path, err);
    if (!r && !(t->json = qp_strdup(text.data, err)))
        r = QP_E_RESOURCE;
    qp_buf_release(&text);
    if (r) {
        qp_tokenizer_free(t);
        return r;
    }
    *out = t;
    return 0;
}
