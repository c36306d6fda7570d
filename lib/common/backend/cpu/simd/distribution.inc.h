/* Log-sum-exp and KL divergence over the vocabulary: vector exponentials, partial sums carried to double every BLOCK columns. */
#include <math.h>

#include "backend/cpu/simd/vec.h"
#include "backend/cpu/variants.h"

#define BLOCK 1024

struct lse_job {
    double *lse;
    int32_t *argmax;
    const float *x;
    int64_t ldx, V;
};

static float row_max(const float *x, int64_t n)
{
    float most = x[0];
    int64_t i = 0;
    if (n >= 4 * VL) {
        vf m[4] = {v_load(x), v_load(x + VL), v_load(x + 2 * VL), v_load(x + 3 * VL)};
        for (i = 4 * VL; i + 4 * VL <= n; i += 4 * VL)
            UNROLL for (int k = 0; k < 4; k++)
                m[k] = v_max(m[k], v_load(x + i + k * VL));
        most = v_hmax(v_max(v_max(m[0], m[1]), v_max(m[2], m[3])));
    }
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

static void lse_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct lse_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *x = j->x + t * j->ldx;
        float most = row_max(x, j->V);
        double sum = 0;
        for (int64_t b = 0; b < j->V; b += BLOCK) {
            int64_t e = b + BLOCK < j->V ? b + BLOCK : j->V, i = b;
            vf s = v_set1(0);
            for (; i + VL <= e; i += VL)
                s = v_add(s, v_exp(v_sub(v_load(x + i), v_set1(most))));
            sum += v_hsum_f64(s);
            for (; i < e; i++)
                sum += exp((double)x[i] - (double)most);
        }
        j->lse[t] = (double)most + log(sum);
        if (j->argmax) {
            int64_t i = 0;
            while (i + VL <= j->V && !v_any_eq(v_load(x + i), v_set1(most)))
                i += VL;
            while (i < j->V - 1 && !(x[i] == most))
                i++;
            j->argmax[t] = (int32_t)i;
        }
    }
}

void QP_V(log_sum_exp)(struct qp_exec *ex, double *lse, int32_t *argmax, const float *x, int64_t ldx, int64_t T, int64_t V)
{
    struct lse_job j = {lse, argmax, x, ldx, V};
    qp_pool_for(ex->pool, T, 1, lse_rows, &j);
}

struct kl_job {
    double *kl;
    const float *a, *b;
    const double *lse_a, *lse_b;
    int64_t lda, ldb, V;
};

static void kl_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct kl_job *j = arg;
    (void)thread;
    for (int64_t t = begin; t < end; t++) {
        const float *a = j->a + t * j->lda, *b = j->b + t * j->ldb;
        float za = (float)j->lse_a[t], shift = (float)(j->lse_a[t] - j->lse_b[t]);
        double sum = 0, mass = 0;
        for (int64_t c = 0; c < j->V; c += BLOCK) {
            int64_t e = c + BLOCK < j->V ? c + BLOCK : j->V, i = c;
            vf s = v_set1(0), m = v_set1(0);
            for (; i + VL <= e; i += VL) {
                vf va = v_load(a + i), p = v_exp(v_sub(va, v_set1(za)));
                s = v_fma(p, v_sub(v_sub(va, v_load(b + i)), v_set1(shift)), s);
                m = v_add(m, p);
            }
            sum += v_hsum_f64(s);
            mass += v_hsum_f64(m);
            for (; i < e; i++) {
                double p = exp((double)a[i] - (double)za);
                sum += p * ((double)a[i] - (double)b[i] - (double)shift);
                mass += p;
            }
        }
        /* za and shift were rounded to float: put the remainders back. */
        double scale = exp((double)za - j->lse_a[t]);
        j->kl[t] = scale * (sum + mass * ((double)shift - (j->lse_a[t] - j->lse_b[t])));
    }
}

void QP_V(kl_div)(struct qp_exec *ex, double *kl, const float *a, int64_t lda, const double *lse_a, const float *b, int64_t ldb,
                  const double *lse_b, int64_t T, int64_t V)
{
    struct kl_job j = {kl, a, b, lse_a, lse_b, lda, ldb, V};
    qp_pool_for(ex->pool, T, 1, kl_rows, &j);
}
