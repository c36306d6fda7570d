/* Memory: overflow-checked sizes and 64-byte aligned blocks. Sizes that come from outside go through qp_mul / qp_add. */
#ifndef QP_BASE_MEM_H
#define QP_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* *out = a * b, or a + b. False on overflow, *out untouched. */
bool qp_mul(size_t a, size_t b, size_t *out) QP_MUST_USE;
bool qp_add(size_t a, size_t b, size_t *out) QP_MUST_USE;

/* 64-byte aligned, uninitialized block of n bytes (n rounded up to 64, large blocks to 2 MiB; n = 0 gives a valid block). Large blocks are
 * advised to huge pages. NULL with err filled (QP_E_RESOURCE, naming `what`) when there is no memory. Free with qp_free. */
void *qp_alloc(size_t n, const char *what, struct qp_err *err) QP_MUST_USE;
void *qp_zalloc(size_t n, const char *what, struct qp_err *err) QP_MUST_USE;
/* count * size with the product checked. */
void *qp_alloc_n(size_t count, size_t size, const char *what, struct qp_err *err) QP_MUST_USE;
void qp_free(void *p);
/* The block p with its first n bytes alone, where there is memory for the copy; else p as it was. */
void *qp_shrink(void *p, size_t n) QP_MUST_USE;
/* Bytes that the allocator has given out in this process; 0: it does not tell. */
size_t qp_mem_in_use(void);
/* Gives what is free inside of the allocator's heaps back to the system. */
void qp_mem_trim(void);

/* strdup that fills err. Free with qp_free. */
char *qp_strdup(const char *s, struct qp_err *err) QP_MUST_USE;

#endif
