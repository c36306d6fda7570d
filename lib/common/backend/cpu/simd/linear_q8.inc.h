/* Linear layers over codes with x rounded to 8 bits in each group: products of bytes summed in integers, exact in any order; a row's groups are added in
 * order, scaled. Codes are read as they are, for any number of rows.
 *
 * The including file defines what one vector of bytes is:
 *   q8_i, q8_load, q8_and, q8_srl4, q8_set1, q8_float
 *   q8_dot(acc, bits, codes, four)   each word of acc += its 4 unsigned codes of so many bits times the 4 signed bytes
 *   LINEAR_Q8                        the function's name */
#include <math.h>

#include "backend/cpu/simd/qpanel.h"
#include "backend/cpu/variants.h"

#define Q8_BLOCK 1024    /* rows of x that are rounded at a time */

struct q8_group {  /* a row's x in one group */
    float scale, sum; /* of the codes */
    int32_t start;    /* table[0] times the sum */
};

struct q8_job {
    float *y;
    const float *x;
    const uint8_t *packed;
    const struct qp_qmatrix *q;
    int8_t *codes;           /* [T][Kp], in the order that panels hold columns */
    struct q8_group *groups; /* [T][n_groups] */
    float *ordered;          /* [Kp] for each thread, when columns are permuted */
    size_t stream;
    int64_t ldy, ldx, T, grain, ahead; /* ahead: panels to those of a thread's next task */
    bool accumulate;
};

/* ---- x ---- */

INLINE float q8_most(const float *x, int64_t n, float *broken)
{
    __m256 most = _mm256_setzero_ps(), zero = _mm256_setzero_ps(), magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    for (int64_t k = 0; k < n; k += 8) {
        __m256 v = _mm256_loadu_ps(x + k);
        most = _mm256_max_ps(_mm256_and_ps(v, magnitude), most);
        zero = _mm256_fmadd_ps(v, _mm256_setzero_ps(), zero);
    }
    float m[8], z[8];
    _mm256_storeu_ps(m, most);
    _mm256_storeu_ps(z, zero);
    *broken = 0;
    for (int i = 0; i < 8; i++) {
        m[0] = m[i] > m[0] ? m[i] : m[0];
        *broken += z[i];
    }
    return m[0];
}

/* n columns, a multiple of 8, as codes; with 4 bits in the order 0 4 1 5 2 6 3 7 that the nibbles of a word have. */
INLINE int32_t q8_round(int8_t *codes, const float *x, int64_t n, float by, int bits)
{
    const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, -1, -1, -1, -1, -1, -1, -1, -1);
    __m256i sums = _mm256_setzero_si256();
    for (int64_t k = 0; k < n; k += 8) {
        __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k), _mm256_set1_ps(by)));
        sums = _mm256_add_epi32(sums, c);
        __m128i b = _mm_packs_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
        b = _mm_packs_epi16(b, b);
        _mm_storel_epi64((__m128i *)(void *)(codes + k), bits == 4 ? _mm_shuffle_epi8(b, order) : b);
    }
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static void q8_convert_row(const struct q8_job *j, int64_t t, float *ordered)
{
    const struct qp_qmatrix *q = j->q;
    const float *x = j->x + t * j->ldx;
    if (q->perm) {
        for (int64_t k = 0; k < q->Kp; k++)
            ordered[k] = q->perm[k] < 0 ? 0 : x[q->perm[k]];
        x = ordered;
    }
    for (int64_t g = 0, k = 0; g < q->n_groups; k += q_width(q, g++)) {
        float broken, most = q8_most(x + k, q_width(q, g), &broken), by = most >= QP_Q8_LEAST && broken == 0 ? 127.f / most : 0;
        int32_t sum = 0;
        if (by > 0)
            sum = q8_round(j->codes + t * q->Kp + k, x + k, q_width(q, g), by, q->bits);
        else
            memset(j->codes + t * q->Kp + k, 0, (size_t)q_width(q, g));
        j->groups[t * q->n_groups + g] = (struct q8_group){by > 0 ? most / 127.f : broken, (float)sum, (int32_t)q->table[0] * sum};
    }
}

static void q8_convert(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct q8_job *j = arg;
    for (int64_t t = begin; t < end; t++)
        q8_convert_row(j, t, j->ordered ? j->ordered + thread * j->q->Kp : NULL);
}

/* ---- products ---- */

INLINE int32_t q8_four(const int8_t *x)
{
    int32_t four;
    memcpy(&four, x, sizeof four);
    return four;
}

/* Whole groups' codes: acc [mr][2 np] = start + codes · x. */
INLINE void q8_sums(int mr, int np, int bits, q8_i acc[MR][8], const struct q8_job *j, const uint8_t *w, const int8_t *x, const struct q8_group *groups, int64_t cols,
                    struct ahead *ahead)
{
    const q8_i low = q8_set1(0x0f0f0f0f);
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < 2 * np; v++)
            acc[i][v] = q8_set1(groups[i * j->q->n_groups].start);
    for (int64_t k = 0; k < cols; k += 32 / bits, w += 2 * sizeof(vf)) {
        q8_i c[8];
        UNROLL for (int v = 0; v < 2 * np; v++) {
            const uint8_t *at = w + (size_t)(v / 2) * j->stream + (size_t)(v % 2) * sizeof(vf);
            _mm_prefetch((const char *)at + 1024, _MM_HINT_T0);
            c[v] = q8_load(at);
        }
        ahead_bring(ahead, 2 * np);
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int v = 0; v < 2 * np; v++)
                acc[i][v] = q8_dot(acc[i][v], bits, bits == 4 ? q8_and(c[v], low) : c[v], q8_four(x + i * j->q->Kp + k));
        if (bits == 4)
            UNROLL for (int i = 0; i < mr; i++)
                UNROLL for (int v = 0; v < 2 * np; v++)
                    acc[i][v] = q8_dot(acc[i][v], bits, q8_and(q8_srl4(c[v]), low), q8_four(x + i * j->q->Kp + k + 4));
    }
}

/* mr rows from t on against np panels from p on. */
INLINE void q8_tile(int mr, int np, int bits, const struct q8_job *j, int64_t p, int64_t t, struct ahead ahead)
{
    const struct qp_qmatrix *q = j->q;
    const int width = np * QN;
    float memory[2 * MR * QN] __attribute__((aligned(64)));
    const int8_t *x = j->codes + t * q->Kp;
    const struct q8_group *groups = j->groups + t * q->n_groups;
    const uint8_t *w = j->packed + (size_t)p * j->stream;
    float *y = j->y + t * j->ldy + p * QN;
    int64_t n = q->N - p * QN < width ? q->N - p * QN : width;
    vf total[MR][8];
    memset(memory, 0, (size_t)(mr * width) * sizeof *memory);
    q_totals(memory, width, y, j->ldy, mr, n, j->accumulate, false);
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < 2 * np; v++)
            total[i][v] = v_load(memory + i * width + v * VL);
    for (int64_t g = 0; g < q->n_groups; g++, groups++) {
        int64_t cols = q_width(q, g);
        q8_i acc[MR][8];
        q8_sums(mr, np, bits, acc, j, w, x, groups, cols, &ahead);
        UNROLL for (int v = 0; v < 2 * np; v++) {
            const uint8_t *at = w + (size_t)(v / 2) * j->stream + q_code_bytes(q, cols);
            vf s = q_load_scales(q, at, v % 2), z = q->zeros ? q_load_scales(q, at + q_scale_bytes(q), v % 2) : s;
            UNROLL for (int i = 0; i < mr; i++) {
                const struct q8_group *of = groups + i * q->n_groups;
                vf sum = q8_float(acc[i][v]);
                if (q->zeros)
                    sum = v_fnma(v_set1(of->sum), z, sum);
                total[i][v] = v_fma(sum, v_mul(s, v_set1(of->scale)), total[i][v]);
            }
        }
        w += q_group_bytes(q, cols);
        x += cols;
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int v = 0; v < 2 * np; v++)
            v_store(memory + i * width + v * VL, total[i][v]);
    q_totals(memory, width, y, j->ldy, mr, n, j->accumulate, true);
}

#define Q8_TILE(mr, np)                                                                                       \
    static __attribute__((noinline)) void q8_tile4_##mr##_##np(const struct q8_job *j, int64_t p, int64_t t, struct ahead ahead) \
    {                                                                                                         \
        q8_tile(mr, np, 4, j, p, t, ahead);                                                                   \
    }                                                                                                         \
    static __attribute__((noinline)) void q8_tile8_##mr##_##np(const struct q8_job *j, int64_t p, int64_t t, struct ahead ahead) \
    {                                                                                                         \
        q8_tile(mr, np, 8, j, p, t, ahead);                                                                   \
    }
#define Q8_TILES(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1) X(1, 2) X(2, 2) X(1, 4)
Q8_TILES(Q8_TILE)

static void q8_run_tile(int mr, int np, const struct q8_job *j, int64_t p, int64_t t, struct ahead ahead)
{
    switch (mr * 16 + np + (j->q->bits == 8 ? 8 : 0)) {
#define Q8_CASE(m, n)                                       \
    case m * 16 + n: q8_tile4_##m##_##n(j, p, t, ahead); break;    \
    case m * 16 + n + 8: q8_tile8_##m##_##n(j, p, t, ahead); break;
        Q8_TILES(Q8_CASE)
#undef Q8_CASE
    default: break;
    }
}

/* A task: the rows of one block against some panels. */
static void q8_tasks(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct q8_job *j = arg;
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        struct q_share s = q_share_of(j->q, j->T, j->grain, task);
        int np;
        for (int64_t p = s.p0; p < s.p1; p += np) {
            np = s.rows == 1 && s.p1 - p >= 4 ? 4 : s.rows <= 2 && s.p1 - p >= 2 ? 2 : 1;
            int64_t pass = 0;
            for (int64_t t = s.t0; t < s.t1; t += s.rows)
                q8_run_tile((int)(s.t1 - t < s.rows ? s.t1 - t : s.rows), np, j, p, t, q_ahead(j->q, j->packed, p + j->ahead, np, pass++, s.passes));
        }
    }
}

/* ---- all ---- */

void LINEAR_Q8(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T, bool accumulate)
{
    int64_t block = T < Q8_BLOCK ? T : Q8_BLOCK;
    struct q8_job j = {.packed = packed, .q = q, .ldy = ldy, .ldx = ldx, .stream = q_panel_bytes(q), .accumulate = accumulate};
    size_t codes = lines_up((size_t)(block * q->Kp)), groups = lines_up((size_t)(block * q->n_groups) * sizeof *j.groups);
    size_t ordered = q->perm ? (size_t)(q->Kp * qp_pool_threads(ex->pool)) * sizeof *j.ordered : 0;
    uint8_t *scratch = qp_exec_scratch(ex, codes + groups + ordered);
    if (!scratch)
        return;
    j.codes = (int8_t *)scratch;
    j.groups = (struct q8_group *)(void *)(scratch + codes);
    j.ordered = ordered ? (float *)(void *)(scratch + codes + groups) : NULL;
    j.grain = q_grain(q, T);
    j.ahead = j.grain * qp_pool_threads(ex->pool);
    for (int64_t t = 0; t < T; t += block) {
        j.T = T - t < block ? T - t : block;
        j.x = x + t * ldx;
        j.y = y + t * ldy;
        qp_pool_for(ex->pool, j.T, 8, q8_convert, &j);
        qp_pool_for(ex->pool, q_shares(q, j.T, j.grain), 1, q8_tasks, &j);
    }
}
