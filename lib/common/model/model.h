/* Models: configuration and tensors of a Hugging Face directory or a GGUF file, mapped, never copied.
 *
 * Whatever the file, tensors have the names of the architecture's Hugging Face checkpoints ("model.layers.3.self_attn.q_proj.weight") and its order of
 * rows (GGUF's rotated q and k rows of the llama architecture are put back while reading), always [out, in]. qp_model_part finds them by what they do.
 * A linear layer may be stored quantized (GPTQ, AWQ, bitsandbytes, compressed-tensors): qp_weight_read_rows decodes any storage to float32.
 * Overlays put an inline quantized model from a stream over its baseline.
 *
 *     struct qp_model *m;
 *     if (qp_model_open(&m, "smollm.gguf", &err) < 0) ...
 *     const struct qp_weight *w = qp_model_weight(m, "model.embed_tokens.weight");
 *     qp_weight_read_rows(w, 0, 4, rows, &err);           // rows [4, w->cols] float32
 */
#ifndef QP_MODEL_MODEL_H
#define QP_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/tensor.h"

enum qp_rope_scaling { QP_ROPE_NONE, QP_ROPE_LINEAR, QP_ROPE_LLAMA3, QP_ROPE_LONG /* Phi-3's: rope_factors and rope_attention_factor */ };
enum qp_norm_kind { QP_NORM_RMS, QP_NORM_RMS_PLUS_ONE /* Gemma: the weight is 1 + w */, QP_NORM_LAYER /* mean taken off, with a bias */ };
enum qp_activation { QP_ACT_SILU, QP_ACT_GELU_TANH, QP_ACT_GELU_ERF };

#define QP_MAX_LAYERS 4096

struct qp_model_config {
    char arch[32];            /* "llama", "qwen3", "gpt2", ...: a row of the architecture table (model/arch.h) */
    int64_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size, max_positions;
    int64_t sliding_window;   /* 0: none */
    uint8_t global[QP_MAX_LAYERS / 8]; /* bit l: layer l sees all positions in spite of sliding_window */
    enum qp_norm_kind norm;
    enum qp_activation activation;
    bool gated;               /* the MLP is down(act(gate(x)) * up(x)), else down(act(up(x))) */
    bool parallel_residual;   /* attention and MLP both read the block's input */
    bool qkv_by_head;         /* rows of the fused q, k, v matrix lie by (head, part, i) */
    double embed_scale;       /* embeddings are multiplied by it; 0: not */
    double attention_cap, logit_cap; /* scores and logits v become cap * tanh(v / cap) (Gemma 2); 0: not */
    double attention_scale;   /* of q·k; 0: 1 / sqrt(head_dim) */
    bool learned_positions;   /* a table of max_positions rows is added to the embeddings; no rotation */
    int64_t rope_dims;        /* leading dimensions of a head that rotate; 0: all */
    double rope_theta_local;  /* of sliding layers, unscaled; 0: as the others */
    int64_t n_experts, n_experts_used, d_ff_expert, d_ff_shared; /* d_ff_shared: width of the expert that all tokens pass; 0: none */
    uint8_t dense[QP_MAX_LAYERS / 8]; /* bit l: layer l has a plain MLP in spite of n_experts */
    bool norm_topk;           /* the chosen experts' probabilities are scaled to a sum of 1 */
    double rope_theta, norm_eps;
    enum qp_rope_scaling rope_scaling;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor;
    int64_t rope_original_positions;
    double rope_attention_factor; /* cosines and sines are multiplied by it; 0: not */
    bool has_rope_factors;    /* GGUF's rope_freqs, and Phi-3's short factors: frequency i is divided by rope_factors[i] */
    float rope_factors[128];
    bool tied_embeddings;     /* no lm_head.weight of its own */
    bool qkv_bias, o_bias, mlp_bias, qk_norm; /* qk_norm: per-head RMS norm of q and k (Qwen3) */
    bool qk_norm_wide;        /* or one over all their heads (OLMo 2) */
    bool rope_interleaved;    /* rotates pairs (2i, 2i+1); false: halves (i, i + d/2). Canonical rows make this false for Llama */
    int64_t bos, eos;         /* -1: none */
};
/* Tokens that a query of that layer sees, itself included; 0: all before it. */
int64_t qp_config_window(const struct qp_model_config *c, int64_t layer);
bool qp_config_has_experts(const struct qp_model_config *c, int64_t layer);

/* What a weight does in the model, whatever its name. An expert's matrices have the roles GATE, UP, DOWN. */
enum qp_role {
    QP_ROLE_EMBED, QP_ROLE_POSITIONS, QP_ROLE_FINAL_NORM, QP_ROLE_HEAD, /* the model's own: layer -1 */
    QP_ROLE_NORM1 /* before attention */, QP_ROLE_POST_ATTENTION_NORM, QP_ROLE_NORM2 /* before the MLP */, QP_ROLE_POST_MLP_NORM, QP_ROLE_Q_NORM, QP_ROLE_K_NORM,
    QP_ROLE_Q, QP_ROLE_K, QP_ROLE_V, QP_ROLE_QKV /* fused */, QP_ROLE_O, QP_ROLE_ROUTER, QP_ROLE_GATE, QP_ROLE_UP, QP_ROLE_GATE_UP /* fused */, QP_ROLE_DOWN,
    QP_ROLE_SHARED_ROUTER, QP_ROLE_SHARED_GATE, QP_ROLE_SHARED_UP, QP_ROLE_SHARED_DOWN
};

/* How a weight is stored. */
enum qp_storage { QP_STORE_DENSE /* a dtype of base/tensor.h */, QP_STORE_QUANTIZED };

struct qp_weight {            /* a matrix [rows, cols] or a vector (rows = 1) under its canonical name */
    const char *name;
    int64_t rows, cols;
    enum qp_storage storage;
    bool one_row;             /* a matrix of one row in Hugging Face's files, not a vector (the shared expert's gate) */
    bool transposed;          /* Hugging Face's files hold it as [cols, rows] (GPT-2): for writers; rows are read as [rows, cols] */
    const void *impl;         /* model/'s own */
};

/* A linear layer of a block: what quantizers work on. */
struct qp_linear {
    const struct qp_weight *weight;
    int64_t layer;
    enum qp_role role;
    int64_t expert;           /* -1: none */
};

struct qp_model;
struct qp_tokenizer;

/* path: a directory with config.json and *.safetensors, or a .gguf file. Config and every tensor's shape are checked against the architecture. */
int qp_model_open(struct qp_model **out, const char *path, struct qp_err *err) QP_MUST_USE;
/* Drops a reference; the last one closes the files. */
void qp_model_free(struct qp_model *m);
/* Another owner: each calls qp_model_free. Returns m. */
struct qp_model *qp_model_ref(struct qp_model *m);
/* What was read of the mapped files leaves this process's memory (not the system's cache); reading brings it back. Costs little, loses nothing: callers that
 * go through weights block by block call it behind each. Thread-safe. */
void qp_model_drop_pages(const struct qp_model *m);
const struct qp_model_config *qp_model_config(const struct qp_model *m);
const char *qp_model_path(const struct qp_model *m); /* absolute */
/* Parameters (tied ones once), and bytes of all tensors as stored. */
int64_t qp_model_params(const struct qp_model *m);
int64_t qp_model_bytes(const struct qp_model *m);
/* Bits per weight over the linear layers of the blocks as stored, scales and zero points included. */
double qp_model_linear_bpw(const struct qp_model *m);
/* XXH64 over names, shapes and data of all tensors, hexadecimal: identity for caches and chains. Reads all bytes once. */
int qp_model_hash(const struct qp_model *m, char out[17], struct qp_err *err) QP_MUST_USE;

/* NULL when the model has no such weight. */
const struct qp_weight *qp_model_weight(const struct qp_model *m, const char *name);
const struct qp_weight *qp_model_weightf(const struct qp_model *m, const char *fmt, ...) QP_PRINTF(2, 3);
/* By role: layer -1 for the model's own, expert -1 where there is none; bias: the bias of that role. NULL when the model has none. */
const struct qp_weight *qp_model_part(const struct qp_model *m, int64_t layer, enum qp_role role, int64_t expert, bool bias);
/* All linear layers of the blocks in the order of the forward pass, which is the order in which quantizers go; those of one layer are neighbours. */
size_t qp_model_n_linears(const struct qp_model *m);
const struct qp_linear *qp_model_linear(const struct qp_model *m, size_t i);
/* Index of layer l's first linear; of l = n_layers: how many there are. */
size_t qp_model_first_linear(const struct qp_model *m, int64_t layer);
/* NULL: no linear layer of that name. */
const struct qp_linear *qp_model_linear_by_name(const struct qp_model *m, const char *name);
size_t qp_model_n_weights(const struct qp_model *m);
const struct qp_weight *qp_model_weight_at(const struct qp_model *m, size_t i);

/* Rows [row0, row0 + n) decoded to float32, dst [n, cols] row-major. Block formats decode exactly as their publishers do. Thread-safe.
 * NaN or infinite weights that are dense are decoded as they are, and the engine checks; codes that stand for none are QP_E_INPUT. */
int qp_weight_read_rows(const struct qp_weight *w, int64_t row0, int64_t n, float *dst, struct qp_err *err) QP_MUST_USE;

/* ---- codes: what kernels pack. w[r,i] = scale[r,g] * (code[r,i] - zero[r,g]), or scale[r,g] * table[code[r,i]]; g = g_idx ? g_idx[i] : i / group_size ---- */
enum qp_code_kind { QP_CODES_NONE /* dense, or no scale per row and group: qp_weight_read_rows */, QP_CODES_INT, QP_CODES_TABLE };
struct qp_codes {
    enum qp_code_kind kind;
    int bits;                 /* 2, 3, 4 or 8 */
    int64_t group_size;       /* inputs of a group; the last may be shorter */
    int64_t n_groups;
    const int32_t *g_idx;     /* [cols] or NULL. Borrowed from the model */
    const float *table;       /* [1 << bits], QP_CODES_TABLE only */
    double outlier_threshold; /* LLM.int8(): activation columns with |x| at or above it are multiplied in 16 bit; 0: none */
};
void qp_weight_codes(const struct qp_weight *w, struct qp_codes *out);
/* Rows [row0, row0 + n): codes [n, cols], or NULL when scales and zeros are enough; scales and zeros [n, n_groups] (zeros: QP_CODES_INT only, else untouched). kind must not be QP_CODES_NONE.
 * QP_E_INPUT where a code stands for no number (NaN and infinities of 8-bit floating point). Thread-safe. */
int qp_weight_read_codes(const struct qp_weight *w, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros, struct qp_err *err) QP_MUST_USE;

/* The model's tokenizer: tokenizer.json of the directory, or the GGUF's metadata. Caller frees with qp_tokenizer_free. */
int qp_model_tokenizer(const struct qp_model *m, struct qp_tokenizer **out, struct qp_err *err) QP_MUST_USE;
/* Tokens that end an answer: EOS of the tokenizer, of config.json and generation_config.json (lists, too), EOS and end of turn of a GGUF file. *n may be 0. */
#define QP_MAX_END_IDS 16
int qp_model_end_ids(const struct qp_model *m, const struct qp_tokenizer *tok, int32_t out[QP_MAX_END_IDS], size_t *n, struct qp_err *err) QP_MUST_USE;

/* ---- quantized models from a stream, and checkpoints ---- */

/* A model that has base's config and weights except those set below. Keeps base alive by a reference; free both in any order. */
int qp_model_overlay(struct qp_model **out, struct qp_model *base, struct qp_err *err) QP_MUST_USE;

/* What the tensors of a quantized layer leave open. */
struct qp_part_hints {
    bool awq;                 /* AWQ's tensors, which bear GPTQ's names */
    int bits;                 /* 0: as the shapes tell */
    bool zero_minus_one;      /* GPTQ: checkpoint_format "gptq", zero points less one */
    int64_t group_size;       /* of grids whose last group is shorter; 0: not known */
    double outlier_threshold; /* LLM.int8(), 8-bit rows: 0: none */
};
#define QP_MAX_PARTS 8        /* tensors of a quantized layer */
/* Replaces weight `name` ("model.layers.0.mlp.up_proj.weight") by the tensors of a quantized layer, as checkpoints hold them: parts[i].name is what stands in
 * place of "weight" ("qweight", "weight.absmax", ...). Which layout it is follows from names and types (GPTQ, bitsandbytes, compressed-tensors). Copies. Checks
 * shapes, indices, finite scales. */
int qp_model_set_parts(struct qp_model *overlay, const char *name, const struct qp_tensor *parts, size_t n, const struct qp_part_hints *hints, struct qp_err *err) QP_MUST_USE;
/* True when they are all that such a layer needs; false while some are to come. */
bool qp_parts_are_whole(const struct qp_tensor *parts, size_t n);
/* A quantized layer [rows, cols] by itself, from its tensors, which are borrowed as name is: what readers of a checkpoint make of them. */
struct qp_store;
int qp_store_of_parts(struct qp_store **out, const char *name, int64_t rows, int64_t cols, const struct qp_tensor *parts, size_t n, const struct qp_part_hints *hints,
                      struct qp_err *err) QP_MUST_USE;
int qp_store_read_rows(const struct qp_store *s, int64_t row0, int64_t n, float *dst, struct qp_err *err) QP_MUST_USE; /* as qp_weight_read_rows */
void qp_store_free(struct qp_store *s); /* may be NULL */
/* Replaces weight `name` by float16 or bfloat16 or float32 values; copies. */
int qp_model_set_dense(struct qp_model *overlay, const char *name, const struct qp_tensor *t, struct qp_err *err) QP_MUST_USE;

#endif
