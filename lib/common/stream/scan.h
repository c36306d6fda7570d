/* The length of one msgpack object at the start of a buffer, found without decoding it: framing for a reader that trusts no length. */
#ifndef QP_STREAM_SCAN_H
#define QP_STREAM_SCAN_H

#include <stddef.h>
#include <stdint.h>

enum { QP_SCAN_MORE = 0, QP_SCAN_DONE = 1, QP_SCAN_BAD = -1, QP_SCAN_BIG = -2, QP_SCAN_DEEP = -3, QP_SCAN_MANY = -4 };

/* State of a scan that may be continued when more bytes have come; zero-initialize for each object. */
struct qp_scan {
    size_t pos;          /* bytes that are understood so far; the object's length once done */
    int depth;
    uint64_t values;     /* announced so far, at all depths */
    uint64_t left[32];   /* objects still to come at each depth */
};

/* data[0..n) from the object's first byte on. QP_SCAN_BIG as soon as the object must be longer than max, QP_SCAN_MANY as soon as it must hold
 * more than max_values. */
int qp_scan(struct qp_scan *s, const uint8_t *data, size_t n, size_t max, uint64_t max_values);

#endif
