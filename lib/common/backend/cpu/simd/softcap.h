/* cap · tanh(x / cap), for scores and logits. Included by the files of one instruction set. */
#ifndef QP_CPU_SIMD_SOFTCAP_H
#define QP_CPU_SIMD_SOFTCAP_H

#include "backend/cpu/simd/vec.h"

/* Lambert's continued fraction of tanh, cut after 13 levels: error below 4e-8 up to 9, where tanh is 1 to that accuracy. All terms are positive, so nothing
 * cancels. NaN stays: min and max give their second operand when one is NaN. */
INLINE vf v_tanh(vf x)
{
    static const float p[] = {1.264885556e-13f, 5.179706351e-10f, 3.228683625e-7f, 6.625258799e-5f, 5.217391304e-3f, 1.466666667e-1f, 1.f};
    static const float q[] = {1.151045856e-11f, 1.519380530e-8f, 5.230467473e-6f, 6.625258799e-4f, 3.188405797e-2f, 4.8e-1f, 1.f};
    vf u = v_min(v_set1(9.f), v_max(v_set1(-9.f), x)), z = v_mul(u, u), a = v_set1(p[0]), b = v_set1(q[0]);
    for (int i = 1; i < 7; i++) {
        a = v_fma(a, z, v_set1(p[i]));
        b = v_fma(b, z, v_set1(q[i]));
    }
    return v_div(v_mul(u, a), b);
}

INLINE vf v_soft_cap(vf x, float cap)
{
    return v_mul(v_set1(cap), v_tanh(v_mul(x, v_set1(1.f / cap))));
}

#endif
