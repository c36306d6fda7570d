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

struct store_job {
    float *cache;
    const struct qp_attn_shape *s;
    const float *k, *v;
    int64_t ldk, ldv, pos0;
    bool bf16;
};

static void store_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct store_job *j = arg;
    int64_t hd = j->s->head_dim, cap = padded(j->s->capacity, KEYS);
    (void)thread;
    for (int64_t h = 0; h < j->s->n_kv_heads; h++) {
        float *kp = j->cache + (size_t)h * head_floats(j->s), *vp = kp + k_floats(j->s);
        for (int64_t t = begin; t < end; t++) {
            int64_t pos = j->pos0 + t;
            for (int64_t d = 0; d < hd; d++) {
                kp[pos / NR * hd * NR + d * NR + pos % NR] = maybe_round(j->k[t * j->ldk + h * hd + d], j->bf16);
                vp[d / NR * cap * NR + pos * NR + d % NR] = maybe_round(j->v[t * j->ldv + h * hd + d], j->bf16);
            }
        }
    }
}

void QP_V(kv_f32_store)(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v,
                        int64_t ldv, int64_t pos0, int64_t T)
{
    struct store_job j = {cache, s, k, v, ldk, ldv, pos0, false};
    qp_pool_for(ex->pool, T, 64, store_rows, &j);
}

void QP_V(kv_bf16_store)(struct qp_exec *ex, void *cache, const struct qp_attn_shape *s, const float *k, int64_t ldk, const float *v,
                         int64_t ldv, int64_t pos0, int64_t T)
{
    struct store_job j = {cache, s, k, v, ldk, ldv, pos0, true};
    qp_pool_for(ex->pool, T, 64, store_rows, &j);
}

/* Scores and probabilities of one register tile of rows; running maxima and sums of all rows, the sums still spread over a vector. */
struct tile_state {
    float q[QROWS * QP_MAX_HEAD_DIM], s[MR * KEYS], o[QROWS * (QP_MAX_HEAD_DIM + NR)], l[QROWS * VL], m[QROWS];
};

/* The subtracted maximum need not be the true one: it is raised when a score tops it by LEEWAY, which is rare, so that most blocks need no sums
 * across a vector and no scaling of what was summed. */
#define LEEWAY 7.f

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
            s[k] = maybe_round(s[k], true);
}

/* Rows r .. r+mr-1 of the tile against the keys of one block, panels behind the last row's position left out. */
static void rows_block(struct tile_state *st, const struct attention_job *j, const float *kp, const float *vp, int64_t t0, int r, int mr, int64_t key0)
{
    int64_t hd = j->s->head_dim, hp = padded(hd, NR), cap = padded(j->s->capacity, KEYS), n = padded(j->pos0 + t0 + r + mr - key0, NR);
    if (n <= 0)
        return;
    n = n < KEYS ? n : KEYS;
    for (int64_t k = 0; k < n; k += NR)
        tile_f32(mr, st->s + k, KEYS, NR, false, st->q + r * hd, hd, kp + (key0 + k) * hd, hd);
    for (int i = 0; i < mr; i++) {
        int64_t last = j->pos0 + t0 + r + i - key0, first = j->s->window ? last + 1 - j->s->window : 0;
        softmax_row(st, i, r + i, n, first, last, hp, j->bf16);
    }
    for (int64_t d = 0; d < hp; d += NR)
        tile_f32(mr, st->o + r * hp + d, hp, NR, true, st->s, KEYS, vp + d * cap + key0 * NR, n);
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
    }
    memset(st.l, 0, sizeof st.l);
    memset(st.o, 0, (size_t)(rows * hp) * sizeof(float));
    for (int i = 0; i < rows; i++)
        for (int64_t d = 0; d < hd; d++)
            st.q[i * hd + d] *= s->scale;
    int64_t first = s->window && j->pos0 + t0 + 1 > s->window ? j->pos0 + t0 + 1 - s->window : 0;
    for (int64_t key0 = first / KEYS * KEYS; key0 < j->pos0 + t0 + rows; key0 += KEYS)
        for (int r = 0; r < rows; r += MR)
            rows_block(&st, j, kp, vp, t0, r, rows - r < MR ? rows - r : MR, key0);
    for (int i = 0; i < rows; i++) {
        float sum = v_hsum(v_load(st.l + i * VL));
        for (int64_t d = 0; d < hd; d++)
            j->out[(t0 + i) * j->ldo + h * hd + d] = st.o[i * hp + d] / sum;
    }
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
