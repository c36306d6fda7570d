#include "base/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

struct qp_image {
    int fd;
    char *path;
    struct qp_extent *at; /* [n] */
    size_t n;
};

static int write_at(const struct qp_image *im, const void *data, size_t bytes, size_t at, struct qp_err *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(im->fd, (const char *)data + done, bytes - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path);
        done += (size_t)n;
    }
    return 0;
}

/* The file's header and size, written or compared. */
static int begin(struct qp_image *im, const struct qp_image_plan *plan, bool fresh, struct qp_err *err)
{
    if (fresh) {
        if (fallocate(im->fd, 0, 0, (off_t)plan->bytes) && (errno != EOPNOTSUPP || ftruncate(im->fd, (off_t)plan->bytes)))
            return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path);
        return write_at(im, plan->head, plan->head_bytes, 0, err);
    }
    struct stat st;
    char *there = qp_alloc(plan->head_bytes, "header", err);
    if (!there)
        return QP_E_RESOURCE;
    bool same = !fstat(im->fd, &st) && (size_t)st.st_size == plan->bytes && pread(im->fd, there, plan->head_bytes, 0) == (ssize_t)plan->head_bytes &&
                !memcmp(there, plan->head, plan->head_bytes);
    qp_free(there);
    return same ? 0 : qp_err_set(err, QP_E_INPUT, "'%s' holds other tensors than those to be written", im->path);
}

static void free_image(struct qp_image *im)
{
    if (im->fd >= 0)
        close(im->fd);
    qp_free(im->path);
    qp_free(im->at);
    qp_free(im);
}

int qp_image_open(struct qp_image **out, const char *path, const struct qp_image_plan *plan, bool fresh, struct qp_err *err)
{
    *out = NULL;
    struct qp_image *im = qp_zalloc(sizeof *im, "file of tensors", err);
    if (!im)
        return QP_E_RESOURCE;
    im->n = plan->n;
    im->fd = -1;
    im->path = qp_strdup(path, err);
    im->at = qp_alloc_n(plan->n + 1, sizeof *im->at, "file of tensors", err);
    int r = im->path && im->at ? 0 : QP_E_RESOURCE;
    if (!r && plan->n)
        memcpy(im->at, plan->at, plan->n * sizeof *im->at);
    if (!r && (im->fd = open(path, O_RDWR | O_CLOEXEC | (fresh ? O_CREAT | O_EXCL : 0), 0666)) < 0)
        r = qp_err_errno(err, fresh ? QP_E_RESOURCE : QP_E_INPUT, "cannot open '%s'", path);
    r = r ? r : begin(im, plan, fresh, err);
    if (r)
        free_image(im);
    else
        *out = im;
    return r;
}

static int check_range(const struct qp_image *im, size_t i, size_t offset, size_t bytes, struct qp_err *err)
{
    if (i >= im->n || offset > im->at[i].bytes || bytes > im->at[i].bytes - offset)
        return qp_err_set(err, QP_E_INTERNAL, "'%s': more data than was declared", im->path);
    return 0;
}

int qp_image_put(struct qp_image *im, size_t i, size_t offset, const void *data, size_t bytes, struct qp_err *err)
{
    return check_range(im, i, offset, bytes, err) ? QP_E_INTERNAL : write_at(im, data, bytes, im->at[i].begin + offset, err);
}

int qp_image_get(const struct qp_image *im, size_t i, size_t offset, void *data, size_t bytes, struct qp_err *err)
{
    if (check_range(im, i, offset, bytes, err))
        return QP_E_INTERNAL;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(im->fd, (char *)data + done, bytes - done, (off_t)(im->at[i].begin + offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qp_err_errno(err, QP_E_RESOURCE, "cannot read '%s'", im->path);
        done += (size_t)n;
    }
    return 0;
}

int qp_image_sync(struct qp_image *im, struct qp_err *err)
{
    return fsync(im->fd) ? qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path) : 0;
}

int qp_image_close(struct qp_image *im, struct qp_err *err)
{
    int r = close(im->fd) ? qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", im->path) : 0;
    im->fd = -1;
    free_image(im);
    return r;
}
