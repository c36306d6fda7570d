#include "quant/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"

#define MAX_BYTES ((size_t)1 << 30)

static const char magic[8] = "qpjrnl1\n";

struct entry_head {
    uint32_t kind, bytes;
};

struct qp_journal {
    int fd;
    char *path;
    struct qp_buf old;     /* what was there */
    size_t at, marked;     /* in old */
    uint64_t sum, marked_sum;
    size_t end;            /* of the file, once rewound */
};

/* Of an entry, given the sum of the one before it. */
static uint64_t chain(uint64_t before, const struct entry_head *h, const void *data, struct qp_xxh64 *x)
{
    qp_xxh64_add(x, &before, sizeof before);
    qp_xxh64_add(x, h, sizeof *h);
    qp_xxh64_add(x, data, h->bytes);
    return qp_xxh64_value(x);
}

static int take_over(struct qp_journal *j, struct qp_err *err)
{
    if ((j->fd = open(j->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        return qp_err_errno(err, QP_E_RESOURCE, "cannot create '%s'", j->path);
    if (flock(j->fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? qp_err_set(err, QP_E_RESOURCE, "another process is writing '%s'", j->path) : qp_err_errno(err, QP_E_RESOURCE, "cannot lock '%s'", j->path);
    if (qp_file_read(&j->old, j->path, MAX_BYTES, err))
        return err->code;
    if (j->old.len >= sizeof magic && memcmp(j->old.data, magic, sizeof magic))
        return qp_err_set(err, QP_E_INPUT, "'%s' is not the journal of an unfinished checkpoint", j->path);
    j->at = sizeof magic;
    return 0;
}

int qp_journal_open(struct qp_journal **out, const char *path, struct qp_err *err)
{
    *out = NULL;
    struct qp_journal *j = qp_zalloc(sizeof *j, "journal", err);
    if (!j)
        return QP_E_RESOURCE;
    j->fd = -1;
    int r = (j->path = qp_strdup(path, err)) ? take_over(j, err) : QP_E_RESOURCE;
    if (r)
        qp_journal_close(j);
    else
        *out = j;
    return r;
}

void qp_journal_close(struct qp_journal *j)
{
    if (!j)
        return;
    if (j->fd >= 0)
        close(j->fd);
    qp_buf_release(&j->old);
    qp_free(j->path);
    qp_free(j);
}

bool qp_journal_next(struct qp_journal *j, struct qp_journal_entry *e)
{
    struct entry_head h;
    uint64_t sum;
    struct qp_xxh64 *x;
    if (j->at > j->old.len || j->old.len - j->at < sizeof h + sizeof sum)
        return false;
    memcpy(&h, j->old.data + j->at, sizeof h);
    if (h.bytes > QP_JOURNAL_MAX_ENTRY || h.bytes > j->old.len - j->at - sizeof h - sizeof sum || !(x = qp_xxh64_new()))
        return false;
    const char *data = j->old.data + j->at + sizeof h;
    memcpy(&sum, data + h.bytes, sizeof sum);
    bool whole = chain(j->sum, &h, data, x) == sum;
    qp_xxh64_free(x);
    if (!whole)
        return false;
    *e = (struct qp_journal_entry){h.kind, (const uint8_t *)data, h.bytes};
    j->sum = sum;
    j->at += sizeof h + h.bytes + sizeof sum;
    return true;
}

void qp_journal_mark(struct qp_journal *j)
{
    j->marked = j->at;
    j->marked_sum = j->sum;
}

static int append(struct qp_journal *j, const void *data, size_t bytes, struct qp_err *err)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pwrite(j->fd, (const char *)data + done, bytes - done, (off_t)(j->end + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", j->path);
        done += (size_t)n;
    }
    j->end += bytes;
    return 0;
}

int qp_journal_rewind(struct qp_journal *j, struct qp_err *err)
{
    qp_buf_release(&j->old);
    j->end = j->marked;
    j->sum = j->marked ? j->marked_sum : 0;
    if (ftruncate(j->fd, (off_t)j->marked))
        return qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", j->path);
    return j->marked ? 0 : append(j, magic, sizeof magic, err);
}

int qp_journal_add(struct qp_journal *j, uint32_t kind, const void *data, size_t bytes, struct qp_err *err)
{
    struct entry_head h = {kind, (uint32_t)bytes};
    struct qp_buf whole = QP_BUF_INIT;
    struct qp_xxh64 *x = qp_xxh64_new();
    if (!x || bytes > QP_JOURNAL_MAX_ENTRY) {
        qp_xxh64_free(x);
        return x ? qp_err_set(err, QP_E_INTERNAL, "a journal entry of %zu bytes", bytes) : qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
    }
    j->sum = chain(j->sum, &h, data, x);
    qp_xxh64_free(x);
    qp_buf_add(&whole, &h, sizeof h);
    qp_buf_add(&whole, data, bytes);
    qp_buf_add(&whole, &j->sum, sizeof j->sum);
    int r = qp_buf_check(&whole, err) ? QP_E_RESOURCE : append(j, whole.data, whole.len, err);
    qp_buf_release(&whole);
    return r;
}

int qp_journal_sync(struct qp_journal *j, struct qp_err *err)
{
    return fsync(j->fd) ? qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", j->path) : 0;
}
