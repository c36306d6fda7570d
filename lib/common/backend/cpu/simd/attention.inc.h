/* Causal attention in tiles: QROWS queries against blocks of KEYS keys, running maximum and sum (Milakov and Gimelshein 2018; Dao et al. 2022).
 * Cache of a layer: for each key-value head, keys in panels [capacity/NR][hd][NR], then values in panels [hd/NR][capacity][NR]. The bf16 form rounds
 * what it stores and computes alike. Key blocks lie at absolute positions, so a query's sums do not depend on how queries are batched. */
#include <math.h>
#include <string.h>

#include "backend/cpu/simd/vec.h"
#include "backend/cpu/variants.h"
#include "base/half.h"

DEFINE_TILE(tile_f32, float, float)

#define KEYS 128
#define QROWS (4 * MR)

struct attention_job {
    float *out;
    const float *q, *cache;
    const struct qp_attn_shape *s;
    int64_t ldo, ldq, pos0, T, tiles;
    bool bf16;
};

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static size_t k_floats(const struct qp_attn_shape *s)
{
    return (size_t)padded(s->capacity, KEYS) * (size_t)s->head_dim;
}

static size_t head_floats(const struct qp_attn_shape *s)
{
    return k_floats(s) + (size_t)padded(s->capacity, KEYS) * (size_t)padded(s->head_dim, NR);
}

size_t QP_V(kv_f32_bytes)(const struct qp_attn_shape *s)
{
    return (size_t)s->n_kv_heads * head_floats(s) * sizeof(float);
}

size_t QP_V(kv_bf16_bytes)(const struct qp_attn_shape *s)
{
    return QP_V(kv_f32_bytes)(s);
}

static float maybe_round(float f, bool bf16)
{
    return bf16 ? qp_bf16_to_f32(qp_f32_to_bf16(f)) : f;
}

static void kv_store(float *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v, int64_t ldv, int64_t pos0,
                     int64_t T, bool bf16)
{
    int64_t hd = s->head_dim, cap = padded(s->capacity, KEYS);
    for (int64_t h = 0; h < s->n_kv_heads; h++) {
        float *kp = cache + (size_t)h * head_floats(s), *vp = kp + k_floats(s);
        for (int64_t t = 0; t < T; t++) {
            int64_t pos = pos0 + t;
            for (int64_t d = 0; d < hd; d++) {
                kp[pos / NR * hd * NR + d * NR + pos % NR] = maybe_round(k[t * ldk + h * hd + d], bf16);
                vp[d / NR * cap * NR + pos * NR + d % NR] = maybe_round(v[t * ldv + h * hd + d], bf16);
            }
        }
    }
}

void QP_V(kv_f32_store)(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v,
                        int64_t ldv, int64_t pos0, int64_t T)
{
    (void)ex;
    kv_store(cache, s, k, ldk, v, ldv, pos0, T, false);
}

void QP_V(kv_bf16_store)(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v,
                         int64_t ldv, int64_t pos0, int64_t T)
{
    (void)ex;
    kv_store(cache, s, k, ldk, v, ldv, pos0, T, true);
}

struct tile_state {
    float q[QROWS * QP_MAX_HEAD_DIM], s[QROWS * KEYS], o[QROWS * (QP_MAX_HEAD_DIM + NR)], m[QROWS], l[QROWS];
};

/* Turns a row of scores into probabilities against the new running maximum; keys outside [first, last] count nothing. Returns the old sums' scale. */
static float softmax_row(float *s, int64_t first, int64_t last, float *m, float *l, bool bf16)
{
    for (int64_t i = 0; i < KEYS; i++)
        if (i < first || i > last)
            s[i] = -INFINITY;
    vf most = v_load(s);
    for (int64_t i = VL; i < KEYS; i += VL)
        most = v_max(most, v_load(s + i));
    float new_m = v_hmax(most);
    new_m = new_m > *m ? new_m : *m;
    vf sum = v_set1(0), shift = v_set1(new_m);
    for (int64_t i = 0; i < KEYS; i += VL) {
        vf p = v_exp(v_sub(v_load(s + i), shift));
        sum = v_add(sum, p);
        v_store(s + i, p);
    }
    if (bf16)
        for (int64_t i = 0; i < KEYS; i++)
            s[i] = maybe_round(s[i], true);
    float alpha = expf(*m - new_m);
    *l = *l * alpha + v_hsum(sum);
    *m = new_m;
    return alpha;
}

static void key_block(struct tile_state *st, const struct attention_job *j, const float *kp, const float *vp, int64_t t0, int rows, int64_t key0)
{
    int64_t hd = j->s->head_dim, hp = padded(hd, NR), cap = padded(j->s->capacity, KEYS);
    for (int r = 0; r < rows; r += MR) {
        int mr = rows - r < MR ? rows - r : MR;
        for (int64_t n = 0; n < KEYS; n += NR)
            tile_f32(mr, st->s + r * KEYS + n, KEYS, NR, false, st->q + r * hd, hd, kp + (key0 + n) * hd, hd);
        for (int i = r; i < r + mr; i++) {
            int64_t last = j->pos0 + t0 + i, first = j->s->window ? last + 1 - j->s->window : 0;
            float alpha = softmax_row(st->s + i * KEYS, first - key0, last - key0, &st->m[i], &st->l[i], j->bf16);
            if (alpha != 1.f)
                for (int64_t d = 0; d < hp; d += VL)
                    v_store(st->o + i * hp + d, v_mul(v_load(st->o + i * hp + d), v_set1(alpha)));
        }
        for (int64_t d = 0; d < hp; d += NR)
            tile_f32(mr, st->o + r * hp + d, hp, NR, true, st->s + r * KEYS, KEYS, vp + d * cap + key0 * NR, KEYS);
    }
}

static void attend(const struct attention_job *j, int64_t h, int64_t t0, int rows)
{
    struct tile_state st;
    const struct qp_attn_shape *s = j->s;
    int64_t hd = s->head_dim, hp = padded(hd, NR), kv = h / (s->n_heads / s->n_kv_heads);
    const float *kp = j->cache + (size_t)kv * head_floats(s), *vp = kp + k_floats(s);
    for (int i = 0; i < rows; i++) {
        const float *q = j->q + (t0 + i) * j->ldq + h * hd;
        for (int64_t d = 0; d < hd; d++)
            st.q[i * hd + d] = j->bf16 ? maybe_round(q[d], true) : q[d];
        st.m[i] = -1e30f;
        st.l[i] = 0;
    }
    memset(st.o, 0, (size_t)(rows * hp) * sizeof(float));
    for (int i = 0; i < rows; i++)
        for (int64_t d = 0; d < hd; d++)
            st.q[i * hd + d] *= s->scale;
    int64_t first = s->window && j->pos0 + t0 + 1 > s->window ? j->pos0 + t0 + 1 - s->window : 0;
    for (int64_t key0 = first / KEYS * KEYS; key0 < j->pos0 + t0 + rows; key0 += KEYS)
        key_block(&st, j, kp, vp, t0, rows, key0);
    for (int i = 0; i < rows; i++)
        for (int64_t d = 0; d < hd; d++)
            j->out[(t0 + i) * j->ldo + h * hd + d] = st.o[i * hp + d] / st.l[i];
}

/* Late tiles see more keys, so they go first. */
static void attention_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct attention_job *j = arg;
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        int64_t tile = j->tiles - 1 - task / j->s->n_heads, t0 = tile * QROWS;
        attend(j, task % j->s->n_heads, t0, (int)(j->T - t0 < QROWS ? j->T - t0 : QROWS));
    }
}

static void attention(struct qp_exec *ex, struct attention_job *j)
{
    j->tiles = (j->T + QROWS - 1) / QROWS;
    qp_pool_for(ex->pool, j->tiles * j->s->n_heads, 1, attention_tasks, j);
}

void QP_V(attention_f32)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const void *cache,
                         const struct qp_attn_shape *s, int64_t pos0, int64_t T)
{
    struct attention_job j = {.out = out, .q = q, .cache = cache, .s = s, .ldo = ldo, .ldq = ldq, .pos0 = pos0, .T = T};
    attention(ex, &j);
}

void QP_V(attention_bf16)(struct qp_exec *ex, float *out, int64_t ldo, const float *q, int64_t ldq, const void *cache,
                          const struct qp_attn_shape *s, int64_t pos0, int64_t T)
{
    struct attention_job j = {.out = out, .q = q, .cache = cache, .s = s, .ldo = ldo, .ldq = ldq, .pos0 = pos0, .T = T, .bf16 = true};
    attention(ex, &j);
}
