#include "base/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define PAGE ((uintptr_t)4096)

struct array {
    float *x; /* NULL: the place is free */
    size_t bytes;
    bool in_file;
};

struct qp_spool {
    size_t memory, used, in_files;
    char *folder;
    struct array array[QP_SPOOL_ARRAYS];
};

int qp_spool_new(struct qp_spool **out, size_t memory, const char *folder, struct qp_err *err)
{
    *out = NULL;
    struct qp_spool *s = qp_zalloc(sizeof *s, "spool", err);
    if (!s || !(s->folder = qp_strdup(folder, err))) {
        qp_free(s);
        return QP_E_RESOURCE;
    }
    s->memory = memory;
    *out = s;
    return 0;
}

void qp_spool_close(struct qp_spool *s)
{
    if (!s)
        return;
    qp_free(s->folder);
    qp_free(s);
}

static int open_nameless(const char *folder, struct qp_err *err)
{
    struct qp_buf name = QP_BUF_INIT;
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) { /* file systems that cannot make files without a name */
        qp_buf_addf(&name, "%s/qp-spool-XXXXXX", folder);
        if (!qp_buf_check(&name, err) && (fd = mkostemp(name.data, O_CLOEXEC)) >= 0)
            unlink(name.data);
    }
    qp_buf_release(&name);
    if (fd < 0)
        qp_err_errno(err, QP_E_RESOURCE, "cannot make a temporary file in '%s'", folder);
    return fd;
}

static void *map_file(const struct qp_spool *s, size_t bytes, const char *what, struct qp_err *err)
{
    int fd = open_nameless(s->folder, err);
    void *p = MAP_FAILED;
    if (fd < 0)
        return NULL;
    /* the space is taken now: a full disk is an error here, not a signal later */
    int failed = posix_fallocate(fd, 0, (off_t)bytes);
    if (!failed)
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (failed)
        errno = failed;
    if (p == MAP_FAILED)
        qp_err_errno(err, QP_E_RESOURCE, "no room for %zu bytes of %s in '%s'", bytes, what, s->folder);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

float *qp_spool_floats(struct qp_spool *s, size_t n, const char *what, struct qp_err *err)
{
    size_t bytes;
    struct array *a = s ? s->array : NULL;
    if (!s)
        return qp_alloc_n(n, sizeof(float), what, err);
    while (a < s->array + QP_SPOOL_ARRAYS && a->x)
        a++;
    if (a == s->array + QP_SPOOL_ARRAYS || !qp_mul(n, sizeof(float), &bytes) || bytes > SIZE_MAX / 4) {
        qp_err_set(err, QP_E_RESOURCE, "no memory for %zu values of %s", n, what);
        return NULL;
    }
    bool in_file = bytes && (bytes > s->memory || s->used > s->memory - bytes);
    *a = (struct array){.x = in_file ? map_file(s, bytes, what, err) : qp_alloc(bytes, what, err), .bytes = bytes, .in_file = in_file};
    if (a->x && in_file)
        s->in_files += bytes;
    else if (a->x)
        s->used += bytes;
    return a->x;
}

void qp_spool_free(struct qp_spool *s, float *x)
{
    if (!s) {
        qp_free(x);
        return;
    }
    for (struct array *a = s->array; x && a < s->array + QP_SPOOL_ARRAYS; a++) {
        if (a->x != x)
            continue;
        if (a->in_file)
            munmap(a->x, a->bytes);
        else
            qp_free(a->x);
        *(a->in_file ? &s->in_files : &s->used) -= a->bytes;
        *a = (struct array){0};
    }
}

void qp_spool_passed(const struct qp_spool *s, const void *p, size_t bytes)
{
    uintptr_t at = (uintptr_t)p;
    for (const struct array *a = s ? s->array : NULL; s && a < s->array + QP_SPOOL_ARRAYS; a++) {
        uintptr_t x = (uintptr_t)a->x;
        if (!a->in_file || !x || at < x || at >= x + a->bytes)
            continue;
        uintptr_t from = at & ~(PAGE - 1), to = at + bytes < x + a->bytes ? at + bytes : x + a->bytes;
        madvise((void *)from, to - from, MADV_DONTNEED); /* of a shared mapping: the values stay in the file's pages */
    }
}

size_t qp_spool_file_bytes(const struct qp_spool *s)
{
    return s ? s->in_files : 0;
}
