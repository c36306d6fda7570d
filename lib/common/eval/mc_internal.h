/* What the files of multiple choice share. Private to eval/. */
#ifndef QP_EVAL_MC_INTERNAL_H
#define QP_EVAL_MC_INTERNAL_H

#include <stddef.h>

#include "eval/mc_spec.h"

/* NULL: no such task. */
const struct qp_mc_spec *qp_mc_standard(const char *name);
/* "mmlu, hellaswag, ...", for messages. */
void qp_mc_standard_names(char *out, size_t n);
bool qp_mmlu_is_section(const char *name);
/* HellaSwag's row as the harness prepares it: query and choices out of ctx_a, ctx_b, activity_label and endings; a row that has a query keeps it. */
int qp_mc_hellaswag(struct json_t *row, struct qp_err *err);

#endif
