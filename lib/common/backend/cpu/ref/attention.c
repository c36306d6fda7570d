/* Attention over K and V in the types of the cache: [KV][capacity][hd] each, K first; int8 has a scale for each [KV][capacity], K's first, behind both.
 * Two passes, double. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kv_int8.h"
#include "backend/cpu/spans.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

static size_t plane(const struct qp_attn_shape *s, int64_t capacity)
{
    return (size_t)s->n_kv_heads * (size_t)capacity * (size_t)s->head_dim;
}

static size_t scales(const struct qp_attn_shape *s, int64_t capacity)
{
    return (size_t)s->n_kv_heads * (size_t)capacity;
}

/* A span's cache, and where it begins: the values, and the scales, behind two planes of bytes, as floats. */
struct view {
    void *cache;
    float *scales;
    size_t v;
    int64_t capacity, head_dim;
    enum qp_kv kv;
};

static struct view view_of(const struct qp_attn_span *p, const struct qp_attn_shape *s, enum qp_kv kv)
{
    size_t v = plane(s, p->capacity);
    return (struct view){p->cache, (float *)p->cache + (2 * v + 3) / 4, v, p->capacity, s->head_dim, kv};
}

static size_t index_of(const struct view *c, int64_t head, int64_t pos)
{
    return (size_t)((head * c->capacity + pos) * c->head_dim);
}

static float get(const struct view *c, size_t at)
{
    switch (c->kv) {
    case QP_KV_BF16: return qp_bf16_to_f32(((const uint16_t *)c->cache)[at]);
    case QP_KV_F16: return qp_f16_to_f32(((const uint16_t *)c->cache)[at]);
    case QP_KV_INT8: return (float)((const int8_t *)c->cache)[at] * c->scales[at / (size_t)c->head_dim];
    default: return ((const float *)c->cache)[at];
    }
}

static void put_row(const struct view *c, size_t at, const float *x)
{
    if (c->kv == QP_KV_INT8) {
        c->scales[at / (size_t)c->head_dim] = qp_kv_int8_encode((int8_t *)c->cache + at, x, c->head_dim);
        return;
    }
    for (int64_t d = 0; d < c->head_dim; d++)
        switch (c->kv) {
        case QP_KV_BF16: ((uint16_t *)c->cache)[at + (size_t)d] = qp_f32_to_bf16(x[d]); break;
        case QP_KV_F16: ((uint16_t *)c->cache)[at + (size_t)d] = qp_f32_to_f16(x[d]); break;
        default: ((float *)c->cache)[at + (size_t)d] = x[d]; break;
        }
}

static void store(const struct qp_attn_span *p, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v, int64_t ldv, enum qp_kv kv)
{
    const struct view c = view_of(p, s, kv);
    for (int64_t t = 0; t < p->T; t++)
        for (int64_t h = 0; h < s->n_kv_heads; h++) {
            size_t at = index_of(&c, h, p->pos0 + t);
            put_row(&c, at, k + (p->row + t) * ldk + h * s->head_dim);
            put_row(&c, c.v + at, v + (p->row + t) * ldv + h * s->head_dim);
        }
}

struct job {
    float *out;
    const float *q;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq;
    enum qp_kv kv;
    struct qp_span_tasks tasks; /* one a query */
};

static double score(const struct view *c, const struct qp_attn_shape *s, const float *q, size_t key)
{
    double sum = 0;
    for (int64_t d = 0; d < s->head_dim; d++) /* bf16: the query is rounded as its keys are, for products of bf16 pairs */
        sum += (double)(c->kv == QP_KV_BF16 ? qp_bf16_to_f32(qp_f32_to_bf16(q[d])) : q[d]) * (double)get(c, key + (size_t)d);
    sum *= (double)s->scale;
    return s->soft_cap > 0 ? (double)s->soft_cap * tanh(sum / (double)s->soft_cap) : sum;
}

/* One head's query at position `last`. */
static void query(const struct view *c, const struct qp_attn_shape *s, float *to, const float *q, int64_t kv, int64_t last)
{
    int64_t first = s->window && last + 1 > s->window ? last + 1 - s->window : 0;
    double out[QP_MAX_HEAD_DIM] = {0}, most = -INFINITY, sum = 0;
    for (int64_t key = first; key <= last; key++)
        most = fmax(most, score(c, s, q, index_of(c, kv, key)));
    for (int64_t key = first; key <= last; key++) {
        size_t at = index_of(c, kv, key);
        double p = exp(score(c, s, q, at) - most);
        sum += p;
        for (int64_t d = 0; d < s->head_dim; d++)
            out[d] += p * (double)get(c, c->v + at + (size_t)d);
    }
    for (int64_t d = 0; d < s->head_dim; d++)
        to[d] = (float)(out[d] / sum);
}

static void queries(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    const struct qp_attn_shape *s = j->s;
    (void)thread;
    for (int64_t at = begin; at < end; at++) {
        const struct qp_span_task t = qp_span_task_at(&j->tasks, at);
        const struct view c = view_of(t.span, s, j->kv);
        for (int64_t h = 0; h < s->n_heads; h++)
            query(&c, s, j->out + (t.span->out + t.i) * j->ldo + h * s->head_dim, j->q + (t.span->row + t.i) * j->ldq + h * s->head_dim,
                  h / (s->n_heads / s->n_kv_heads), t.span->pos0 + t.i);
    }
}

static void attention(struct qp_exec *ex, struct job *j, const struct qp_attn_span *spans, int n)
{
    qp_span_tasks_init(&j->tasks, spans);
    for (int i = 0; i < n; i++)
        qp_span_tasks_add(&j->tasks, spans[i].T);
    qp_pool_for(ex->pool, qp_span_tasks_count(&j->tasks), 1, queries, j);
}

#define DEFINE_KV(name, kind, size)                                                                                                                     \
    size_t qp_ref_kv_##name##_bytes(const struct qp_attn_shape *s, int64_t capacity)                                                                    \
    {                                                                                                                                                   \
        return size;                                                                                                                                    \
    }                                                                                                                                                   \
    void qp_ref_kv_##name##_store(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k,           \
                                  int64_t ldk, const float *v, int64_t ldv)                                                                             \
    {                                                                                                                                                   \
        (void)ex;                                                                                                                                       \
        for (int i = 0; i < n; i++)                                                                                                                     \
            store(&spans[i], s, k, ldk, v, ldv, kind);                                                                                                  \
    }                                                                                                                                                   \
    void qp_ref_attention_##name(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,               \
                                 const struct qp_attn_span *spans, int n)                                                                               \
    {                                                                                                                                                   \
        struct job j = {.out = out, .q = q, .s = s, .ldo = ldo, .ldq = ldq, .kv = kind};                                                                \
        attention(ex, &j, spans, n);                                                                                                                    \
    }
DEFINE_KV(f32, QP_KV_F32, 2 * plane(s, capacity) * sizeof(float))
DEFINE_KV(bf16, QP_KV_BF16, 2 * plane(s, capacity) * sizeof(uint16_t))
DEFINE_KV(f16, QP_KV_F16, 2 * plane(s, capacity) * sizeof(uint16_t))
DEFINE_KV(int8, QP_KV_INT8, (2 * plane(s, capacity) + 3) / 4 * 4 + 2 * scales(s, capacity) * sizeof(float))
