/* Where weights lie in a GGUF file of the model's architecture, whatever the model's own file: for writers. */
#ifndef QP_MODEL_GGUF_PLACE_H
#define QP_MODEL_GGUF_PLACE_H

#include "model/gguf.h"
#include "model/model.h"

struct qp_gguf_place {
    char tensor[256];        /* "blk.0.attn_q.weight" */
    int64_t expert, n_experts; /* the weight is that one of a tensor of so many; n_experts 0: the tensor is the weight's alone */
    bool vector;             /* one axis, kept in float32 */
    bool plus_one;           /* the file holds 1 + w (Gemma's norms) */
    int64_t rotated, parted; /* rows in another order, by heads of that many; 0: not. See qp_gguf_place_row */
    enum qp_dtype dtype;     /* in which the model's own file has it; QP_DT_COUNT: stored quantized in another way */
};

/* places [qp_model_n_weights], in the order of qp_model_weight_at; free with qp_free. */
int qp_gguf_places(struct qp_gguf_place **places, const struct qp_model *m, struct qp_err *err) QP_MUST_USE;
/* Where row r of n lies in the tensor (of a vector: its element). */
int64_t qp_gguf_place_row(const struct qp_gguf_place *p, int64_t n, int64_t r);
/* The file that the model was read from, borrowed; NULL: a folder. */
const struct qp_gguf *qp_model_gguf(const struct qp_model *m);
/* general.architecture of such a file; borrowed. */
const char *qp_model_gguf_arch(const struct qp_model *m);

#endif
