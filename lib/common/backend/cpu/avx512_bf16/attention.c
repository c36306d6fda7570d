/* Causal attention on vdpbf16ps: as cpu/simd/attention.inc.h, with keys, queries, probabilities and values in bf16.
 * Cache of a layer: for each key-value head, keys in panels [capacity/64][hd/2][64] pairs along hd, then values in panels [hd/64][capacity/2][64]
 * pairs along the positions. */
#include <math.h>
#include <string.h>

#include "backend/cpu/avx512_bf16/tile.h"
#include "backend/cpu/simd/softcap.h"
#include "backend/cpu/spans.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

#define KEYS 128
#define QROWS (4 * MR)

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t pairs(int64_t hd)
{
    return (hd + 1) / 2;
}

static size_t k_words(const struct qp_attn_shape *s, int64_t capacity)
{
    return (size_t)padded(capacity, KEYS) * (size_t)pairs(s->head_dim);
}

static size_t head_words(const struct qp_attn_shape *s, int64_t capacity)
{
    return k_words(s, capacity) + (size_t)(padded(capacity, KEYS) / 2) * (size_t)padded(s->head_dim, NR);
}

size_t qp_avx512_bf16_kv_bf16_bytes(const struct qp_attn_shape *s, int64_t capacity)
{
    return (size_t)s->n_kv_heads * head_words(s, capacity) * sizeof(uint32_t);
}

struct store_job {
    const struct qp_attn_shape *s;
    const float *k, *v;
    int64_t ldk, ldv;
    struct qp_span_tasks tasks;
};

static void store_key(uint16_t *kp, const float *k, int64_t hd, int64_t pos)
{
    const __m512i step = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(NR));
    uint16_t *to = kp + (pos / NR * pairs(hd) * NR + pos % NR) * 2;
    int64_t d = 0;
    for (; d + 2 * VL <= hd; d += 2 * VL)
        _mm512_i32scatter_epi32(to + d * NR, step, to_bf16(v_load(k + d), v_load(k + d + VL)), 4);
    for (; d < hd; d++)
        to[d / 2 * NR * 2 + (d & 1)] = qp_f32_to_bf16(k[d]);
}

static void store_value(uint16_t *vp, const float *v, int64_t hd, int64_t pos, int64_t cap2)
{
    uint16_t *to = vp + pos / 2 * NR * 2 + (pos & 1);
    for (int64_t d = 0; d < hd; d++)
        to[d / NR * cap2 * NR * 2 + d % NR * 2] = qp_f32_to_bf16(v[d]);
}

/* Positions pos (even) and pos + 1 at once: whole words. */
static void store_value_pair(uint16_t *vp, const float *v0, const float *v1, int64_t hd, int64_t pos, int64_t cap2)
{
    int64_t d = 0;
    for (; d + VL <= hd; d += VL) {
        __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v_load(v0 + d))), high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v_load(v1 + d)));
        _mm512_storeu_si512(vp + (d / NR * cap2 + pos / 2) * NR * 2 + d % NR * 2, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
    for (; d < hd; d++) {
        uint16_t *to = vp + (d / NR * cap2 + pos / 2) * NR * 2 + d % NR * 2;
        to[0] = qp_f32_to_bf16(v0[d]);
        to[1] = qp_f32_to_bf16(v1[d]);
    }
}

/* Positions pos .. end-1 of one head of a span. Positions 2p and 2p + 1 share a word of the values: it is written at once, or, where a span begins or ends in it, by halves. */
static void store_head(const struct store_job *j, const struct qp_attn_span *span, int64_t h, int64_t pos, int64_t end)
{
    int64_t hd = j->s->head_dim, cap2 = padded(span->capacity, KEYS) / 2;
    uint16_t *kp = (uint16_t *)span->cache + (size_t)h * head_words(j->s, span->capacity) * 2, *vp = kp + k_words(j->s, span->capacity) * 2;
    for (; pos < end; pos++) {
        int64_t at = span->row + pos - span->pos0;
        const float *k = j->k + at * j->ldk + h * hd, *v = j->v + at * j->ldv + h * hd;
        store_key(kp, k, hd, pos);
        if (pos & 1 || pos + 1 == end) {
            store_value(vp, v, hd, pos, cap2);
            continue;
        }
        store_value_pair(vp, v, v + j->ldv, hd, pos, cap2);
        store_key(kp, k + j->ldk, hd, ++pos);
    }
}

static void store_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct store_job *j = arg;
    (void)thread;
    for (int64_t at = begin, pos, last; at < end; at++) {
        const struct qp_span_task t = qp_span_task_at(&j->tasks, at);
        qp_span_store_range(t, &pos, &last);
        for (int64_t h = 0; h < j->s->n_kv_heads; h++)
            store_head(j, t.span, h, pos, last);
    }
}

void qp_avx512_bf16_kv_bf16_store(struct qp_exec *ex, const struct qp_attn_shape *s, const struct qp_attn_span *spans, int n, const float *k, int64_t ldk,
                                  const float *v, int64_t ldv)
{
    struct store_job j = {.s = s, .k = k, .v = v, .ldk = ldk, .ldv = ldv};
    qp_span_tasks_init(&j.tasks, spans);
    for (int i = 0; i < n; i++)
        qp_span_tasks_add(&j.tasks, qp_span_store_tasks(&spans[i]));
    qp_pool_for(ex->pool, qp_span_tasks_count(&j.tasks), 1, store_tasks, &j);
}

struct job {
    float *out;
    const float *q;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq;
    struct qp_span_tasks tasks;
};

/* What a task works on: keys and values of its head, and its rows, the first of which stands at position pos. */
struct tile {
    const uint32_t *kp, *vp;
    int64_t cap2, pos;
    int64_t step; /* positions from row to row: 0 where they are query heads of one token */
};

/* Scores and probabilities of one register tile of rows; running maxima and sums of all rows, the sums still spread over a vector. */
struct state {
    float s[MR * KEYS], o[QROWS * QP_MAX_HEAD_DIM], l[QROWS * VL], m[QROWS];
    uint32_t p[MR * KEYS / 2], q[QROWS * QP_MAX_HEAD_DIM / 2];
} __attribute__((aligned(64)));

/* 2^x for x <= LEEWAY or so; 0 far below; NaN stays. The polynomial (relative error 2.6e-6) is finer than the bf16 that the result is rounded to. */
INLINE vf exp2_coarse(vf x)
{
    x = v_max(v_set1(-200.f), x); /* the second operand wins where it is NaN */
    vf r = _mm512_reduce_ps(x, 1); /* x - floor(x); scalef takes the floor */
    vf p = v_set1(1.35341612e-2f);
    p = v_fma(p, r, v_set1(5.20114783e-2f));
    p = v_fma(p, r, v_set1(2.41442743e-1f));
    p = v_fma(p, r, v_set1(6.93003838e-1f));
    p = v_fma(p, r, v_set1(1.00000259f));
    return _mm512_scalef_ps(p, x);
}

/* The maximum that is subtracted need not be the true one: it is raised when a score tops it by LEEWAY powers of two, which is rare, so that
 * most blocks need no sums across a vector and no scaling of what was summed. */
#define LEEWAY 10.f

/* A row's scores against n keys to probabilities in bf16; keys outside [first, last] count nothing. c: scale * log2(e). */
INLINE void softmax_row(struct state *st, int i, int row, int n, int64_t first, int64_t last, float c, int64_t hp)
{
    const int vectors = n / VL;
    const float *s = st->s + i * KEYS;
    vf v[KEYS / VL], most = v_set1(-INFINITY);
    UNROLL for (int k = 0; k < vectors; k++)
        v[k] = v_load(s + k * VL);
    if (first > 0 || last < n - 1)
        for (int k = 0; k < vectors; k++) {
            int64_t to = last + 1 - k * VL, from = first - k * VL;
            uint32_t keep = (to >= VL ? 0xffffu : to > 0 ? (1u << to) - 1 : 0) & (from <= 0 ? 0xffffu : from >= VL ? 0 : 0xffffu << from);
            v[k] = _mm512_mask_mov_ps(v_set1(-INFINITY), (__mmask16)keep, v[k]);
        }
    UNROLL for (int k = 0; k < vectors; k++)
        most = v_max(most, v[k]);
    if (_mm512_cmp_ps_mask(most, v_set1(st->m[row] + LEEWAY / c), _CMP_GT_OQ)) {
        float m = v_hmax(most), alpha = exp2f((st->m[row] - m) * c);
        st->m[row] = m;
        v_store(st->l + row * VL, v_mul(v_load(st->l + row * VL), v_set1(alpha)));
        for (int64_t d = 0; d < hp; d += VL)
            v_store(st->o + row * hp + d, v_mul(v_load(st->o + row * hp + d), v_set1(alpha)));
    }
    vf sum = v_load(st->l + row * VL), shift = v_set1(-st->m[row] * c), by = v_set1(c);
    UNROLL for (int k = 0; k < vectors; k += 2) {
        vf a = exp2_coarse(v_fma(v[k], by, shift)), b = exp2_coarse(v_fma(v[k + 1], by, shift));
        sum = v_add(sum, v_add(a, b));
        _mm512_storeu_si512(st->p + i * (KEYS / 2) + k * VL / 2, to_bf16(a, b));
    }
    v_store(st->l + row * VL, sum);
}

/* Rows r .. r+mr-1 of the tile against the keys of one block, panels behind the last row's position left out. */
static void rows_block(struct state *st, const struct qp_attn_shape *s, const struct tile *t, int r, int mr, int64_t key0)
{
    int64_t k2 = pairs(s->head_dim), hp = padded(s->head_dim, NR), reach = t->pos + (r + mr - 1) * t->step + 1 - key0;
    float c = s->scale * 1.44269504f;
    if (reach <= 0)
        return;
    int n = reach > NR ? KEYS : NR;
    for (int64_t k = 0; k < n; k += NR)
        tile_pairs(mr, st->s + k, KEYS, NR, false, st->q + r * k2, k2, t->kp + (key0 + k) * k2, k2);
    for (int i = 0; i < mr; i++) {
        if (s->soft_cap > 0) /* of scores as they are summed, before the scale */
            for (int k = 0; k < n; k += VL)
                v_store(st->s + i * KEYS + k, v_soft_cap(v_load(st->s + i * KEYS + k), s->soft_cap / s->scale));
        int64_t last = t->pos + (r + i) * t->step - key0, first = s->window ? last + 1 - s->window : 0;
        if (n == KEYS)
            softmax_row(st, i, r + i, KEYS, first, last, c, hp);
        else
            softmax_row(st, i, r + i, NR, first, last, c, hp);
    }
    for (int64_t d = 0; d < hp; d += NR)
        tile_pairs(mr, st->o + r * hp + d, hp, NR, true, st->p, KEYS / 2, t->vp + d * t->cap2 + key0 / 2 * NR, n / 2);
}

static void round_query(uint32_t *to, const float *q, int64_t hd)
{
    int64_t d = 0;
    for (; d + 2 * VL <= hd; d += 2 * VL)
        _mm512_storeu_si512(to + d / 2, to_bf16(v_load(q + d), v_load(q + d + VL)));
    for (; d < hd; d += 2)
        to[d / 2] = (uint32_t)qp_f32_to_bf16(q[d]) | (d + 1 < hd ? (uint32_t)qp_f32_to_bf16(q[d + 1]) << 16 : 0);
}

/* Rows of a tile: tokens t0 .. t0+rows-1 of head h, or (by_head) the heads h .. h+rows-1 of token t0. */
static void attend(const struct job *j, const struct qp_attn_span *span, bool by_head, int64_t h, int64_t t0, int rows)
{
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, k2 = pairs(hd), hp = padded(hd, NR), kv = h / (s->n_heads / s->n_kv_heads);
    const int64_t step_q = by_head ? hd : j->ldq, step_o = by_head ? hd : j->ldo;
    const float *q = j->q + (span->row + t0) * j->ldq + h * hd;
    float *out = j->out + (span->out + t0) * j->ldo + h * hd;
    struct tile t = {.kp = (const uint32_t *)span->cache + (size_t)kv * head_words(s, span->capacity), .cap2 = padded(span->capacity, KEYS) / 2,
                     .pos = span->pos0 + t0, .step = by_head ? 0 : 1};
    struct state st;
    t.vp = t.kp + k_words(s, span->capacity);
    for (int i = 0; i < rows; i++) {
        round_query(st.q + i * k2, q + i * step_q, hd);
        st.m[i] = -1e30f;
    }
    memset(st.l, 0, sizeof st.l);
    memset(st.o, 0, (size_t)(rows * hp) * sizeof(float));
    int64_t first = s->window && t.pos + 1 > s->window ? t.pos + 1 - s->window : 0;
    for (int64_t key0 = first / KEYS * KEYS; key0 < t.pos + (rows - 1) * t.step + 1; key0 += KEYS)
        for (int r = 0; r < rows; r += MR)
            rows_block(&st, s, &t, r, rows - r < MR ? rows - r : MR, key0);
    for (int i = 0; i < rows; i++) {
        float inv = 1.f / v_hsum(v_load(st.l + i * VL));
        for (int64_t d = 0; d < hd; d++)
            out[i * step_o + d] = st.o[i * hp + d] * inv;
    }
}

/* How a span is cut: into tiles of tokens for each head, or, when it is one token, into tiles of the query heads of each key-value head, so that keys and
 * values are read once for all of them. */
struct cut {
    bool by_head;
    int64_t tiles, tasks;
};

static struct cut cut_of(const struct qp_attn_shape *s, const struct qp_attn_span *span)
{
    const int64_t group = s->n_heads / s->n_kv_heads;
    struct cut c = {.by_head = span->T == 1 && group > 1};
    c.tiles = ((c.by_head ? group : span->T) + QROWS - 1) / QROWS;
    c.tasks = c.tiles * (c.by_head ? s->n_kv_heads : s->n_heads);
    return c;
}

static void run_task(const struct job *j, struct qp_span_task t)
{
    const struct qp_attn_shape *s = j->s;
    const int64_t group = s->n_heads / s->n_kv_heads;
    const struct cut c = cut_of(s, t.span);
    if (c.by_head) {
        int64_t first = t.i % c.tiles * QROWS, left = group - first;
        attend(j, t.span, true, t.i / c.tiles * group + first, 0, (int)(left < QROWS ? left : QROWS));
        return;
    }
    int64_t t0 = (c.tiles - 1 - t.i / s->n_heads) * QROWS, left = t.span->T - t0; /* late tiles see more keys, so they go first */
    attend(j, t.span, false, t.i % s->n_heads, t0, (int)(left < QROWS ? left : QROWS));
}

static void tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    (void)thread;
    for (int64_t at = begin; at < end; at++)
        run_task(j, qp_span_task_at(&j->tasks, at));
}

void qp_avx512_bf16_attention_bf16(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const struct qp_attn_shape *s,
                                   const struct qp_attn_span *spans, int n)
{
    struct job j = {.out = out, .q = q, .s = s, .ldo = ldo, .ldq = ldq};
    qp_span_tasks_init(&j.tasks, spans);
    for (int i = 0; i < n; i++)
        qp_span_tasks_add(&j.tasks, cut_of(s, &spans[i]).tasks);
    qp_pool_for(ex->pool, qp_span_tasks_count(&j.tasks), 1, tasks, &j);
}
