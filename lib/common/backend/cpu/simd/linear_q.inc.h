/* Linear layers over codes. Two ways with the same sums: few rows read the codes as they are; many rows share a block of columns decoded into a
 * panel [steps][NR]. A row's sum over a group starts at 0 and runs over the columns in order; groups are added in order, scaled.
 *
 * The including file defines what one vector of decoded weights is:
 *   q_x, Q_STEP          element of x, and how many columns it holds
 *   q_w                  vector of weights, Q_STEP columns of VL rows
 *   q_codes, q_load      one vector of words of codes
 *   struct q_tables, q_tables_load, q_decode(tables, bits, codes, s)   step s of the q_cols(bits) / Q_STEP that lie in them
 *   q_mac(acc, x, w)     acc += x * w
 *   q_round(dst, x, q)   a row of x as q_x
 *   Q_FEW(bits)          most rows that read the codes as they are
 *   LINEAR_Q             the function's name */
#include "backend/cpu/simd/qpanel.h"
#include "backend/cpu/variants.h"

#define Q_BLOCK 1024      /* rows of x that are rounded at a time */
#define Q_DECODED 2048    /* columns decoded at a time, in whole groups: a panel that the second-level cache holds */
#define Q_PANELS (NR / QN)

struct q_job {
    float *y;
    const float *x;
    const uint8_t *packed;
    const struct qp_qmatrix *q;
    q_x *xb;        /* [T][steps] */
    float *xs;      /* [T][n_groups] sums of x, when there are zeros */
    uint8_t *panels; /* a decoded panel for each thread */
    size_t panel_bytes, stream;
    int64_t ldy, ldx, T, steps;
    int64_t grain, ahead; /* panels of a task for few rows, and from it to the thread's next one */
    bool accumulate;
};

INLINE int q_cols(int bits)
{
    return 32 / bits;
}

/* ---- x ---- */

static void q_sums(const struct qp_qmatrix *q, float *xs, const q_x *xb)
{
    for (int64_t g = 0; g < q->n_groups; g++) {
        const q_x *x = xb + g * q->group / Q_STEP;
        int64_t n = q_width(q, g) / Q_STEP, i = 0;
        vf a = v_set1(0);
        for (; i + VL <= n; i += VL)
            a = v_add(a, q_x_sum(x + i));
        float sum = v_hsum(a);
        for (; i < n; i++)
            sum += q_x_one(x[i]);
        xs[g] = sum;
    }
}

static void q_convert(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct q_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        q_x *xb = j->xb + t * j->steps;
        q_round(xb, j->x + t * j->ldx, j->q);
        if (j->q->zeros)
            q_sums(j->q, j->xs + t * j->q->n_groups, xb);
    }
}

/* ---- few rows: codes as they are ---- */

/* total += s * (acc - z * xs); then acc = 0 */
INLINE void q_flush(const struct qp_qmatrix *q, float *total, vf acc, vf s, vf z, const float *xs)
{
    if (q->zeros)
        acc = v_fnma(v_set1(*xs), z, acc);
    v_store(total, v_fma(acc, s, v_load(total)));
}

/* mr rows from t on against np panels from p on. */
INLINE void q_direct_body(int mr, int np, int bits, const struct q_job *j, int64_t p, int64_t t, struct ahead ahead)
{
    const struct qp_qmatrix *q = j->q;
    const int width = np * QN, per_unit = q_cols(bits) / Q_STEP;
    float total[2 * MR * QN] __attribute__((aligned(64)));
    const q_x *x = j->xb + t * j->steps;
    const uint8_t *w = j->packed + (size_t)p * j->stream;
    float *y = j->y + t * j->ldy + p * QN;
    int64_t n = j->q->N - p * QN < width ? j->q->N - p * QN : width;
    struct q_tables tables = q_tables_load(q);
    memset(total, 0, (size_t)(mr * width) * sizeof *total);
    q_totals(total, width, y, j->ldy, mr, n, j->accumulate, false);
    for (int64_t g = 0; g < q->n_groups; g++) {
        int64_t cols = q_width(q, g), units = cols / q_cols(bits);
        vf acc[MR][8];
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int v = 0; v < 2 * np; v++)
                acc[i][v] = v_set1(0);
        for (int64_t u = 0; u < units; u++) {
            q_codes c[8];
            UNROLL for (int v = 0; v < 2 * np; v++) {
                const uint8_t *at = w + (size_t)(v / 2) * j->stream + (size_t)(2 * u + v % 2) * sizeof(vf);
                q_prefetch(at);
                c[v] = q_load(at);
            }
            ahead_bring(&ahead, 2 * np);
            UNROLL for (int s = 0; s < per_unit; s++) {
                q_w b[8];
                UNROLL for (int v = 0; v < 2 * np; v++)
                    b[v] = q_decode(&tables, bits, c[v], s);
                UNROLL for (int i = 0; i < mr; i++)
                    UNROLL for (int v = 0; v < 2 * np; v++)
                        acc[i][v] = q_mac(acc[i][v], x[i * j->steps + u * per_unit + s], b[v]);
            }
        }
        UNROLL for (int v = 0; v < 2 * np; v++) {
            const uint8_t *at = w + (size_t)(v / 2) * j->stream + q_code_bytes(q, cols);
            vf s = q_load_scales(q, at, v % 2), z = q->zeros ? q_load_scales(q, at + q_scale_bytes(q), v % 2) : s;
            UNROLL for (int i = 0; i < mr; i++)
                q_flush(q, total + i * width + v * VL, acc[i][v], s, z, j->xs + (t + i) * q->n_groups + g);
        }
        w += q_group_bytes(q, cols);
        x += cols / Q_STEP;
    }
    q_totals(total, width, y, j->ldy, mr, n, j->accumulate, true);
}

#define Q_DIRECT(mr, np)                                                                                                                 \
    static __attribute__((noinline)) void q_direct4_##mr##_##np(const struct q_job *j, int64_t p, int64_t t, struct ahead ahead)         \
    {                                                                                                                                    \
        q_direct_body(mr, np, 4, j, p, t, ahead);                                                                                        \
    }                                                                                                                                    \
    static __attribute__((noinline)) void q_direct8_##mr##_##np(const struct q_job *j, int64_t p, int64_t t, struct ahead ahead)         \
    {                                                                                                                                    \
        q_direct_body(mr, np, 8, j, p, t, ahead);                                                                                        \
    }
#define Q_DIRECT_ALL(X) X(1, 1) X(2, 1) X(3, 1) X(4, 1) X(5, 1) X(6, 1) X(1, 2) X(2, 2) X(3, 2) X(4, 2) X(1, 4)
Q_DIRECT_ALL(Q_DIRECT)

static void q_direct(int mr, int np, const struct q_job *j, int64_t p, int64_t t, struct ahead ahead)
{
    switch (mr * 16 + np + (j->q->bits == 8 ? 8 : 0)) {
#define Q_CASE(m, n)                                                  \
    case m * 16 + n: q_direct4_##m##_##n(j, p, t, ahead); break;      \
    case m * 16 + n + 8: q_direct8_##m##_##n(j, p, t, ahead); break;
        Q_DIRECT_ALL(Q_CASE)
#undef Q_CASE
    default: break;
    }
}

/* A task: the rows of one block against some panels, which stay in the first-level cache. */
static void q_few(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct q_job *j = arg;
    (void)thread;
    for (int64_t task = begin; task < end; task++) {
        struct q_share s = q_share_of(j->q, j->T, j->grain, task);
        int np;
        for (int64_t p = s.p0; p < s.p1; p += np) {
            np = j->T == 1 && s.p1 - p >= 4 ? 4 : s.rows <= 4 && s.p1 - p >= 2 ? 2 : 1;
            int64_t pass = 0;
            for (int64_t t = s.t0; t < s.t1; t += s.rows)
                q_direct((int)(s.t1 - t < s.rows ? s.t1 - t : s.rows), np, j, p, t, q_ahead(j->q, j->packed, p + j->ahead, np, pass++, s.passes));
        }
    }
}

/* ---- many rows: a decoded panel ---- */

/* Vector v of each step of a group's units. */
INLINE void q_unpack_units(int bits, const struct q_tables *tables, const uint8_t *at, int64_t units, q_w *steps)
{
    const int per_unit = q_cols(bits) / Q_STEP;
    for (int64_t u = 0; u < units; u++, at += 2 * sizeof(vf), steps += per_unit * NV) {
        q_codes c = q_load(at);
        UNROLL for (int i = 0; i < per_unit; i++)
            steps[i * NV] = q_decode(tables, bits, c, i);
    }
}

/* Groups [g0, g1) of the panels from p on (those that exist) as steps [NR], then scales and zeros [NR] a group. */
static void q_unpack(const struct q_job *j, int64_t p, int64_t g0, int64_t g1, q_w *steps, float *scales)
{
    const struct qp_qmatrix *q = j->q;
    struct q_tables tables = q_tables_load(q);
    const uint8_t *w = j->packed + (size_t)p * j->stream + (size_t)g0 * q_group_bytes(q, q->group);
    int np = q_panels(q) - p < Q_PANELS ? 1 : Q_PANELS;
    for (int64_t g = g0; g < g1; g++) {
        int64_t cols = q_width(q, g);
        for (int v = 0; v < 2 * np; v++) {
            const uint8_t *at = w + (size_t)(v / 2) * j->stream, *s = at + q_code_bytes(q, cols);
            if (q->bits == 4)
                q_unpack_units(4, &tables, at + (size_t)(v % 2) * sizeof(vf), cols / q_cols(4), steps + v);
            else
                q_unpack_units(8, &tables, at + (size_t)(v % 2) * sizeof(vf), cols / q_cols(8), steps + v);
            v_store(scales + v * VL, q_load_scales(q, s, v % 2));
            if (q->zeros)
                v_store(scales + NR + v * VL, q_load_scales(q, s + q_scale_bytes(q), v % 2));
        }
        steps += cols / Q_STEP * NV;
        scales += 2 * NR;
        w += q_group_bytes(q, cols);
    }
}

struct q_tile {
    const q_w *steps;
    const float *scales;
    int64_t g0, g1, n;
    bool add; /* to what y holds */
};

INLINE void q_tile_body(int mr, const struct q_job *j, const struct q_tile *p, float *y, const q_x *x, const float *xs)
{
    const struct qp_qmatrix *q = j->q;
    float total[MR * NR] __attribute__((aligned(64)));
    const q_w *w = p->steps;
    const float *scales = p->scales;
    for (int i = 0; i < mr; i++) {
        if (p->n < NR || !p->add)
            memset(total + i * NR, 0, NR * sizeof *total);
        if (p->add)
            memcpy(total + i * NR, y + i * j->ldy, (size_t)p->n * sizeof *y);
    }
    for (int64_t g = p->g0; g < p->g1; g++, scales += 2 * NR) {
        int64_t steps = q_width(q, g) / Q_STEP;
        vf acc[MR][NV];
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int v = 0; v < NV; v++)
                acc[i][v] = v_set1(0);
        for (int64_t k = 0; k < steps; k++, w += NV)
            UNROLL for (int i = 0; i < mr; i++)
                UNROLL for (int v = 0; v < NV; v++)
                    acc[i][v] = q_mac(acc[i][v], x[i * j->steps + k], w[v]);
        x += steps;
        UNROLL for (int v = 0; v < NV; v++) {
            vf s = v_load(scales + v * VL), z = v_load(scales + NR + v * VL);
            UNROLL for (int i = 0; i < mr; i++)
                q_flush(q, total + i * NR + v * VL, acc[i][v], s, z, xs + i * q->n_groups + g);
        }
    }
    for (int i = 0; i < mr; i++)
        memcpy(y + i * j->ldy, total + i * NR, (size_t)p->n * sizeof *y);
}

#define Q_TILE(mr)                                                                                                                                  \
    static __attribute__((noinline)) void q_tile_##mr(const struct q_job *j, const struct q_tile *p, float *y, const q_x *x, const float *xs)        \
    {                                                                                                                                               \
        q_tile_body(mr, j, p, y, x, xs);                                                                                                            \
    }
Q_TILE(1) Q_TILE(2) Q_TILE(3) Q_TILE(4) Q_TILE(5) Q_TILE(6)

static void q_many(void *arg, int64_t begin, int64_t end, int thread)
{
    static void (*const tiles[MR])(const struct q_job *, const struct q_tile *, float *, const q_x *, const float *) = {q_tile_1, q_tile_2, q_tile_3,
                                                                                                                        q_tile_4, q_tile_5, q_tile_6};
    const struct q_job *j = arg;
    const struct qp_qmatrix *q = j->q;
    q_w *steps = (q_w *)(void *)(j->panels + (size_t)thread * j->panel_bytes);
    int64_t wide = (q_panels(q) + Q_PANELS - 1) / Q_PANELS, some = Q_DECODED / q->group > 1 ? Q_DECODED / q->group : 1;
    for (int64_t task = begin; task < end; task++) {
        int64_t p = task % wide * Q_PANELS, t0 = task / wide * Q_ROW_BLOCK, t1 = t0 + Q_ROW_BLOCK < j->T ? t0 + Q_ROW_BLOCK : j->T;
        for (int64_t g = 0; g < q->n_groups; g += some) {
            struct q_tile tile = {.steps = steps, .g0 = g, .g1 = g + some < q->n_groups ? g + some : q->n_groups, .add = g || j->accumulate};
            int64_t cols = tile.g1 < q->n_groups ? some * q->group : q->Kp - g * q->group;
            float *scales = (float *)(void *)(steps + cols / Q_STEP * NV);
            tile.scales = scales;
            tile.n = q->N - p * QN < NR ? q->N - p * QN : NR;
            q_unpack(j, p, tile.g0, tile.g1, steps, scales);
            for (int64_t t = t0; t < t1; t += MR)
                tiles[(t1 - t < MR ? t1 - t : MR) - 1](j, &tile, j->y + t * j->ldy + p * QN, j->xb + t * j->steps + g * q->group / Q_STEP, j->xs + t * q->n_groups);
        }
    }
}

/* ---- all ---- */

static size_t q_decoded_bytes(const struct qp_qmatrix *q)
{
    int64_t some = Q_DECODED / q->group > 1 ? Q_DECODED / q->group : 1, cols = some < q->n_groups ? some * q->group : q->Kp;
    return (size_t)(cols / Q_STEP) * NV * sizeof(q_w) + (size_t)(some < q->n_groups ? some : q->n_groups) * 2 * NR * sizeof(float);
}

void LINEAR_Q(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, const void *packed, const struct qp_qmatrix *q, int64_t T, bool accumulate)
{
    int64_t block = T < Q_BLOCK ? T : Q_BLOCK, panels = q_panels(q), wide = (panels + Q_PANELS - 1) / Q_PANELS;
    struct q_job j = {.packed = packed, .q = q, .ldy = ldy, .ldx = ldx, .steps = q->Kp / Q_STEP, .stream = q_panel_bytes(q), .accumulate = accumulate};
    size_t xb = lines_up((size_t)(block * j.steps) * sizeof(q_x)), xs = lines_up((size_t)(block * q->n_groups) * sizeof(float));
    bool few = T <= Q_FEW(q->bits);
    j.grain = q_grain(q, T);
    j.ahead = j.grain * qp_pool_threads(ex->pool);
    j.panel_bytes = few ? 0 : lines_up(q_decoded_bytes(q));
    uint8_t *scratch = qp_exec_scratch(ex, xb + xs + j.panel_bytes * (size_t)qp_pool_threads(ex->pool));
    if (!scratch)
        return;
    j.xb = (q_x *)(void *)scratch;
    j.xs = (float *)(void *)(scratch + xb);
    j.panels = scratch + xb + xs;
    for (int64_t t = 0; t < T; t += block) {
        j.T = T - t < block ? T - t : block;
        j.x = x + t * ldx;
        j.y = y + t * ldy;
        qp_pool_for(ex->pool, j.T, 24, q_convert, &j);
        if (few)
            qp_pool_for(ex->pool, q_shares(q, j.T, j.grain), 1, q_few, &j);
        else
            qp_pool_for(ex->pool, wide * ((j.T + Q_ROW_BLOCK - 1) / Q_ROW_BLOCK), 1, q_many, &j);
    }
}
