#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { T_U8, T_I8, T_U16, T_I16, T_U32, T_I32, T_F32, T_BOOL, T_STR, T_ARRAY, T_U64, T_I64, T_F64, T_COUNT };
static const uint8_t scalar_bytes[T_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

#define MAX_STRING (64u << 20)
#define MAX_DEPTH 2

struct kv {
    const char *key; /* owned copy */
    const char *text; /* owned copy of a string value */
    const uint8_t *value; /* array: behind its type and count */
    const uint8_t *raw;   /* key, type and value, raw_bytes long */
    size_t raw_bytes;
    uint32_t type, elem;
    uint64_t count;
};

struct qp_gguf {
    struct qp_map map;
    char *path;
    struct kv *kv;
    size_t n_kv, n_kv_cap;
    struct qp_tensor *tensors;
    size_t n, n_cap;
    char **owned; /* strings */
    size_t n_owned, owned_cap;
};

struct cursor {
    struct qp_gguf *g;
    const uint8_t *p, *begin, *end;
    struct qp_err *err;
};

static int bad(struct cursor *c, const char *what)
{
    return qp_err_set(c->err, QP_E_INPUT, "'%s' is cut off or no GGUF file: %s at byte %zu", c->g->path, what, (size_t)(c->p - c->begin));
}

static int take(struct cursor *c, void *out, size_t n, const char *what)
{
    if ((size_t)(c->end - c->p) < n)
        return bad(c, what);
    if (out)
        memcpy(out, c->p, n);
    c->p += n;
    return 0;
}

static const char *own(struct qp_gguf *g, const uint8_t *p, size_t n, struct qp_err *err)
{
    if (g->n_owned == g->owned_cap) {
        size_t cap = g->owned_cap ? 2 * g->owned_cap : 64;
        char **grown = realloc(g->owned, cap * sizeof *grown);
        if (!grown) {
            qp_err_set(err, QP_E_RESOURCE, "no memory for the strings of '%s'", g->path);
            return NULL;
        }
        g->owned = grown;
        g->owned_cap = cap;
    }
    char *s = malloc(n + 1);
    if (!s) {
        qp_err_set(err, QP_E_RESOURCE, "no memory for the strings of '%s'", g->path);
        return NULL;
    }
    memcpy(s, p, n);
    s[n] = 0;
    return g->owned[g->n_owned++] = s;
}

static int take_string(struct cursor *c, const char **out)
{
    uint64_t n = 0;
    if (take(c, &n, 8, "string length"))
        return c->err->code;
    if (n > MAX_STRING || n > (uint64_t)(c->end - c->p))
        return bad(c, "a string that leaves the file");
    if (out && (memchr(c->p, 0, n) || !(*out = own(c->g, c->p, n, c->err))))
        return c->err->code ? c->err->code : bad(c, "a zero byte in a string");
    c->p += n;
    return 0;
}

static int skip_value(struct cursor *c, uint32_t type, int depth);

static int skip_array(struct cursor *c, uint32_t elem, uint64_t count, int depth)
{
    if (elem >= T_COUNT || depth > MAX_DEPTH)
        return bad(c, "an array of an unknown type");
    if (scalar_bytes[elem]) {
        if (count > (uint64_t)(c->end - c->p) / scalar_bytes[elem])
            return bad(c, "an array that leaves the file");
        c->p += count * scalar_bytes[elem];
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) /* each element takes 8 bytes at least, so this ends with the file */
        if (skip_value(c, elem, depth))
            return c->err->code;
    return 0;
}

static int skip_value(struct cursor *c, uint32_t type, int depth)
{
    uint32_t elem;
    uint64_t count;
    if (type >= T_COUNT)
        return bad(c, "metadata of an unknown type");
    if (type == T_STR)
        return take_string(c, NULL);
    if (type != T_ARRAY)
        return take(c, NULL, scalar_bytes[type], "metadata value");
    if (take(c, &elem, 4, "array type") || take(c, &count, 8, "array length"))
        return c->err->code;
    return skip_array(c, elem, count, depth + 1);
}

static int take_value(struct cursor *c, struct kv *kv)
{
    if (take_string(c, &kv->key) || take(c, &kv->type, 4, "metadata type"))
        return c->err->code;
    kv->value = c->p;
    if (kv->type == T_STR)
        return take_string(c, &kv->text) ? c->err->code : 0;
    if (kv->type == T_ARRAY) {
        if (take(c, &kv->elem, 4, "array type") || take(c, &kv->count, 8, "array length"))
            return c->err->code;
        kv->value = c->p;
        return skip_array(c, kv->elem, kv->count, 1);
    }
    return skip_value(c, kv->type, 0);
}

static int take_kv(struct cursor *c, struct kv *kv)
{
    *kv = (struct kv){.raw = c->p};
    if (take_value(c, kv))
        return c->err->code;
    kv->raw_bytes = (size_t)(c->p - kv->raw);
    return 0;
}

/* ggml type numbers */
static const struct {
    uint32_t type;
    enum qp_dtype dtype;
} types[] = {{0, QP_DT_F32},   {1, QP_DT_F16},   {2, QP_DT_Q4_0},  {3, QP_DT_Q4_1},  {6, QP_DT_Q5_0},  {7, QP_DT_Q5_1}, {8, QP_DT_Q8_0},
             {12, QP_DT_Q4_K}, {13, QP_DT_Q5_K}, {14, QP_DT_Q6_K}, {24, QP_DT_I8},   {25, QP_DT_I16},  {26, QP_DT_I32}, {27, QP_DT_I64},
             {28, QP_DT_F64},  {30, QP_DT_BF16}};

static int dtype_of(uint32_t type)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type)
            return (int)types[i].dtype;
    return -1;
}

int qp_gguf_type(enum qp_dtype dtype)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == dtype)
            return (int)types[i].type;
    return -1;
}

static int take_tensor(struct cursor *c, struct qp_tensor *t, uint64_t *offset)
{
    uint32_t ndim, type;
    *t = (struct qp_tensor){0};
    if (take_string(c, &t->name) || take(c, &ndim, 4, "dimension count"))
        return c->err->code;
    if (ndim > QP_MAX_DIMS)
        return qp_err_set(c->err, QP_E_INPUT, "'%s': tensor '%s' has %u dimensions, at most %d are known", c->g->path, t->name, ndim, QP_MAX_DIMS);
    size_t elems = 1;
    for (uint32_t i = 0; i < ndim; i++) {
        uint64_t d;
        if (take(c, &d, 8, "dimension"))
            return c->err->code;
        if (d > INT64_MAX || !qp_mul(elems, d, &elems))
            return qp_err_set(c->err, QP_E_INPUT, "'%s': tensor '%s' has absurd dimensions", c->g->path, t->name);
        t->shape[ndim - 1 - i] = (int64_t)d;
    }
    t->ndim = (int)ndim;
    if (take(c, &type, 4, "tensor type") || take(c, offset, 8, "tensor offset"))
        return c->err->code;
    int dtype = dtype_of(type);
    if (dtype < 0)
        return qp_err_set(c->err, QP_E_INPUT,
                          "'%s': tensor '%s' has GGUF type %u, which is not supported; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, "
                          "Q5_K, Q6_K", c->g->path, t->name, type);
    t->dtype = (enum qp_dtype)dtype;
    const struct qp_dtype_info *info = &qp_dtype_info[dtype];
    int64_t last = ndim ? t->shape[ndim - 1] : 1;
    if (last % info->block_elems || !qp_mul(elems / (size_t)info->block_elems, (size_t)info->block_bytes, &t->bytes))
        return qp_err_set(c->err, QP_E_INPUT, "'%s': tensor '%s': rows of %lld do not divide into %s blocks", c->g->path, t->name, (long long)last, info->name);
    return 0;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct kv *)a)->key, ((const struct kv *)b)->key);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct qp_tensor *)a)->name, ((const struct qp_tensor *)b)->name);
}

static const struct kv *find(const struct qp_gguf *g, const char *key)
{
    struct kv k = {.key = key};
    return g->n_kv ? bsearch(&k, g->kv, g->n_kv, sizeof k, by_key) : NULL;
}

static int check_unique(const struct qp_gguf *g, struct qp_err *err)
{
    for (size_t i = 1; i < g->n_kv; i++)
        if (!by_key(&g->kv[i - 1], &g->kv[i]))
            return qp_err_set(err, QP_E_INPUT, "'%s': metadata key '%s' is there twice", g->path, g->kv[i].key);
    for (size_t i = 1; i < g->n; i++)
        if (!by_name(&g->tensors[i - 1], &g->tensors[i]))
            return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' is there twice", g->path, g->tensors[i].name);
    return 0;
}

static int place_tensors(struct cursor *c, const uint64_t *offsets)
{
    struct qp_gguf *g = c->g;
    int64_t align = 32;
    if (qp_gguf_i64(g, "general.alignment", &align, c->err) < 0)
        return c->err->code;
    if (align < 1 || align > 1 << 20 || (align & (align - 1)))
        return qp_err_set(c->err, QP_E_INPUT, "'%s': general.alignment is %lld, expected a power of two", g->path, (long long)align);
    size_t base = ((size_t)(c->p - c->begin) + (size_t)align - 1) & ~((size_t)align - 1), size = (size_t)(c->end - c->begin);
    for (size_t i = 0; i < g->n; i++) {
        struct qp_tensor *t = &g->tensors[i];
        size_t begin, end;
        if (!qp_add(base, offsets[i], &begin) || !qp_add(begin, t->bytes, &end) || end > size)
            return qp_err_set(c->err, QP_E_INPUT, "'%s' is cut off: tensor '%s' ends beyond the file's %zu bytes", g->path, t->name, size);
        t->data = c->begin + begin;
    }
    return 0;
}

static int parse(struct qp_gguf *g, const uint8_t *p, size_t n, struct qp_err *err)
{
    struct cursor c = {g, p, p, p + n, err};
    uint32_t magic = 0, version = 0;
    uint64_t n_tensors = 0, n_kv = 0;
    if (take(&c, &magic, 4, "magic") || take(&c, &version, 4, "version"))
        return err->code;
    if (magic != 0x46554747u)
        return qp_err_set(err, QP_E_INPUT, "'%s' is no GGUF file", g->path);
    if (version < 2 || version > 3)
        return qp_err_set(err, QP_E_INPUT, "'%s' is GGUF version %u, supported are 2 and 3 (little-endian)", g->path, version);
    if (take(&c, &n_tensors, 8, "tensor count") || take(&c, &n_kv, 8, "metadata count"))
        return err->code;
    if (n_tensors > n / 24 || n_kv > n / 13) /* the fewest bytes that one can take */
        return qp_err_set(err, QP_E_INPUT, "'%s' claims %llu tensors and %llu metadata keys in %zu bytes", g->path, (unsigned long long)n_tensors,
                          (unsigned long long)n_kv, n);
    g->kv = qp_alloc_n(n_kv + 1, sizeof *g->kv, "metadata", err);
    g->tensors = qp_alloc_n(n_tensors + 1, sizeof *g->tensors, "tensor list", err);
    uint64_t *offsets = qp_alloc_n(n_tensors + 1, sizeof *offsets, "tensor list", err);
    int r = g->kv && g->tensors && offsets ? 0 : QP_E_RESOURCE;
    for (; !r && g->n_kv < n_kv; g->n_kv += !r)
        r = take_kv(&c, &g->kv[g->n_kv]);
    if (!r && n_kv)
        qsort(g->kv, g->n_kv, sizeof *g->kv, by_key);
    for (; !r && g->n < n_tensors; g->n += !r)
        r = take_tensor(&c, &g->tensors[g->n], &offsets[g->n]);
    if (!r)
        r = place_tensors(&c, offsets);
    if (!r && g->n)
        qsort(g->tensors, g->n, sizeof *g->tensors, by_name);
    if (!r)
        r = check_unique(g, err);
    qp_free(offsets);
    return r;
}

static int open_over(struct qp_gguf **out, struct qp_gguf *g, const void *data, size_t bytes, struct qp_err *err)
{
    int r = parse(g, data, bytes, err);
    if (r) {
        qp_gguf_close(g);
        return r;
    }
    *out = g;
    return 0;
}

void qp_gguf_drop_pages(const struct qp_gguf *g)
{
    qp_map_drop(&g->map);
}

int qp_gguf_open(struct qp_gguf **out, const char *path, struct qp_err *err)
{
    *out = NULL;
    struct qp_gguf *g = qp_zalloc(sizeof *g, "GGUF reader", err);
    if (!g)
        return QP_E_RESOURCE;
    if (!(g->path = qp_strdup(path, err)) || qp_map_open(&g->map, path, err)) {
        qp_gguf_close(g);
        return err->code;
    }
    return open_over(out, g, g->map.data, g->map.bytes, err);
}

int qp_gguf_open_memory(struct qp_gguf **out, const void *data, size_t bytes, struct qp_err *err)
{
    *out = NULL;
    struct qp_gguf *g = qp_zalloc(sizeof *g, "GGUF reader", err);
    if (!g)
        return QP_E_RESOURCE;
    if (!(g->path = qp_strdup("memory", err))) {
        qp_gguf_close(g);
        return err->code;
    }
    return open_over(out, g, data, bytes, err);
}

void qp_gguf_close(struct qp_gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_owned; i++)
        free(g->owned[i]);
    free(g->owned);
    qp_free(g->kv);
    qp_free(g->tensors);
    qp_map_close(&g->map);
    qp_free(g->path);
    qp_free(g);
}

size_t qp_gguf_count(const struct qp_gguf *g)
{
    return g->n;
}

const struct qp_tensor *qp_gguf_at(const struct qp_gguf *g, size_t i)
{
    return &g->tensors[i];
}

const struct qp_tensor *qp_gguf_find(const struct qp_gguf *g, const char *name)
{
    struct qp_tensor key = {.name = name};
    return g->n ? bsearch(&key, g->tensors, g->n, sizeof key, by_name) : NULL;
}

size_t qp_gguf_n_entries(const struct qp_gguf *g)
{
    return g->n_kv;
}

struct qp_gguf_entry qp_gguf_entry_at(const struct qp_gguf *g, size_t i)
{
    return (struct qp_gguf_entry){g->kv[i].key, g->kv[i].raw, g->kv[i].raw_bytes};
}

static int wrong(const struct qp_gguf *g, const char *key, const char *expected, struct qp_err *err)
{
    return qp_err_set(err, QP_E_INPUT, "'%s': metadata '%s' is not %s", g->path, key, expected);
}

int qp_gguf_str(const struct qp_gguf *g, const char *key, const char **out, struct qp_err *err)
{
    const struct kv *kv = find(g, key);
    if (!kv)
        return 0;
    if (kv->type != T_STR)
        return wrong(g, key, "a string", err);
    *out = kv->text;
    return 1;
}

int qp_gguf_i64(const struct qp_gguf *g, const char *key, int64_t *out, struct qp_err *err)
{
    const struct kv *kv = find(g, key);
    if (!kv)
        return 0;
    uint64_t raw = 0;
    if (kv->type == T_STR || kv->type == T_ARRAY || kv->type == T_F32 || kv->type == T_F64 || kv->type == T_BOOL)
        return wrong(g, key, "a whole number", err);
    memcpy(&raw, kv->value, scalar_bytes[kv->type]);
    switch (kv->type) {
    case T_I8: *out = (int8_t)raw; break;
    case T_I16: *out = (int16_t)raw; break;
    case T_I32: *out = (int32_t)raw; break;
    default:
        if (kv->type == T_U64 && raw > INT64_MAX)
            return wrong(g, key, "a whole number below 2^63", err);
        *out = (int64_t)raw;
    }
    return 1;
}

int qp_gguf_f64(const struct qp_gguf *g, const char *key, double *out, struct qp_err *err)
{
    const struct kv *kv = find(g, key);
    if (!kv)
        return 0;
    float f;
    int64_t i = 0;
    if (kv->type == T_F32) {
        memcpy(&f, kv->value, 4);
        *out = (double)f;
    } else if (kv->type == T_F64)
        memcpy(out, kv->value, 8);
    else if (kv->type == T_STR || kv->type == T_ARRAY || kv->type == T_BOOL || qp_gguf_i64(g, key, &i, err) < 0)
        return wrong(g, key, "a number", err);
    else
        *out = (double)i;
    return 1;
}

int qp_gguf_bool(const struct qp_gguf *g, const char *key, bool *out, struct qp_err *err)
{
    const struct kv *kv = find(g, key);
    if (!kv)
        return 0;
    if (kv->type != T_BOOL)
        return wrong(g, key, "a boolean", err);
    *out = *kv->value != 0;
    return 1;
}

int qp_gguf_strs(struct qp_gguf *g, const char *key, const char ***out, size_t **lengths, size_t *n, struct qp_err *err)
{
    const struct kv *kv = find(g, key);
    if (!kv)
        return 0;
    if (kv->type != T_ARRAY || kv->elem != T_STR)
        return wrong(g, key, "an array of strings", err);
    const char **v = qp_alloc_n(kv->count + 1, sizeof *v, key, err);
    size_t *len = qp_alloc_n(kv->count + 1, sizeof *len, key, err);
    const uint8_t *p = kv->value; /* checked when the file was opened */
    for (uint64_t i = 0; v && len && i < kv->count; i++) {
        uint64_t bytes;
        memcpy(&bytes, p, 8);
        v[i] = own(g, p + 8, bytes, err);
        len[i] = bytes;
        p += 8 + bytes;
    }
    if (!v || !len || err->code) {
        qp_free((void *)v);
        qp_free(len);
        return QP_E_RESOURCE;
    }
    *out = v;
    *lengths = len;
    *n = kv->count;
    return 1;
}

static int array_of(const struct qp_gguf *g, const char *key, uint32_t elem, void **out, size_t *n, struct qp_err *err)
{
    const struct kv *kv = find(g, key);
    if (!kv)
        return 0;
    if (kv->type != T_ARRAY || kv->elem != elem)
        return wrong(g, key, elem == T_F32 ? "an array of float32" : "an array of int32", err);
    void *v = qp_alloc_n(kv->count + 1, 4, key, err);
    if (!v)
        return QP_E_RESOURCE;
    memcpy(v, kv->value, kv->count * 4);
    *out = v;
    *n = kv->count;
    return 1;
}

int qp_gguf_f32s(const struct qp_gguf *g, const char *key, float **out, size_t *n, struct qp_err *err)
{
    return array_of(g, key, T_F32, (void **)out, n, err);
}

int qp_gguf_i32s(const struct qp_gguf *g, const char *key, int32_t **out, size_t *n, struct qp_err *err)
{
    return array_of(g, key, T_I32, (void **)out, n, err);
}
