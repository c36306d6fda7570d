/* A growable byte buffer. Invariant: data[len] == 0, so text in it is a C string.
 * The first allocation failure sticks (failed = true); later appends do nothing, so callers check once at the end. */
#ifndef QP_BASE_BUF_H
#define QP_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct qp_buf {
    char *data; /* NULL while empty */
    size_t len, cap;
    bool failed;
};
#define QP_BUF_INIT {0}

void qp_buf_add(struct qp_buf *b, const void *data, size_t n);
void qp_buf_adds(struct qp_buf *b, const char *s);
void qp_buf_addf(struct qp_buf *b, const char *fmt, ...) QP_PRINTF(2, 3);
/* Text from outside on its way to a terminal: each control character (C0, DEL, and U+0080 to U+009F) becomes '?'. */
void qp_buf_add_clean(struct qp_buf *b, const char *s);
/* Room for n more bytes, len grown by n; NULL when it failed. The bytes are uninitialized. */
void *qp_buf_grow(struct qp_buf *b, size_t n);
void qp_buf_clear(struct qp_buf *b); /* len = 0, keeps the block */
void qp_buf_release(struct qp_buf *b);
/* 0, or QP_E_RESOURCE when an append failed. */
int qp_buf_check(const struct qp_buf *b, struct qp_err *err) QP_MUST_USE;

#endif
