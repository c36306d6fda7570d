/* safetensors files (single and sharded), read as views into mappings and written atomically.
 * Format: u64 header length, JSON header {name: {dtype, shape, data_offsets}}, data. Refused: overlapping or out-of-file offsets, holes,
 * a size that is not shape x dtype, headers over 100 MB, duplicate names. */
#ifndef QP_MODEL_SAFETENSORS_H
#define QP_MODEL_SAFETENSORS_H

#include "base/err.h"
#include "base/image.h"
#include "base/tensor.h"

struct qp_safetensors;
/* path: one .safetensors file, or an index file (model.safetensors.index.json) whose shards lie beside it. */
int qp_safetensors_open(struct qp_safetensors **out, const char *path, struct qp_err *err) QP_MUST_USE;
/* The same over memory (fuzzing, tests); data is borrowed. */
int qp_safetensors_open_memory(struct qp_safetensors **out, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
void qp_safetensors_close(struct qp_safetensors *st);
void qp_safetensors_drop_pages(const struct qp_safetensors *st); /* see qp_map_drop */
size_t qp_safetensors_count(const struct qp_safetensors *st);
const struct qp_tensor *qp_safetensors_at(const struct qp_safetensors *st, size_t i);
const struct qp_tensor *qp_safetensors_find(const struct qp_safetensors *st, const char *name); /* NULL: none */
/* The file that holds a tensor of st's which is not empty; NULL over memory. */
const char *qp_safetensors_file(const struct qp_safetensors *st, const struct qp_tensor *t);

/* The format's own name of a dtype ("F16"), NULL when it has none. */
const char *qp_safetensors_dtype(enum qp_dtype dtype);

/* Writer: all names, dtypes and shapes are declared first (the header comes first), then data is appended in that order in any pieces. */
struct qp_st_writer;
int qp_st_writer_open(struct qp_st_writer **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err) QP_MUST_USE;
int qp_st_writer_add(struct qp_st_writer *w, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
int qp_st_writer_commit(struct qp_st_writer *w, struct qp_err *err) QP_MUST_USE; /* frees w; checks that all data came */
void qp_st_writer_abort(struct qp_st_writer *w); /* frees w, removes the temporary file */

/* A file whose data comes in any order (base/image.h), tensor i of the declarations as its tensor i. */
int qp_st_image_create(struct qp_image **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err) QP_MUST_USE;
/* Goes on with a file that was created from the same declarations; another one is QP_E_INPUT. */
int qp_st_image_reopen(struct qp_image **out, const char *path, const struct qp_tensor *decl, size_t n, struct qp_err *err) QP_MUST_USE;

#endif
