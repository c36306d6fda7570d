#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

int qp_map_open(struct qp_map *out, const char *path, struct qp_err *err)
{
    *out = (struct qp_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait for a writer of a FIFO */
    if (fd < 0)
        return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
    struct stat st;
    int r = 0;
    if (fstat(fd, &st) < 0)
        r = qp_err_errno(err, QP_E_INPUT, "cannot read '%s'", path);
    else if (!S_ISREG(st.st_mode))
        r = qp_err_set(err, QP_E_INPUT, "'%s' is not a regular file", path);
    else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            r = qp_err_errno(err, QP_E_RESOURCE, "cannot map '%s'", path);
        else
            *out = (struct qp_map){p, (size_t)st.st_size};
    }
    close(fd);
    return r;
}

void qp_map_close(struct qp_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (struct qp_map){0};
}

void qp_map_drop(const struct qp_map *map)
{
    if (map->data)
        madvise((void *)(uintptr_t)map->data, map->bytes, MADV_DONTNEED); /* a private mapping that is only read loses nothing */
}

int qp_file_read(struct qp_buf *buf, const char *path, size_t max, struct qp_err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
    int r = 0;
    size_t total = 0;
    for (;;) {
        char chunk[65536];
        size_t n = fread(chunk, 1, sizeof chunk, f);
        if (!n)
            break;
        total += n;
        if (total > max) {
            r = qp_err_set(err, QP_E_INPUT, "'%s' is longer than %zu bytes", path, max);
            break;
        }
        qp_buf_add(buf, chunk, n);
    }
    if (!r && ferror(f))
        r = qp_err_errno(err, QP_E_INPUT, "cannot read '%s'", path);
    fclose(f);
    return r ? r : qp_buf_check(buf, err);
}

int qp_outfile_open(struct qp_outfile *out, const char *path, struct qp_err *err)
{
    *out = (struct qp_outfile){0};
    out->path = qp_strdup(path, err);
    struct qp_buf tmp = QP_BUF_INIT;
    qp_buf_addf(&tmp, "%s.tmp-%ld", path, (long)getpid());
    out->tmp = out->path && !qp_buf_check(&tmp, err) ? qp_strdup(tmp.data, err) : NULL;
    qp_buf_release(&tmp);
    if (!out->tmp) {
        qp_outfile_abort(out);
        return QP_E_RESOURCE;
    }
    out->file = fopen(out->tmp, "wb");
    if (!out->file) {
        int r = qp_err_errno(err, QP_E_RESOURCE, "cannot create '%s'", path);
        qp_free(out->tmp);
        out->tmp = NULL;
        qp_outfile_abort(out);
        return r;
    }
    return 0;
}

void qp_sync_folder_of(const char *path)
{
    char copy[PATH_MAX];
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy)
        return;
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd); /* some file systems refuse to sync folders; the rename itself has been done */
    close(fd);
}

int qp_outfile_commit(struct qp_outfile *out, struct qp_err *err)
{
    int r = 0;
    if (ferror(out->file)) /* an earlier fwrite failed; its errno has gone */
        r = qp_err_set(err, QP_E_RESOURCE, "cannot write '%s': an earlier write failed (is the disk full?)", out->path);
    else if (fflush(out->file) || fsync(fileno(out->file)))
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", out->path);
    if (fclose(out->file) && !r)
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", out->path);
    out->file = NULL;
    if (!r && rename(out->tmp, out->path))
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot rename to '%s'", out->path);
    if (!r) {
        qp_sync_folder_of(out->path);
        qp_free(out->tmp);
        out->tmp = NULL;
    }
    qp_outfile_abort(out);
    return r;
}

void qp_outfile_abort(struct qp_outfile *out)
{
    if (out->file)
        fclose(out->file);
    if (out->tmp)
        unlink(out->tmp);
    qp_free(out->tmp);
    qp_free(out->path);
    *out = (struct qp_outfile){0};
}

char *qp_path_join(const char *dir, const char *name, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    size_t n = strlen(dir);
    qp_buf_addf(&b, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    char *s = qp_buf_check(&b, err) ? NULL : qp_strdup(b.data, err);
    qp_buf_release(&b);
    return s;
}

char *qp_path_parent(const char *path, struct qp_err *err)
{
    char *copy = qp_strdup(path, err), *parent = copy ? qp_strdup(dirname(copy), err) : NULL;
    qp_free(copy);
    return parent;
}

char *qp_path_real(const char *path, struct qp_err *err)
{
    char full[PATH_MAX];
    if (!realpath(path, full)) {
        qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
        return NULL;
    }
    return qp_strdup(full, err);
}
