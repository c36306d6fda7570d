/* Causal attention in tiles: QROWS queries against blocks of KEYS keys, running maximum and sum (Milakov and Gimelshein 2018; Dao et al. 2022).
 * Cache of a layer: for each key-value head, keys in panels [capacity/NR][hd][NR], then values in panels [hd/NR][capacity][NR], in the cache's type and
 * widened as they are read; int8: then the keys' scales [capacity] and the values', which multiply scores and probabilities. bf16 rounds queries and
 * probabilities, too. Key blocks lie at absolute positions, so a query's sums do not depend on how queries are batched. */
#include <math.h>
#include <string.h>

#include "backend/cpu/kv_int8.h"
#include "backend/cpu/simd/softcap.h"
#include "backend/cpu/simd/vec.h"
#include "backend/cpu/spans.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

#define COL_F16(k, j) v_load_f16(panel + (k) * NR + (j) * VL)
#define COL_I8(k, j) v_load_i8(panel + (k) * NR + (j) * VL)

INLINE void tile_f16_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const uint16_t *panel, int64_t K)
{
    vf acc[MR][NV];
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    TILE_BODY(mr, K, ROW, COL_F16)
    tile_store(acc, mr, y, ldy, n);
}

INLINE void tile_i8_body(int mr, float *y, int64_t ldy, int64_t n, bool accumulate, const float *x, int64_t ldx, const int8_t *panel, int64_t K)
{
    vf acc[MR][NV];
    tile_load(acc, mr, accumulate ? y : NULL, ldy, n);
    TILE_BODY(mr, K, ROW, COL_I8)
    tile_store(acc, mr, y, ldy, n);
}

DEFINE_TILE(tile_f32, float, float)
DEFINE_TILE(tile_bf16, float, uint16_t)
DEFINE_TILE(tile_f16, float, uint16_t)
DEFINE_TILE(tile_i8, float, int8_t)

#define KEYS 128
#define QROWS (4 * MR)

/* y[mr, NR] (+)= x[mr, K] * the panel of K rows that begins `at` elements into `from`. */
static inline void tile_any(enum qp_kv kv, int mr, float *y, int64_t ldy, bool accumulate, const float *x, int64_t ldx, const void *from, int64_t at, int64_t K)
{
    switch (kv) {
    case QP_KV_BF16: tile_bf16(mr, y, ldy, NR, accumulate, x, ldx, (const uint16_t *)from + at, K); break;
    case QP_KV_F16: tile_f16(mr, y, ldy, NR, accumulate, x, ldx, (const uint16_t *)from + at, K); break;
    case QP_KV_INT8: tile_i8(mr, y, ldy, NR, accumulate, x, ldx, (const int8_t *)from + at, K); break;
    default: tile_f32(mr, y, ldy, NR, accumulate, x, ldx, (const float *)from + at, K); break;
    }
}

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Tokens that one head's cache has room for, its bytes, and where its parts begin. */
struct head_layout {
    int64_t room;
    size_t width, v, k_scales, v_scales, bytes; /* width: bytes of a value */
};

static struct head_layout layout_of(const struct qp_attn_shape *s, int64_t capacity, enum qp_kv kv)
{
    size_t width = kv == QP_KV_F32 ? 4 : kv == QP_KV_INT8 ? 1 : 2, cap = (size_t)padded(capacity, KEYS);
    struct head_layout l = {.room = (int64_t)cap, .width = width};
    l.v = cap * (size_t)s->head_dim * width; /* capacity is padded to 128: every part begins at a multiple of 64 bytes */
    l.k_scales = l.v + cap * (size_t)padded(s->head_dim, NR) * width;
    l.v_scales = l.k_scales + (kv == QP_KV_INT8 ? cap * sizeof(float) : 0);
    l.bytes = l.v_scales + (kv == QP_KV_INT8 ? cap * sizeof(float) : 0);
    return l;
}

struct store_job {
    const struct qp_attn_shape *s;
    const float *k, *v;
    int64_t ldk, ldv;
    enum qp_kv kv;
    struct qp_span_tasks tasks;
};

/* x [n] in the cache's type; returns its scale. */
static float encode(void *to, const float *x, int64_t n, enum qp_kv kv)
{
    int64_t i = 0;
    switch (kv) {
    case QP_KV_INT8: return qp_kv_int8_encode(to, x, n);
    case QP_KV_BF16:
        for (; i < n; i++)
            ((uint16_t *)to)[i] = qp_f32_to_bf16(x[i]);
        return 1;
    case QP_KV_F16:
        for (; i + VL <= n; i += VL)
            v_store_f16((uint16_t *)to + i, v_load(x + i));
        for (; i < n; i++)
            ((uint16_t *)to)[i] = qp_f32_to_f16(x[i]);
        return 1;
    default: memcpy(to, x, (size_t)n * sizeof *x); return 1;
    }
}

#define SPREAD(type)                         \
    for (int64_t d = 0; d < hd; d++)         \
        ((type *)kp)[at + d * NR] = ((const type *)row)[d];

static void store_key(char *kp, const void *row, int64_t hd, int64_t pos, size_t width)
{
    int64_t at = pos / NR * hd * NR + pos % NR;
    switch (width) {
    case 1: SPREAD(int8_t) break;
    case 2: SPREAD(uint16_t) break;
    default: SPREAD(float) break;
    }
}

/* Positions pos .. end-1 of one head of a span. */
static void store_head(const struct store_job *j, const struct qp_attn_span *span, const struct head_layout *l, int64_t h, int64_t pos, int64_t end)
{
    int64_t hd = j->s->head_dim;
    char *kp = (char *)span->cache + (size_t)h * l->bytes, *vp = kp + l->v;
    float *k_scales = (float *)(void *)(kp + l->k_scales), *v_scales = (float *)(void *)(kp + l->v_scales);
    float row[QP_MAX_HEAD_DIM];
    for (; pos < end; pos++) {
        int64_t at = span->row + pos - span->pos0;
        float scale = encode(row, j->k + at * j->ldk + h * hd, hd, j->kv);
        store_key(kp, row, hd, pos, l->width);
        if (j->kv == QP_KV_INT8)
            k_scales[pos] = scale;
        scale = encode(row, j->v + at * j->ldv + h * hd, hd, j->kv);
        for (int64_t d = 0; d < hd; d += NR)
            memcpy(vp + (size_t)(d * l->room + pos * NR) * l->width, (const char *)row + (size_t)d * l->width, (size_t)(hd - d < NR ? hd - d : NR) * l->width);
        if (j->kv == QP_KV_INT8)
            v_scales[pos] = scale;
    }
}

static void store_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct store_job *j = arg;
    (void)thread;
    for (int64_t at = begin, pos, last; at < end; at++) {
        const struct qp_span_task t = qp_span_task_at(&j->tasks, at);
        const struct head_layout l = layout_of(j->s, t.span->capacity, j->kv);
        qp_span_store_range(t, &pos, &last);
        for (int64_t h = 0; h < j->s->n_kv_heads; h++)
            store_head(j, t.span, &l, h, pos, last);
    }
}

static void store(struct qp_exec *ex, struct store_job *j, const struct qp_attn_span *spans, int n)
{
    qp_span_tasks_init(&j->tasks, spans);
    for (int i = 0; i < n; i++)
        qp_span_tasks_add(&j->tasks, qp_span_store_tasks(&spans[i]));
    qp_pool_for(ex->pool, qp_span_tasks_count(&j->tasks), 1, store_tasks, j);
}

struct attention_job {
    float *out;
    const float *q;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq;
    enum qp_kv kv;
    struct qp_span_tasks tasks; /* one a head and tile of queries */
};

/* What a task works on: the cache of its head, and its rows, which stand at positions pos and on. */
struct tile {
    const char *head;
    struct head_layout l;
    int64_t pos;
};

/* Scores and probabilities of one register tile of rows; running maxima and sums of all rows, the sums still spread over a vector. */
struct tile_state {
    float q[QROWS * QP_MAX_HEAD_DIM], s[MR * KEYS], o[QROWS * (QP_MAX_HEAD_DIM + NR)], l[QROWS * VL], m[QROWS];
};

/* The subtracted maximum need not be the true one: it is raised when a score tops it by LEEWAY, which is rare, so that most blocks need no sums
 * across a vector and no scaling of what was summed. */
#define LEEWAY 7.f

INLINE void scale_row(float *x, const float *by, int64_t n)
{
    for (int64_t k = 0; k < n; k += VL)
        v_store(x + k, v_mul(v_load(x + k), v_load(by + k)));
}

/* Turns a row of n scores into probabilities; keys outside [first, last] count nothing. */
static void softmax_row(struct tile_state *st, int i, int row, int64_t n, int64_t first, int64_t last, int64_t hp, bool bf16)
{
    float *s = st->s + i * KEYS;
    if (first > 0 || last < n - 1)
        for (int64_t k = 0; k < n; k++)
            s[k] = k < first || k > last ? -INFINITY : s[k];
    vf most = v_load(s);
    for (int64_t k = VL; k < n; k += VL)
        most = v_max(most, v_load(s + k));
    if (v_any_gt(most, v_set1(st->m[row] + LEEWAY))) {
        float m = v_hmax(most), alpha = expf(st->m[row] - m);
        st->m[row] = m;
        v_store(st->l + row * VL, v_mul(v_load(st->l + row * VL), v_set1(alpha)));
        for (int64_t d = 0; d < hp; d += VL)
            v_store(st->o + row * hp + d, v_mul(v_load(st->o + row * hp + d), v_set1(alpha)));
    }
    vf sum = v_load(st->l + row * VL), shift = v_set1(st->m[row]);
    for (int64_t k = 0; k < n; k += 2 * VL) {
        vf a = v_exp(v_sub(v_load(s + k), shift)), b = v_exp(v_sub(v_load(s + k + VL), shift));
        sum = v_add(sum, v_add(a, b));
        v_store(s + k, a);
        v_store(s + k + VL, b);
    }
    v_store(st->l + row * VL, sum);
    if (bf16)
        for (int64_t k = 0; k < n; k++)
            s[k] = qp_bf16_to_f32(qp_f32_to_bf16(s[k]));
}

/* Rows r .. r+mr-1 of the tile against the keys of one block, panels behind the last row's position left out. */
static void rows_block(struct tile_state *st, const struct attention_job *j, const struct tile *t, int r, int mr, int64_t key0)
{
    int64_t hd = j->s->head_dim, hp = padded(hd, NR), n = padded(t->pos + r + mr - key0, NR);
    if (n <= 0)
        return;
    n = n < KEYS ? n : KEYS;
    for (int64_t k = 0; k < n; k += NR)
        tile_any(j->kv, mr, st->s + k, KEYS, false, st->q + r * hd, hd, t->head, (key0 + k) * hd, hd);
    for (int i = 0; i < mr; i++) {
        int64_t last = t->pos + r + i - key0, first = j->s->window ? last + 1 - j->s->window : 0;
        if (j->kv == QP_KV_INT8)
            scale_row(st->s + i * KEYS, (const float *)(const void *)(t->head + t->l.k_scales) + key0, n);
        if (j->s->soft_cap > 0)
            for (int64_t k = 0; k < n; k += VL)
                v_store(st->s + i * KEYS + k, v_soft_cap(v_load(st->s + i * KEYS + k), j->s->soft_cap));
        softmax_row(st, i, r + i, n, first, last, hp, j->kv == QP_KV_BF16);
        if (j->kv == QP_KV_INT8)
            scale_row(st->s + i * KEYS, (const float *)(const void *)(t->head + t->l.v_scales) + key0, n);
    }
    for (int64_t d = 0; d < hp; d += NR)
        tile_any(j->kv, mr, st->o + r * hp + d, hp, true, st->s, KEYS, t->head + t->l.v, d * t->l.room + key0 * NR, n);
}

/* Queries t0 .. t0+rows-1 of a span, head h. */
static void attend(const struct attention_job *j, const struct qp_attn_span *span, int64_t h, int64_t t0, int rows)
{
    struct tile_state st;
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, hp = padded(hd, NR), kv = h / (s->n_heads / s->n_kv_heads);
    struct tile t = {.l = layout_of(s, span->capacity, j->kv), .pos = span->pos0 + t0};
    t.head = (const char *)span->cache + (size_t)kv * t.l.bytes;
    for (int i = 0; i < rows; i++) {
        const float *q = j->q + (span->row + t0 + i) * j->ldq + h * hd;
        for (int64_t d = 0; d < hd; d++)
            st.q[i * hd + d] = j->kv == QP_KV_BF16 ? qp_bf16_to_f32(qp_f32_to_bf16(q[d])) : q[d];
        st.m[i] = -1e30f;
    }
    memset(st.l, 0, sizeof st.l);
    memset(st.o, 0, (size_t)(rows * hp) * sizeof(float));
    for (int i = 0; i < rows; i++)
        for (int64_t d = 0; d < hd; d++)
            st.q[i * hd + d] *= s->scale;
    int64_t first = s->window && t.pos + 1 > s->window ? t.pos + 1 - s->window : 0;
    for (int64_t key0 = first / KEYS * KEYS; key0 < t.pos + rows; key0 += KEYS)
        for (int r = 0; r < rows; r += MR)
            rows_block(&st, j, &t, r, rows - r < MR ? rows - r : MR, key0);
    for (int i = 0; i < rows; i++) {
        float sum = v_hsum(v_load(st.l + i * VL));
        for (int64_t d = 0; d < hd; d++)
            j->out[(span->out + t0 + i) * j->ldo + h * hd + d] = st.o[i * hp + d] / sum;
    }
}

static int64_t tiles_of(const struct qp_attn_span *span)
{
    return (span->T + QROWS - 1) / QROWS;
}

/* Late tiles see more keys, so they go first. */
static void attention_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention_job *j = arg;
    (void)thread;
    for (int64_t at = begin; at < end; at++) {
        const struct qp_span_task t = qp_span_task_at(&j->tasks, at);
        int64_t t0 = (tiles_of(t.span) - 1 - t.i / j->s->n_heads) * QROWS, left = t.span->T - t0;
        attend(j, t.span, t.i % j->s->n_heads, t0, (int)(left < QROWS ? left : QROWS));
    }
}

static void attention(struct qp_exec *ex, struct attention_job *j, const struct qp_attn_span *spans, int n)
{
    qp_span_tasks_init(&j->tasks, spans);
    for (int i = 0; i < n; i++)
        qp_span_tasks_add(&j->tasks, tiles_of(&spans[i]) * j->s->n_heads);
    qp_pool_for(ex->pool, qp_span_tasks_count(&j->tasks), 1, attention_tasks, j);
}

#define DEFINE_KV(name, kind)                                                                                                                           \
    size_t QP_V(kv_##name##_bytes)(const struct qp_attn_shape *s, int64_t capacity)                                                                     \
    {                                                                                                                                                   \
        return (size_t)s->n_kv_heads * layout_of(s, capacity, kind).bytes;                                                                              \
    }                                                                                                                                                   \
    void QP_V(kv_##name##_store)(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k,            \
                                 int64_t ldk, const float *v, int64_t ldv)                                                                              \
    {                                                                                                                                                   \
        struct store_job j = {.s = s, .k = k, .v = v, .ldk = ldk, .ldv = ldv, .kv = kind};                                                              \
        store(ex, &j, spans, n);                                                                                                                        \
    }                                                                                                                                                   \
    void QP_V(attention_##name)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,                \
                                const struct qp_attn_span *spans, int n)                                                                                \
    {                                                                                                                                                   \
        struct attention_job j = {.out = out, .q = q, .s = s, .ldo = ldo, .ldq = ldq, .kv = kind};                                                      \
        attention(ex, &j, spans, n);                                                                                                                    \
    }
DEFINE_KV(f32, QP_KV_F32)
DEFINE_KV(bf16, QP_KV_BF16)
DEFINE_KV(f16, QP_KV_F16)
DEFINE_KV(int8, QP_KV_INT8)
