#include "quant/hessian.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "quant/drift.h"

#define NB 64 /* block of the factorizations */
#define SLICE 2048 /* tokens; a multiple of syrk's own blocks */

#define TOKENS 64        /* of a partial sum of the check */
#define FORM_SLACK 1e-5  /* of n · trace, which bounds the form: float32 sums of n^2 products */
#define TRACE_SLACK 1e-3

/* A sign for each input, without pattern. */
static float sign_of(int64_t i)
{
    return (uint32_t)i * 2654435761u >> 31 ? 1 : -1;
}

struct check {
    const float *x, *signs;
    double *squares, *forms; /* [T / TOKENS] */
    int64_t T, n, first;
    bool bf16;
};

#define FAST_SUMS __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))

/* v finite, to the nearest bfloat16 */
FAST_SUMS static void round_row(float *out, const float *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, v + i, 4);
        u = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
        memcpy(out + i, &u, 4);
    }
}

FAST_SUMS static double sum_row(const float *v, const float *signs, int64_t n, double *form)
{
    double squares = 0, f = 0;
    for (int64_t i = 0; i < n; i++) {
        squares += (double)v[i] * (double)v[i];
        f += (double)signs[i] * (double)v[i];
    }
    *form += f;
    return squares;
}

static void check_tokens(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct check *c = arg;
    float rounded[512];
    (void)thread;
    for (int64_t k = c->first + begin; k < c->first + end; k++) {
        double squares = 0, forms = 0;
        for (int64_t t = k * TOKENS; t < (k + 1) * TOKENS && t < c->T; t++) {
            double form = 0;
            for (int64_t i = 0; i < c->n; i += 512) {
                const float *v = c->x + t * c->n + i;
                int64_t some = c->n - i < 512 ? c->n - i : 512;
                if (c->bf16)
                    round_row(rounded, v, some);
                squares += sum_row(c->bf16 ? rounded : v, c->signs + i, some, &form);
            }
            forms += form * form;
        }
        c->squares[k] = squares;
        c->forms[k] = forms;
    }
}

/* Sums over the tokens, in slices that a spool may drop afterwards. */
static void sum_tokens(struct check *c, struct qp_exec *ex, double *squares, double *form)
{
    int64_t parts = (c->T + TOKENS - 1) / TOKENS, step = SLICE / TOKENS;
    for (c->first = 0; c->first < parts; c->first += step) {
        int64_t some = parts - c->first < step ? parts - c->first : step, t = c->first * TOKENS, end = t + SLICE < c->T ? t + SLICE : c->T;
        qp_pool_for(ex->pool, some, 1, check_tokens, c);
        qp_spool_passed(ex->spool, c->x + t * c->n, (size_t)((end - t) * c->n) * sizeof *c->x);
    }
    for (int64_t k = 0; k < parts; k++) {
        *squares += c->squares[k] / (double)c->T;
        *form += c->forms[k] / (double)c->T;
    }
}

int qp_hessian_check(const struct qp_hessian *h, const float *x, int64_t T, enum qp_compute compute, struct qp_exec *ex, struct qp_err *err)
{
    int64_t parts = (T + TOKENS - 1) / TOKENS, n = h->n;
    double squares = 0, form = 0, found = 0, *sums = qp_alloc_n((size_t)parts, 2 * sizeof *sums, "Hessian", err);
    float *signs = qp_alloc_n((size_t)n, sizeof *signs, "Hessian", err);
    if (!sums || !signs) {
        qp_free(sums);
        qp_free(signs);
        return QP_E_RESOURCE;
    }
    for (int64_t i = 0; i < n; i++)
        signs[i] = sign_of(i);
    struct check c = {.x = x, .signs = signs, .squares = sums, .forms = sums + parts, .T = T, .n = n, .bf16 = compute == QP_COMPUTE_BF16};
    sum_tokens(&c, ex, &squares, &form);
    for (int64_t i = 0; i < n; i++) {
        double row = 0;
        sum_row(h->h + i * n, signs, n, &row);
        found += (double)signs[i] * row;
    }
    qp_free(sums);
    qp_free(signs);
    if (fabs(squares - h->trace) > TRACE_SLACK * squares || fabs(form - found) > FORM_SLACK * (double)n * squares)
        return qp_err_set(err, QP_E_INTERNAL, "the sums of the Hessian are wrong: trace %g, in double %g; form %g, in double %g", h->trace, squares, found, form);
    return 0;
}

int qp_hessian_init(struct qp_hessian *h, const float *x, int64_t T, int64_t n, enum qp_compute compute, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    *h = (struct qp_hessian){.n = n};
    h->h = qp_zalloc((size_t)(n * n) * sizeof *h->h, "Hessian", err);
    if (!h->h)
        return QP_E_RESOURCE;
    double inv = T ? 1.0 / (double)T : 0;
    if (compute == QP_COMPUTE_F32) {
        for (int64_t t = 0; t < T; t += SLICE) {
            int64_t some = T - t < SLICE ? T - t : SLICE;
            ops->syrk(ex, h->h, n, x + t * n, n, some, n);
            qp_spool_passed(ex->spool, x + t * n, (size_t)(some * n) * sizeof *x);
        }
    } else if (qp_moment(h->h, x, n, x, n, T, compute, ops, ex, err)) {
        qp_hessian_release(h);
        return QP_E_RESOURCE;
    } else {
        inv = 1;
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            float v = (float)((double)h->h[i * n + j] * inv);
            h->h[i * n + j] = h->h[j * n + i] = v;
        }
        h->trace += (double)h->h[i * n + i];
    }
    if (ex->failed || !isfinite(h->trace)) {
        qp_hessian_release(h);
        return ex->failed ? qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the Hessian") : qp_err_set(err, QP_E_INPUT, "calibration activations are not finite");
    }
    if (qp_hessian_check(h, x, T, compute, ex, err)) {
        qp_hessian_release(h);
        return err ? err->code : QP_E_INTERNAL;
    }
    float mean = (float)(h->trace / (double)n);
    for (int64_t i = 0; i < n && mean > 0; i++)
        if (h->h[i * n + i] == 0) {
            h->h[i * n + i] = mean;
            h->dead++;
        }
    return 0;
}

void qp_hessian_release(struct qp_hessian *h)
{
    qp_free(h->h);
    qp_free(h->order);
    qp_free(h->factor);
    *h = (struct qp_hessian){0};
}

int64_t qp_cholesky_scratch(int64_t n)
{
    return n * NB;
}

/* Diagonal block, in double: the pivots decide whether the matrix is positive definite. */
static int factor_diagonal(float *a, int64_t n, int64_t k, int64_t nb)
{
    for (int64_t j = k; j < k + nb; j++) {
        double d = (double)a[j * n + j];
        for (int64_t p = k; p < j; p++)
            d -= (double)a[j * n + p] * (double)a[j * n + p];
        if (!(d > 0) || !isfinite(d))
            return 1;
        double root = sqrt(d);
        a[j * n + j] = (float)root;
        for (int64_t i = j + 1; i < k + nb; i++) {
            double s = (double)a[i * n + j];
            for (int64_t p = k; p < j; p++)
                s -= (double)a[i * n + p] * (double)a[j * n + p];
            a[i * n + j] = (float)(s / root);
        }
    }
    return 0;
}

struct panel {
    float *a;
    int64_t n, k, nb;
};

/* Rows below the diagonal block: X · L11ᵀ = A21. */
static void solve_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct panel *s = arg;
    (void)thread;
    for (int64_t i = s->k + s->nb + begin; i < s->k + s->nb + end; i++)
        for (int64_t j = s->k; j < s->k + s->nb; j++) {
            double v = (double)s->a[i * s->n + j];
            for (int64_t p = s->k; p < j; p++)
                v -= (double)s->a[i * s->n + p] * (double)s->a[j * s->n + p];
            s->a[i * s->n + j] = (float)(v / (double)s->a[j * s->n + j]);
        }
}

int qp_cholesky(float *a, int64_t n, float *scratch, const struct qp_ops *ops, struct qp_exec *ex)
{
    for (int64_t k = 0; k < n; k += NB) {
        int64_t nb = n - k < NB ? n - k : NB, rest = n - k - nb;
        if (factor_diagonal(a, n, k, nb))
            return 1;
        struct panel s = {a, n, k, nb};
        qp_pool_for(ex->pool, rest, 16, solve_rows, &s);
        for (int64_t i = 0; i < rest; i++)
            for (int64_t p = 0; p < nb; p++)
                scratch[p * rest + i] = a[(k + nb + i) * n + k + p];
        if (rest)
            ops->gemm_sub(ex, a + (k + nb) * n + k + nb, n, a + (k + nb) * n + k, n, scratch, rest, rest, rest, nb);
    }
    return 0;
}

struct inverse {
    float *u;
    const float *diag; /* [nb, nb] inverse of the diagonal block */
    int64_t n, k, nb;
};

/* Columns [begin, end) behind the diagonal block: u_kj = diag · s_j, s_j standing in u. */
static void apply_diagonal(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct inverse *s = arg;
    (void)thread;
    for (int64_t j = s->k + s->nb + begin; j < s->k + s->nb + end; j++)
        for (int64_t i = 0; i < s->nb; i++) { /* the inverse is upper triangular: row i needs rows >= i, which are still untouched */
            double v = 0;
            for (int64_t p = i; p < s->nb; p++)
                v += (double)s->diag[i * s->nb + p] * (double)s->u[(s->k + p) * s->n + j];
            s->u[(s->k + i) * s->n + j] = (float)v;
        }
}

void qp_upper_inverse(float *u, const float *v, int64_t n, const struct qp_ops *ops, struct qp_exec *ex)
{
    float diag[NB * NB];
    memset(u, 0, (size_t)(n * n) * sizeof *u);
    for (int64_t k = (n - 1) / NB * NB; k >= 0; k -= NB) {
        int64_t nb = n - k < NB ? n - k : NB, rest = n - k - nb;
        memset(diag, 0, sizeof diag);
        for (int64_t j = 0; j < nb; j++) {
            diag[j * nb + j] = (float)(1.0 / (double)v[(k + j) * n + k + j]);
            for (int64_t i = j - 1; i >= 0; i--) {
                double s = 0;
                for (int64_t p = i + 1; p <= j; p++)
                    s -= (double)v[(k + i) * n + k + p] * (double)diag[p * nb + j];
                diag[i * nb + j] = (float)(s / (double)v[(k + i) * n + k + i]);
            }
        }
        for (int64_t i = 0; i < nb; i++)
            memcpy(u + (k + i) * n + k, diag + i * nb, (size_t)nb * sizeof *u);
        if (!rest)
            continue;
        /* s = -V[k, rest] · U[rest, rest], then U[k, rest] = V_kk^-1 · s */
        ops->gemm_sub(ex, u + k * n + k + nb, n, v + k * n + k + nb, n, u + (k + nb) * n + k + nb, n, nb, rest, rest);
        struct inverse s = {u, diag, n, k, nb};
        qp_pool_for(ex->pool, rest, 64, apply_diagonal, &s);
    }
}

struct key {
    float block; /* of its block's most active input; equal for all without blocks */
    float d;
    int32_t first, i; /* of the block, of itself */
};

static int descending(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    if (x->block != y->block)
        return x->block > y->block ? -1 : 1;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->d != y->d)
        return x->d > y->d ? -1 : 1;
    return x->i < y->i ? -1 : 1;
}

/* group 0: by activation alone; else blocks of so many neighbours stay together. */
static int make_order(struct qp_hessian *h, int64_t group, struct qp_err *err)
{
    struct key *keys = qp_alloc_n((size_t)h->n, sizeof *keys, "order", err);
    qp_free(h->order);
    h->order = qp_alloc_n((size_t)h->n, sizeof *h->order, "order", err);
    if (!keys || !h->order) {
        qp_free(keys);
        return QP_E_RESOURCE;
    }
    for (int64_t i = 0; i < h->n; i++)
        keys[i] = (struct key){.d = h->h[i * h->n + i], .i = (int32_t)i};
    for (int64_t at = 0; at < h->n && group; at += group) {
        int64_t end = at + group < h->n ? at + group : h->n;
        float most = 0;
        for (int64_t i = at; i < end; i++)
            most = keys[i].d > most ? keys[i].d : most;
        for (int64_t i = at; i < end; i++) {
            keys[i].block = most;
            keys[i].first = (int32_t)at;
        }
    }
    qsort(keys, (size_t)h->n, sizeof *keys, descending);
    for (int64_t i = 0; i < h->n; i++)
        h->order[i] = keys[i].i;
    qp_free(keys);
    return 0;
}

static double more_damping(double d)
{
    return d >= 1 ? 2 : d < 1e-13 ? 1e-13 : d > 0.1 ? 1 : d * 10;
}

/* With A the matrix in reversed order, A = L·Lᵀ gives H = V·Vᵀ with V upper (L reversed), and Hinv = Uᵀ·U with U = V^-1: one factorization and one
 * triangular inverse instead of two of each. */
static int factor(struct qp_hessian *h, double damp, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t n = h->n;
    double mean = h->trace / (double)n;
    float *a = qp_alloc_n((size_t)(n * n), sizeof *a, "Hessian", err), *scratch = qp_alloc_n((size_t)qp_cholesky_scratch(n), sizeof *scratch, "Hessian", err);
    qp_free(h->factor);
    h->factor = qp_alloc_n((size_t)(n * n), sizeof *h->factor, "Hessian", err);
    int r = a && scratch && h->factor ? 1 : QP_E_RESOURCE;
    for (h->damp = damp; r == 1 && h->damp <= 1; h->damp = more_damping(h->damp)) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j <= i; j++) {
                int64_t p = n - 1 - i, q = n - 1 - j;
                p = h->order ? h->order[p] : p;
                q = h->order ? h->order[q] : q;
                a[i * n + j] = h->h[p * n + q] + (i == j ? (float)(h->damp * mean) : 0);
            }
        r = qp_cholesky(a, n, scratch, ops, ex);
        if (r == 0)
            break;
    }
    if (r == 0) {
        for (int64_t i = 0; i < n; i++) /* V[i,j] = L[n-1-i, n-1-j] in place: reverse the rows and columns of the lower triangle */
            for (int64_t j = i; j < n; j++)
                h->factor[i * n + j] = a[(n - 1 - i) * n + n - 1 - j];
        qp_upper_inverse(a, h->factor, n, ops, ex);
        float *swap = h->factor;
        h->factor = a;
        a = swap;
    }
    qp_free(a);
    qp_free(scratch);
    return r;
}

int qp_hessian_factor(struct qp_hessian *h, double damp, bool act_order, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    if (!(h->trace > 0))
        return 1;
    if (act_order && make_order(h, 0, err))
        return QP_E_RESOURCE;
    return factor(h, damp, ops, ex, err);
}

int qp_hessian_factor_groups(struct qp_hessian *h, double damp, int64_t group, const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    if (!(h->trace > 0))
        return 1;
    return make_order(h, group ? group : h->n, err) ? QP_E_RESOURCE : factor(h, damp, ops, ex, err);
}
