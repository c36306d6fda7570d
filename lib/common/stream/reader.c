/* Reading: framing, the open parts and their checksums. Getters are in record.c. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <msgpack.h>

#include "base/hash.h"
#include "base/mem.h"
#include "stream/scan.h"
#include "stream/stream.h"

#define MAX_PARTS 64
#define READ_BYTES (256u << 10)

struct part {
    char tool[64];
    int64_t records;
    struct qp_xxh64 *hash;
};

struct qp_reader {
    int fd;
    char *name;
    uint8_t *data; /* [begin, end) is unread; the record handed out lies before begin */
    size_t begin, end, cap;
    bool eof;
    int64_t n_records, n_parts_done;
    struct part part[MAX_PARTS];
    int depth;
    msgpack_unpacked unpacked;
};

int qp_reader_new(struct qp_reader **out, int fd, const char *name, struct qp_err *err)
{
    *out = NULL;
    struct qp_reader *rd = qp_zalloc(sizeof *rd, "stream reader", err);
    if (!rd)
        return QP_E_RESOURCE;
    rd->fd = fd;
    msgpack_unpacked_init(&rd->unpacked);
    rd->name = qp_strdup(name, err);
    rd->cap = 2 * READ_BYTES;
    rd->data = malloc(rd->cap);
    if (!rd->name || !rd->data) {
        qp_reader_free(rd);
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a stream reader");
    }
    *out = rd;
    return 0;
}

void qp_reader_free(struct qp_reader *rd)
{
    if (!rd)
        return;
    for (int i = 0; i < rd->depth; i++)
        qp_xxh64_free(rd->part[i].hash);
    msgpack_unpacked_destroy(&rd->unpacked);
    free(rd->data);
    qp_free(rd->name);
    qp_free(rd);
}

/* Reads some more behind [begin, end). 1: bytes came, 0: end of file. */
static int fill(struct qp_reader *rd, struct qp_err *err)
{
    if (rd->eof)
        return 0;
    if (rd->cap - rd->end < READ_BYTES && rd->begin) {
        memmove(rd->data, rd->data + rd->begin, rd->end - rd->begin);
        rd->end -= rd->begin;
        rd->begin = 0;
    }
    if (rd->cap - rd->end < READ_BYTES) {
        uint8_t *grown = realloc(rd->data, rd->cap * 2);
        if (!grown)
            return qp_err_set(err, QP_E_RESOURCE, "no memory for a record of more than %zu bytes", rd->cap);
        rd->data = grown;
        rd->cap *= 2;
    }
    ssize_t got;
    while ((got = read(rd->fd, rd->data + rd->end, rd->cap - rd->end)) < 0 && (errno == EINTR || errno == EAGAIN))
        if (errno == EAGAIN) /* a descriptor that another process made non-blocking */
            poll(&(struct pollfd){.fd = rd->fd, .events = POLLIN}, 1, -1);
    if (got < 0)
        return qp_err_errno(err, QP_E_INPUT, "cannot read %s", rd->name);
    rd->eof = got == 0;
    rd->end += (size_t)got;
    return got > 0;
}

static const char *refusal(int scan)
{
    switch (scan) {
    case QP_SCAN_BIG:
        return "claims more than 16 MiB";
    case QP_SCAN_MANY:
        return "holds more than 2^20 values; long arrays travel as binary";
    case QP_SCAN_DEEP:
        return "nests deeper than 32";
    default:
        return "is not msgpack";
    }
}

static int cut_off(struct qp_reader *rd, const char *where, struct qp_err *err)
{
    if (rd->depth)
        return qp_err_set(err, QP_E_INPUT, "%s was cut off %s: the part of '%s' has no end record", rd->name, where, rd->part[rd->depth - 1].tool);
    if (!rd->n_records)
        return qp_err_set(err, QP_E_INPUT, "%s is %s, expected a quantpipe stream", rd->name, rd->end ? "cut off in its first record" : "empty");
    return qp_err_set(err, QP_E_INPUT, "%s was cut off %s", rd->name, where);
}

/* 1: a whole record lies at begin, its length in *n. 0: end of file at a record's border. */
static int frame(struct qp_reader *rd, size_t *n, struct qp_err *err)
{
    struct qp_scan scan = {0};
    for (;;) {
        if (rd->end > rd->begin) {
            int r = qp_scan(&scan, rd->data + rd->begin, rd->end - rd->begin, QP_RECORD_MAX_BYTES, QP_RECORD_MAX_VALUES);
            if (r == QP_SCAN_DONE) {
                *n = scan.pos;
                return 1;
            }
            if (r < 0)
                return qp_err_set(err, QP_E_INPUT, "%s: record %" PRId64 " %s", rd->name, rd->n_records + 1, refusal(r));
        }
        int r = fill(rd, err);
        if (r < 0)
            return r;
        if (r == 0)
            return rd->end > rd->begin ? cut_off(rd, "inside a record", err) : 0;
    }
}

static int open_part(struct qp_reader *rd, const struct qp_record *rec, struct qp_err *err)
{
    const char *magic = "", *tool;
    int64_t v = 0;
    if (qp_record_str(rec, "magic", &magic, err) < 0 || qp_record_i64(rec, "v", &v, err) < 0)
        return err->code;
    if (strcmp(magic, QP_STREAM_MAGIC) || v != QP_STREAM_VERSION)
        return qp_err_set(err, QP_E_INPUT, "%s: head with magic '%s' version %" PRId64 ", expected '%s' version %d", rd->name, magic, v,
                          QP_STREAM_MAGIC, QP_STREAM_VERSION);
    if (qp_record_need_str(rec, "tool", &tool, err))
        return err->code;
    if (rd->depth == MAX_PARTS)
        return qp_err_set(err, QP_E_INPUT, "%s: more than %d parts nest", rd->name, MAX_PARTS);
    struct part *p = &rd->part[rd->depth];
    *p = (struct part){.hash = qp_xxh64_new()};
    if (!p->hash)
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
    snprintf(p->tool, sizeof p->tool, "%s", tool);
    rd->depth++;
    return 0;
}

static int close_part(struct qp_reader *rd, const struct qp_record *rec, struct qp_err *err)
{
    const char *tool, *sum = NULL;
    int64_t records = 0;
    struct part *p = &rd->part[rd->depth - 1];
    if (qp_record_need_str(rec, "tool", &tool, err))
        return err->code;
    if (strncmp(tool, p->tool, sizeof p->tool - 1))
        return qp_err_set(err, QP_E_INPUT, "%s: the part of '%s' has no end record (an end record of '%s' follows)", rd->name, p->tool, tool);
    int has = qp_record_i64(rec, "records", &records, err);
    if (has < 0 || qp_record_str(rec, "xxh64", &sum, err) < 0)
        return err->code;
    if (has && records != p->records)
        return qp_err_set(err, QP_E_INPUT, "%s: the part of '%s' has %" PRId64 " records, its end record says %" PRId64, rd->name, p->tool,
                          p->records, records);
    char mine[17];
    snprintf(mine, sizeof mine, "%016" PRIx64, qp_xxh64_value(p->hash));
    if (sum && strcmp(sum, mine))
        return qp_err_set(err, QP_E_INPUT, "%s: the part of '%s' is corrupt: checksum %s, its end record says %s", rd->name, p->tool, mine, sum);
    qp_xxh64_free(p->hash);
    rd->depth--;
    rd->n_parts_done++;
    return 0;
}

/* An end record is not part of what it counts, but it is of the parts around it. */
static int account(struct qp_reader *rd, const struct qp_record *rec, struct qp_err *err)
{
    bool head = qp_record_is(rec, "head"), end = qp_record_is(rec, "end");
    if (!head && !rd->depth)
        return qp_err_set(err, QP_E_INPUT, "%s: a '%s' record outside of any tool's part, expected a head record", rd->name, rec->type);
    int r = head ? open_part(rd, rec, err) : end ? close_part(rd, rec, err) : 0;
    for (int i = 0; !r && i < rd->depth; i++) {
        qp_xxh64_add(rd->part[i].hash, rec->raw, rec->raw_bytes);
        rd->part[i].records++;
    }
    return r;
}

static int decode(struct qp_reader *rd, size_t n, struct qp_record *rec, struct qp_err *err)
{
    size_t off = 0;
    const char *raw = (const char *)rd->data + rd->begin;
    int r = msgpack_unpack_next(&rd->unpacked, raw, n, &off);
    if (r == MSGPACK_UNPACK_NOMEM_ERROR)
        return qp_err_set(err, QP_E_RESOURCE, "no memory to decode a record");
    if ((r != MSGPACK_UNPACK_SUCCESS && r != MSGPACK_UNPACK_EXTRA_BYTES) || off != n || rd->unpacked.data.type != MSGPACK_OBJECT_MAP)
        return qp_err_set(err, QP_E_INPUT, "%s: record %" PRId64 " is not a msgpack map", rd->name, rd->n_records + 1);
    *rec = (struct qp_record){.type = "", .raw = rd->data + rd->begin, .raw_bytes = n, .map = &rd->unpacked.data, .zone = rd->unpacked.zone};
    const char *type;
    if (qp_record_need_str(rec, "t", &type, err))
        return qp_err_context(err, "%s: record %" PRId64, rd->name, rd->n_records + 1);
    rec->type = type;
    return 0;
}

int qp_reader_next(struct qp_reader *rd, struct qp_record *rec, struct qp_err *err)
{
    size_t n = 0;
    int r = frame(rd, &n, err);
    if (r == 0 && (rd->depth || !rd->n_parts_done))
        return cut_off(rd, "between records", err);
    if (r <= 0)
        return r;
    if ((r = decode(rd, n, rec, err)) || (r = account(rd, rec, err)))
        return r;
    rd->begin += n;
    rd->n_records++;
    return 1;
}
