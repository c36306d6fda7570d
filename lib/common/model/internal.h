/* What the files of model/ share about a model and its weights. Private to model/. */
#ifndef QP_MODEL_INTERNAL_H
#define QP_MODEL_INTERNAL_H

#include "base/buf.h"
#include "model/arch.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "model/store.h"

struct qp_weight_impl {
    struct qp_weight pub;
    struct qp_tensor tensor;      /* dense */
    int64_t rotated_head_dim;     /* GGUF rows in pairs, this many to a head; 0: none */
    int64_t parted_head_dim;      /* GGUF rows by (part, head, i) where Hugging Face has (head, part, i), this many to a head; 0: none */
    bool turned;                  /* the file holds [cols, rows] */
    bool minus_one;               /* GGUF's norm weights are 1 + w */
    struct qp_store *store;       /* quantized; owned */
    void *owned;                  /* dense data of an overlay */
    bool linear;                  /* a block's linear layer */
};

struct qp_model {
    int refs;
    char *path;
    struct qp_model_config config;
    struct qp_quant_config quant;
    struct qp_safetensors *st;
    struct qp_gguf *gguf;
    struct qp_model *base; /* overlay */
    struct qp_weight_impl *weights; /* sorted by name */
    size_t n_weights, n_quantized;
    char **names; /* owned canonical names */
    size_t n_names;
    const struct qp_arch *arch;
    struct qp_linear *linears; /* in the order of the forward pass; borrowed names */
    size_t *first_linear;      /* [n_layers + 1] */
};

/* Canonical name of a part: layer and expert where it has them. */
void qp_part_name(char out[256], const struct qp_arch *a, const struct qp_part *p, int64_t layer, int64_t expert);
/* Fills m->linears from the weights, which are sorted and complete. */
int qp_model_list_linears(struct qp_model *m, struct qp_err *err) QP_MUST_USE;

/* Where row r of n lies in a GGUF file: rotated or parted as in qp_weight_impl. */
int64_t qp_gguf_row(int64_t rotated, int64_t parted, int64_t n, int64_t r);
/* Rows of a dense weight in the canonical order, whatever the file's. */
int qp_dense_read_rows(const struct qp_weight_impl *w, int64_t row0, int64_t n, float *dst, struct qp_err *err) QP_MUST_USE;

struct qp_weight_impl *qp_model_find(const struct qp_model *m, const char *name);

#endif
