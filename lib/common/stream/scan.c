#include "stream/scan.h"

static uint64_t big_endian(const uint8_t *p, int n)
{
    uint64_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* What a first byte announces: bytes of a length field, payload bytes that are known at once, children. */
struct head {
    int length_bytes;
    uint64_t payload, children;
    enum { LEAF, BLOB, ARRAY, MAP, EXT, INVALID } kind;
};

static struct head classify(uint8_t b)
{
    if (b <= 0x7f || b >= 0xe0 || b == 0xc0 || b == 0xc2 || b == 0xc3)
        return (struct head){.kind = LEAF};
    if (b <= 0x8f)
        return (struct head){.kind = MAP, .children = 2u * (b & 15)};
    if (b <= 0x9f)
        return (struct head){.kind = ARRAY, .children = b & 15};
    if (b <= 0xbf)
        return (struct head){.kind = LEAF, .payload = b & 31};
    switch (b) {
    case 0xc4: case 0xd9: return (struct head){.kind = BLOB, .length_bytes = 1};
    case 0xc5: case 0xda: return (struct head){.kind = BLOB, .length_bytes = 2};
    case 0xc6: case 0xdb: return (struct head){.kind = BLOB, .length_bytes = 4};
    case 0xc7: return (struct head){.kind = EXT, .length_bytes = 1};
    case 0xc8: return (struct head){.kind = EXT, .length_bytes = 2};
    case 0xc9: return (struct head){.kind = EXT, .length_bytes = 4};
    case 0xcc: case 0xd0: return (struct head){.kind = LEAF, .payload = 1};
    case 0xcd: case 0xd1: return (struct head){.kind = LEAF, .payload = 2};
    case 0xca: case 0xce: case 0xd2: return (struct head){.kind = LEAF, .payload = 4};
    case 0xcb: case 0xcf: case 0xd3: return (struct head){.kind = LEAF, .payload = 8};
    case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8:
        return (struct head){.kind = LEAF, .payload = 1 + (1u << (b - 0xd4))};
    case 0xdc: return (struct head){.kind = ARRAY, .length_bytes = 2};
    case 0xdd: return (struct head){.kind = ARRAY, .length_bytes = 4};
    case 0xde: return (struct head){.kind = MAP, .length_bytes = 2};
    case 0xdf: return (struct head){.kind = MAP, .length_bytes = 4};
    default: return (struct head){.kind = INVALID};
    }
}

int qp_scan(struct qp_scan *s, const uint8_t *data, size_t n, size_t max, uint64_t max_values)
{
    for (;;) {
        if (s->pos >= n)
            return s->pos > max ? QP_SCAN_BIG : QP_SCAN_MORE;
        struct head h = classify(data[s->pos]);
        if (h.kind == INVALID)
            return QP_SCAN_BAD;
        if (n - s->pos < 1 + (size_t)h.length_bytes)
            return QP_SCAN_MORE;
        uint64_t length = big_endian(data + s->pos + 1, h.length_bytes), skip = 1 + (uint64_t)h.length_bytes + h.payload;
        if (h.kind == BLOB)
            skip += length;
        else if (h.kind == EXT)
            skip += length + 1;
        else if (h.kind == ARRAY && h.length_bytes)
            h.children = length;
        else if (h.kind == MAP && h.length_bytes)
            h.children = 2 * length;
        if (s->pos + skip + h.children > max) /* each child takes a byte at least */
            return QP_SCAN_BIG;
        if (s->values + h.children > max_values)
            return QP_SCAN_MANY;
        if (s->pos + skip > n)
            return QP_SCAN_MORE;
        s->pos += skip;
        s->values += h.children;
        if (h.children) {
            if (s->depth == 32)
                return QP_SCAN_DEEP;
            s->left[s->depth++] = h.children;
            continue;
        }
        while (s->depth && --s->left[s->depth - 1] == 0)
            s->depth--;
        if (!s->depth)
            return QP_SCAN_DONE;
    }
}
