#include "quant/awq.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

#define SLICE 512        /* rows whose errors exist at a time */
#define LEAST 1e-4f      /* of a scale, as the peers have it */
#define CLIPS 10         /* ranges that are tried: 1, 0.95, ... 0.55 */
#define CLIP_STEP 0.05f
#define MAX_PIECE 128    /* inputs whose cross terms the clip search sees: a group, or a piece of a long one */

void qp_awq_activity(float *activity, const float *x, int64_t T, int64_t n)
{
    double sum[512];
    for (int64_t at = 0; at < n; at += 512) {
        int64_t some = n - at < 512 ? n - at : 512;
        memset(sum, 0, sizeof sum);
        for (int64_t t = 0; t < T; t++)
            for (int64_t i = 0; i < some; i++)
                sum[i] += (double)fabsf(x[t * n + at + i]);
        for (int64_t i = 0; i < some; i++)
            activity[at + i] = T ? (float)(sum[i] / (double)T) : 0;
    }
}

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math", "finite-math-only")))
static void range(const float *w, int64_t n, float *lo, float *hi)
{
    float a = 0, b = 0;
    for (int64_t i = 0; i < n; i++) {
        a = w[i] < a ? w[i] : a;
        b = w[i] > b ? w[i] : b;
    }
    *lo = a;
    *hi = b;
}

/* e = (Q(w) - w) / s; s NULL: ones. */
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "no-trapping-math")))
static void rounding_error(float *e, const float *w, const float *s, int64_t n, float scale, float zero, float max)
{
    float inv = 1.f / scale;
    for (int64_t i = 0; i < n; i++) {
        float c = w[i] * inv + zero;
        c = c < 0 ? 0 : c;
        c = c > max ? max : c;
        e[i] = (float)(int)(c + 0.5f);
    }
    for (int64_t i = 0; i < n; i++)
        e[i] = ((e[i] - zero) * scale - w[i]) / (s ? s[i] : 1.f);
}

static int64_t group_of(const struct qp_grid *g, int64_t n)
{
    return g->group_size ? g->group_size : n;
}

/* ---- the scale search ---- */

struct search {
    const struct qp_awq_inputs *in;
    const struct qp_grid *grid;
    const float *s, *w; /* w: the slice's first row */
    float *e, *scaled;  /* [SLICE, n] */
    float *y;           /* [SLICE, n] E·H, or -E·H */
    double part[SLICE]; /* of each row */
};

static void error_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct search *k = arg;
    int64_t n = k->in->n, size = group_of(k->grid, n);
    (void)thread;
    for (int64_t r = begin; r < end; r++) {
        float *v = k->scaled + r * n, lo, hi, scale;
        int zero;
        for (int64_t i = 0; i < n; i++)
            v[i] = k->w[r * n + i] * k->s[i];
        for (int64_t at = 0; at < n; at += size) {
            int64_t len = n - at < size ? n - at : size;
            range(v + at, len, &lo, &hi);
            qp_grid_of_range(k->grid, lo, hi, &scale, &zero);
            rounding_error(k->e + r * n + at, v + at, k->s + at, len, scale, (float)zero, (float)((1 << k->grid->bits) - 1));
        }
    }
}

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
static double inner(const float *a, const float *b, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

static void sum_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    struct search *k = arg;
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        k->part[r] = inner(k->y + r * k->in->n, k->e + r * k->in->n, k->in->n);
}

/* mean of |w| / max |w| of its group, over all rows */
static void magnitudes(float *m, const struct qp_awq_inputs *in, const struct qp_grid *grid)
{
    int64_t size = group_of(grid, in->n), rows = 0;
    memset(m, 0, (size_t)in->n * sizeof *m);
    for (int k = 0; k < in->count; k++) {
        rows += in->rows[k];
        for (int64_t r = 0; r < in->rows[k]; r++)
            for (int64_t at = 0; at < in->n; at += size) {
                const float *w = in->w[k] + r * in->n + at;
                int64_t len = in->n - at < size ? in->n - at : size;
                float lo, hi;
                range(w, len, &lo, &hi);
                float most = -lo > hi ? -lo : hi, inv = most > 0 ? 1 / most : 0; /* a group of zeros adds nothing */
                for (int64_t i = 0; i < len; i++)
                    m[at + i] += fabsf(w[i]) * inv;
            }
    }
    for (int64_t i = 0; i < in->n; i++)
        m[i] /= (float)rows;
}

/* Means over tied inputs; work [2 n]. */
static void tie_up(float *v, const int32_t *tie, int64_t n, float *work)
{
    float *sum = work, *count = work + n;
    memset(work, 0, (size_t)(2 * n) * sizeof *work);
    for (int64_t i = 0; i < n; i++) {
        sum[tie[i]] += v[i];
        count[tie[i]] += 1;
    }
    for (int64_t i = 0; i < n; i++)
        v[i] = sum[tie[i]] / count[tie[i]];
}

/* Centred: the geometric mean of the least and the greatest is 1. */
static void scales_at(float *s, const float *a, const float *m, int64_t n, double r, bool duo)
{
    float least = INFINITY, most = 0;
    for (int64_t i = 0; i < n; i++) {
        s[i] = powf(a[i], (float)r);
        if (duo)
            s[i] /= powf(m[i], (float)(1 - r)) + LEAST;
        s[i] = s[i] > LEAST ? s[i] : LEAST;
        if (a[i] > 0) {
            least = s[i] < least ? s[i] : least;
            most = s[i] > most ? s[i] : most;
        }
    }
    float centre = sqrtf(least) * sqrtf(most);
    for (int64_t i = 0; i < n; i++) {
        s[i] /= centre;
        if (!(a[i] > 0) || !isfinite(s[i]) || !(s[i] > 0))
            s[i] = 1;
    }
}

struct products {
    const struct qp_ops *ops;
    struct qp_exec *ex;
    void *packed; /* H, bf16; NULL: float32 */
};

static double loss_at(struct search *k, const struct products *p)
{
    int64_t n = k->in->n;
    double loss = 0;
    for (int i = 0; i < k->in->count; i++)
        for (int64_t at = 0; at < k->in->rows[i]; at += SLICE) {
            int64_t rows = k->in->rows[i] - at < SLICE ? k->in->rows[i] - at : SLICE;
            k->w = k->in->w[i] + at * n;
            qp_pool_for(p->ex->pool, rows, 8, error_rows, k);
            if (p->packed)
                p->ops->linear_bf16(p->ex, k->y, n, k->e, n, p->packed, rows, n, n, false);
            else {
                memset(k->y, 0, (size_t)(rows * n) * sizeof *k->y);
                p->ops->gemm_sub(p->ex, k->y, n, k->e, n, k->in->h, n, rows, n, n);
            }
            qp_pool_for(p->ex->pool, rows, 8, sum_rows, k);
            for (int64_t r = 0; r < rows; r++)
                loss += p->packed ? k->part[r] : -k->part[r];
        }
    return loss;
}

/* try [n] is what k reads as s. */
static void search(float *s, float *try, struct qp_awq_found *f, struct search *k, const struct products *p, const float *a, const float *m, const struct qp_awq_options *o)
{
    int64_t n = k->in->n;
    for (int64_t i = 0; i < n; i++)
        s[i] = try[i] = 1;
    *f = (struct qp_awq_found){.loss = loss_at(k, p)};
    f->unscaled = f->loss;
    for (int duo = 0; duo < 2; duo++) {
        if (o->duo == (duo ? QP_AWQ_DUO_OFF : QP_AWQ_DUO_ON))
            continue;
        for (int i = duo ? 0 : 1; i < o->points; i++) { /* r = 0 without duo is s = 1 */
            double r = (double)i / o->points;
            scales_at(try, a, m, n, r, duo);
            double loss = loss_at(k, p);
            if (loss < f->loss) {
                *f = (struct qp_awq_found){r, duo, loss, f->unscaled};
                memcpy(s, try, (size_t)n * sizeof *s);
            }
        }
    }
}

int qp_awq_search(float *s, struct qp_awq_found *found, const struct qp_awq_inputs *in, const struct qp_grid *grid, const struct qp_awq_options *o, enum qp_compute compute,
                  const struct qp_ops *ops, struct qp_exec *ex, struct qp_err *err)
{
    int64_t n = in->n;
    float *vectors = qp_alloc_n((size_t)n, 5 * sizeof(float), "scales", err), *work = qp_alloc_n((size_t)(3 * SLICE * n), sizeof *work, "scales", err);
    void *packed = compute == QP_COMPUTE_BF16 ? qp_zalloc(ops->linear_bf16_bytes(n, n), "scales", err) : NULL;
    int r = vectors && work && (packed || compute != QP_COMPUTE_BF16) ? 0 : QP_E_RESOURCE;
    if (!r) {
        float *a = vectors, *m = a + n, *try = m + n;
        struct search k = {.in = in, .grid = grid, .s = try, .e = work, .scaled = work + SLICE * n, .y = work + 2 * SLICE * n};
        struct products p = {ops, ex, packed};
        memcpy(a, in->activity, (size_t)n * sizeof *a);
        magnitudes(m, in, grid);
        if (in->tie) {
            tie_up(a, in->tie, n, try + n);
            tie_up(m, in->tie, n, try + n);
        }
        if (packed)
            ops->linear_bf16_pack(ex, packed, in->h, n, 0, n, n, n);
        search(s, try, found, &k, &p, a, m, o);
        if (ex->failed)
            r = qp_err_set(err, QP_E_RESOURCE, "no memory for scratch of the scale search");
    }
    qp_free(vectors);
    qp_free(work);
    qp_free(packed);
    return r;
}

/* ---- the clip search ---- */

struct clip {
    struct qp_qlinear *q;
    const float *w, *h; /* h [n, n] */
};

__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3", "associative-math", "no-signed-zeros", "no-trapping-math")))
static float quadratic(const float *e, const float *h, int64_t ld, int64_t n)
{
    float sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float s = 0;
        for (int64_t j = 0; j < n; j++)
            s += h[i * ld + j] * e[j];
        sum += s * e[i];
    }
    return sum;
}

static float group_loss(const struct clip *c, const float *w, int64_t at, int64_t len, float scale, float zero, float max)
{
    float e[MAX_PIECE], loss = 0;
    for (int64_t i = 0; i < len; i += MAX_PIECE) {
        int64_t n = len - i < MAX_PIECE ? len - i : MAX_PIECE;
        rounding_error(e, w + i, NULL, n, scale, zero, max);
        loss += quadratic(e, c->h + (at + i) * c->q->cols + at + i, c->q->cols, n);
    }
    return loss;
}

static void clip_group(const struct clip *c, int64_t row, int64_t g, int64_t at, int64_t len)
{
    struct qp_qlinear *q = c->q;
    const float *w = c->w + row * q->cols + at;
    float lo, hi, scale, best = INFINITY, max = (float)((1 << q->grid.bits) - 1);
    int zero;
    range(w, len, &lo, &hi);
    float most = -lo > hi ? -lo : hi;
    for (int i = 0; i < CLIPS; i++) {
        float bound = most * (1 - CLIP_STEP * (float)i);
        qp_grid_of_range(&q->grid, lo > -bound ? lo : -bound, hi < bound ? hi : bound, &scale, &zero);
        float loss = group_loss(c, w, at, len, scale, (float)zero, max);
        if (loss < best || i == 0) {
            best = loss;
            q->scales[row * q->n_groups + g] = scale;
            q->zeros[row * q->n_groups + g] = (uint8_t)zero;
        }
    }
    scale = q->scales[row * q->n_groups + g];
    zero = q->zeros[row * q->n_groups + g];
    for (int64_t i = 0; i < len; i++)
        q->codes[row * q->cols + at + i] = (uint8_t)qp_grid_code(w[i], 1.f / scale, zero, (int)max);
}

static void clip_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct clip *c = arg;
    int64_t n = c->q->cols, size = group_of(&c->q->grid, n);
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        for (int64_t g = 0; g < c->q->n_groups; g++)
            clip_group(c, r, g, g * size, n - g * size < size ? n - g * size : size);
}

int qp_awq_round(struct qp_qlinear *q, const float *w, int64_t rows, const struct qp_hessian *h, struct qp_grid grid, struct qp_exec *ex, struct qp_err *err)
{
    if (qp_qlinear_init(q, rows, h->n, grid, err))
        return QP_E_RESOURCE;
    struct clip c = {q, w, h->h};
    qp_pool_for(ex->pool, rows, 8, clip_rows, &c);
    return 0;
}
