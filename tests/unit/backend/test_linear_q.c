/* Linear layers over codes. */
#include "ops_test.h"

/* A matrix of codes: groups of `group` inputs (not always a multiple of 8), in a shuffled order when `shuffled`. */
struct matrix {
    struct qp_qmatrix q;
    int32_t *perm;
    float table[256], *scales, *zeros;
    uint8_t *codes;
};

enum kind { INT4, INT4_ZEROS, INT4_WIDE, NF4, INT8, FP8, KINDS };
static const char *const kind_names[] = {"int4", "int4 with zeros", "int4, float32 scales and zeros", "nf4", "int8", "fp8"};

static float bf16(double f)
{
    return qp_bf16_to_f32(qp_f32_to_bf16((float)f));
}

static float f16(double f)
{
    return qp_f16_to_f32(qp_f32_to_f16((float)f));
}

static void make_table(struct matrix *m, enum kind kind)
{
    static const double nf4[16] = {-1, -.6962, -.5251, -.3949, -.2844, -.1848, -.0911, 0, .0796, .1609, .2461, .3379, .4407, .5626, .723, 1};
    m->q.bits = kind >= INT8 ? 8 : 4;
    m->q.affine = kind != NF4 && kind != FP8;
    for (int c = 0; c < 1 << m->q.bits; c++)
        m->table[c] = kind == NF4   ? bf16(nf4[c])
                      : kind == FP8 ? (float)((c & 128 ? -1 : 1) * ldexp((c & 7) + (c >> 3 & 15 ? 8 : 0), (c >> 3 & 15 ? c >> 3 & 15 : 1) - 10))
                                    : (float)(c - (1 << (m->q.bits - 1)));
    m->q.table = m->table;
}

static struct matrix *matrix_new(enum kind kind, int64_t N, int64_t K, int64_t group, bool shuffled)
{
    struct matrix *m = qp_zalloc(sizeof *m, "test", NULL);
    int64_t wide = (group + 7) / 8 * 8, last = K % group ? K % group : group;
    m->q = (struct qp_qmatrix){.N = N, .K = K, .group = wide, .n_groups = (K + group - 1) / group, .zeros = kind == INT4_ZEROS || kind == INT4_WIDE, .half = kind != INT4_WIDE && kind != NF4};
    m->q.Kp = (m->q.n_groups - 1) * wide + (last + 7) / 8 * 8;
    make_table(m, kind);
    if (shuffled || m->q.Kp != K) {
        int32_t *order = qp_alloc((size_t)K * sizeof *order, "test", NULL);
        m->perm = qp_alloc((size_t)m->q.Kp * sizeof *m->perm, "test", NULL);
        for (int64_t k = 0; k < K; k++)
            order[k] = (int32_t)(shuffled ? (k * 7 + 3) % K : k); /* K is no multiple of 7 */
        for (int64_t k = 0; k < m->q.Kp; k++) {
            int64_t g = k / wide, i = k % wide, at = g * group + i;
            m->perm[k] = i < group && at < K ? order[at] : -1;
        }
        m->q.perm = m->perm;
        qp_free(order);
    }
    m->codes = qp_alloc((size_t)(N * K), "test", NULL);
    m->scales = values(N * m->q.n_groups, 0.1);
    m->zeros = values(N * m->q.n_groups, 5);
    for (int64_t i = 0; i < N * K; i++)
        m->codes[i] = (uint8_t)((int)((uniform() + 1) * 128 * 0.9999f) & ((1 << m->q.bits) - 1));
    for (int64_t i = 0; m->q.half && i < N * m->q.n_groups; i++) {
        m->scales[i] = f16((double)m->scales[i]);
        m->zeros[i] = f16((double)m->zeros[i]);
    }
    return m;
}

static void matrix_free(struct matrix *m)
{
    qp_free(m->perm), qp_free(m->codes), qp_free(m->scales), qp_free(m->zeros), qp_free(m);
}

static bool rounded; /* linear_q8 in place of linear_q */

static const char *op(void)
{
    return rounded ? "linear_q8" : "linear_q";
}

/* linear_q8 takes affine codes. */
static bool takes(int kind)
{
    return !rounded || (kind != NF4 && kind != FP8);
}

static void run(const struct qp_ops *ops, struct qp_exec *ex, const struct matrix *m, float *y, int64_t ldy, const float *x, int64_t ldx, int64_t T, bool accumulate)
{
    const struct qp_qmatrix *q = &m->q;
    void *packed = qp_zalloc(ops->linear_q_bytes(q), "test", NULL);
    int64_t cut = q->N / 3; /* two pieces: packing several matrices into one */
    ops->linear_q_pack(ex, packed, q, m->codes, m->scales, q->zeros ? m->zeros : NULL, 0, cut);
    ops->linear_q_pack(ex, packed, q, m->codes + cut * q->K, m->scales + cut * q->n_groups, q->zeros ? m->zeros + cut * q->n_groups : NULL, cut, q->N - cut);
    (rounded ? ops->linear_q8 : ops->linear_q)(ex, y, ldy, x, ldx, packed, q, T, accumulate);
    qp_free(packed);
}

static const int64_t shapes[][4] = { /* T, N, K, group */
    {1, 1, 1, 32}, {1, 64, 8, 8}, {5, 63, 20, 10}, {6, 64, 64, 32}, {7, 65, 96, 64}, {13, 17, 101, 32}, {97, 130, 96, 96}, {140, 192, 576, 64}, {2, 33, 200, 128}, {3, 576, 1536, 128},
    {4, 97, 64, 16}, {1, 230, 64, 64}, {30, 100, 2500, 2500}, {0, 8, 8, 8},
};

static void linear_q_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; takes(kind) && i < sizeof shapes / sizeof *shapes; i++) {
            int64_t T = shapes[i][0], N = shapes[i][1], K = shapes[i][2], ldx = K + 3, ldy = N + 5;
            struct matrix *m = matrix_new((enum kind)kind, N, K, shapes[i][3], i % 2);
            float *x = values(T * ldx, 1), *y = values(T * ldy, 1), *r = values(T * ldy, 1);
            memcpy(r, y, (size_t)(T * ldy) * sizeof *r);
            for (int accumulate = 0; accumulate < 2; accumulate++) {
                run(ref, ex, m, r, ldy, x, ldx, T, accumulate);
                run(ops, ex, m, y, ldy, x, ldx, T, accumulate);
                CHECK_DIFF(y, r, T * ldy, op(), "%s T=%d N=%d K=%d group=%d accumulate=%d", kind_names[kind], (int)T, (int)N, (int)K, (int)shapes[i][3], accumulate);
            }
            qp_free(x), qp_free(y), qp_free(r), matrix_free(m);
        }
}

static void test_linear_q(void **s)
{
    (void)s;
    for_each_isa(linear_q_case);
}

/* The same bits for any thread count, and for a row alone, among few or among many. */
static void invariance_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    (void)ref;
    int64_t T = 203, N = 200, K = 132;
    float *x = values(T * K, 1), *y = values(T * N, 0), *z = values(T * N, 0);
    for (int kind = 0; kind < KINDS; kind++) {
        if (!takes(kind))
            continue;
        struct matrix *m = matrix_new((enum kind)kind, N, K, 64, false);
        run(ops, ex, m, y, N, x, K, T, false);
        struct qp_exec other = {0};
        for (int threads = 1; threads <= 3; threads += 2) {
            assert_int_equal(qp_pool_new(&other.pool, threads, NULL), 0);
            run(ops, &other, m, z, N, x, K, T, false);
            assert_memory_equal(y, z, (size_t)(T * N) * sizeof *y);
            qp_pool_free(other.pool);
        }
        qp_exec_release(&other);
        for (int64_t n = 1; n <= 16; n++) {
            run(ops, ex, m, z, N, x + 41 * K, K, n, false);
            assert_memory_equal(y + 41 * N, z, (size_t)(n * N) * sizeof *y);
        }
        matrix_free(m);
    }
    qp_free(x), qp_free(y), qp_free(z);
}

static void test_invariance(void **s)
{
    (void)s;
    for_each_isa(invariance_case);
}

/* Values that break kernels, in x: they stay in their row. */
static void special_case(const struct qp_ops *ops, const struct qp_ops *ref, struct qp_exec *ex)
{
    const float special[] = {0.f, -0.f, 1e30f, -1e30f, 1e-40f, NAN, INFINITY};
    int64_t T = 15, N = 70, K = 64;
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; takes(kind) && i < sizeof special / sizeof *special; i++) {
            struct matrix *m = matrix_new((enum kind)kind, N, K, 32, true);
            float *x = values(T * K, 1), *y = values(T * N, 0), *r = values(T * N, 0);
            x[3 * K + 7] = special[i];
            run(ref, ex, m, r, N, x, K, T, false);
            run(ops, ex, m, y, N, x, K, T, false);
            for (int64_t t = 0; t < T; t++)
                for (int64_t n = 0; n < N; n++)
                    assert_int_equal(isfinite(y[t * N + n]), t != 3 || isfinite(special[i]));
            if (isfinite(special[i]))
                CHECK_DIFF(y, r, T * N, op(), "%s with %g", kind_names[kind], (double)special[i]);
            qp_free(x), qp_free(y), qp_free(r), matrix_free(m);
        }
}

static void test_special(void **s)
{
    (void)s;
    for_each_isa(special_case);
}

static void test_covered(void **s)
{
    (void)s;
    check_covered("linear_q");
}

static int exact(void **s)
{
    (void)s;
    rounded = false;
    return 0;
}

static int round_x(void **s)
{
    (void)s;
    rounded = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_linear_q, exact),
        cmocka_unit_test_setup(test_invariance, exact),
        cmocka_unit_test_setup(test_special, exact),
        {"test_linear_q8", test_linear_q, round_x, NULL, NULL},
        {"test_invariance_q8", test_invariance, round_x, NULL, NULL},
        {"test_special_q8", test_special, round_x, NULL, NULL},
        cmocka_unit_test(test_covered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
