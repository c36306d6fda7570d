/* Attention over K and V as they are: [KV][capacity][hd] each, K first. Two passes, double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/variants.h"
#include "base/half.h"

size_t qp_ref_kv_f32_bytes(const struct qp_attn_shape *s)
{
    return 2 * (size_t)s->n_kv_heads * (size_t)s->capacity * (size_t)s->head_dim * sizeof(float);
}

size_t qp_ref_kv_bf16_bytes(const struct qp_attn_shape *s)
{
    return qp_ref_kv_f32_bytes(s);
}

static float round_bf16(float f)
{
    return qp_bf16_to_f32(qp_f32_to_bf16(f));
}

static void store(float *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v, int64_t ldv,
                  int64_t pos0, int64_t T, bool bf16)
{
    int64_t hd = s->head_dim, plane = s->n_kv_heads * s->capacity * hd;
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < s->n_kv_heads; h++)
            for (int64_t d = 0; d < hd; d++) {
                int64_t at = (h * s->capacity + pos0 + t) * hd + d;
                float kk = k[t * ldk + h * hd + d], vv = v[t * ldv + h * hd + d];
                cache[at] = bf16 ? round_bf16(kk) : kk;
                cache[plane + at] = bf16 ? round_bf16(vv) : vv;
            }
}

void qp_ref_kv_f32_store(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk,
                         const float *v, int64_t ldv, int64_t pos0, int64_t T)
{
    (void)ex;
    store(cache, s, k, ldk, v, ldv, pos0, T, false);
}

void qp_ref_kv_bf16_store(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk,
                          const float *v, int64_t ldv, int64_t pos0, int64_t T)
{
    (void)ex;
    store(cache, s, k, ldk, v, ldv, pos0, T, true);
}

struct job {
    float *out;
    const float *q, *cache;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq, pos0;
    bool bf16;
};

static double score(const struct job *j, int64_t t, int64_t h, int64_t key)
{
    int64_t hd = j->s->head_dim, kv = h / (j->s->n_heads / j->s->n_kv_heads);
    const float *q = j->q + t * j->ldq + h * hd, *k = j->cache + (kv * j->s->capacity + key) * hd;
    double sum = 0;
    for (int64_t d = 0; d < hd; d++)
        sum += (double)(j->bf16 ? round_bf16(q[d]) : q[d]) * (double)k[d];
    return sum * (double)j->s->scale;
}

static void query(const struct job *j, int64_t t, int64_t h)
{
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, kv = h / (s->n_heads / s->n_kv_heads), last = j->pos0 + t;
    int64_t first = s->window && last + 1 > s->window ? last + 1 - s->window : 0;
    const float *v = j->cache + s->n_kv_heads * s->capacity * hd + kv * s->capacity * hd;
    double out[QP_MAX_HEAD_DIM] = {0}, most = -INFINITY, sum = 0;
    for (int64_t key = first; key <= last; key++)
        most = fmax(most, score(j, t, h, key));
    for (int64_t key = first; key <= last; key++) {
        double p = exp(score(j, t, h, key) - most);
        sum += p;
        for (int64_t d = 0; d < hd; d++)
            out[d] += p * (double)v[key * hd + d];
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

void qp_ref_attention_f32(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const void *cache,
                          const struct qp_attn_shape *s, int64_t pos0, int64_t T)
{
    struct job j = {out, q, cache, s, ldo, ldq, pos0, false};
    qp_pool_for(ex->pool, T, 1, queries, &j);
}

void qp_ref_attention_bf16(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const void *cache,
                           const struct qp_attn_shape *s, int64_t pos0, int64_t T)
{
    struct job j = {out, q, cache, s, ldo, ldq, pos0, true};
    qp_pool_for(ex->pool, T, 1, queries, &j);
}
