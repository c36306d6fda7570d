/* Tensors as views: a name, a storage type, a shape and a pointer into memory that somebody else owns.
 * Data is row-major; shape[0] is the slowest axis (rows, output features). Block types (Q4_K, ...) run along the last axis. */
#ifndef QP_BASE_TENSOR_H
#define QP_BASE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define QP_MAX_DIMS 4

/* QP_DTYPE(enum suffix, name in records and messages, elements per block, bytes per block) */
#define QP_DTYPES(X)              \
    X(F32, "f32", 1, 4)           \
    X(F16, "f16", 1, 2)           \
    X(BF16, "bf16", 1, 2)         \
    X(F64, "f64", 1, 8)           \
    X(I8, "i8", 1, 1)             \
    X(U8, "u8", 1, 1)             \
    X(I16, "i16", 1, 2)           \
    X(I32, "i32", 1, 4)           \
    X(I64, "i64", 1, 8)           \
    X(BOOL, "bool", 1, 1)         \
    X(F8_E4M3, "f8_e4m3", 1, 1)   \
    X(F8_E5M2, "f8_e5m2", 1, 1)   \
    X(Q4_0, "q4_0", 32, 18)       \
    X(Q4_1, "q4_1", 32, 20)       \
    X(Q5_0, "q5_0", 32, 22)       \
    X(Q5_1, "q5_1", 32, 24)       \
    X(Q8_0, "q8_0", 32, 34)       \
    X(Q4_K, "q4_k", 256, 144)     \
    X(Q5_K, "q5_k", 256, 176)     \
    X(Q6_K, "q6_k", 256, 210)

enum qp_dtype {
#define X(id, name, elems, bytes) QP_DT_##id,
    QP_DTYPES(X)
#undef X
    QP_DT_COUNT
};

struct qp_dtype_info {
    const char *name;
    int block_elems, block_bytes;
};
extern const struct qp_dtype_info qp_dtype_info[QP_DT_COUNT];

/* The dtype with that name, or -1. */
int qp_dtype_by_name(const char *name);

struct qp_tensor {
    const char *name;
    enum qp_dtype dtype;
    int ndim;                   /* 0 (scalar) to QP_MAX_DIMS */
    int64_t shape[QP_MAX_DIMS]; /* row-major, slowest first */
    const void *data;           /* borrowed; no alignment is promised for views into files */
    size_t bytes;
};

#endif
