/* A tokenizer's parts, shared by the files of text/. Private to text/. */
#ifndef QP_TEXT_INTERNAL_H
#define QP_TEXT_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/tokenizer.h"

/* ---- string -> id, and pair -> merge: open addressing, read-only after building ---- */

struct qp_vocab_slot {
    uint64_t hash; /* 0: empty */
    int32_t id;
};

struct qp_merge_slot {
    int64_t pair; /* left << 32 | right; -1: empty */
    int32_t rank, id;
};

struct qp_token {
    char *bytes;      /* what it stands for: raw bytes for byte-level tokens, else its text; owned */
    uint32_t n;
    char *text;       /* as the file has it; owned, may be the same pointer as bytes */
    float score;
    uint8_t type;     /* GGUF's numbers: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte */
    bool present;
};

/* ---- steps before the merges ---- */

enum qp_norm_kind { QP_NORM_NFC, QP_NORM_NFD, QP_NORM_NFKC, QP_NORM_NFKD, QP_NORM_LOWER, QP_NORM_REPLACE, QP_NORM_PREPEND, QP_NORM_STRIP };
struct qp_norm {
    enum qp_norm_kind kind;
    char *from, *to;     /* REPLACE (from: literal, or NULL with regex), PREPEND (to) */
    pcre2_code *regex;
    bool left, right;    /* STRIP */
};

enum qp_split_behavior { QP_SPLIT_REMOVED, QP_SPLIT_ISOLATED, QP_SPLIT_PREVIOUS, QP_SPLIT_NEXT, QP_SPLIT_CONTIGUOUS };
struct qp_split {
    pcre2_code *regex;
    enum qp_split_behavior behavior;
    bool invert;
};

struct qp_added {
    char *text;
    size_t n;
    int32_t id;
    bool special, lstrip, rstrip, single_word;
};

struct qp_tokenizer {
    struct qp_token *tokens; /* [n_tokens] by id */
    size_t n_tokens;
    struct qp_vocab_slot *vocab;
    size_t vocab_mask;
    struct qp_merge_slot *merges;
    size_t merge_mask, n_merges;
    char **merge_text; /* [n_merges] "a b", for saving; owned */
    bool byte_level, byte_fallback, ignore_merges, by_score, fuse_unk;
    bool prefix_space; /* ByteLevel add_prefix_space */
    int metaspace;     /* 0 none, 1 prepend to the first piece of text, 2 to every piece, 3 replace only; 1 and 2 unless a space stands there already; 4 in any case */
    bool strip_first;  /* decoding drops a space at the beginning: the one that encoding put there */
    int32_t byte_ids[256], unk; /* -1: none */
    struct qp_norm *norms;
    size_t n_norms;
    struct qp_split *splits;
    size_t n_splits;
    struct qp_added *added; /* longest first */
    size_t n_added;
    bool added_first[256];  /* a token begins with this byte */
    int32_t *prefix, *suffix; /* what the post-processor adds */
    size_t n_prefix, n_suffix;
    int32_t bos, eos;
    char *chat_template;
    char hash[65];
    char *json;      /* the tokenizer.json that it came from, for saving; NULL from GGUF */
    char *pre;       /* GGUF's pre-tokenizer name */
};

/* Building. Errors are QP_E_INPUT or QP_E_RESOURCE. */
int qp_tok_set_token(struct qp_tokenizer *t, int64_t id, const char *text, size_t n, struct qp_err *err) QP_MUST_USE;
/* Hash tables over the tokens; byte-level texts are turned into bytes. merges: "a b" texts, or pairs joined by a space. */
int qp_tok_index(struct qp_tokenizer *t, struct qp_err *err) QP_MUST_USE;
int qp_tok_add_merge(struct qp_tokenizer *t, size_t rank, const char *left, size_t nl, const char *right, size_t nr, struct qp_err *err) QP_MUST_USE;
int qp_tok_reserve_merges(struct qp_tokenizer *t, size_t n, struct qp_err *err) QP_MUST_USE;
int qp_tok_add_split(struct qp_tokenizer *t, const char *pattern, enum qp_split_behavior behavior, bool invert, struct qp_err *err) QP_MUST_USE;
int qp_tok_add_norm(struct qp_tokenizer *t, struct qp_norm norm, struct qp_err *err) QP_MUST_USE; /* takes from, to, regex */
int qp_tok_add_added(struct qp_tokenizer *t, struct qp_added a, struct qp_err *err) QP_MUST_USE;   /* copies text */
int qp_tok_finish(struct qp_tokenizer *t, struct qp_err *err) QP_MUST_USE; /* sorts, hashes, checks */
pcre2_code *qp_tok_regex(const char *pattern, struct qp_err *err);
/* -1: no such token. bytes as in struct qp_token. */
int32_t qp_tok_find(const struct qp_tokenizer *t, const char *bytes, size_t n);

/* GPT-2's pattern, which ByteLevel uses. */
#define QP_GPT2_PATTERN "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* GGUF's pre-tokenizer names: the splits, and whether a whole word in the vocabulary is taken as it is. NULL: unknown. */
struct qp_pre {
    const char *name, *patterns[4];
    bool ignore_merges;
};
const struct qp_pre *qp_tok_pre(const char *name);

/* Normalized text of one stretch between added tokens, appended to out. first: it begins the whole text. */
int qp_tok_normalize(const struct qp_tokenizer *t, const char *text, size_t n, bool first, struct qp_buf *out, struct qp_err *err) QP_MUST_USE;
struct qp_span {
    uint32_t start, n;
};
struct qp_spans {
    struct qp_span *v;
    size_t n, cap;
};
/* The pre-tokens of text. */
int qp_tok_pretokenize(const struct qp_tokenizer *t, const char *text, size_t n, struct qp_spans *out, struct qp_err *err) QP_MUST_USE;
/* Appends the ids of one pre-token; work is scratch that is kept between calls. */
struct qp_bpe_work {
    void *symbols, *heap;
    size_t symbols_cap, heap_cap;
};
int qp_tok_bpe(const struct qp_tokenizer *t, struct qp_bpe_work *work, const char *text, size_t n, struct qp_ids *out, struct qp_err *err) QP_MUST_USE;

/* GPT-2's bytes as printable characters: the code point of byte b, and back (-1: none). */
uint32_t qp_byte_to_char(uint8_t b);
int qp_char_to_byte(uint32_t c);
/* Length of the UTF-8 sequence at p (validated text), and its code point. */
int qp_utf8_next(const char *p, uint32_t *c);
int qp_utf8_put(uint32_t c, char out[4]);
/* Bytes at the beginning of s that are valid UTF-8: n if all are. */
size_t qp_utf8_valid(const char *s, size_t n);
bool qp_is_space(uint32_t c); /* Unicode's White_Space */

#endif
