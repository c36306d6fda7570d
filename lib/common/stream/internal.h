/* What record.c and writer.c share. Private to stream/. */
#ifndef QP_STREAM_INTERNAL_H
#define QP_STREAM_INTERNAL_H

#include <msgpack.h>

#include "stream/stream.h"

/* NULL: absent or nil. */
const msgpack_object *qp_record_find(const struct qp_record *rec, const char *field);

#endif
