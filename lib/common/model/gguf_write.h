/* GGUF files, version 3, written: metadata first, then the list of tensors, then their data at multiples of the alignment, in any order (base/image.h).
 *
 *     struct qp_gguf_meta meta = {0};
 *     qp_gguf_put_str(&meta, "general.architecture", "llama");
 *     qp_gguf_image(&im, "model.gguf", &meta, decl, n, QP_GGUF_ALIGNMENT, true, &err);
 *     qp_gguf_meta_release(&meta);
 */
#ifndef QP_MODEL_GGUF_WRITE_H
#define QP_MODEL_GGUF_WRITE_H

#include "base/buf.h"
#include "base/image.h"
#include "model/gguf.h"

#define QP_GGUF_ALIGNMENT 32 /* where general.alignment says nothing */

struct qp_gguf_meta { /* zero-initialize. The first failure to find memory sticks; qp_gguf_image says so */
    struct qp_buf bytes;
    uint64_t n;
};
void qp_gguf_put_str(struct qp_gguf_meta *m, const char *key, const char *value);
void qp_gguf_put_u32(struct qp_gguf_meta *m, const char *key, uint32_t value);
void qp_gguf_put_f32(struct qp_gguf_meta *m, const char *key, float value);
void qp_gguf_put_bool(struct qp_gguf_meta *m, const char *key, bool value);
void qp_gguf_put_strs(struct qp_gguf_meta *m, const char *key, const char *const *values, const size_t *lengths, size_t n);
void qp_gguf_put_texts(struct qp_gguf_meta *m, const char *key, const char *const *values, size_t n); /* zero-terminated ones */
void qp_gguf_put_i32s(struct qp_gguf_meta *m, const char *key, const int32_t *values, size_t n);
void qp_gguf_put_f32s(struct qp_gguf_meta *m, const char *key, const float *values, size_t n);
/* As another file has it. */
void qp_gguf_put_entry(struct qp_gguf_meta *m, const struct qp_gguf_entry *e);
void qp_gguf_meta_release(struct qp_gguf_meta *m);

/* Tensor i of the declarations is the image's tensor i; shapes are row-major, slowest first. alignment: a power of two, as the metadata say. fresh: see qp_image_open.
 * QP_E_INTERNAL: a dtype that GGUF has no number for. */
int qp_gguf_image(struct qp_image **out, const char *path, const struct qp_gguf_meta *meta, const struct qp_tensor *decl, size_t n, size_t alignment, bool fresh, struct qp_err *err) QP_MUST_USE;

#endif
