/* A tokenizer as GGUF's metadata would have it: what qp_tokenizer_new makes the same tokenizer of. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/internal.h"

/* Splits differently under each of GGUF's pre-tokenizers: digits, capitals behind apostrophes, runs of spaces and lines, marks, scripts. */
static const char probe[] = "Hello  world, it's 3.14159 and 12345678 IT'S we'LL don't\tx = foo_bar(a[0]);\n\n  indent\r\n \n!!!??? ...\n$%^&*() caf\xc3\xa9 na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e "
                            "\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88 \xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xf0\x9f\x99\x82\xf0\x9f\x9a\x80 \xc2\xb2\xc2\xbd \xe2\x85\xa7 1a2b3c A1B2 'tis \"quoted\" end   ";

static bool same_spans(const struct qp_spans *a, const struct qp_spans *b)
{
    return a->n == b->n && (!a->n || !memcmp(a->v, b->v, a->n * sizeof *a->v));
}

/* 1: the pre-tokenizer of that name splits as t does; 0: it does not. */
static int splits_alike(const struct qp_tokenizer *t, const struct qp_pre *pre, struct qp_err *err)
{
    struct qp_spans want = {0}, got = {0};
    struct qp_tokenizer *other = qp_zalloc(sizeof *other, "tokenizer", err);
    if (!other)
        return QP_E_RESOURCE;
    other->byte_level = true;
    int r = 0;
    for (int i = 0; i < 4 && pre->patterns[i] && !r; i++)
        r = qp_tok_add_split(other, pre->patterns[i], QP_SPLIT_ISOLATED, false, err);
    r = r ? r : qp_tok_pretokenize(t, probe, sizeof probe - 1, &want, err);
    r = r ? r : qp_tok_pretokenize(other, probe, sizeof probe - 1, &got, err);
    r = r ? r : same_spans(&want, &got);
    free(want.v);
    free(got.v);
    qp_tokenizer_free(other);
    return r;
}

static int find_pre(const struct qp_tokenizer *t, const char **name, struct qp_err *err)
{
    static const char *const names[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "default"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct qp_pre *pre = qp_tok_pre(names[i]);
        int r = pre->ignore_merges == t->ignore_merges ? splits_alike(t, pre, err) : 0;
        *name = names[i];
        if (r)
            return r < 0 ? r : 0;
    }
    return qp_err_set(err, QP_E_INPUT, "its pre-tokenizer is none that GGUF has a name for here (gpt-2, smollm, llama-bpe, qwen2, default)");
}

/* What GGUF cannot say, or llama.cpp does not do. NFC is left out by other converters, too. */
static int check(const struct qp_tokenizer *t, struct qp_err *err)
{
    if (!t->byte_level || t->prefix_space)
        return qp_err_set(err, QP_E_INPUT, "it is no byte-level BPE without a leading space; others (SentencePiece) are not written into GGUF files");
    for (size_t i = 0; i < t->n_norms; i++)
        if (t->norms[i].kind != QP_NORM_NFC)
            return qp_err_set(err, QP_E_INPUT, "it has a normalizer other than NFC, which GGUF files cannot express");
    if (t->n_prefix > 1 || t->n_suffix > 1 || (t->n_suffix && t->suffix[0] != t->eos))
        return qp_err_set(err, QP_E_INPUT, "it puts other tokens around a text than BOS before it and EOS behind it");
    return 0;
}

struct holder { /* behind the spec's arrays */
    char pad[32]; /* "[PAD" and 20 digits */
};

static int fill(struct qp_tokenizer_spec *s, const struct qp_tokenizer *t, size_t n, struct qp_err *err)
{
    const char **tokens = qp_alloc_n(n + 1, sizeof *tokens, "tokenizer", err), **merges = qp_alloc_n(t->n_merges + 1, sizeof *merges, "tokenizer", err);
    size_t *bytes = qp_alloc_n(n + 1, sizeof *bytes, "tokenizer", err);
    int32_t *types = qp_alloc_n(n + 1, sizeof *types, "tokenizer", err);
    struct holder *pads = qp_alloc_n(n + 1, sizeof *pads, "tokenizer", err);
    s->tokens = tokens;
    s->merges = merges;
    s->token_bytes = bytes;
    s->types = types;
    s->owned = pads;
    if (!tokens || !merges || !bytes || !types || !pads)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < n; i++) {
        bool there = i < t->n_tokens && t->tokens[i].present;
        snprintf(pads[i].pad, sizeof pads[i].pad, "[PAD%zu]", i);
        tokens[i] = there ? t->tokens[i].text : pads[i].pad;
        bytes[i] = strlen(tokens[i]);
        types[i] = there ? 1 : 5;
    }
    for (size_t i = 0; i < t->n_added; i++)
        types[t->added[i].id] = t->added[i].special ? 3 : 4;
    for (size_t i = 0; i < t->n_merges; i++)
        merges[i] = t->merge_text[i];
    s->n_tokens = n;
    s->n_merges = t->n_merges;
    return 0;
}

/* That it encodes alike when it is read again. */
static int verify(const struct qp_tokenizer *t, const struct qp_tokenizer_spec *s, struct qp_err *err)
{
    struct qp_tokenizer *other;
    struct qp_ids want = {0}, got = {0};
    int r = qp_tokenizer_new(&other, s, err);
    if (r)
        return r;
    r = qp_tokenizer_encode(t, probe, sizeof probe - 1, QP_ENC_SPECIAL, &want, err);
    r = r ? r : qp_tokenizer_encode(other, probe, sizeof probe - 1, QP_ENC_SPECIAL, &got, err);
    if (!r && (want.n != got.n || memcmp(want.v, got.v, want.n * sizeof *want.v)))
        r = qp_err_set(err, QP_E_INPUT, "as GGUF metadata it would encode a text differently");
    qp_ids_release(&want);
    qp_ids_release(&got);
    qp_tokenizer_free(other);
    return r;
}

int qp_tokenizer_describe(const struct qp_tokenizer *t, size_t n, struct qp_tokenizer_spec *s, struct qp_err *err)
{
    *s = (struct qp_tokenizer_spec){.model = "gpt2", .bos = t->n_prefix ? t->prefix[0] : t->bos, .eos = t->eos, .unk = t->unk, .pad = -1, .add_bos = t->n_prefix > 0,
                                    .add_eos = t->n_suffix > 0, .chat_template = t->chat_template};
    if (t->n_tokens > n)
        return qp_err_set(err, QP_E_INPUT, "it has %zu tokens, the model's embeddings %zu", t->n_tokens, n);
    int r = check(t, err);
    r = r ? r : find_pre(t, &s->pre, err);
    r = r ? r : fill(s, t, n, err);
    return r ? r : verify(t, s, err);
}

void qp_tokenizer_spec_release(struct qp_tokenizer_spec *s)
{
    qp_free((void *)(uintptr_t)s->tokens);
    qp_free((void *)(uintptr_t)s->merges);
    qp_free((void *)(uintptr_t)s->token_bytes);
    qp_free((void *)(uintptr_t)s->types);
    qp_free(s->owned);
    *s = (struct qp_tokenizer_spec){0};
}
