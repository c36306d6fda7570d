/* Types that products and caches are in, and the ops that go with them. */
#include "engine/internal.h"

static const char *const compute_names[] = {[QP_COMPUTE_F32] = "f32", [QP_COMPUTE_BF16] = "bf16", [QP_COMPUTE_INT8] = "int8"};
const char *const qp_compute_choices[] = {"auto", "f32", "bf16", "int8", NULL};

enum qp_compute qp_compute_chosen(int choice, const struct qp_ops *ops)
{
    if (choice == 0)
        return ops->has_bf16 ? QP_COMPUTE_BF16 : QP_COMPUTE_F32;
    return (enum qp_compute)(choice - 1);
}

const char *qp_compute_name(enum qp_compute compute)
{
    return compute_names[compute];
}

const char *const qp_kv_choices[] = {"auto", "f32", "bf16", "f16", "int8", NULL};

enum qp_kv qp_kv_chosen(int choice, enum qp_compute compute)
{
    return choice == 0 ? qp_kv_default(compute) : (enum qp_kv)(choice - 1);
}

const char *qp_kv_name(enum qp_kv kv)
{
    static const char *const names[QP_KV_COUNT] = {[QP_KV_F32] = "f32", [QP_KV_BF16] = "bf16", [QP_KV_F16] = "f16", [QP_KV_INT8] = "int8"};
    return names[kv];
}

struct qp_linear_ops qp_linear_ops_of(const struct qp_ops *o, enum qp_compute compute)
{
    if (compute != QP_COMPUTE_F32)
        return (struct qp_linear_ops){o->linear_bf16_bytes, o->linear_bf16_pack, o->linear_bf16_compact, o->linear_bf16};
    return (struct qp_linear_ops){o->linear_f32_bytes, o->linear_f32_pack, NULL, o->linear_f32};
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
    return compute == QP_COMPUTE_F32 ? QP_KV_F32 : QP_KV_BF16;
}

enum qp_codes_use qp_codes_use_of(enum qp_compute compute)
{
    return compute == QP_COMPUTE_F32 ? QP_CODES_DECODE : compute == QP_COMPUTE_BF16 ? QP_CODES_KEEP : QP_CODES_INT8;
}
