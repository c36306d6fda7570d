/* Fills the table from the reference, then overrides by what this processor has and the user allows. */
#ifdef QP_ISA_avx2
#include <cpuid.h>
#endif
#include <string.h>

#include "backend/cpu/variants.h"
#include "base/mem.h"

#ifdef QP_ISA_avx2
/* Conversions of halves: clang's __builtin_cpu_supports does not know the name. */
static bool have_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c >> 29 & 1;
}
#endif

static bool have_avx2(void)
{
#ifdef QP_ISA_avx2
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && have_f16c();
#else
    return false;
#endif
}

static bool have_avx512(void)
{
#ifdef QP_ISA_avx512
    return have_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}

static bool have_avx512_vnni(void)
{
#ifdef QP_ISA_avx512_vnni
    return have_avx512() && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

static bool have_avx512_bf16(void)
{
#ifdef QP_ISA_avx512_bf16
    return have_avx512() && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

#if defined(QP_ISA_avx512) && defined(QP_ISA_avx512_bf16)
/* Where vdpbf16ps is slower than fused multiply-adds of float32: on Intel's processors it takes one of the two units for two cycles (measured on Emerald
 * Rapids: 86 GFLOP/s a core, float32 176), on AMD's it is twice as fast. */
static bool slow_bf16_products(void)
{
    return __builtin_cpu_is("intel");
}
#endif

static const char *const names[] = {"ref", "avx2", "avx512", "avx512_vnni", "avx512_bf16"};
enum { N_LEVELS = 5 };

static bool no_device_memory(struct qp_device_memory *out)
{
    *out = (struct qp_device_memory){0};
    return false;
}

int qp_backend_cpu_init(struct qp_ops *ops, const char *want, struct qp_err *err)
{
    const bool have[N_LEVELS] = {true, have_avx2(), have_avx512(), have_avx512_vnni(), have_avx512_bf16()};
    int top = N_LEVELS - 1;
    if (want && strcmp(want, "auto")) {
        for (top = 0; top < N_LEVELS && strcmp(names[top], want); top++)
            ;
        if (top == N_LEVELS)
            return qp_err_set(err, QP_E_USAGE, "--backend takes one of auto, ref, avx2, avx512, avx512_vnni, avx512_bf16, not '%s'", want);
        if (!have[top])
            return qp_err_set(err, QP_E_USAGE, "--backend %s: this machine or this build has no %s", want, want);
    }
    *ops = (struct qp_ops){.device_memory = no_device_memory};
    int used = 0;
#define SET(op, variant, tol) ops->op = qp_##variant##_##op;
    QP_OPS_REF(SET)
    ops->has_int8 = top == 0;
#ifdef QP_ISA_avx2
    if (top >= 1 && have[1]) {
        QP_OPS_AVX2(SET)
        used = 1;
    }
#endif
#ifdef QP_ISA_avx512
    if (top >= 2 && have[2]) {
        QP_OPS_AVX512(SET)
        used = 2;
    }
#endif
#ifdef QP_ISA_avx512_vnni
    if (top >= 3 && have[3]) {
        QP_OPS_AVX512_VNNI(SET)
        ops->has_int8 = true;
        used = 3;
    }
#endif
#ifdef QP_ISA_avx512_bf16
    if (top >= 4 && have[4]) {
        QP_OPS_AVX512_BF16(SET)
        ops->has_bf16 = true;
        used = 4;
#ifdef QP_ISA_avx512
        if ((!want || !strcmp(want, "auto")) && slow_bf16_products()) {
            SET(linear_bf16_bytes, avx512, 0)
            SET(linear_bf16_pack, avx512, 0)
            SET(linear_bf16_compact, avx512, 0)
            SET(linear_bf16, avx512, 0)
            SET(linear_q, avx512, 0)
        }
#endif
    }
#endif
#undef SET
    ops->isa = names[used];
    return 0;
}

void *qp_exec_scratch(struct qp_exec *ex, size_t bytes)
{
    if (bytes <= ex->scratch_bytes)
        return ex->scratch;
    qp_free(ex->scratch);
    ex->scratch = qp_alloc(bytes, "scratch", NULL);
    ex->scratch_bytes = ex->scratch ? bytes : 0;
    if (!ex->scratch)
        ex->failed = true;
    return ex->scratch;
}

void qp_exec_release(struct qp_exec *ex)
{
    qp_free(ex->scratch);
    ex->scratch = NULL;
    ex->scratch_bytes = 0;
}
