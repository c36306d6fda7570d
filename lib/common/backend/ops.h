/* The ops table: all numeric work of the engine and the quantizers, as function pointers. A backend (cpu, later cuda) fills it.
 *
 * The CPU backend fills every entry from cpu/ref, then overrides entries by what the processor has (avx2, avx512, avx512_vnni, avx512_bf16).
 * backend/ops.def lists each variant once; dispatch, tests and bench include it. An op runs on the threads of ex->pool and gives
 * the same bits for any number of threads: each output element is summed in one fixed order by one thread.
 *
 * Activations are float32, row-major. Shapes: T tokens, D model width, N output features, K input features, H query heads, KV key-value
 * heads, hd head width. Pointers are 64-byte aligned at their start; row strides (ld) are in elements. "packed" layouts are private to the
 * variant that made them, so a weight must be used with the table that packed it. Ops do not fail: sizes are checked by the engine.
 * NaN and infinities propagate as IEEE arithmetic has it.
 */
#ifndef QP_BACKEND_OPS_H
#define QP_BACKEND_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"
#include "base/spool.h"

/* int8: bf16, but for weights of affine codes, whose products are linear_q8's, and the output layer, which is rounded to such codes. */
enum qp_compute { QP_COMPUTE_F32, QP_COMPUTE_BF16, QP_COMPUTE_INT8 };

/* How keys and values are kept. int8: codes with one float32 scale for each token, head and of the two. */
enum qp_kv { QP_KV_F32, QP_KV_BF16, QP_KV_F16, QP_KV_INT8, QP_KV_COUNT };

struct qp_exec {           /* where an op runs; one per engine, not shared between concurrent callers */
    struct qp_pool *pool;  /* NULL: in the caller */
    void *scratch;         /* grown by qp_exec_scratch, 64-byte aligned */
    size_t scratch_bytes;
    const struct qp_spool *spool; /* where the big arrays of the work are; NULL: in memory */
    bool failed;           /* an op found no scratch memory and left its output undone: callers check after a pass */
};

struct qp_attn_shape {
    int64_t n_heads, n_kv_heads, head_dim;
    int64_t window;        /* sliding window: a query at p sees keys in (p - window, p]; 0: all */
    float scale;           /* 1/sqrt(hd), or the model's own */
    float soft_cap;        /* scores s become cap * tanh(s / cap), before the mask; 0: not */
};

/* A stretch of one sequence in a batch. */
struct qp_attn_span {
    void *cache;           /* that sequence's, of this layer */
    int64_t capacity;      /* tokens the cache holds */
    int64_t pos0, T;       /* its tokens stand at positions pos0 .. pos0+T-1; T = 0: nothing is done */
    int64_t row, out;      /* where they begin among the rows of q, k, v, and of out */
};
#define QP_ATTN_SPANS 256  /* most spans of a call, so that ops need no memory for them */

/* A matrix of codes, W[n,k] = scale[n,g] * (table[code[n,k]] - zero[n,g]), as kernels see it: columns in the order of their groups, groups of a multiple of
 * 8 columns, 4 or 8 bits a code. Belongs to the caller and outlives the packed matrix. */
struct qp_qmatrix {
    int64_t N, K;
    int64_t Kp;          /* columns with padding, a multiple of 8; the last group is Kp - (n_groups - 1) * group wide */
    int64_t group, n_groups;
    int bits;            /* 4 or 8 */
    bool half;           /* scales and zeros are float16 values, and kept as such; else float32 */
    bool zeros;          /* false: all zero[n,g] are 0 */
    bool affine;         /* table[c] = table[0] + c */
    float outlier;       /* linear_i8 only: |x| from which on a product is in 16 bits */
    bool round_x;        /* the user of the table chose linear_q8; ops do not look at it */
    const int32_t *perm; /* [Kp]: which of the K inputs stands there, -1: none (counts as 0). NULL: they stand as they are, Kp = K */
    const float *table;  /* [1 << bits] bfloat16 values */
};

/* Memory of the device that weights and caches lie in, bytes: allocated now, reserved from the device's driver, the peak of allocated, and all that the driver
 * counts for this process. */
struct qp_device_memory {
    size_t allocated, reserved, peak, process;
};

struct qp_ops {
    const char *isa;       /* best instruction set in use: "ref", "avx2", "avx512", "avx512_vnni", "avx512_bf16" */
    bool has_bf16;         /* the machine has bf16 instructions: linear_bf16 and attention_bf16 run on them where that is faster than rounding inputs to bf16 and
                              computing in float32 */

    /* False and all 0 where that memory is the process's own, as on the CPU. Not an op: it computes nothing. */
    bool (*device_memory)(struct qp_device_memory *out);

    /* ---- linear: y[T,N] = x[T,K] · Wᵀ (+ y when accumulate) ---- */
    /* f32: all in float32, relative error of order K * 2^-24. bf16: W and x rounded to bf16 (nearest even), products summed in float32. */
    size_t (*linear_f32_bytes)(int64_t N, int64_t K);
    void (*linear_f32_pack)(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows, int64_t N, int64_t K);
    void (*linear_f32)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T, int64_t N,
                       int64_t K, bool accumulate);
    size_t (*linear_bf16_bytes)(int64_t N, int64_t K);
    void (*linear_bf16_pack)(struct qp_exec *ex, void *packed, const float *w, int64_t ldw, int64_t row0, int64_t rows, int64_t N, int64_t K);
    /* May be called once, when all rows are packed: the same values in fewer bytes, where the variant has a layout for that. Returns how many bytes of packed are
     * left, from its start, which may be moved elsewhere. Nothing can be packed into it afterwards. */
    size_t (*linear_bf16_compact)(struct qp_exec *ex, void *packed, int64_t N, int64_t K);
    void (*linear_bf16)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, int64_t T, int64_t N,
                        int64_t K, bool accumulate);
    /* pack: rows [row0, row0+rows) of W (w points at row0's first element) into a zeroed buffer; several matrices may be packed one after the
     * other into the same buffer (q, k, v), so that one product serves them all.
     * T = 1 (decode) and small T are as much a use as T = 2048: the variant picks its kernel by T, but an output row does not depend on T
     * (batch invariance: the same sum order for a row whatever T is). */

    /* Codes: y[t,n] (+)= sum_g scale[n,g] * (sum_{k in g} bf16(x[t,k]) table[code[n,k]] - zero[n,g] * sum_{k in g} bf16(x[t,k])), sums in float32: the
     * weights are exact, x is rounded to bf16. pack: rows [row0, row0+rows) into a zeroed buffer; codes [rows, K] one a byte in the order of the inputs,
     * scales and zeros [rows, n_groups] (zeros may be NULL when q->zeros is false). Several matrices of one q may lie in one buffer. */
    size_t (*linear_q_bytes)(const struct qp_qmatrix *q);
    void (*linear_q_pack)(struct qp_exec *ex, void *packed, const struct qp_qmatrix *q, const uint8_t *codes, const float *scales, const float *zeros,
                          int64_t row0, int64_t rows);
    void (*linear_q)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                     bool accumulate);

    /* Affine codes with x rounded to 8 bits in each group, as llama.cpp's kernels do in blocks of 32: c[t,k] = round(x[t,k] * (127 / m)), to nearest even, of
     * m = max |x[t,k]| over the group's columns, and y[t,n] (+)= sum_g scale[n,g] m / 127 (sum_{k in g} c[t,k] (table[code[n,k]] - zero[n,g])); the products
     * of codes are exact. A group of which m is below QP_Q8_LEAST counts as 0. Needs what linear_q_pack has packed, q->affine, a whole table[0] and groups of at
     * most 65536 columns. Not for speed alone: x loses bits, so only who asks for it gets it. */
    void (*linear_q8)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                      bool accumulate);

    /* LLM.int8(), Dettmers et al. 2022: y[t,n] (+)= scale[n] * (s[t] * sum_k round(x[t,k] / s[t]) w[n,k] + sum_{k: |x[t,k]| >= outlier} bf16(x[t,k]) w[n,k]),
     * w = code - 128; the first sum runs over the other k, in integers, and s[t] = max |x[t,k]| / 127 over them. Needs: bits 8, one group, no zeros, no perm,
     * K a multiple of 8 and at most 65536. Outliers are chosen for each row, so rows do not depend on their neighbours (bitsandbytes: a column is
     * one when any row of the call has one there). Not for speed alone: x loses bits, so only weights that ask for it are multiplied so. */
    bool has_int8;         /* linear_i8 is worth calling: reference, or VNNI */
    size_t (*linear_i8_bytes)(const struct qp_qmatrix *q);
    void (*linear_i8_pack)(struct qp_exec *ex, void *packed, const struct qp_qmatrix *q, const uint8_t *codes, const float *scales, const float *zeros,
                           int64_t row0, int64_t rows);
    void (*linear_i8)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T,
                      bool accumulate);

    /* ---- normalization, activations, positions ---- */
    /* y[t,:] = x[t,:] / sqrt(mean(x[t,:]^2) + eps) * w ; y may be x */
    void (*rms_norm)(struct qp_exec *ex, float *y, const float *x, const float *w, int64_t T, int64_t D, float eps);
    /* y[t,:] = (x[t,:] - mean) / sqrt(variance + eps) * w + b, the variance with divisor D; y may be x */
    void (*layer_norm)(struct qp_exec *ex, float *y, const float *x, const float *w, const float *b, int64_t T, int64_t D, float eps);
    /* y[t,:] = silu(gate[t,:]) * up[t,:], F wide; gate and up share the stride ldx (two halves of one product); y may be gate */
    void (*silu_mul)(struct qp_exec *ex, float *y, int64_t ldy, const float *gate, const float *up, int64_t ldx, int64_t T, int64_t F);
    /* The same with GELU, Hendrycks and Gimpel 2016. gelu_mul: tanh form, g/2 (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))); up NULL: no factor.
     * gelu_erf: g/2 (1 + erf(g / sqrt 2)) of x, no factor. */
    void (*gelu_mul)(struct qp_exec *ex, float *y, int64_t ldy, const float *gate, const float *up, int64_t ldx, int64_t T, int64_t F);
    void (*gelu_erf)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, int64_t T, int64_t F);
    /* x = cap * tanh(x / cap) over n elements */
    void (*soft_cap)(struct qp_exec *ex, float *x, int64_t n, float cap);
    /* y += x over n elements; and y[t,:] += b for each of T rows */
    void (*add)(struct qp_exec *ex, float *y, const float *x, int64_t n);
    void (*add_bias)(struct qp_exec *ex, float *y, int64_t ldy, const float *b, int64_t T, int64_t N);
    /* x [T, heads, hd] in place; cs [T, hd/2, 2] = (cos, sin) for each token and frequency; rotates halves (i, i + hd/2), or pairs when
     * interleaved. ldx: elements from one token to the next. */
    void (*rope)(struct qp_exec *ex, float *x, int64_t ldx, const float *cs, int64_t T, int64_t heads, int64_t hd, bool interleaved);

    /* ---- attention with a cache; the cache's layout is the variant's own ----
     * One call serves the n <= QP_ATTN_SPANS sequences of a batch. */
    /* f32: as it is. bf16: q, k, v and the probabilities rounded to bf16, sums in float32. f16, int8: k and v rounded as stored, all else in float32.
     * int8: code = round(x * 127 / max|x|) over the head_dim values of a token's head. */
    size_t (*kv_f32_bytes)(const struct qp_attn_shape *s, int64_t capacity); /* of one layer and sequence, K and V together */
    /* Stores rows row .. row+T-1 of k, v [., KV*hd] (strides ldk, ldv) into each span's cache. Spans of one sequence do not overlap. */
    void (*kv_f32_store)(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k, int64_t ldk,
                         const float *v, int64_t ldv);
    /* For each span and 0 <= t < T: out[out+t,h,:] = softmax(scale * q[row+t,h,:] · K[0..pos0+t]ᵀ) · V of its cache: causal, grouped heads (h uses KV head
     * h / (H/KV)). What a row attends to has been stored; later positions may have been, too. One pass over the cache with a running maximum: memory linear in
     * length. q, out [., H*hd], strides ldq, ldo. A row does not depend on the other spans. */
    void (*attention_f32)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,
                          const struct qp_attn_span *spans, int n);
    size_t (*kv_bf16_bytes)(const struct qp_attn_shape *s, int64_t capacity);
    void (*kv_bf16_store)(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k, int64_t ldk,
                         const float *v, int64_t ldv);
    void (*attention_bf16)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,
                          const struct qp_attn_span *spans, int n);
    size_t (*kv_f16_bytes)(const struct qp_attn_shape *s, int64_t capacity);
    void (*kv_f16_store)(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k, int64_t ldk,
                         const float *v, int64_t ldv);
    void (*attention_f16)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,
                          const struct qp_attn_span *spans, int n);
    size_t (*kv_int8_bytes)(const struct qp_attn_shape *s, int64_t capacity);
    void (*kv_int8_store)(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k, int64_t ldk,
                         const float *v, int64_t ldv);
    void (*attention_int8)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,
                          const struct qp_attn_span *spans, int n);

    /* ---- the output distribution ---- */
    /* lse[t] = log(sum_j exp(x[t,j])), max subtracted, the sum in double or compensated; argmax[t] (first of equals; may be NULL). */
    void (*log_sum_exp)(struct qp_exec *ex, double *lse, int32_t *argmax, const float *x, int64_t ldx, int64_t T, int64_t V);
    /* kl[t] = sum_j p_j (log p_j - log q_j), p = softmax(a[t,:]), q = softmax(b[t,:]), given both rows' lse. */
    void (*kl_div)(struct qp_exec *ex, double *kl, const float *a, int64_t lda, const double *lse_a, const float *b, int64_t ldb,
                   const double *lse_b, int64_t T, int64_t V);

    /* ---- for the quantizers ---- */
    /* Lower triangle (and diagonal) of H[K,K] += XᵀX, x [T,K]. Sums over T in float32 blocks of at most 512 rows, added to H in float32. */
    void (*syrk)(struct qp_exec *ex, float *h, int64_t ldh, const float *x, int64_t ldx, int64_t T, int64_t K);
    /* C[M,N] -= A[M,K] · B[K,N] , all row-major float32: GPTQ's lazy batch update. */
    void (*gemm_sub)(struct qp_exec *ex, float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t ldb, int64_t M,
                     int64_t N, int64_t K);
};

/* want: "auto" (or NULL), "ref", or an instruction set: nothing above it is used. QP_E_USAGE for an unknown name or one that this machine lacks.
 * Accepted names are in the message. */
int qp_backend_cpu_init(struct qp_ops *ops, const char *want, struct qp_err *err) QP_MUST_USE;

/* At least `bytes` of scratch, contents undefined; NULL and ex->failed set when there is no memory. */
void *qp_exec_scratch(struct qp_exec *ex, size_t bytes);
void qp_exec_release(struct qp_exec *ex);

#define QP_Q8_LEAST 0x1p-100f
#define QP_MAX_HEAD_DIM 256 /* attention keeps a tile of outputs on the stack */

#endif
