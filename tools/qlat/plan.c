/* Lists of values on the command line, the shapes they make, and names for them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "qlat.h"
#include "text/tokenizer.h"

#define MAX_PROMPT ((size_t)64 << 20)

/* Calls take for each word between commas. */
static int split(const char *text, const char *option, struct qlat_list *out, bool (*take)(const char *word, int64_t *v), const char *what, struct qp_err *err)
{
    char word[32];
    out->n = 0;
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        if (n >= sizeof word || out->n == QLAT_MAX_LIST || !take(word, &out->v[out->n]))
            return qp_err_set(err, QP_E_USAGE, "--%s takes %s, at most %d with commas between, not '%s'", option, what, QLAT_MAX_LIST, text);
        out->n++;
        p += n;
        if (!*p)
            return 0;
    }
}

static bool number(const char *word, int64_t least, int64_t most, int64_t *v)
{
    char *end;
    errno = 0;
    long long x = strtoll(word, &end, 10);
    *v = x;
    return !errno && end != word && !*end && x >= least && x <= most;
}

static bool take_batch(const char *word, int64_t *v)
{
    return number(word, 1, 4096, v);
}

static bool take_length(const char *word, int64_t *v)
{
    return number(word, 1, 1 << 20, v);
}

static bool take_depth(const char *word, int64_t *v)
{
    return number(word, 0, 1 << 20, v);
}

static bool take_kv(const char *word, int64_t *v)
{
    for (*v = 0; qp_kv_choices[*v]; ++*v)
        if (!strcmp(word, qp_kv_choices[*v]))
            return true;
    return false;
}

int qlat_parse_lists(struct qlat *a, struct qp_err *err)
{
    int r = split(a->batch_text, "batch", &a->batches, take_batch, "whole numbers from 1 to 4096", err);
    r = r ? r : split(a->depth_text, "context-depth", &a->depths, take_depth, "whole numbers from 0 to 1048576", err);
    r = r ? r : split(a->kv_text, "kv", &a->kvs, take_kv, "some of auto, f32, bf16, f16, int8", err);
    if (!r && (a->prompt_len_text || !a->prompt_path))
        r = split(a->prompt_len_text ? a->prompt_len_text : "512", "prompt-len", &a->prompt_lens, take_length, "whole numbers from 1 to 1048576", err);
    return r;
}

int qlat_read_prompt(struct qlat *a, struct qp_err *err)
{
    struct qp_tokenizer *tok;
    if (!a->prompt_path)
        return 0;
    if (qp_file_read(&a->prompt, a->prompt_path, MAX_PROMPT, err))
        return err->code;
    if (!a->prompt.len || strlen(a->prompt.data) != a->prompt.len)
        return qp_err_set(err, QP_E_INPUT, "'%s' holds no text", a->prompt_path);
    if (a->prompt_lens.n)
        return 0;
    if (qp_model_tokenizer(a->list[0].model, &tok, err))
        return err->code;
    int64_t n = qp_latency_prompt_len(tok, a->prompt.data, err);
    qp_tokenizer_free(tok);
    if (n < 0)
        return qp_err_context(err, "'%s'", a->prompt_path);
    if (n == 0)
        return qp_err_set(err, QP_E_INPUT, "'%s' has no tokens", a->prompt_path);
    a->prompt_lens = (struct qlat_list){{n}, 1};
    return 0;
}

bool qlat_shape(const struct qlat *a, int i, struct qp_latency_shape *out)
{
    int batch = i % a->batches.n, rest = i / a->batches.n, len = rest % a->prompt_lens.n;
    rest /= a->prompt_lens.n;
    int depth = rest % a->depths.n, kv = rest / a->depths.n;
    if (kv >= a->kvs.n)
        return false;
    *out = (struct qp_latency_shape){.batch = a->batches.v[batch], .prompt_len = a->prompt_lens.v[len], .new_tokens = a->new_tokens, .depth = a->depths.v[depth], .kv = (int)a->kvs.v[kv]};
    out->capacity = a->cache ? a->cache : out->depth + out->prompt_len + out->new_tokens;
    return true;
}

void qlat_tag(const struct qlat *a, const struct qp_latency_shape *s, char out[QLAT_TAG])
{
    int at = snprintf(out, QLAT_TAG, "bs%lld", (long long)s->batch);
    if (a->prompt_lens.n > 1)
        at += snprintf(out + at, (size_t)(QLAT_TAG - at), "-p%lld", (long long)s->prompt_len);
    if (s->depth)
        at += snprintf(out + at, (size_t)(QLAT_TAG - at), "-d%lld", (long long)s->depth);
    if (s->kv)
        snprintf(out + at, (size_t)(QLAT_TAG - at), "-%s", qp_kv_choices[s->kv]);
}
