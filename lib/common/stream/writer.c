#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/machine.h"
#include "base/mem.h"
#include "stream/internal.h"
#include "stream/scan.h"

#define MAX_NEST 8
#define FLUSH_BYTES (1u << 20)

/* A map or array under construction: its elements are packed into a buffer of their own, since msgpack puts the count first. */
struct level {
    struct qp_buf body;
    uint32_t count;
    bool array;
};

struct qp_writer {
    int fd;
    struct qp_err err; /* the first error */
    struct level level[MAX_NEST];
    int depth; /* -1: no record is open */
    struct qp_buf out;
    struct qp_xxh64 *hash;
    int64_t records;
    struct qp_buf *copy; /* of a tee; NULL: none */
};

int qp_writer_new(struct qp_writer **out, int fd, struct qp_err *err)
{
    *out = NULL;
    struct qp_writer *w = qp_zalloc(sizeof *w, "stream writer", err);
    if (!w)
        return QP_E_RESOURCE;
    w->fd = fd;
    w->depth = -1;
    w->hash = qp_xxh64_new();
    if (!w->hash) {
        qp_writer_free(w);
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a stream writer");
    }
    *out = w;
    return 0;
}

void qp_writer_free(struct qp_writer *w)
{
    if (!w)
        return;
    for (int i = 0; i < MAX_NEST; i++)
        qp_buf_release(&w->level[i].body);
    qp_buf_release(&w->out);
    qp_xxh64_free(w->hash);
    qp_free(w);
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EAGAIN) { /* a descriptor that another process made non-blocking */
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (done < 0)
            return -1;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

static void flush(struct qp_writer *w)
{
    if (w->fd >= 0 && !w->err.code && w->out.len && write_all(w->fd, w->out.data, w->out.len) < 0)
        qp_err_errno(&w->err, QP_E_RESOURCE, "cannot write the stream");
    qp_buf_clear(&w->out);
}

/* One whole record's bytes. */
static void emit(struct qp_writer *w, const void *data, size_t n)
{
    if (w->err.code)
        return;
    qp_xxh64_add(w->hash, data, n);
    w->records++;
    if (w->copy)
        qp_buf_add(w->copy, data, n);
    if (w->fd < 0)
        return;
    qp_buf_add(&w->out, data, n);
    if (qp_buf_check(&w->out, &w->err) == 0 && w->out.len >= FLUSH_BYTES)
        flush(w);
}

/* msgpack's sink; a buffer that failed keeps that to itself until the record's end. */
static int append(void *buf, const char *data, size_t n)
{
    qp_buf_add(buf, data, n);
    return 0;
}

static void put_str(msgpack_packer *pk, const char *s)
{
    size_t n = strlen(s);
    msgpack_pack_str(pk, n);
    msgpack_pack_str_body(pk, s, n);
}

/* A packer that appends to the innermost open map or array, after the field's name; false when nothing may be written. */
static bool begin_value(struct qp_writer *w, const char *field, msgpack_packer *pk)
{
    if (w->err.code)
        return false;
    if (w->depth < 0) {
        qp_err_set(&w->err, QP_E_INTERNAL, "field '%s' outside of a record", field ? field : "");
        return false;
    }
    struct level *l = &w->level[w->depth];
    msgpack_packer_init(pk, &l->body, append);
    l->count++;
    if (!l->array)
        put_str(pk, field);
    return true;
}

static void open_level(struct qp_writer *w, bool array)
{
    if (w->depth + 1 == MAX_NEST) {
        qp_err_set(&w->err, QP_E_INTERNAL, "a record nests deeper than %d", MAX_NEST);
        return;
    }
    struct level *l = &w->level[++w->depth];
    qp_buf_clear(&l->body);
    l->count = 0;
    l->array = array;
}

static void close_level(struct qp_writer *w, bool array)
{
    if (!w->err.code && (w->depth < 1 || w->level[w->depth].array != array))
        qp_err_set(&w->err, QP_E_INTERNAL, "the end of %s that is not open", array ? "an array" : "a map");
    if (w->err.code)
        return;
    struct level *l = &w->level[w->depth], *up = &w->level[w->depth - 1];
    msgpack_packer pk;
    msgpack_packer_init(&pk, &up->body, append);
    if (l->array)
        msgpack_pack_array(&pk, l->count);
    else
        msgpack_pack_map(&pk, l->count);
    up->body.failed |= l->body.failed;
    qp_buf_add(&up->body, l->body.data, l->body.len);
    w->depth--;
}

void qp_w_begin(struct qp_writer *w, const char *type)
{
    if (!w->err.code && w->depth >= 0)
        qp_err_set(&w->err, QP_E_INTERNAL, "a '%s' record inside another", type);
    if (w->err.code)
        return;
    open_level(w, false);
    qp_w_str(w, "t", type);
}

void qp_w_end(struct qp_writer *w)
{
    if (!w->err.code && w->depth)
        qp_err_set(&w->err, QP_E_INTERNAL, w->depth < 0 ? "the end of a record that was not begun" : "a record ends inside a map or array");
    if (w->err.code)
        return;
    struct level *l = &w->level[0];
    struct qp_buf record = QP_BUF_INIT;
    msgpack_packer pk;
    msgpack_packer_init(&pk, &record, append);
    msgpack_pack_map(&pk, l->count);
    record.failed |= l->body.failed;
    qp_buf_add(&record, l->body.data, l->body.len);
    if (qp_buf_check(&record, &w->err) == 0 && record.len > QP_RECORD_MAX_BYTES)
        qp_err_set(&w->err, QP_E_INTERNAL, "a record of %zu bytes, more than 16 MiB", record.len);
    emit(w, record.data, record.len);
    qp_buf_release(&record);
    w->depth = -1;
}

void qp_w_str(struct qp_writer *w, const char *field, const char *value)
{
    msgpack_packer pk;
    if (!begin_value(w, field, &pk))
        return;
    if (value)
        put_str(&pk, value);
    else
        msgpack_pack_nil(&pk);
}

void qp_w_i64(struct qp_writer *w, const char *field, int64_t value)
{
    msgpack_packer pk;
    if (begin_value(w, field, &pk))
        msgpack_pack_int64(&pk, value);
}

void qp_w_u64(struct qp_writer *w, const char *field, uint64_t value)
{
    msgpack_packer pk;
    if (begin_value(w, field, &pk))
        msgpack_pack_uint64(&pk, value);
}

void qp_w_f64(struct qp_writer *w, const char *field, double value)
{
    msgpack_packer pk;
    if (begin_value(w, field, &pk))
        msgpack_pack_double(&pk, value);
}

void qp_w_bool(struct qp_writer *w, const char *field, bool value)
{
    msgpack_packer pk;
    if (!begin_value(w, field, &pk))
        return;
    if (value)
        msgpack_pack_true(&pk);
    else
        msgpack_pack_false(&pk);
}

void qp_w_bin(struct qp_writer *w, const char *field, const void *data, size_t n)
{
    msgpack_packer pk;
    if (!begin_value(w, field, &pk))
        return;
    msgpack_pack_bin(&pk, n);
    msgpack_pack_bin_body(&pk, data, n);
}

void qp_w_i64s(struct qp_writer *w, const char *field, const int64_t *v, size_t n)
{
    msgpack_packer pk;
    if (!begin_value(w, field, &pk))
        return;
    msgpack_pack_array(&pk, n);
    for (size_t i = 0; i < n; i++)
        msgpack_pack_int64(&pk, v[i]);
}

void qp_w_f64s(struct qp_writer *w, const char *field, const double *v, size_t n)
{
    msgpack_packer pk;
    if (!begin_value(w, field, &pk))
        return;
    msgpack_pack_array(&pk, n);
    for (size_t i = 0; i < n; i++)
        msgpack_pack_double(&pk, v[i]);
}

void qp_w_strs(struct qp_writer *w, const char *field, const char *const *v, size_t n)
{
    msgpack_packer pk;
    if (!begin_value(w, field, &pk))
        return;
    msgpack_pack_array(&pk, n);
    for (size_t i = 0; i < n; i++)
        put_str(&pk, v[i]);
}

void qp_w_map_begin(struct qp_writer *w, const char *field)
{
    msgpack_packer pk;
    if (begin_value(w, field, &pk))
        open_level(w, false);
}

void qp_w_map_end(struct qp_writer *w)
{
    close_level(w, false);
}

void qp_w_array_begin(struct qp_writer *w, const char *field)
{
    msgpack_packer pk;
    if (begin_value(w, field, &pk))
        open_level(w, true);
}

void qp_w_array_end(struct qp_writer *w)
{
    close_level(w, true);
}

void qp_w_copy(struct qp_writer *w, const struct qp_record *rec)
{
    emit(w, rec->raw, rec->raw_bytes);
}

void qp_w_tee(struct qp_writer *w, struct qp_buf *copy)
{
    w->copy = copy;
}

int qp_w_records(struct qp_writer *w, const void *data, size_t n, struct qp_err *err)
{
    for (size_t at = 0; at < n;) {
        struct qp_scan s = {0};
        if (qp_scan(&s, (const uint8_t *)data + at, n - at, QP_RECORD_MAX_BYTES, QP_RECORD_MAX_VALUES) != QP_SCAN_DONE)
            return qp_err_set(err, QP_E_INPUT, "%zu bytes that are no record", n - at);
        emit(w, (const uint8_t *)data + at, s.pos);
        at += s.pos;
    }
    return qp_writer_check(w, err);
}

void qp_w_field(struct qp_writer *w, const struct qp_record *rec, const char *field)
{
    msgpack_packer pk;
    const msgpack_object *o = qp_record_find(rec, field);
    if (o && begin_value(w, field, &pk))
        msgpack_pack_object(&pk, *o);
}

/* SOURCE_DATE_EPOCH fixes the time, so that two runs can be compared byte for byte. */
static void utc_time(char *out, size_t n)
{
    const char *fixed = getenv("SOURCE_DATE_EPOCH");
    time_t t = fixed && *fixed ? (time_t)strtoll(fixed, NULL, 10) : time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, n, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

void qp_w_head(struct qp_writer *w, const char *tool, int argc, char *const *argv, int64_t seed)
{
    char when[32], host[256] = "", cpu[256];
    utc_time(when, sizeof when);
    gethostname(host, sizeof host - 1);
    qp_cpu_name(cpu, sizeof cpu);
    qp_w_begin(w, "head");
    qp_w_str(w, "magic", QP_STREAM_MAGIC);
    qp_w_i64(w, "v", QP_STREAM_VERSION);
    qp_w_str(w, "tool", tool);
    qp_w_str(w, "version", QP_VERSION);
    qp_w_strs(w, "argv", (const char *const *)argv, (size_t)argc);
    qp_w_i64(w, "seed", seed);
    qp_w_str(w, "time", when);
    qp_w_str(w, "host", host);
    qp_w_str(w, "cpu", *cpu ? cpu : "unknown");
    qp_w_end(w);
}

void qp_w_tail(struct qp_writer *w, const char *tool, const char *status)
{
    char sum[17];
    snprintf(sum, sizeof sum, "%016" PRIx64, qp_xxh64_value(w->hash));
    int64_t records = w->records;
    qp_w_begin(w, "end");
    qp_w_str(w, "tool", tool);
    qp_w_i64(w, "records", records);
    qp_w_str(w, "xxh64", sum);
    qp_w_str(w, "status", status);
    qp_w_end(w);
}

int qp_writer_check(const struct qp_writer *w, struct qp_err *err)
{
    return w->err.code ? qp_err_set(err, w->err.code, "%s", w->err.text) : 0;
}

int qp_writer_flush(struct qp_writer *w, struct qp_err *err)
{
    flush(w);
    return qp_writer_check(w, err);
}
