#include "base/mem.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

bool qp_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

bool qp_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

#define HUGE_PAGE ((size_t)2 << 20)

void *qp_alloc(size_t n, const char *what, struct qp_err *err)
{
    size_t want = n ? n : 1;
    void *p = NULL;
    size_t align = want >= 4 * HUGE_PAGE ? HUGE_PAGE : 64;
    if (want <= SIZE_MAX / 2) {
        want = (want + align - 1) & ~(align - 1); /* aligned_alloc wants a multiple */
        p = aligned_alloc(align, want);
    }
    if (!p) {
        qp_err_set(err, QP_E_RESOURCE, "no memory for %zu bytes of %s", n, what);
        return NULL;
    }
    if (align == HUGE_PAGE)
        madvise(p, want, MADV_HUGEPAGE);
    return p;
}

void *qp_zalloc(size_t n, const char *what, struct qp_err *err)
{
    void *p = qp_alloc(n, what, err);
    if (p)
        memset(p, 0, n);
    return p;
}

void *qp_alloc_n(size_t count, size_t size, const char *what, struct qp_err *err)
{
    size_t n;
    if (!qp_mul(count, size, &n)) {
        qp_err_set(err, QP_E_RESOURCE, "no memory for %zu x %zu bytes of %s", count, size, what);
        return NULL;
    }
    return qp_alloc(n, what, err);
}

void qp_free(void *p)
{
    free(p);
}

void *qp_shrink(void *p, size_t n)
{
    void *q = qp_alloc(n, "block", NULL);
    if (!q)
        return p;
    memcpy(q, p, n);
    free(p);
    return q;
}

size_t qp_mem_in_use(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
#else
    return 0;
#endif
}

void qp_mem_trim(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

char *qp_strdup(const char *s, struct qp_err *err)
{
    size_t n = strlen(s) + 1;
    char *p = qp_alloc(n, "text", err);
    if (p)
        memcpy(p, s, n);
    return p;
}
