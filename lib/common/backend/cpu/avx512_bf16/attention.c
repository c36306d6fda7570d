/* Causal attention on vdpbf16ps: as cpu/simd/attention.inc.h, with keys, queries, probabilities and values in bf16.
 * Cache of a layer: for each key-value head, keys in panels [capacity/64][hd/2][64] pairs along hd, then values in panels [hd/64][capacity/2][64]
 * pairs along the positions. */
#include <math.h>
#include <string.h>

#include "backend/cpu/avx512_bf16/tile.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

#define KEYS 128
#define QROWS (4 * MR)

struct job {
    float *out;
    const float *q;
    const uint32_t *cache;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq, pos0, T, tiles;
};

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t pairs(int64_t hd)
{
    return (hd + 1) / 2;
}

static size_t k_words(const struct qp_attn_shape *s)
{
    return (size_t)padded(s->capacity, KEYS) * (size_t)pairs(s->head_dim);
}

static size_t head_words(const struct qp_attn_shape *s)
{
    return k_words(s) + (size_t)(padded(s->capacity, KEYS) / 2) * (size_t)padded(s->head_dim, NR);
}

size_t qp_avx512_bf16_kv_bf16_bytes(const struct qp_attn_shape *s)
{
    return (size_t)s->n_kv_heads * head_words(s) * sizeof(uint32_t);
}

struct store_job {
    uint16_t *cache;
    const struct qp_attn_shape *s;
    const float *k, *v;
    int64_t ldk, ldv, pos0;
};

/* Positions 2p and 2p+1 share a word of the values, so chunks are even: each word is written by one thread. */
static void store_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct store_job *j = arg;
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, k2 = pairs(hd), cap2 = padded(s->capacity, KEYS) / 2;
    (void)thread;
    for (int64_t h = 0; h < s->n_kv_heads; h++) {
        uint16_t *kp = j->cache + (size_t)h * head_words(s) * 2, *vp = kp + k_words(s) * 2;
        for (int64_t t = begin; t < end; t++) {
            int64_t pos = j->pos0 + t;
            uint16_t *kd = kp + (pos / NR * k2 * NR + pos % NR) * 2, *vd = vp + pos / 2 * NR * 2 + (pos & 1);
            for (int64_t d = 0; d < hd; d++) {
                kd[d / 2 * NR * 2 + (d & 1)] = qp_f32_to_bf16(j->k[t * j->ldk + h * hd + d]);
                vd[d / NR * cap2 * NR * 2 + d % NR * 2] = qp_f32_to_bf16(j->v[t * j->ldv + h * hd + d]);
            }
        }
    }
}

void qp_avx512_bf16_kv_bf16_store(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk,
                                  const float *v, int64_t ldv, int64_t pos0, int64_t T)
{
    struct store_job j = {cache, s, k, v, ldk, ldv, pos0};
    qp_pool_for(ex->pool, T, 64, store_rows, &j);
}

struct state {
    uint32_t q[QROWS * QP_MAX_HEAD_DIM / 2], p[QROWS * KEYS / 2];
    float s[QROWS * KEYS], o[QROWS * QP_MAX_HEAD_DIM], m[QROWS], l[QROWS];
};

static float softmax_row(float *s, uint32_t *p, int64_t first, int64_t last, float *m, float *l)
{
    if (first > 0 || last < KEYS - 1)
        for (int64_t i = 0; i < KEYS; i++)
            if (i < first || i > last)
                s[i] = -INFINITY;
    vf most = v_max(v_load(s), v_load(s + VL));
    for (int i = 2 * VL; i < KEYS; i += VL)
        most = v_max(most, v_load(s + i));
    float new_m = v_hmax(most);
    new_m = new_m > *m ? new_m : *m;
    vf sum = v_set1(0), shift = v_set1(new_m);
    for (int i = 0; i < KEYS; i += 2 * VL) {
        vf a = v_exp(v_sub(v_load(s + i), shift)), b = v_exp(v_sub(v_load(s + i + VL), shift));
        sum = v_add(sum, v_add(a, b));
        _mm512_storeu_si512(p + i / 2, to_bf16(a, b));
    }
    float alpha = *m == new_m ? 1.f : expf(*m - new_m);
    *l = *l * alpha + v_hsum(sum);
    *m = new_m;
    return alpha;
}

static void key_block(struct state *st, const struct job *j, const uint32_t *kp, const uint32_t *vp, int64_t t0, int rows, int64_t key0)
{
    int64_t k2 = pairs(j->s->head_dim), hp = padded(j->s->head_dim, NR), cap2 = padded(j->s->capacity, KEYS) / 2;
    for (int r = 0; r < rows; r += MR) {
        int mr = rows - r < MR ? rows - r : MR;
        for (int64_t n = 0; n < KEYS; n += NR)
            tile_pairs(mr, st->s + r * KEYS + n, KEYS, NR, false, st->q + r * k2, k2, kp + (key0 + n) * k2, k2);
        for (int i = r; i < r + mr; i++) {
            int64_t last = j->pos0 + t0 + i, first = j->s->window ? last + 1 - j->s->window : 0;
            float alpha = softmax_row(st->s + i * KEYS, st->p + i * (KEYS / 2), first - key0, last - key0, &st->m[i], &st->l[i]);
            if (alpha != 1.f)
                for (int64_t d = 0; d < hp; d += VL)
                    v_store(st->o + i * hp + d, v_mul(v_load(st->o + i * hp + d), v_set1(alpha)));
        }
        for (int64_t d = 0; d < hp; d += NR)
            tile_pairs(mr, st->o + r * hp + d, hp, NR, true, st->p + r * (KEYS / 2), KEYS / 2, vp + d * cap2 + key0 / 2 * NR, KEYS / 2);
    }
}

static void attend(const struct job *j, int64_t h, int64_t t0, int rows)
{
    struct state st;
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, k2 = pairs(hd), hp = padded(hd, NR), kv = h / (s->n_heads / s->n_kv_heads);
    const uint32_t *kp = j->cache + (size_t)kv * head_words(s), *vp = kp + k_words(s);
    for (int i = 0; i < rows; i++) {
        const float *q = j->q + (t0 + i) * j->ldq + h * hd;
        for (int64_t d = 0; d < hd; d += 2)
            st.q[i * k2 + d / 2] = (uint32_t)qp_f32_to_bf16(q[d] * s->scale) | (d + 1 < hd ? (uint32_t)qp_f32_to_bf16(q[d + 1] * s->scale) << 16 : 0);
        st.m[i] = -1e30f;
        st.l[i] = 0;
    }
    memset(st.o, 0, (size_t)(rows * hp) * sizeof(float));
    int64_t first = s->window && j->pos0 + t0 + 1 > s->window ? j->pos0 + t0 + 1 - s->window : 0;
    for (int64_t key0 = first / KEYS * KEYS; key0 < j->pos0 + t0 + rows; key0 += KEYS)
        key_block(&st, j, kp, vp, t0, rows, key0);
    for (int i = 0; i < rows; i++) {
        float inv = 1.f / st.l[i];
        for (int64_t d = 0; d < hd; d++)
            j->out[(t0 + i) * j->ldo + h * hd + d] = st.o[i * hp + d] * inv;
    }
}

/* Late tiles see more keys, so they go first. */
static void tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        int64_t tile = j->tiles - 1 - task / j->s->n_heads, t0 = tile * QROWS;
        attend(j, task % j->s->n_heads, t0, (int)(j->T - t0 < QROWS ? j->T - t0 : QROWS));
    }
}

void qp_avx512_bf16_attention_bf16(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const void *cache,
                                   const struct qp_attn_shape *s, int64_t pos0, int64_t T)
{
    struct job j = {out, q, cache, s, ldo, ldq, pos0, T, (T + QROWS - 1) / QROWS};
    qp_pool_for(ex->pool, j.tiles * s->n_heads, 1, tasks, &j);
}
