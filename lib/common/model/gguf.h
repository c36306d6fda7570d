/* GGUF files, versions 2 and 3, little-endian: metadata and tensors as views into the mapping.
 * Refused: other versions, counts that the file cannot hold, strings and arrays that leave the file, duplicate names, dimensions that are absurd or
 * no multiple of the type's block, data outside of the file. GGUF lists the fastest axis first; shapes here are row-major, slowest first. */
#ifndef QP_MODEL_GGUF_H
#define QP_MODEL_GGUF_H

#include <stdbool.h>

#include "base/err.h"
#include "base/tensor.h"

struct qp_gguf;

int qp_gguf_open(struct qp_gguf **out, const char *path, struct qp_err *err) QP_MUST_USE;
/* The same over memory (fuzzing, tests); data is borrowed. */
int qp_gguf_open_memory(struct qp_gguf **out, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
void qp_gguf_close(struct qp_gguf *g);
void qp_gguf_drop_pages(const struct qp_gguf *g); /* see qp_map_drop */

size_t qp_gguf_count(const struct qp_gguf *g);
const struct qp_tensor *qp_gguf_at(const struct qp_gguf *g, size_t i);
const struct qp_tensor *qp_gguf_find(const struct qp_gguf *g, const char *name); /* NULL: none */

/* An entry of the metadata as it lies in the file: key, type and value, `bytes` long. Borrowed; in no order, the file's is that of `raw`. */
struct qp_gguf_entry {
    const char *key;
    const uint8_t *raw;
    size_t bytes;
};
size_t qp_gguf_n_entries(const struct qp_gguf *g);
struct qp_gguf_entry qp_gguf_entry_at(const struct qp_gguf *g, size_t i);
/* ggml's number of a dtype; -1: it has none. */
int qp_gguf_type(enum qp_dtype dtype);

/* Metadata: 1 found, 0 absent, QP_E_INPUT when it has another type. Strings are zero-terminated copies that the reader owns. */
int qp_gguf_str(const struct qp_gguf *g, const char *key, const char **out, struct qp_err *err) QP_MUST_USE;
int qp_gguf_i64(const struct qp_gguf *g, const char *key, int64_t *out, struct qp_err *err) QP_MUST_USE;
int qp_gguf_f64(const struct qp_gguf *g, const char *key, double *out, struct qp_err *err) QP_MUST_USE;
int qp_gguf_bool(const struct qp_gguf *g, const char *key, bool *out, struct qp_err *err) QP_MUST_USE;
/* Array of strings: newly allocated pointers and lengths (free both with qp_free), the texts are zero-terminated copies owned by the reader. */
int qp_gguf_strs(struct qp_gguf *g, const char *key, const char ***out, size_t **lengths, size_t *n, struct qp_err *err) QP_MUST_USE;
/* Arrays of float32 or int32: newly allocated (qp_free). */
int qp_gguf_f32s(const struct qp_gguf *g, const char *key, float **out, size_t *n, struct qp_err *err) QP_MUST_USE;
int qp_gguf_i32s(const struct qp_gguf *g, const char *key, int32_t **out, size_t *n, struct qp_err *err) QP_MUST_USE;

#endif
