/* Progress on standard error: one line, redrawn at most ten times a second, with rate and time left; silent when standard
 * error is no terminal or --quiet was given. */
#ifndef QP_BASE_PROGRESS_H
#define QP_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct qp_progress; /* NULL is a valid, silent progress */

struct qp_progress *qp_progress_new(const char *tool, bool enabled);
/* A new phase: "qquant: layer 12/210  model.layers.1.mlp.up_proj  6%  ETA 0:41". what and unit are copied. */
void qp_progress_begin(struct qp_progress *p, const char *what, const char *unit, int64_t total);
void qp_progress_update(struct qp_progress *p, int64_t done, const char *detail);
/* Erases the line. */
void qp_progress_end(struct qp_progress *p);
void qp_progress_free(struct qp_progress *p);

#endif
