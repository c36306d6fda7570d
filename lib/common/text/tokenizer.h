/* Tokenizers: byte-level BPE and SentencePiece-style BPE, from tokenizer.json or from a GGUF file's metadata.
 * Ids equal those of Hugging Face tokenizers on the same file. Time is linear in the text's length (priority-queue merges per
 * pre-token, a cache of pre-tokens). A tokenizer is read-only after opening and may be shared between threads.
 */
#ifndef QP_TEXT_TOKENIZER_H
#define QP_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

struct qp_tokenizer;

struct qp_ids { /* growable list of token ids; zero-initialize */
    int32_t *v;
    size_t n, cap;
};
void qp_ids_release(struct qp_ids *ids);
int qp_ids_add(struct qp_ids *ids, int32_t id, struct qp_err *err) QP_MUST_USE;

/* tokenizer.json (Hugging Face). When tokenizer_config.json stands beside it, its bos/eos/chat template are read too. */
int qp_tokenizer_open_json(struct qp_tokenizer **out, const char *path, struct qp_err *err) QP_MUST_USE;

/* The same over memory, without what stands beside the file (fuzzing, tests). */
int qp_tokenizer_open_memory(struct qp_tokenizer **out, const char *json, size_t n, struct qp_err *err) QP_MUST_USE;

/* What a GGUF file's metadata gives; strings are copied. */
struct qp_tokenizer_spec {
    const char *model;           /* tokenizer.ggml.model: "gpt2" (byte-level BPE) or "llama" (SentencePiece BPE) */
    const char *pre;             /* tokenizer.ggml.pre: "smollm", "llama-bpe", "qwen2", "default", ...; NULL: default */
    const char *const *tokens;   /* [n_tokens] zero-terminated */
    const size_t *token_bytes;   /* [n_tokens] lengths */
    const float *scores;         /* [n_tokens] or NULL */
    const int32_t *types;        /* [n_tokens] or NULL: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte */
    size_t n_tokens;
    const char *const *merges;   /* [n_merges] "a b"; NULL for "llama" */
    size_t n_merges;
    int64_t bos, eos, unk, pad;  /* -1: none */
    bool add_bos, add_eos, add_space_prefix;
    const char *chat_template;   /* or NULL */
    void *owned;                 /* qp_tokenizer_describe's */
};
int qp_tokenizer_new(struct qp_tokenizer **out, const struct qp_tokenizer_spec *spec, struct qp_err *err) QP_MUST_USE;
void qp_tokenizer_free(struct qp_tokenizer *tok);
/* The reverse, for n tokens (those of a model's embeddings; [PADi] where the tokenizer has none): texts are borrowed from tok, arrays are not; release in any case.
 * QP_E_INPUT: a tokenizer that GGUF cannot express, or would not encode the same. Byte-level BPE only. */
int qp_tokenizer_describe(const struct qp_tokenizer *tok, size_t n, struct qp_tokenizer_spec *out, struct qp_err *err) QP_MUST_USE;
void qp_tokenizer_spec_release(struct qp_tokenizer_spec *spec);

enum qp_encode_flags {
    QP_ENC_SPECIAL = 1,      /* add what the post-processor adds (BOS, EOS), as add_special_tokens=True does */
    QP_ENC_NO_ADDED = 2      /* text of added (control) tokens is ordinary text */
};
/* Appends the ids of text (UTF-8; invalid sequences are QP_E_INPUT with the byte offset). */
int qp_tokenizer_encode(const struct qp_tokenizer *tok, const char *text, size_t bytes, unsigned flags, struct qp_ids *out,
                        struct qp_err *err) QP_MUST_USE;
/* Appends the text of ids. skip_special leaves control tokens and the unknown one out. Bytes that form no UTF-8 become U+FFFD, as transformers prints them. */
int qp_tokenizer_decode(const struct qp_tokenizer *tok, const int32_t *ids, size_t n, bool skip_special, struct qp_buf *out,
                        struct qp_err *err) QP_MUST_USE;

size_t qp_tokenizer_size(const struct qp_tokenizer *tok); /* greatest id + 1 */
int32_t qp_tokenizer_bos(const struct qp_tokenizer *tok); /* -1: none */
int32_t qp_tokenizer_eos(const struct qp_tokenizer *tok);
bool qp_tokenizer_adds_bos(const struct qp_tokenizer *tok); /* encoding with QP_ENC_SPECIAL begins with BOS */
/* The id of exactly that token's text, or -1. */
int32_t qp_tokenizer_id(const struct qp_tokenizer *tok, const char *token);
/* Borrowed; NULL: none. */
const char *qp_tokenizer_chat_template(const struct qp_tokenizer *tok);
/* SHA-256 of vocabulary and merges, hexadecimal: tells whether two models share a tokenizer. Borrowed. */
const char *qp_tokenizer_hash(const struct qp_tokenizer *tok);

/* Writes a tokenizer.json (and tokenizer_config.json) into dir that encodes the same ids: what qquant -o needs for a model
 * that came from GGUF. */
int qp_tokenizer_save(const struct qp_tokenizer *tok, const char *dir, struct qp_err *err) QP_MUST_USE;

#endif
