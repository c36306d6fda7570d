/* The metadata of a GGUF checkpoint. Private to quant/. */
#ifndef QP_QUANT_GGUF_META_H
#define QP_QUANT_GGUF_META_H

#include "model/gguf_write.h"
#include "model/model.h"

/* All entries; from a GGUF file those of the file, with what they say of the weights' types put right. most: the type of most matrices. *alignment: of the tensors.
 * QP_E_INPUT: a model whose metadata cannot be written. Release meta in any case. */
int qp_gguf_metadata(struct qp_gguf_meta *meta, size_t *alignment, const struct qp_model *m, enum qp_dtype most, struct qp_err *err) QP_MUST_USE;
/* The same of a Hugging Face folder, whose tokenizer and architecture must be ones that are written. */
int qp_gguf_metadata_of_folder(struct qp_gguf_meta *meta, const struct qp_model *m, uint32_t file_type, struct qp_err *err) QP_MUST_USE;
int qp_gguf_check_folder(const struct qp_model *m, struct qp_err *err) QP_MUST_USE;
/* The tensor rope_freqs.weight of such a file; 0 values: none. */
size_t qp_gguf_rope_factors(const struct qp_model_config *c, float out[128]);

#endif
