/* Getters over a decoded record, and its form as JSON. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "stream/internal.h"

bool qp_record_is(const struct qp_record *rec, const char *type)
{
    return !strcmp(rec->type, type);
}

const msgpack_object *qp_record_find(const struct qp_record *rec, const char *field)
{
    const msgpack_object *o = rec->map;
    size_t n = strlen(field);
    for (uint32_t i = 0; i < o->via.map.size; i++) {
        const msgpack_object *k = &o->via.map.ptr[i].key;
        if (k->type == MSGPACK_OBJECT_STR && k->via.str.size == n && !memcmp(k->via.str.ptr, field, n))
            return o->via.map.ptr[i].val.type == MSGPACK_OBJECT_NIL ? NULL : &o->via.map.ptr[i].val;
    }
    return NULL;
}

static int wrong(const struct qp_record *rec, const char *field, const char *expected, struct qp_err *err)
{
    return qp_err_set(err, QP_E_INPUT, "%s record: field '%s' is not %s", rec->type[0] ? rec->type : "a", field, expected);
}

static int as_i64(const msgpack_object *o, int64_t *out)
{
    if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER && o->via.u64 <= INT64_MAX)
        *out = (int64_t)o->via.u64;
    else if (o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        *out = o->via.i64;
    else
        return 0;
    return 1;
}

int qp_record_str(const struct qp_record *rec, const char *field, const char **out, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_STR || memchr(o->via.str.ptr, 0, o->via.str.size))
        return wrong(rec, field, "a string without zero bytes", err);
    char *copy = msgpack_zone_malloc(rec->zone, (size_t)o->via.str.size + 1);
    if (!copy)
        return qp_err_set(err, QP_E_RESOURCE, "no memory for field '%s'", field);
    memcpy(copy, o->via.str.ptr, o->via.str.size);
    copy[o->via.str.size] = 0;
    *out = copy;
    return 1;
}

int qp_record_i64(const struct qp_record *rec, const char *field, int64_t *out, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    return as_i64(o, out) ? 1 : wrong(rec, field, "a whole number below 2^63", err);
}

int qp_record_f64(const struct qp_record *rec, const char *field, double *out, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    int64_t i;
    if (!o)
        return 0;
    if (o->type == MSGPACK_OBJECT_FLOAT64 || o->type == MSGPACK_OBJECT_FLOAT32)
        *out = o->via.f64;
    else if (o->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        *out = (double)o->via.u64;
    else if (as_i64(o, &i))
        *out = (double)i;
    else
        return wrong(rec, field, "a number", err);
    return 1;
}

int qp_record_bool(const struct qp_record *rec, const char *field, bool *out, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_BOOLEAN)
        return wrong(rec, field, "a boolean", err);
    *out = o->via.boolean;
    return 1;
}

int qp_record_bin(const struct qp_record *rec, const char *field, const uint8_t **out, size_t *n, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_BIN)
        return wrong(rec, field, "binary", err);
    *out = (const uint8_t *)o->via.bin.ptr;
    *n = o->via.bin.size;
    return 1;
}

int qp_record_i64s(const struct qp_record *rec, const char *field, int64_t *out, size_t max, size_t *n, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > max)
        return wrong(rec, field, "a short array of whole numbers", err);
    for (uint32_t i = 0; i < o->via.array.size; i++)
        if (!as_i64(&o->via.array.ptr[i], &out[i]))
            return wrong(rec, field, "an array of whole numbers", err);
    *n = o->via.array.size;
    return 1;
}

int qp_record_f64s(const struct qp_record *rec, const char *field, double *out, size_t max, size_t *n, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    int64_t whole;
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > max)
        return wrong(rec, field, "a short array of numbers", err);
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        const msgpack_object *x = &o->via.array.ptr[i];
        if (x->type == MSGPACK_OBJECT_FLOAT64 || x->type == MSGPACK_OBJECT_FLOAT32)
            out[i] = x->via.f64;
        else if (x->type == MSGPACK_OBJECT_NIL)
            out[i] = NAN;
        else if (as_i64(x, &whole))
            out[i] = (double)whole;
        else
            return wrong(rec, field, "an array of numbers", err);
    }
    *n = o->via.array.size;
    return 1;
}

int qp_record_map(const struct qp_record *rec, const char *field, struct qp_record *out, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_MAP)
        return wrong(rec, field, "a map", err);
    *out = (struct qp_record){.type = "", .map = o, .zone = rec->zone};
    return 1;
}

int qp_record_at(const struct qp_record *rec, const char *field, size_t i, struct qp_record *out, struct qp_err *err)
{
    const msgpack_object *o = qp_record_find(rec, field);
    if (!o)
        return 0;
    if (o->type != MSGPACK_OBJECT_ARRAY)
        return wrong(rec, field, "an array", err);
    if (i >= o->via.array.size)
        return 0;
    if (o->via.array.ptr[i].type != MSGPACK_OBJECT_MAP)
        return wrong(rec, field, "an array of maps", err);
    *out = (struct qp_record){.type = "", .map = &o->via.array.ptr[i], .zone = rec->zone};
    return 1;
}

static int need(int r, const struct qp_record *rec, const char *field, struct qp_err *err)
{
    if (r == 0)
        return qp_err_set(err, QP_E_INPUT, "%s record: field '%s' is missing", rec->type[0] ? rec->type : "a", field);
    return r < 0 ? r : 0;
}

int qp_record_need_str(const struct qp_record *rec, const char *field, const char **out, struct qp_err *err)
{
    return need(qp_record_str(rec, field, out, err), rec, field, err);
}

int qp_record_need_i64(const struct qp_record *rec, const char *field, int64_t *out, struct qp_err *err)
{
    return need(qp_record_i64(rec, field, out, err), rec, field, err);
}

int qp_record_need_f64(const struct qp_record *rec, const char *field, double *out, struct qp_err *err)
{
    return need(qp_record_f64(rec, field, out, err), rec, field, err);
}

/* ---- records that outlive their reader's next one ---- */

struct kept {
    struct qp_record rec; /* first: callers hold this */
    msgpack_unpacked unpacked;
    uint8_t raw[];
};

int qp_record_keep(struct qp_record **out, const struct qp_record *rec, struct qp_err *err)
{
    struct kept *k = qp_alloc(sizeof *k + rec->raw_bytes, "a record", err);
    size_t off = 0;
    *out = NULL;
    if (!k)
        return QP_E_RESOURCE;
    memcpy(k->raw, rec->raw, rec->raw_bytes);
    msgpack_unpacked_init(&k->unpacked);
    if (msgpack_unpack_next(&k->unpacked, (const char *)k->raw, rec->raw_bytes, &off) == MSGPACK_UNPACK_NOMEM_ERROR) {
        qp_free(k);
        return qp_err_set(err, QP_E_RESOURCE, "no memory to keep a record");
    }
    k->rec = (struct qp_record){.type = "", .raw = k->raw, .raw_bytes = rec->raw_bytes, .map = &k->unpacked.data, .zone = k->unpacked.zone};
    if (qp_record_need_str(&k->rec, "t", &k->rec.type, err)) {
        qp_record_free(&k->rec);
        return err->code;
    }
    *out = &k->rec;
    return 0;
}

void qp_record_free(struct qp_record *rec)
{
    struct kept *k = (struct kept *)rec;
    if (!k)
        return;
    msgpack_unpacked_destroy(&k->unpacked);
    qp_free(k);
}

/* ---- JSON ---- */

/* Bytes of the UTF-8 character at s, 0 when there is none (overlong forms, surrogates and more than U+10FFFF included). */
static size_t utf8_bytes(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (!len || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f);
    return bad ? 0 : len;
}

static void json_string(struct qp_buf *out, const char *s, size_t n)
{
    qp_buf_adds(out, "\"");
    for (size_t i = 0, len; i < n; i += len ? len : 1) {
        unsigned char c = (unsigned char)s[i];
        len = utf8_bytes(s + i, n - i);
        if (c == '"' || c == '\\')
            qp_buf_addf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            qp_buf_addf(out, "\\u%04x", c);
        else if (len == 2 && c == 0xc2 && (unsigned char)s[i + 1] < 0xa0) /* controls that some terminals obey */
            qp_buf_addf(out, "\\u%04x", (unsigned char)s[i + 1]);
        else if (len)
            qp_buf_add(out, &s[i], len);
        else
            qp_buf_adds(out, "\xef\xbf\xbd"); /* JSON is UTF-8: U+FFFD in place of what is not */
    }
    qp_buf_adds(out, "\"");
}

static void json_bin(struct qp_buf *out, const uint8_t *p, size_t n, size_t max)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t shown = n < max ? n : max;
    qp_buf_adds(out, "{\"bin\":\"");
    for (size_t i = 0; i < shown; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < shown ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < shown ? p[i + 2] : 0);
        char quad[4] = {digits[v >> 18], digits[v >> 12 & 63], i + 1 < shown ? digits[v >> 6 & 63] : '=', i + 2 < shown ? digits[v & 63] : '='};
        qp_buf_add(out, quad, 4);
    }
    qp_buf_addf(out, "\",\"bytes\":%zu}", n);
}

static void json_f64(struct qp_buf *out, double v)
{
    char text[40];
    if (!isfinite(v)) {
        qp_buf_adds(out, "null");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) { /* the shortest that reads back the same */
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    qp_buf_adds(out, text);
}

/* JSON's keys are strings. What a key holds is not shown: quoting quotes doubles the text at each depth, so 300 bytes could become gigabytes. */
static void json_odd_key(struct qp_buf *out, const msgpack_object *k)
{
    if (k->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
        qp_buf_addf(out, "\"%" PRIu64 "\"", k->via.u64);
    else if (k->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
        qp_buf_addf(out, "\"%" PRId64 "\"", k->via.i64);
    else
        qp_buf_addf(out, "\"(key of msgpack type %d)\"", (int)k->type);
}

static void json(struct qp_buf *out, const msgpack_object *o, size_t max_bin)
{
    switch (o->type) {
    case MSGPACK_OBJECT_BOOLEAN:
        qp_buf_adds(out, o->via.boolean ? "true" : "false");
        break;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
        qp_buf_addf(out, "%" PRIu64, o->via.u64);
        break;
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        qp_buf_addf(out, "%" PRId64, o->via.i64);
        break;
    case MSGPACK_OBJECT_FLOAT32:
    case MSGPACK_OBJECT_FLOAT64:
        json_f64(out, o->via.f64);
        break;
    case MSGPACK_OBJECT_STR:
        json_string(out, o->via.str.ptr, o->via.str.size);
        break;
    case MSGPACK_OBJECT_BIN:
        json_bin(out, (const uint8_t *)o->via.bin.ptr, o->via.bin.size, max_bin);
        break;
    case MSGPACK_OBJECT_EXT:
        json_bin(out, (const uint8_t *)o->via.ext.ptr, o->via.ext.size, max_bin);
        break;
    case MSGPACK_OBJECT_ARRAY:
        qp_buf_adds(out, "[");
        for (uint32_t i = 0; i < o->via.array.size; i++) {
            qp_buf_adds(out, i ? "," : "");
            json(out, &o->via.array.ptr[i], max_bin);
        }
        qp_buf_adds(out, "]");
        break;
    case MSGPACK_OBJECT_MAP:
        qp_buf_adds(out, "{");
        for (uint32_t i = 0; i < o->via.map.size; i++) {
            const msgpack_object *k = &o->via.map.ptr[i].key;
            qp_buf_adds(out, i ? "," : "");
            if (k->type == MSGPACK_OBJECT_STR)
                json_string(out, k->via.str.ptr, k->via.str.size);
            else
                json_odd_key(out, k);
            qp_buf_adds(out, ":");
            json(out, &o->via.map.ptr[i].val, max_bin);
        }
        qp_buf_adds(out, "}");
        break;
    default:
        qp_buf_adds(out, "null");
    }
}

void qp_record_json(const struct qp_record *rec, size_t max_bin, struct qp_buf *out)
{
    json(out, rec->map, max_bin);
}

int qp_record_field(const struct qp_record *rec, size_t *pos, const char **name, struct qp_buf *value)
{
    const msgpack_object *o = rec->map;
    for (; *pos < o->via.map.size; ++*pos) {
        const msgpack_object_kv *kv = &o->via.map.ptr[*pos];
        if (kv->key.type != MSGPACK_OBJECT_STR)
            continue;
        char *copy = msgpack_zone_malloc(rec->zone, (size_t)kv->key.via.str.size + 1);
        if (!copy)
            return 0;
        memcpy(copy, kv->key.via.str.ptr, kv->key.via.str.size);
        copy[kv->key.via.str.size] = 0;
        *name = copy;
        qp_buf_clear(value);
        if (kv->val.type == MSGPACK_OBJECT_STR)
            qp_buf_add(value, kv->val.via.str.ptr, kv->val.via.str.size);
        else
            json(value, &kv->val, 32);
        ++*pos;
        return 1;
    }
    return 0;
}
