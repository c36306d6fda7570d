/* The record stream: concatenated msgpack maps, each with its type in `t`. docs/WIRE.md lists every record and field.
 *
 * A tool's part of a stream is bracketed by its `head` and its `end`; parts nest, because a tool writes its head before it
 * passes on what it reads. `end` carries the number of records and the XXH64 of all bytes between (head included), which the
 * reader checks for every open part. A part without its end was cut off: the error names the tool.
 *
 *     struct qp_record rec;
 *     int r;
 *     while ((r = qp_reader_next(rd, &rec, err)) == 1)
 *         if (qp_record_is(&rec, "model") && qp_record_str(&rec, "path", &path, err) == 1) ...
 *     if (r < 0) return r;
 */
#ifndef QP_STREAM_STREAM_H
#define QP_STREAM_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"

#define QP_STREAM_MAGIC "quantpipe"
#define QP_STREAM_VERSION 1
#define QP_RECORD_MAX_BYTES (16u << 20) /* a longer record is refused before memory is taken for it */
#define QP_RECORD_MAX_VALUES (1u << 20)   /* values in a record, keys counted: decoding takes 24 bytes for each, whatever its length */
#define QP_TENSOR_CHUNK_BYTES (4u << 20) /* greatest `data` of a tensor record */

/* ---- reading ---- */

struct qp_reader;

struct qp_record {
    const char *type;    /* value of `t`, zero-terminated */
    const uint8_t *raw;  /* the record's bytes; valid until the next qp_reader_next */
    size_t raw_bytes;
    const void *map;     /* decoded form, for the getters below */
    void *zone;          /* where getters keep zero-terminated copies */
};

/* fd stays the caller's. name is used in messages ("standard input", a path). */
int qp_reader_new(struct qp_reader **out, int fd, const char *name, struct qp_err *err) QP_MUST_USE;
void qp_reader_free(struct qp_reader *rd);
/* 1 and *rec, 0 at a complete end of the stream, QP_E_INPUT when the stream is cut off, corrupt, or checks fail. Empty input is cut off. */
int qp_reader_next(struct qp_reader *rd, struct qp_record *rec, struct qp_err *err) QP_MUST_USE;

/* A copy that outlives the reader's next record; for qp_record_free. */
int qp_record_keep(struct qp_record **out, const struct qp_record *rec, struct qp_err *err) QP_MUST_USE;
void qp_record_free(struct qp_record *rec);

bool qp_record_is(const struct qp_record *rec, const char *type);
/* Getters: 1 found, 0 absent or nil, QP_E_INPUT when the field has another type or a value out of range (the message names
 * record and field). Strings and binaries are borrowed from the record. Strings with a zero byte inside are refused. */
int qp_record_str(const struct qp_record *rec, const char *field, const char **out, struct qp_err *err) QP_MUST_USE;
int qp_record_i64(const struct qp_record *rec, const char *field, int64_t *out, struct qp_err *err) QP_MUST_USE;
int qp_record_f64(const struct qp_record *rec, const char *field, double *out, struct qp_err *err) QP_MUST_USE; /* ints convert */
int qp_record_bool(const struct qp_record *rec, const char *field, bool *out, struct qp_err *err) QP_MUST_USE;
int qp_record_bin(const struct qp_record *rec, const char *field, const uint8_t **out, size_t *n, struct qp_err *err) QP_MUST_USE;
/* Array of integers (shape): at most max of them into out, count in *n. */
int qp_record_i64s(const struct qp_record *rec, const char *field, int64_t *out, size_t max, size_t *n, struct qp_err *err) QP_MUST_USE;
/* Array of numbers (scores), as qp_record_i64s; nil is NaN, which is how other languages write it. */
int qp_record_f64s(const struct qp_record *rec, const char *field, double *out, size_t max, size_t *n, struct qp_err *err) QP_MUST_USE;
/* A field that is a map, as a record of its own (type ""), for nested getters (detail, config). */
int qp_record_map(const struct qp_record *rec, const char *field, struct qp_record *out, struct qp_err *err) QP_MUST_USE;
/* Element i of a field that is an array of maps (checks); 0 past its end. */
int qp_record_at(const struct qp_record *rec, const char *field, size_t i, struct qp_record *out, struct qp_err *err) QP_MUST_USE;
/* As above, but absent is QP_E_INPUT too ("model record: field 'id' is missing"). 0 on success. */
int qp_record_need_str(const struct qp_record *rec, const char *field, const char **out, struct qp_err *err) QP_MUST_USE;
int qp_record_need_i64(const struct qp_record *rec, const char *field, int64_t *out, struct qp_err *err) QP_MUST_USE;
int qp_record_need_f64(const struct qp_record *rec, const char *field, double *out, struct qp_err *err) QP_MUST_USE;

/* The record as one line of JSON, appended: binaries as {"bin":"base64..."} cut after max_bin bytes ("bytes" gives the true
 * length); NaN and infinities as null. */
void qp_record_json(const struct qp_record *rec, size_t max_bin, struct qp_buf *out);

/* Iterates the fields in order: 1 and name/value printed as text, 0 at the end. *pos starts at 0. */
int qp_record_field(const struct qp_record *rec, size_t *pos, const char **name, struct qp_buf *value);

/* ---- writing ---- */

/* The writer is sticky: after the first error every call does nothing and qp_writer_finish reports it. EPIPE is QP_E_PIPE. */
struct qp_writer;
int qp_writer_new(struct qp_writer **out, int fd, struct qp_err *err) QP_MUST_USE; /* fd -1: count and hash, write nothing */
void qp_writer_free(struct qp_writer *w);

/* A record: begin, fields in any order, end. Fields are buffered, so the count need not be known. */
void qp_w_begin(struct qp_writer *w, const char *type);
void qp_w_str(struct qp_writer *w, const char *field, const char *value);  /* NULL writes nil */
void qp_w_i64(struct qp_writer *w, const char *field, int64_t value);
void qp_w_u64(struct qp_writer *w, const char *field, uint64_t value);
void qp_w_f64(struct qp_writer *w, const char *field, double value);
void qp_w_bool(struct qp_writer *w, const char *field, bool value);
void qp_w_bin(struct qp_writer *w, const char *field, const void *data, size_t n);
void qp_w_i64s(struct qp_writer *w, const char *field, const int64_t *v, size_t n);
void qp_w_f64s(struct qp_writer *w, const char *field, const double *v, size_t n);
void qp_w_strs(struct qp_writer *w, const char *field, const char *const *v, size_t n);
/* Nested map under `field`: fields until the matching qp_w_map_end. Nests at most 8 deep. */
void qp_w_map_begin(struct qp_writer *w, const char *field);
void qp_w_map_end(struct qp_writer *w);
/* Array of maps under `field`: each element between qp_w_map_begin(w, NULL) and qp_w_map_end. */
void qp_w_array_begin(struct qp_writer *w, const char *field);
void qp_w_array_end(struct qp_writer *w);
void qp_w_end(struct qp_writer *w);

/* Passes a record on, byte for byte. */
void qp_w_copy(struct qp_writer *w, const struct qp_record *rec);
/* From now on each record's bytes go to *copy, too; NULL: no longer. */
void qp_w_tee(struct qp_writer *w, struct qp_buf *copy);
/* Records that a tee caught, once more. QP_E_INPUT: no whole records. */
int qp_w_records(struct qp_writer *w, const void *data, size_t n, struct qp_err *err) QP_MUST_USE;
/* A field of a record that was read, under the same name in the record or map that is being written; nothing where it is absent. */
void qp_w_field(struct qp_writer *w, const struct qp_record *rec, const char *field);

/* The tool's `head` and `end` (qp_tool_main calls them). status: "ok" or "interrupted". */
void qp_w_head(struct qp_writer *w, const char *tool, int argc, char *const *argv, int64_t seed);
void qp_w_tail(struct qp_writer *w, const char *tool, const char *status);
int qp_writer_flush(struct qp_writer *w, struct qp_err *err) QP_MUST_USE;
/* First error so far, or 0. */
int qp_writer_check(const struct qp_writer *w, struct qp_err *err) QP_MUST_USE;

#endif
