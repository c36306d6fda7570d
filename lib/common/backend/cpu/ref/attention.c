/* Attention over K and V in the types of the cache: [KV][capacity][hd] each, K first; int8 has a scale for each [KV][capacity], K's first, behind both.
 * Two passes, double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kv_int8.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

static size_t plane(const struct qp_attn_shape *s)
{
    return (size_t)s->n_kv_heads * (size_t)s->capacity * (size_t)s->head_dim;
}

static size_t scales(const struct qp_attn_shape *s)
{
    return (size_t)s->n_kv_heads * (size_t)s->capacity;
}

/* Where the scales begin: behind two planes of bytes, as floats. */
static float *scales_of(const void *cache, const struct qp_attn_shape *s)
{
    return (float *)(uintptr_t)cache + (2 * plane(s) + 3) / 4;
}

static float get(const void *cache, const struct qp_attn_shape *s, enum qp_kv kv, size_t at)
{
    switch (kv) {
    case QP_KV_BF16: return qp_bf16_to_f32(((const uint16_t *)cache)[at]);
    case QP_KV_F16: return qp_f16_to_f32(((const uint16_t *)cache)[at]);
    case QP_KV_INT8: return (float)((const int8_t *)cache)[at] * scales_of(cache, s)[at / (size_t)s->head_dim];
    default: return ((const float *)cache)[at];
    }
}

static void put_row(void *cache, const struct qp_attn_shape *s, enum qp_kv kv, size_t at, const float *x)
{
    if (kv == QP_KV_INT8) {
        scales_of(cache, s)[at / (size_t)s->head_dim] = qp_kv_int8_encode((int8_t *)cache + at, x, s->head_dim);
        return;
    }
    for (int64_t d = 0; d < s->head_dim; d++)
        switch (kv) {
        case QP_KV_BF16: ((uint16_t *)cache)[at + (size_t)d] = qp_f32_to_bf16(x[d]); break;
        case QP_KV_F16: ((uint16_t *)cache)[at + (size_t)d] = qp_f32_to_f16(x[d]); break;
        default: ((float *)cache)[at + (size_t)d] = x[d]; break;
        }
}

static void store(void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t pos0, int64_t T, enum qp_kv kv)
{
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < s->n_kv_heads; h++) {
            size_t at = (size_t)((h * s->capacity + pos0 + t) * s->head_dim);
            put_row(cache, s, kv, at, k + t * ldk + h * s->head_dim);
            put_row(cache, s, kv, plane(s) + at, v + t * ldv + h * s->head_dim);
        }
}

struct job {
    float *out;
    const float *q;
    const void *cache;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq, pos0;
    enum qp_kv kv;
};

static double score(const struct job *j, int64_t t, int64_t h, int64_t key)
{
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, kv = h / (s->n_heads / s->n_kv_heads);
    const float *q = j->q + t * j->ldq + h * hd;
    size_t at = (size_t)((kv * s->capacity + key) * hd);
    double sum = 0;
    for (int64_t d = 0; d < hd; d++) /* bf16: the query is rounded as its keys are, for products of bf16 pairs */
        sum += (double)(j->kv == QP_KV_BF16 ? qp_bf16_to_f32(qp_f32_to_bf16(q[d])) : q[d]) * (double)get(j->cache, s, j->kv, at + (size_t)d);
    sum *= (double)s->scale;
    return s->soft_cap > 0 ? (double)s->soft_cap * tanh(sum / (double)s->soft_cap) : sum;
}

static void query(const struct job *j, int64_t t, int64_t h)
{
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, kv = h / (s->n_heads / s->n_kv_heads), last = j->pos0 + t;
    int64_t first = s->window && last + 1 > s->window ? last + 1 - s->window : 0;
    double out[QP_MAX_HEAD_DIM] = {0}, most = -INFINITY, sum = 0;
    for (int64_t key = first; key <= last; key++)
        most = fmax(most, score(j, t, h, key));
    for (int64_t key = first; key <= last; key++) {
        double p = exp(score(j, t, h, key) - most);
        size_t v = plane(s) + (size_t)((kv * s->capacity + key) * hd);
        sum += p;
        for (int64_t d = 0; d < hd; d++)
            out[d] += p * (double)get(j->cache, s, j->kv, v + (size_t)d);
    }
    for (int64_t d = 0; d < hd; d++)
        j->out[t * j->ldo + h * hd + d] = (float)(out[d] / sum);
}

static void queries(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t h = 0; h < j->s->n_heads; h++)
            query(j, t, h);
}

#define DEFINE_KV(name, kind, size)                                                                                                                     \
    size_t qp_ref_kv_##name##_bytes(const struct qp_attn_shape *s)                                                                                      \
    {                                                                                                                                                   \
        return size;                                                                                                                                    \
    }                                                                                                                                                   \
    void qp_ref_kv_##name##_store(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v, int64_t ldv, \
                                  int64_t pos0, int64_t T)                                                                                              \
    {                                                                                                                                                   \
        (void)ex;                                                                                                                                       \
        store(cache, s, k, ldk, v, ldv, pos0, T, kind);                                                                                                 \
    }                                                                                                                                                   \
    void qp_ref_attention_##name(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const void *cache,                           \
                                 const struct qp_attn_shape *s, int64_t pos0, int64_t T)                                                                \
    {                                                                                                                                                   \
        struct job j = {out, q, cache, s, ldo, ldq, pos0, kind};                                                                                        \
        qp_pool_for(ex->pool, T, 1, queries, &j);                                                                                                       \
    }
DEFINE_KV(f32, QP_KV_F32, 2 * plane(s) * sizeof(float))
DEFINE_KV(bf16, QP_KV_BF16, 2 * plane(s) * sizeof(uint16_t))
DEFINE_KV(f16, QP_KV_F16, 2 * plane(s) * sizeof(uint16_t))
DEFINE_KV(int8, QP_KV_INT8, (2 * plane(s) + 3) / 4 * 4 + 2 * scales(s) * sizeof(float))
