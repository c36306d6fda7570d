/* What block.c and engine.c share. Private to engine/. */
#ifndef QP_ENGINE_INTERNAL_H
#define QP_ENGINE_INTERNAL_H

#include "engine/block.h"
#include "engine/engine.h"

/* The linear-layer entries of the ops table for one compute type. */
struct qp_linear_ops {
    __typeof__(((struct qp_ops *)0)->linear_f32_bytes) bytes;
    __typeof__(((struct qp_ops *)0)->linear_f32_pack) pack;
    __typeof__(((struct qp_ops *)0)->linear_f32) run;
};
struct qp_attn_ops {
    __typeof__(((struct qp_ops *)0)->kv_f32_bytes) bytes;
    __typeof__(((struct qp_ops *)0)->kv_f32_store) store;
    __typeof__(((struct qp_ops *)0)->attention_f32) run;
};
struct qp_linear_ops qp_linear_ops_of(const struct qp_ops *ops, enum qp_compute compute);
struct qp_attn_ops qp_attn_ops_of(const struct qp_ops *ops, enum qp_kv kv);
/* The cache that goes with a compute type where nothing else is asked for. */
enum qp_kv qp_kv_default(enum qp_compute compute);

/* One or more matrices with the same input, packed one under the other: q, k, v; gate, up. */
struct qp_packed {
    void *data;
    float *bias; /* [N] or NULL */
    int64_t N, K;
};
/* y[T,N] (+)= x·Wᵀ + bias */
void qp_packed_run(const struct qp_packed *p, struct qp_linear_ops lin, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t ldx,
                   int64_t T, bool accumulate);
/* Decodes a weight in slices and packs it at row0. NaN and infinities are refused. */
int qp_pack_weight(struct qp_packed *p, int64_t row0, const struct qp_weight *w, struct qp_linear_ops lin, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
int qp_packed_new(struct qp_packed *p, int64_t N, int64_t K, struct qp_linear_ops lin, struct qp_err *err) QP_MUST_USE;
void qp_packed_release(struct qp_packed *p);

/* Cosines and sines by position, as transformers computes them (frequencies in float32). */
struct qp_rope {
    float inv_freq[QP_MAX_HEAD_DIM / 2];
    float *table; /* [n, hd/2, 2] */
    int64_t n, half;
};
void qp_rope_init(struct qp_rope *r, const struct qp_model_config *c);
int qp_rope_reserve(struct qp_rope *r, int64_t positions, struct qp_err *err) QP_MUST_USE;
void qp_rope_release(struct qp_rope *r);

struct qp_block {
    const struct qp_ops *ops;
    struct qp_exec *ex;
    struct qp_linear_ops lin;
    struct qp_attn_ops attn;
    struct qp_model_config config;
    int64_t layer;
    struct qp_packed qkv, o, gate_up, down;
    float *norm1, *norm2, *q_norm, *k_norm;
    /* the quantizers' steps keep these between calls */
    struct qp_rope rope;
    float *buf;
    size_t buf_floats;
    void *kv;
    int64_t kv_len;
};

struct qp_attn_shape qp_attn_shape_of(const struct qp_model_config *c, int64_t capacity);
/* qkv [T, N] of one stretch: q and k normalized per head (Qwen3) and rotated. cs [T, hd/2, 2]. */
void qp_block_rotate(const struct qp_block *b, float *qkv, const float *cs, int64_t T);
/* gu [T, 2F] is scratch; x += down(silu(gate) * up) for the T rows h. m [T, F] scratch. */
void qp_block_mlp_rows(const struct qp_block *b, const float *h, int64_t T, float *gu, float *m);
bool qp_all_finite(const float *x, int64_t n);

#endif
