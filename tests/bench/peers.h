/* The same products by the libraries that are here: OpenBLAS (float32) and oneDNN (bf16; its operands are rounded and packed beforehand, ours
 * are timed with the rounding of x). Each call returns the seconds of the best of `reps` runs, 0 when the library is absent. */
#ifndef QP_BENCH_PEERS_H
#define QP_BENCH_PEERS_H

#include <stdint.h>
#include <unistd.h>

#include "limits.h"

#define PEER_BEST(call)                              \
    double best = 1e30;                              \
    for (int rep = 0; rep <= reps; rep++) {          \
        double t = now();                            \
        call;                                        \
        t = now() - t;                               \
        best = rep && t < best ? t : best;           \
    }                                                \
    usleep(20000); /* its threads spin for a while */

#ifdef QP_HAVE_BLAS
#include <cblas.h>

/* y[T,N] = x[T,K] · w[N,K]ᵀ */
static inline double peer_linear(int reps, float *y, const float *x, const float *w, int64_t T, int64_t N, int64_t K)
{
    PEER_BEST(cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)T, (int)N, (int)K, 1, x, (int)K, w, (int)K, 0, y, (int)N))
    return best;
}

static inline double peer_syrk(int reps, float *h, const float *x, int64_t T, int64_t K)
{
    PEER_BEST(cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, (int)K, (int)T, 1, x, (int)K, 1, h, (int)K))
    return best;
}

static inline double peer_gemm_sub(int reps, float *c, const float *a, const float *b, int64_t M, int64_t N, int64_t K)
{
    PEER_BEST(cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)M, (int)N, (int)K, -1, a, (int)K, b, (int)N, 1, c, (int)N))
    return best;
}
#else
#define peer_linear(...) 0.0
#define peer_syrk(...) 0.0
#define peer_gemm_sub(...) 0.0
#endif

#ifdef QP_HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_version.h>
#endif

#if defined(QP_HAVE_DNNL) && DNNL_VERSION_MAJOR == 2
static inline double peer_linear_bf16(int reps, int64_t T, int64_t N, int64_t K)
{
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t prim;
    dnnl_memory_desc_t src, wei, dst;
    dnnl_matmul_desc_t desc;
    dnnl_memory_t mem[3];
    dnnl_dims_t sd = {T, K}, wd = {K, N}, dd = {T, N};
    if (dnnl_engine_create(&engine, dnnl_cpu, 0))
        return 0;
    dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    dnnl_memory_desc_init_by_tag(&src, 2, sd, dnnl_bf16, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&wei, 2, wd, dnnl_bf16, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&dst, 2, dd, dnnl_f32, dnnl_ab);
    dnnl_matmul_desc_init(&desc, &src, &wei, NULL, &dst);
    if (dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL))
        return 0;
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    dnnl_primitive_create(&prim, pd);
    const dnnl_memory_desc_t *mds[] = {&src, packed, &dst};
    for (int i = 0; i < 3; i++) {
        void *p;
        dnnl_memory_create(&mem[i], mds[i], engine, DNNL_MEMORY_ALLOCATE);
        dnnl_memory_get_data_handle(mem[i], &p);
        memset(p, 0, dnnl_memory_desc_get_size(mds[i]));
    }
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, mem[0]}, {DNNL_ARG_WEIGHTS, mem[1]}, {DNNL_ARG_DST, mem[2]}};
    PEER_BEST(dnnl_primitive_execute(prim, stream, 3, args); dnnl_stream_wait(stream))
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(mem[i]);
    dnnl_primitive_destroy(prim);
    dnnl_primitive_desc_destroy(pd);
    dnnl_stream_destroy(stream);
    dnnl_engine_destroy(engine);
    return best;
}
#else
#define peer_linear_bf16(...) 0.0
#endif

#endif
