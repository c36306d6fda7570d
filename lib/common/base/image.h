/* A file of tensors whose data comes in any order, and may be written again: it has its header and full size from the start, under its own name (the folder
 * around it is the temporary one). Disk space is taken at once where the file system can. What the header says is its format's business.
 *
 *     qp_image_open(&im, "model.gguf", &(struct qp_image_plan){.head = h, .head_bytes = n, .at = extents, .n = 2, .bytes = size}, true, &err);
 *     qp_image_put(im, 1, 0, data, bytes, &err);  qp_image_sync(im, &err);  qp_image_close(im, &err);
 */
#ifndef QP_BASE_IMAGE_H
#define QP_BASE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct qp_extent { /* of the file */
    size_t begin, bytes;
};

struct qp_image_plan {
    const void *head; /* the file's first bytes */
    size_t head_bytes;
    const struct qp_extent *at; /* [n] where each tensor lies; copied */
    size_t n, bytes;  /* bytes: of the whole file */
};

struct qp_image;
/* fresh: path must not exist. Else goes on with a file of the same plan; another one is QP_E_INPUT. */
int qp_image_open(struct qp_image **out, const char *path, const struct qp_image_plan *plan, bool fresh, struct qp_err *err) QP_MUST_USE;
/* Bytes [offset, offset + bytes) of tensor i. */
int qp_image_put(struct qp_image *im, size_t i, size_t offset, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
/* What the file holds there. */
int qp_image_get(const struct qp_image *im, size_t i, size_t offset, void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
int qp_image_sync(struct qp_image *im, struct qp_err *err) QP_MUST_USE; /* all that was put is on the disk */
int qp_image_close(struct qp_image *im, struct qp_err *err) QP_MUST_USE; /* frees im in any case */

#endif
