/* Lists of values on the command line, the shapes they make, and names for them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qlat.h"

/* Calls take for each word between commas: its value, and where it is a range its end. */
static int split(const char *text, const char *option, struct qlat_list *out, bool (*take)(const char *word, int64_t *v, int64_t *to), const char *what, struct qp_err *err)
{
    char word[48];
    out->n = 0;
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        if (n >= sizeof word || out->n == QLAT_MAX_LIST || !take(word, &out->v[out->n], &out->to[out->n]))
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

static bool take_batch(const char *word, int64_t *v, int64_t *to)
{
    (void)to;
    return number(word, 1, 4096, v);
}

/* N, or N-M where M is not less. */
static bool take_length(const char *word, int64_t *v, int64_t *to)
{
    char first[48];
    size_t n = strcspn(word, "-");
    snprintf(first, sizeof first, "%.*s", (int)n, word);
    return number(first, 1, 1 << 20, v) && number(word[n] ? word + n + 1 : word, *v, 1 << 20, to);
}

static bool take_depth(const char *word, int64_t *v, int64_t *to)
{
    (void)to;
    return number(word, 0, 1 << 20, v);
}

static bool take_kv(const char *word, int64_t *v, int64_t *to)
{
    (void)to;
    for (*v = 0; qp_kv_choices[*v]; ++*v)
        if (!strcmp(word, qp_kv_choices[*v]))
            return true;
    return false;
}

static int64_t greatest(const struct qlat_list *l)
{
    int64_t most = 0;
    for (int i = 0; i < l->n; i++)
        most = l->v[i] > most ? l->v[i] : most;
    return most;
}

/* What goes together. */
static int check_lists(const struct qlat *a, struct qp_err *err)
{
    for (int i = 0; a->prompt_path && i < a->prompt_lens.n; i++)
        if (a->prompt_lens.to[i] > a->prompt_lens.v[i])
            return qp_err_set(err, QP_E_USAGE, "--prompt-len takes no range where --prompt gives the texts: it cuts them to one length");
    if (a->new_lens.n > 1)
        return qp_err_set(err, QP_E_USAGE, "--new-tokens takes one number or one range, not '%s'", a->new_text);
    if (!a->requests && a->new_lens.to[0] > a->new_lens.v[0])
        return qp_err_set(err, QP_E_USAGE, "--new-tokens takes a range with --requests alone: a batch in step has answers of one length");
    if (a->requests && a->requests < greatest(&a->batches))
        return qp_err_set(err, QP_E_USAGE, "--requests %lld are fewer than a batch of %lld", (long long)a->requests, (long long)greatest(&a->batches));
    if (a->requests && a->llama_path)
        return qp_err_set(err, QP_E_USAGE, "--llama-bench-json has no fields for --requests");
    return 0;
}

int qlat_parse_lists(struct qlat *a, struct qp_err *err)
{
    static const char ranges[] = "whole numbers from 1 to 1048576 and ranges of them (64-512, the lesser first)";
    int r = split(a->batch_text, "batch", &a->batches, take_batch, "whole numbers from 1 to 4096", err);
    r = r ? r : split(a->depth_text, "context-depth", &a->depths, take_depth, "whole numbers from 0 to 1048576", err);
    r = r ? r : split(a->kv_text, "kv", &a->kvs, take_kv, "some of auto, f32, bf16, f16, int8", err);
    a->prompt_lens.n = 1; /* 0: the texts of --prompt as they are */
    if (!r && (a->prompt_len_text || !a->prompt_path))
        r = split(a->prompt_len_text ? a->prompt_len_text : "512", "prompt-len", &a->prompt_lens, take_length,
                  ranges, err);
    r = r ? r : split(a->new_text, "new-tokens", &a->new_lens, take_length, ranges, err);
    return r ? r : check_lists(a, err);
}

int64_t qlat_most_prompts(const struct qlat *a)
{
    return a->requests ? a->requests : greatest(&a->batches);
}

static void write_tag(struct qlat *a, const struct qp_latency_shape *s, int len)
{
    char *out = a->tag;
    int at = snprintf(out, QLAT_TAG, "bs%lld", (long long)s->batch);
    if (s->requests)
        at += snprintf(out + at, (size_t)(QLAT_TAG - at), "-r%lld", (long long)s->requests);
    if (a->prompt_lens.n > 1)
        at += snprintf(out + at, (size_t)(QLAT_TAG - at), "-p%lld", (long long)a->prompt_lens.v[len]);
    if (a->prompt_lens.n > 1 && a->prompt_lens.to[len] > a->prompt_lens.v[len])
        at += snprintf(out + at, (size_t)(QLAT_TAG - at), "-%lld", (long long)a->prompt_lens.to[len]);
    if (s->depth)
        at += snprintf(out + at, (size_t)(QLAT_TAG - at), "-d%lld", (long long)s->depth);
    if (s->kv)
        snprintf(out + at, (size_t)(QLAT_TAG - at), "-%s", qp_kv_choices[s->kv]);
}

bool qlat_shape(struct qlat *a, int i, struct qp_latency_shape *out)
{
    int batch = i % a->batches.n, rest = i / a->batches.n, len = rest % a->prompt_lens.n;
    rest /= a->prompt_lens.n;
    int depth = rest % a->depths.n, kv = rest / a->depths.n;
    if (kv >= a->kvs.n)
        return false;
    *out = (struct qp_latency_shape){.batch = a->batches.v[batch], .requests = a->requests, .prompt_lens = a->prompt_tokens, .new_lens = a->requests ? a->new_tokens : NULL,
                                     .new_tokens = a->new_lens.to[0], .depth = a->depths.v[depth], .kv = (int)a->kvs.v[kv]};
    qlat_lengths(a, qp_latency_requests(out), a->prompt_lens.v[len], a->prompt_lens.to[len]);
    out->capacity = a->cache ? a->cache : out->depth + a->of_prompts.most + out->new_tokens;
    write_tag(a, out, len);
    return true;
}
