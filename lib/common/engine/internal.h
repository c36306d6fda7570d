/* What block.c and engine.c share. Private to engine/. */
#ifndef QP_ENGINE_INTERNAL_H
#define QP_ENGINE_INTERNAL_H

#include "engine/block.h"
#include "engine/engine.h"

/* The linear-layer entries of the ops table for one compute type. */
struct qp_linear_ops {
    __typeof__(((struct qp_ops *)0)->linear_f32_bytes) bytes;
    __typeof__(((struct qp_ops *)0)->linear_f32_pack) pack;
    __typeof__(((struct qp_ops *)0)->linear_bf16_compact) compact; /* NULL: not for weights of this type, or weights that will be replaced */
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

/* The entries for codes of one layout: LLM.int8() where q->outlier says so, x of 8 bits where q->round_x does. */
struct qp_code_ops {
    __typeof__(((struct qp_ops *)0)->linear_q_bytes) bytes;
    __typeof__(((struct qp_ops *)0)->linear_q_pack) pack;
    __typeof__(((struct qp_ops *)0)->linear_q) run;
};
struct qp_code_ops qp_code_ops_of(const struct qp_ops *ops, const struct qp_qmatrix *q);

/* One or more matrices with the same input, one under the other: q, k, v; gate, up. Neighbours that are stored alike are one part and one product: dense
 * values packed for lin, or codes as they are stored (struct qp_qmatrix). */
#define QP_PACKED_PARTS 4
struct qp_packed_part {
    void *data;
    size_t bytes; /* of data */
    int64_t row0, rows;
    bool codes;
    struct qp_qmatrix q; /* codes only; the next two are its own */
    int32_t *perm;
    float *table;
    float factor; /* what the table was multiplied by, and the scales are divided by */
};
struct qp_packed {
    struct qp_packed_part part[QP_PACKED_PARTS];
    int n_parts;
    float *bias; /* [N] or NULL */
    int64_t N, K;
};
/* y[T,N] (+)= x·Wᵀ + bias */
void qp_packed_run(const struct qp_packed *p, struct qp_linear_ops lin, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t ldx,
                   int64_t T, bool accumulate);
/* What becomes of weights that are stored as codes: all are decoded, in slices, and packed as one part; they stay codes; and those that can are multiplied
 * with x of 8 bits. */
enum qp_codes_use { QP_CODES_DECODE, QP_CODES_KEEP, QP_CODES_INT8 };
enum qp_codes_use qp_codes_use_of(enum qp_compute compute);
/* Packs n weights (n <= QP_PACKED_PARTS). NaN and infinities are refused. Release p after an error, too. */
int qp_packed_load(struct qp_packed *p, const struct qp_weight *const *w, int n, enum qp_codes_use use, struct qp_linear_ops lin, const struct qp_ops *ops,
                   struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;
/* The output layer: as stored for QP_CODES_INT8 where that is codes for it, else rounded for it to 8 bits in groups of QP_ROUND8_GROUP columns (of scales
 * rounded to float16, as in GGUF's Q8_0); decoded for other uses. */
#define QP_ROUND8_GROUP 32
int qp_packed_load_head(struct qp_packed *p, const struct qp_weight *w, enum qp_codes_use use, struct qp_linear_ops lin, const struct qp_ops *ops, struct qp_exec *ex,
                        struct qp_err *err) QP_MUST_USE;
size_t qp_packed_bytes(const struct qp_packed *p);
void qp_packed_release(struct qp_packed *p);
/* codes.c: the layout of weights of these codes. Codes that kernels cannot take: *fits is false and nothing is owned. */
int qp_codes_layout(struct qp_packed_part *part, const struct qp_codes *c, int64_t N, int64_t K, bool *fits, struct qp_err *err) QP_MUST_USE;
bool qp_codes_alike(const struct qp_codes *a, const struct qp_codes *b, int64_t K);
/* Packs the weights w[0..n) into part, whose layout is set but for q.half and q.zeros. */
int qp_codes_pack(struct qp_packed_part *part, const struct qp_weight *const *w, int n, enum qp_codes_use use, const struct qp_ops *ops, struct qp_exec *ex,
                  struct qp_err *err) QP_MUST_USE;
/* round8.c: part becomes the dense weight w rounded to codes; K a multiple of 8. */
int qp_round8_pack(struct qp_packed_part *part, const struct qp_weight *w, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err) QP_MUST_USE;

/* Cosines and sines by position, as transformers computes them (frequencies in float32). */
struct qp_rope {
    float inv_freq[QP_MAX_HEAD_DIM / 2];
    float *table; /* [n, hd/2, 2] */
    int64_t n, half;
    int64_t rotates; /* pairs that turn: the first ones; 0: positions are learned */
    int64_t limit;   /* positions that the frequencies are good for; 0: any */
    double scale;
};
/* local: the frequencies of Gemma's sliding layers. */
void qp_rope_init(struct qp_rope *r, const struct qp_model_config *c, bool local);
int qp_rope_reserve(struct qp_rope *r, int64_t positions, struct qp_err *err) QP_MUST_USE;
void qp_rope_release(struct qp_rope *r);

struct qp_norm {
    float *w, *b; /* NULL: the model has none */
};
/* *out = the n values of w, which must be finite; NULL where w is. */
int qp_vector_load(float **out, const struct qp_weight *w, int64_t n, struct qp_err *err) QP_MUST_USE;
/* Loads a norm of that role if the model has it; Gemma's 1 + w is added up here. */
int qp_norm_load(struct qp_norm *n, const struct qp_model *m, int64_t layer, enum qp_role role, int64_t width, struct qp_err *err) QP_MUST_USE;
void qp_norm_release(struct qp_norm *n);
/* Without weights (OLMo 2 has no norm before attention and MLP) y = x. */
void qp_norm_run(const struct qp_norm *n, const struct qp_model_config *c, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t T,
                 int64_t width);

/* A feed-forward network: the block's own, an expert or the shared expert. */
struct qp_mlp {
    struct qp_packed in, down; /* in: gate over up, or up alone */
    int64_t F;
};

/* Feed-forward networks of which each token passes a few. Router: softmax over all experts in float32, the n_experts_used most probable ones, of equal ones
 * the lower index (torch.topk leaves that open), their probabilities as weights, scaled to a sum of 1 where config.norm_topk says so. */
struct qp_moe {
    struct qp_packed router; /* float32 for every compute type; the shared expert's gate is its last row */
    struct qp_mlp *experts;  /* [n_experts] */
    struct qp_mlp shared;    /* F = 0: none */
};

/* Where tokens go. Expert e has the tokens token[first[e] .. first[e+1]), ascending, with those weights. */
struct qp_routing {
    int64_t *first;  /* [n_experts + 1] */
    int32_t *token;  /* [T * n_experts_used] */
    float *weight;
    float *shared;   /* [T] sigmoid of the shared expert's gate */
    float *logits;   /* [T, router.N], and what the choice needs */
    int32_t *chosen; /* [T, n_experts_used] */
    float *chosen_weight;
    int64_t room;    /* tokens that fit */
};

struct qp_block {
    const struct qp_ops *ops;
    struct qp_exec *ex;
    struct qp_linear_ops lin;
    struct qp_attn_ops attn;
    struct qp_model_config config;
    int64_t layer;
    const struct qp_linear *linears; /* of this block, borrowed from the model */
    int n_linears;
    struct qp_packed qkv, o;
    struct qp_mlp mlp; /* of a block without experts */
    struct qp_moe moe; /* of one with them */
    struct qp_norm norm1, norm2, post_attn, post_mlp, q_norm, k_norm;
    /* the quantizers' steps keep these between calls */
    struct qp_rope rope;
    float *buf;
    size_t buf_floats;
    void *kv; /* caches of kv_room sequences of kv_len tokens, kv_bytes apart */
    int64_t kv_len, kv_room;
    size_t kv_bytes;
};

/* qp_block_load, with weights stored as codes kept as such and dense ones compacted; qp_block_set_linear is not for such a block. */
int qp_block_open(struct qp_block **out, const struct qp_model *m, int64_t layer, const struct qp_ops *ops, struct qp_exec *ex, enum qp_compute compute,
                  bool final, struct qp_err *err) QP_MUST_USE;

struct qp_attn_shape qp_attn_shape_of(const struct qp_model_config *c, int64_t layer);
/* The norm before the MLP: where attention and MLP share one, that. */
const struct qp_norm *qp_block_norm2(const struct qp_block *b);
bool qp_block_is_local(const struct qp_model_config *c, int64_t layer);
/* qkv [T, N] of one stretch, put into the order q, k, v where the model has another one; q and k normalized per head (Qwen3) and rotated. cs [T, hd/2, 2]. */
void qp_block_rotate(const struct qp_block *b, float *qkv, const float *cs, int64_t T);
/* m [T, F] = what down reads; gu [T, in.N] is scratch. */
void qp_mlp_rows(const struct qp_block *b, const struct qp_mlp *mlp, const float *h, int64_t T, float *gu, float *m);
/* The same for any number of rows, in slices. */
int qp_mlp_all(struct qp_block *b, const struct qp_mlp *mlp, const float *h, int64_t T, float *m, struct qp_err *err) QP_MUST_USE;
/* x [T, D] += norm(in · Wᵀ); y [T, D] is scratch, needed where norm has weights. */
void qp_block_add(const struct qp_block *b, const struct qp_packed *p, const struct qp_norm *norm, float *x, const float *in, int64_t T, float *y);
/* Floats of the widest product in front of an activation. */
int64_t qp_block_widest(const struct qp_model_config *c);
size_t qp_block_weight_bytes(const struct qp_block *b);

/* moe.c: loads what is no linear layer of the quantizers; the experts' matrices come by qp_packed_load. */
int qp_moe_load(struct qp_block *b, const struct qp_model *m, struct qp_err *err) QP_MUST_USE;
void qp_moe_release(struct qp_moe *moe, const struct qp_model_config *c);
/* Fills r, grown as needed, for the rows h [T, D]. */
int qp_moe_route(struct qp_routing *r, const struct qp_block *b, const float *h, int64_t T, struct qp_err *err) QP_MUST_USE;
void qp_routing_release(struct qp_routing *r);
/* to [n, D] = rows of h for tokens[0..n). */
void qp_moe_gather(float *to, const float *h, const int32_t *tokens, int64_t n, int64_t D);
/* x[tokens[i], :] += weights[i] * y[i, :] for n rows; tokens NULL: rows 0, 1, ... An output row is summed in the order of the calls, which go by rising
 * expert with the shared one last: the same bits for any batch. */
void qp_moe_scatter(float *x, const float *y, const int32_t *tokens, const float *weights, int64_t n, int64_t D);

int qp_block_reserve(struct qp_block *b, size_t floats, struct qp_err *err) QP_MUST_USE;
int qp_block_check(const struct qp_block *b, struct qp_err *err) QP_MUST_USE;
/* x [n, D] = embeddings of ids from position pos0 on. */
int qp_embed_at(const struct qp_model *m, const int32_t *ids, int64_t n, int64_t pos0, float *x, struct qp_err *err) QP_MUST_USE;
bool qp_all_finite(const float *x, int64_t n);
/* packed.c: qp_weight_read_rows, and NaN or infinities are QP_E_INPUT by name. */
int qp_read_finite_rows(const struct qp_weight *w, int64_t row0, int64_t n, float *dst, struct qp_err *err) QP_MUST_USE;

#endif
