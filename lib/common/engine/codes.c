/* Weights stored as codes, in the kernels' order: columns sorted by group, groups padded to 8 columns, tables of bfloat16 values. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "base/mem.h"
#include "engine/internal.h"

#define SLICE_CODES ((int64_t)1 << 22)
#define ROUND_X_GROUP 256 /* one scale of x for more columns than that would round the many for the few */

bool qp_codes_alike(const struct qp_codes *a, const struct qp_codes *b, int64_t K)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == QP_CODES_NONE)
        return true;
    if (a->bits != b->bits || a->group_size != b->group_size || a->n_groups != b->n_groups || a->outlier_threshold != b->outlier_threshold ||
        !a->g_idx != !b->g_idx)
        return false;
    if (a->kind == QP_CODES_TABLE && memcmp(a->table, b->table, sizeof *a->table << a->bits))
        return false;
    return !a->g_idx || !memcmp(a->g_idx, b->g_idx, (size_t)K * sizeof *a->g_idx);
}

static int64_t group_of(const struct qp_codes *c, int64_t i)
{
    return c->g_idx ? c->g_idx[i] : i / c->group_size;
}

static float bf16(float f)
{
    return qp_bf16_to_f32(qp_f32_to_bf16(f));
}

/* The factor in [1, 2) after which the table's values lie closest to bfloat16 ones: a table times a factor and scales divided by it are the same
 * weights. NF4's values are off by 2^-10 of themselves as they are, by a quarter of that with the best factor. */
static float table_factor(const float *table, int n)
{
    float best = 1;
    double least = INFINITY;
    for (int i = 0; i < 8192 && least > 0; i++) {
        float f = 1 + (float)i / 8192;
        double sum = 0;
        for (int c = 0; c < n; c++) {
            double off = (double)bf16(table[c] * f) / (double)f - (double)table[c];
            sum += off * off;
        }
        if (sum < least) {
            least = sum;
            best = f;
        }
    }
    return best;
}

/* Integers lie around 0, so that symmetric grids need no zero points. */
static float *make_table(struct qp_packed_part *part, const struct qp_codes *c, struct qp_err *err)
{
    struct qp_qmatrix *q = &part->q;
    float *t = qp_zalloc(sizeof *t << q->bits, "weights", err);
    if (!t)
        return NULL;
    q->affine = c->kind == QP_CODES_INT;
    part->factor = 1;
    if (c->kind == QP_CODES_TABLE)
        part->factor = table_factor(c->table, 1 << c->bits);
    for (int i = 0; i < 1 << q->bits; i++)
        t[i] = c->kind == QP_CODES_INT ? (float)(i - (1 << (c->bits - 1))) : i < 1 << c->bits ? bf16(c->table[i] * part->factor) : 0;
    return t;
}

/* Columns in the order of their groups, -1 where a group is padded. */
static int order_columns(struct qp_packed_part *part, const struct qp_codes *c, struct qp_err *err)
{
    struct qp_qmatrix *q = &part->q;
    int64_t *at = qp_alloc_n((size_t)q->n_groups, sizeof *at, "weights", err);
    if (!at || !(part->perm = qp_alloc_n((size_t)q->Kp, sizeof *part->perm, "weights", err))) {
        qp_free(at);
        return QP_E_RESOURCE;
    }
    for (int64_t g = 0; g < q->n_groups; g++)
        at[g] = g * q->group;
    for (int64_t k = 0; k < q->Kp; k++)
        part->perm[k] = -1;
    for (int64_t i = 0; i < q->K; i++)
        part->perm[at[group_of(c, i)]++] = (int32_t)i;
    qp_free(at);
    bool plain = q->Kp == q->K;
    for (int64_t k = 0; plain && k < q->Kp; k++)
        plain = part->perm[k] == k;
    if (plain) {
        qp_free(part->perm);
        part->perm = NULL;
    }
    q->perm = part->perm;
    return 0;
}

/* The widest group, and the last one's width, in columns. */
static int measure_groups(const struct qp_codes *c, int64_t K, int64_t *widest, int64_t *last, struct qp_err *err)
{
    int64_t *count = qp_zalloc((size_t)c->n_groups * sizeof *count, "weights", err);
    if (!count)
        return QP_E_RESOURCE;
    *widest = 0;
    for (int64_t i = 0; i < K; i++) {
        int64_t n = ++count[group_of(c, i)];
        *widest = n > *widest ? n : *widest;
    }
    *last = count[c->n_groups - 1];
    qp_free(count);
    return 0;
}

int qp_codes_layout(struct qp_packed_part *part, const struct qp_codes *c, int64_t N, int64_t K, bool *fits, struct qp_err *err)
{
    int64_t widest, last;
    *fits = false;
    if (c->kind == QP_CODES_NONE || c->bits > 8)
        return 0;
    if (measure_groups(c, K, &widest, &last, err))
        return err->code;
    int64_t group = (widest + 7) / 8 * 8, Kp = (c->n_groups - 1) * group + (last > 0 ? (last + 7) / 8 * 8 : 8);
    if (Kp > 2 * K + 64) /* groups of very different sizes */
        return 0;
    part->q = (struct qp_qmatrix){.N = N, .K = K, .Kp = Kp, .group = group, .n_groups = c->n_groups, .bits = c->bits > 4 ? 8 : 4};
    if (!(part->table = make_table(part, c, err)) || order_columns(part, c, err))
        return err->code;
    part->q.table = part->table;
    *fits = true;
    return 0;
}

/* As kernels want them: integers' zero points from the middle of the codes, scales without the table's factor. */
static void adjust(const struct qp_packed_part *part, const struct qp_codes *c, float *scales, float *zeros, int64_t n)
{
    float middle = (float)(1 << (c->bits - 1));
    for (int64_t i = 0; i < n; i++) {
        scales[i] /= part->factor;
        zeros[i] = c->kind == QP_CODES_INT ? zeros[i] - middle : 0;
    }
}

/* Sees all scales and zero points first: which form they take. */
static int survey(struct qp_packed_part *part, const struct qp_weight *w, float *scales, float *zeros, int64_t slice, struct qp_err *err)
{
    struct qp_qmatrix *q = &part->q;
    struct qp_codes c;
    qp_weight_codes(w, &c);
    for (int64_t at = 0; at < w->rows; at += slice) {
        int64_t n = (w->rows - at < slice ? w->rows - at : slice), all = n * q->n_groups;
        if (qp_weight_read_codes(w, at, n, NULL, scales, zeros, err))
            return err->code;
        if (!qp_all_finite(scales, all) || (c.kind == QP_CODES_INT && !qp_all_finite(zeros, all)))
            return qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite scales (rows %lld to %lld)", w->name, (long long)at, (long long)(at + n - 1));
        adjust(part, &c, scales, zeros, all);
        for (int64_t i = 0; i < all; i++) {
            q->zeros = q->zeros || zeros[i] != 0;
            q->half = q->half && qp_f16_to_f32(qp_f32_to_f16(scales[i])) == scales[i] && qp_f16_to_f32(qp_f32_to_f16(zeros[i])) == zeros[i];
        }
    }
    return 0;
}

struct qp_code_ops qp_code_ops_of(const struct qp_ops *ops, const struct qp_qmatrix *q)
{
    if (q->outlier > 0)
        return (struct qp_code_ops){ops->linear_i8_bytes, ops->linear_i8_pack, ops->linear_i8};
    return (struct qp_code_ops){ops->linear_q_bytes, ops->linear_q_pack, q->round_x ? ops->linear_q8 : ops->linear_q};
}

/* LLM.int8() where the weight asks for it and the machine has it; elsewhere x stays in 16 bits as a whole. */
static void choose_int8(struct qp_qmatrix *q, const struct qp_weight *w, const struct qp_ops *ops)
{
    struct qp_codes c;
    qp_weight_codes(w, &c);
    if (ops->has_int8 && q->bits == 8 && c.bits == 8 && q->n_groups == 1 && q->affine && !q->zeros && !q->perm && q->Kp == q->K && q->K <= 65536)
        q->outlier = (float)c.outlier_threshold;
}

int qp_codes_pack(struct qp_packed_part *part, const struct qp_weight *const *w, int n, enum qp_codes_use use, const struct qp_ops *ops, struct qp_exec *ex,
                  struct qp_err *err)
{
    struct qp_qmatrix *q = &part->q;
    int64_t slice = SLICE_CODES / q->K / 64 * 64 + 64;
    uint8_t *codes = qp_alloc_n((size_t)slice, (size_t)q->K, "weights", err);
    float *scales = qp_alloc_n((size_t)(slice * q->n_groups), 2 * sizeof *scales, "weights", err), *zeros = scales + slice * q->n_groups;
    int r = codes && scales ? 0 : QP_E_RESOURCE;
    q->half = true;
    q->zeros = false;
    for (int i = 0; !r && i < n; i++)
        r = survey(part, w[i], scales, zeros, slice, err);
    if (!r)
        choose_int8(q, w[0], ops);
    q->round_x = use == QP_CODES_INT8 && q->affine && !(q->outlier > 0) && q->group <= ROUND_X_GROUP;
    part->bytes = r ? 0 : qp_code_ops_of(ops, q).bytes(q);
    if (!r && !(part->data = qp_zalloc(part->bytes, "weights", err)))
        r = QP_E_RESOURCE;
    for (int64_t i = 0, row0 = 0; !r && i < n; row0 += w[i++]->rows) {
        struct qp_codes c;
        qp_weight_codes(w[i], &c);
        for (int64_t at = 0; !r && at < w[i]->rows; at += slice) {
            int64_t rows = w[i]->rows - at < slice ? w[i]->rows - at : slice;
            if ((r = qp_weight_read_codes(w[i], at, rows, codes, scales, zeros, err)))
                break;
            adjust(part, &c, scales, zeros, rows * q->n_groups);
            qp_code_ops_of(ops, q).pack(ex, part->data, q, codes, scales, zeros, row0 + at, rows);
        }
    }
    qp_free(codes);
    qp_free(scales);
    return r;
}
