/* Weights in the backend's packed layout. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

#define SLICE_FLOATS ((int64_t)1 << 20)

struct qp_linear_ops qp_linear_ops_of(const struct qp_ops *o, enum qp_compute compute)
{
    if (compute == QP_COMPUTE_BF16)
        return (struct qp_linear_ops){o->linear_bf16_bytes, o->linear_bf16_pack, o->linear_bf16};
    return (struct qp_linear_ops){o->linear_f32_bytes, o->linear_f32_pack, o->linear_f32};
}

struct qp_attn_ops qp_attn_ops_of(const struct qp_ops *o, enum qp_kv kv)
{
    switch (kv) {
    case QP_KV_BF16: return (struct qp_attn_ops){o->kv_bf16_bytes, o->kv_bf16_store, o->attention_bf16};
    case QP_KV_F16: return (struct qp_attn_ops){o->kv_f16_bytes, o->kv_f16_store, o->attention_f16};
    case QP_KV_INT8: return (struct qp_attn_ops){o->kv_int8_bytes, o->kv_int8_store, o->attention_int8};
    default: return (struct qp_attn_ops){o->kv_f32_bytes, o->kv_f32_store, o->attention_f32};
    }
}

enum qp_kv qp_kv_default(enum qp_compute compute)
{
    return compute == QP_COMPUTE_BF16 ? QP_KV_BF16 : QP_KV_F32;
}

bool qp_all_finite(const float *x, int64_t n)
{
    float sum = 0; /* 0 * x is 0 for finite x, else NaN */
    for (int64_t i = 0; i < n; i++)
        sum += 0.f * x[i];
    return sum == 0;
}

int qp_packed_new(struct qp_packed *p, int64_t N, int64_t K, struct qp_linear_ops lin, struct qp_err *err)
{
    *p = (struct qp_packed){.N = N, .K = K};
    p->data = qp_zalloc(lin.bytes(N, K), "weights", err);
    return p->data ? 0 : QP_E_RESOURCE;
}

void qp_packed_release(struct qp_packed *p)
{
    qp_free(p->data);
    qp_free(p->bias);
    *p = (struct qp_packed){0};
}

int qp_pack_weight(struct qp_packed *p, int64_t row0, const struct qp_weight *w, struct qp_linear_ops lin, struct qp_exec *ex, struct qp_err *err)
{
    int64_t slice = SLICE_FLOATS / p->K;
    slice = slice < 64 ? 64 : slice / 64 * 64;
    slice = slice < w->rows ? slice : w->rows;
    float *rows = qp_alloc_n((size_t)slice, (size_t)p->K * sizeof *rows, "weights", err);
    int r = rows ? 0 : QP_E_RESOURCE;
    for (int64_t at = 0; !r && at < w->rows; at += slice) {
        int64_t n = w->rows - at < slice ? w->rows - at : slice;
        r = qp_weight_read_rows(w, at, n, rows, err);
        if (!r && !qp_all_finite(rows, n * p->K))
            r = qp_err_set(err, QP_E_INPUT, "tensor '%s' holds NaN or infinite weights (rows %lld to %lld)", w->name, (long long)at, (long long)(at + n - 1));
        if (!r)
            lin.pack(ex, p->data, rows, p->K, row0 + at, n, p->N, p->K);
    }
    qp_free(rows);
    return r;
}

void qp_packed_run(const struct qp_packed *p, struct qp_linear_ops lin, const struct qp_ops *ops, struct qp_exec *ex, float *y, const float *x, int64_t ldx,
                   int64_t T, bool accumulate)
{
    lin.run(ex, y, p->N, x, ldx, p->data, T, p->N, p->K, accumulate);
    if (p->bias)
        ops->add_bias(ex, y, p->N, p->bias, T, p->N);
}
