/* Models: configuration and tensors of a Hugging Face directory or a GGUF file, mapped, never copied.
 *
 * Whatever the file, tensors are reached by one set of names, those of Hugging Face's Llama ("model.layers.3.self_attn.q_proj.weight"),
 * in Hugging Face's order of rows (GGUF's rotated q and k rows of the llama architecture are put back while reading), [out, in].
 * A linear layer may be stored quantized (GPTQ tensors beside its name): qp_model_read_rows decodes any storage to float32.
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

enum qp_rope_scaling { QP_ROPE_NONE, QP_ROPE_LINEAR, QP_ROPE_LLAMA3 };

struct qp_model_config {
    char arch[32];            /* "llama", "mistral", "qwen2", "qwen3": a row of the architecture table (model/arch.h) */
    int64_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size, max_positions;
    int64_t sliding_window;   /* 0: none */
    double rope_theta, norm_eps;
    enum qp_rope_scaling rope_scaling;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor;
    int64_t rope_original_positions;
    bool has_rope_factors;    /* GGUF's rope_freqs: frequency i is divided by rope_factors[i] */
    float rope_factors[128];
    bool tied_embeddings;     /* no lm_head.weight of its own */
    bool qkv_bias, o_bias, mlp_bias, qk_norm; /* qk_norm: per-head RMS norm of q and k (Qwen3) */
    bool rope_interleaved;    /* rotates pairs (2i, 2i+1); false: halves (i, i + d/2). Canonical rows make this false for Llama */
    int64_t bos, eos;         /* -1: none */
};

/* How a weight is stored. */
enum qp_storage { QP_STORE_DENSE /* a dtype of base/tensor.h */, QP_STORE_GPTQ };

struct qp_weight {            /* a matrix [rows, cols] or a vector (rows = 1) under its canonical name */
    const char *name;
    int64_t rows, cols;
    enum qp_storage storage;
    const void *impl;         /* model/'s own */
};

struct qp_model;
struct qp_tokenizer;

/* path: a directory with config.json and *.safetensors, or a .gguf file. Config and every tensor's shape are checked against the architecture. */
int qp_model_open(struct qp_model **out, const char *path, struct qp_err *err) QP_MUST_USE;
/* Drops a reference; the last one closes the files. */
void qp_model_free(struct qp_model *m);
/* Another owner: each calls qp_model_free. Returns m. */
struct qp_model *qp_model_ref(struct qp_model *m);
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
size_t qp_model_n_weights(const struct qp_model *m);
const struct qp_weight *qp_model_weight_at(const struct qp_model *m, size_t i);

/* Rows [row0, row0 + n) decoded to float32, dst [n, cols] row-major. Block formats decode exactly as their publishers do. Thread-safe.
 * NaN or infinite weights are decoded as they are; the engine checks. */
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
/* Rows [row0, row0 + n): codes [n, cols]; scales and zeros [n, n_groups] (zeros: QP_CODES_INT only, else untouched). kind must not be QP_CODES_NONE. Thread-safe. */
void qp_weight_read_codes(const struct qp_weight *w, int64_t row0, int64_t n, uint8_t *codes, float *scales, float *zeros);

/* The model's tokenizer: tokenizer.json of the directory, or the GGUF's metadata. Caller frees with qp_tokenizer_free. */
int qp_model_tokenizer(const struct qp_model *m, struct qp_tokenizer **out, struct qp_err *err) QP_MUST_USE;

/* ---- quantized models from a stream, and checkpoints ---- */

/* A model that has base's config and weights except those set below. Keeps base alive by a reference; free both in any order. */
int qp_model_overlay(struct qp_model **out, struct qp_model *base, struct qp_err *err) QP_MUST_USE;

/* One linear layer in GPTQ's own layout (PyTorch names: qweight int32 [in*bits/32, out], qzeros int32 [groups, out*bits/32] with zero
 * itself stored ("gptq_v2") or zero-1 ("gptq"), scales f16 [groups, out], g_idx int32 [in]). 2, 3, 4 and 8 bits; ragged last group. */
struct qp_gptq_tensors {
    int64_t rows, cols; /* out, in */
    int bits;
    int64_t group_size; /* cols for whole rows */
    bool zero_minus_one; /* checkpoint_format "gptq" */
    const int32_t *qweight, *qzeros, *g_idx;
    const uint16_t *scales;
    int64_t n_groups;
};
/* Replaces weight `name` ("model.layers.0.mlp.up_proj.weight"); copies the arrays. Checks shapes, g_idx range, finite scales. */
int qp_model_set_gptq(struct qp_model *overlay, const char *name, const struct qp_gptq_tensors *t, struct qp_err *err) QP_MUST_USE;
/* Replaces weight `name` by float16 or bfloat16 or float32 values; copies. */
int qp_model_set_dense(struct qp_model *overlay, const char *name, const struct qp_tensor *t, struct qp_err *err) QP_MUST_USE;

#endif
