/* Norms, activations, rotation. */
#include <math.h>

#include "backend/cpu/simd/softcap.h"
#include "backend/cpu/simd/vec.h"
#include "backend/cpu/variants.h"

#define ELEMENTS 16384 /* elements a chunk: some microseconds of work */

struct rows_job {
    float *y;
    const float *x, *w, *u, *b;
    int64_t ldy, ldx, D, heads;
    float eps;
    bool interleaved;
};

static int64_t rows_a_chunk(int64_t D)
{
    return D >= ELEMENTS ? 1 : (ELEMENTS + D - 1) / (D > 0 ? D : 1);
}

static void norm_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->D;
        float *y = j->y + t * j->D;
        vf a = v_set1(0), b = v_set1(0);
        int64_t d = 0;
        for (; d + 2 * VL <= j->D; d += 2 * VL) {
            vf u = v_load(x + d), v = v_load(x + d + VL);
            a = v_fma(u, u, a);
            b = v_fma(v, v, b);
        }
        for (; d < j->D; d += VL) {
            vf u = v_load_n(x + d, j->D - d < VL ? j->D - d : VL);
            a = v_fma(u, u, a);
        }
        double mean = v_hsum_f64(v_add(a, b)) / (double)j->D;
        vf s = v_set1((float)(1.0 / sqrt(mean + (double)j->eps)));
        for (d = 0; d + VL <= j->D; d += VL)
            v_store(y + d, v_mul(v_mul(v_load(x + d), s), v_load(j->w + d)));
        if (d < j->D)
            v_store_n(y + d, v_mul(v_mul(v_load_n(x + d, j->D - d), s), v_load_n(j->w + d, j->D - d)), j->D - d);
    }
}

void QP_V(rms_norm)(struct qp_exec *ex, float *y, const float *x, const float *w, int64_t T, int64_t D, float eps)
{
    struct rows_job j = {.y = y, .x = x, .w = w, .D = D, .eps = eps};
    qp_pool_for(ex->pool, T, rows_a_chunk(D), norm_rows, &j);
}

/* Sum over x, or over (x - mean)^2. */
INLINE double span_sum(const float *x, int64_t D, float mean, bool squares)
{
    vf a = v_set1(0), b = v_set1(0), m = v_set1(mean);
    int64_t d = 0;
    for (; d + 2 * VL <= D; d += 2 * VL) {
        vf u = v_sub(v_load(x + d), m), v = v_sub(v_load(x + d + VL), m);
        a = squares ? v_fma(u, u, a) : v_add(a, u);
        b = squares ? v_fma(v, v, b) : v_add(b, v);
    }
    double sum = v_hsum_f64(v_add(a, b));
    for (; d < D; d++) {
        double u = (double)(x[d] - mean);
        sum += squares ? u * u : u;
    }
    return sum;
}

static void layer_norm_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->D;
        float *y = j->y + t * j->D, mean = (float)(span_sum(x, j->D, 0, false) / (double)j->D);
        double var = span_sum(x, j->D, mean, true) / (double)j->D;
        vf m = v_set1(mean), s = v_set1((float)(1.0 / sqrt(var + (double)j->eps)));
        int64_t d = 0;
        for (; d + VL <= j->D; d += VL)
            v_store(y + d, v_fma(v_mul(v_sub(v_load(x + d), m), s), v_load(j->w + d), v_load(j->b + d)));
        if (d < j->D) {
            int64_t n = j->D - d;
            v_store_n(y + d, v_fma(v_mul(v_sub(v_load_n(x + d, n), m), s), v_load_n(j->w + d, n), v_load_n(j->b + d, n)), n);
        }
    }
}

void QP_V(layer_norm)(struct qp_exec *ex, float *y, const float *x, const float *w, const float *b, int64_t T, int64_t D, float eps)
{
    struct rows_job j = {.y = y, .x = x, .w = w, .b = b, .D = D, .eps = eps};
    qp_pool_for(ex->pool, T, rows_a_chunk(D), layer_norm_rows, &j);
}

/* (1 + tanh(u)) / 2 = 1 / (1 + e^-2u); the argument is g (a + b g^2). */
INLINE vf gelu_tanh(vf g)
{
    vf a = v_mul(g, v_fma(v_mul(g, g), v_set1(-0.0713548163f), v_set1(-1.59576912f)));
    return v_div(g, v_add(v_set1(1), v_exp(a)));
}

static void gelu_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *g = j->x + t * j->ldx, *u = j->u ? j->u + t * j->ldx : NULL;
        float *y = j->y + t * j->ldy;
        int64_t f = 0;
        for (; f + VL <= j->D; f += VL) {
            vf v = gelu_tanh(v_load(g + f));
            v_store(y + f, u ? v_mul(v, v_load(u + f)) : v);
        }
        if (f < j->D) {
            vf v = gelu_tanh(v_load_n(g + f, j->D - f));
            v_store_n(y + f, u ? v_mul(v, v_load_n(u + f, j->D - f)) : v, j->D - f);
        }
    }
}

void QP_V(gelu_mul)(struct qp_exec *ex, float *y, int64_t ldy, const float *gate, const float *up, int64_t ldx, int64_t T, int64_t F)
{
    struct rows_job j = {.y = y, .ldy = ldy, .x = gate, .u = up, .ldx = ldx, .D = F};
    qp_pool_for(ex->pool, T, rows_a_chunk(2 * F), gelu_rows, &j);
}

/* With z = |g| / sqrt 2, t = 1 / (1 + z/2): erfc(z) = t e^(p(t) - z^2), p a Chebyshev interpolant of log(erfcx(z) / t) over z in [0, 10.2], error 5e-8.
 * g Phi(g) = max(g, 0) - |g| erfc(z) / 2, which has no cancellation for negative g. |g| stops where erfc is 0, so that infinity times 0 is no NaN. */
INLINE vf gelu_exact(vf g)
{
    static const float c[] = {1.498050268e-1f, -7.070607322e-1f, 1.217592973f, -7.758814959e-1f, -1.574894652e-2f, -3.219607375e-2f, 4.566372696e-2f, 3.844016541e-1f,
                              9.988837636e-1f, -1.265459846f};
    vf size = v_min(v_set1(30.f), v_max(v_sub(v_set1(0), g), g)), z = v_mul(size, v_set1(0.707106781f)), t = v_div(v_set1(1), v_fma(z, v_set1(0.5f), v_set1(1)));
    vf p = v_set1(c[0]);
    UNROLL for (int i = 1; i < 10; i++)
        p = v_fma(p, t, v_set1(c[i]));
    vf tail = v_mul(v_mul(t, v_exp(v_fnma(z, z, p))), v_mul(size, v_set1(0.5f)));
    return v_sub(v_max(v_set1(0), g), tail);
}

static void gelu_erf_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->ldx;
        float *y = j->y + t * j->ldy;
        int64_t f = 0;
        for (; f + VL <= j->D; f += VL)
            v_store(y + f, gelu_exact(v_load(x + f)));
        if (f < j->D)
            v_store_n(y + f, gelu_exact(v_load_n(x + f, j->D - f)), j->D - f);
    }
}

void QP_V(gelu_erf)(struct qp_exec *ex, float *y, int64_t ldy, const float *x, int64_t ldx, int64_t T, int64_t F)
{
    struct rows_job j = {.y = y, .ldy = ldy, .x = x, .ldx = ldx, .D = F};
    qp_pool_for(ex->pool, T, rows_a_chunk(2 * F), gelu_erf_rows, &j);
}

INLINE vf silu(vf g, vf u)
{
    vf e = v_exp(v_sub(v_set1(0), g));
    return v_mul(v_div(g, v_add(v_set1(1), e)), u);
}

static void silu_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *g = j->x + t * j->ldx, *u = j->u + t * j->ldx;
        float *y = j->y + t * j->ldy;
        int64_t f = 0;
        for (; f + VL <= j->D; f += VL)
            v_store(y + f, silu(v_load(g + f), v_load(u + f)));
        if (f < j->D)
            v_store_n(y + f, silu(v_load_n(g + f, j->D - f), v_load_n(u + f, j->D - f)), j->D - f);
    }
}

void QP_V(silu_mul)(struct qp_exec *ex, float *y, int64_t ldy, const float *gate, const float *up, int64_t ldx, int64_t T, int64_t F)
{
    struct rows_job j = {.y = y, .ldy = ldy, .x = gate, .u = up, .ldx = ldx, .D = F};
    qp_pool_for(ex->pool, T, rows_a_chunk(2 * F), silu_rows, &j);
}

static void soft_cap_span(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    int64_t i = begin;
    for (; i + VL <= end; i += VL)
        v_store(j->y + i, v_soft_cap(v_load(j->y + i), j->eps));
    if (i < end)
        v_store_n(j->y + i, v_soft_cap(v_load_n(j->y + i, end - i), j->eps), end - i);
}

void QP_V(soft_cap)(struct qp_exec *ex, float *x, int64_t n, float cap)
{
    struct rows_job j = {.y = x, .eps = cap};
    qp_pool_for(ex->pool, n, ELEMENTS, soft_cap_span, &j);
}

static void add_span(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    int64_t i = begin;
    for (; i + VL <= end; i += VL)
        v_store(j->y + i, v_add(v_load(j->y + i), v_load(j->x + i)));
    for (; i < end; i++)
        j->y[i] += j->x[i];
}

void QP_V(add)(struct qp_exec *ex, float *y, const float *x, int64_t n)
{
    struct rows_job j = {.y = y, .x = x};
    qp_pool_for(ex->pool, n, 2 * ELEMENTS, add_span, &j);
}

static void bias_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t n = 0; n < j->D; n++)
            j->y[t * j->ldy + n] += j->x[n];
}

void QP_V(add_bias)(struct qp_exec *ex, float *y, int64_t ldy, const float *b, int64_t T, int64_t N)
{
    struct rows_job j = {.y = y, .ldy = ldy, .x = b, .D = N};
    qp_pool_for(ex->pool, T, rows_a_chunk(N), bias_rows, &j);
}

static void rope_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct rows_job *j = arg;
    int64_t half = j->D / 2;
    (void)thread;
    for (int64_t t = begin; t < end; t++)
        for (int64_t h = 0; h < j->heads; h++) {
            float *p = j->y + t * j->ldx + h * j->D;
            const float *cs = j->x + t * half * 2;
            if (j->interleaved) {
                for (int64_t i = 0; i < half; i++) {
                    float u = p[2 * i], v = p[2 * i + 1];
                    p[2 * i] = u * cs[2 * i] - v * cs[2 * i + 1];
                    p[2 * i + 1] = v * cs[2 * i] + u * cs[2 * i + 1];
                }
                continue;
            }
            for (int64_t i = 0; i < half; i++) {
                float u = p[i], v = p[i + half];
                p[i] = u * cs[2 * i] - v * cs[2 * i + 1];
                p[i + half] = v * cs[2 * i] + u * cs[2 * i + 1];
            }
        }
}

void QP_V(rope)(struct qp_exec *ex, float *x, int64_t ldx, const float *cs, int64_t T, int64_t heads, int64_t hd, bool interleaved)
{
    struct rows_job j = {.y = x, .ldx = ldx, .x = cs, .D = hd, .heads = heads, .interleaved = interleaved};
    qp_pool_for(ex->pool, T, rows_a_chunk(heads * hd), rope_rows, &j);
}
