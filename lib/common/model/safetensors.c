/* Reading safetensors. Writing is in safetensors_write.c. */
#include "model/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

#define MAX_HEADER ((size_t)100 << 20)
#define MAX_TENSORS 1000000
#define MAX_SHARDS 4096

struct shard {
    char *path;
    struct qp_map map;
    json_t *header; /* owns the names */
};

struct qp_safetensors {
    struct shard *shards;
    size_t n_shards;
    struct qp_tensor *tensors; /* sorted by name once open */
    size_t n, cap;
    json_t *index; /* of a sharded model */
};

static const struct {
    const char *name;
    enum qp_dtype dtype;
} dtypes[] = {{"F32", QP_DT_F32}, {"F16", QP_DT_F16}, {"BF16", QP_DT_BF16}, {"F64", QP_DT_F64},       {"I8", QP_DT_I8},           {"U8", QP_DT_U8},
              {"I16", QP_DT_I16}, {"I32", QP_DT_I32}, {"I64", QP_DT_I64},   {"BOOL", QP_DT_BOOL}, {"F8_E4M3", QP_DT_F8_E4M3}, {"F8_E5M2", QP_DT_F8_E5M2}};

static int parse_dtype(const char *name)
{
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtypes[i].name, name))
            return (int)dtypes[i].dtype;
    return -1;
}

const char *qp_safetensors_dtype(enum qp_dtype dtype)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (dtypes[i].dtype == dtype)
            return dtypes[i].name;
    return NULL;
}

static int parse_shape(const char *file, const char *name, json_t *shape, struct qp_tensor *t, size_t *elems, struct qp_err *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > QP_MAX_DIMS)
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s': shape is not an array of at most %d sizes", file, name, QP_MAX_DIMS);
    *elems = 1;
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; i++) {
        json_t *d = json_array_get(shape, (size_t)i);
        json_int_t v = json_integer_value(d);
        if (!json_is_integer(d) || v < 0 || !qp_mul(*elems, (size_t)v, elems))
            return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s': bad size in its shape", file, name);
        t->shape[i] = v;
    }
    return 0;
}

static int parse_tensor(const char *file, const char *name, json_t *entry, const uint8_t *data, size_t bytes, struct qp_tensor *t, struct qp_err *err)
{
    json_t *off = json_object_get(entry, "data_offsets");
    int dtype = parse_dtype(json_string_value(json_object_get(entry, "dtype")));
    size_t elems, want;
    if (dtype < 0)
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s': unknown dtype", file, name);
    *t = (struct qp_tensor){.name = name, .dtype = (enum qp_dtype)dtype};
    if (parse_shape(file, name, json_object_get(entry, "shape"), t, &elems, err))
        return err->code;
    if (!json_is_array(off) || json_array_size(off) != 2 || !json_is_integer(json_array_get(off, 0)) || !json_is_integer(json_array_get(off, 1)))
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s': data_offsets is not a pair of numbers", file, name);
    json_int_t begin = json_integer_value(json_array_get(off, 0)), end = json_integer_value(json_array_get(off, 1));
    if (begin < 0 || end < begin || (uint64_t)end > bytes)
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s': offsets %lld to %lld lie outside of the %zu bytes of data", file, name, (long long)begin,
                          (long long)end, bytes);
    if (!qp_mul(elems, (size_t)qp_dtype_info[dtype].block_bytes, &want) || want != (size_t)(end - begin))
        return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s': %lld bytes do not hold its shape", file, name, (long long)(end - begin));
    t->data = data + begin;
    t->bytes = want;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct qp_tensor *)a)->name, ((const struct qp_tensor *)b)->name);
}

static int by_data(const void *a, const void *b)
{
    const struct qp_tensor *x = *(const struct qp_tensor *const *)a, *y = *(const struct qp_tensor *const *)b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The format allows neither overlaps nor holes. */
static int check_cover(const char *file, const struct qp_tensor *t, size_t n, const uint8_t *data, size_t bytes, struct qp_err *err)
{
    const struct qp_tensor **sorted = qp_alloc_n(n ? n : 1, sizeof *sorted, "tensor list", err);
    if (!sorted)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < n; i++)
        sorted[i] = &t[i];
    qsort(sorted, n, sizeof *sorted, by_data);
    const uint8_t *at = data;
    int r = 0;
    for (size_t i = 0; i < n && !r; i++) {
        const uint8_t *p = sorted[i]->data;
        if (p != at)
            r = qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' %s", file, sorted[i]->name, p < at ? "overlaps another" : "leaves a hole before it");
        at = p + sorted[i]->bytes;
    }
    if (!r && at != data + bytes)
        r = qp_err_set(err, QP_E_INPUT, "'%s': %zu bytes follow the last tensor", file, (size_t)(data + bytes - at));
    qp_free(sorted);
    return r;
}

static int reserve(struct qp_safetensors *st, size_t more, struct qp_err *err)
{
    if (st->n + more > MAX_TENSORS)
        return qp_err_set(err, QP_E_INPUT, "more than %d tensors", MAX_TENSORS);
    if (st->n + more > st->cap) {
        size_t cap = st->n + more + st->cap;
        struct qp_tensor *grown = qp_alloc_n(cap, sizeof *grown, "tensor list", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (st->n)
            memcpy(grown, st->tensors, st->n * sizeof *grown);
        qp_free(st->tensors);
        st->tensors = grown;
        st->cap = cap;
    }
    return 0;
}

static int parse_shard(struct qp_safetensors *st, const char *file, const uint8_t *p, size_t n, struct shard *shard, struct qp_err *err)
{
    uint64_t header = 0;
    if (n >= 8)
        memcpy(&header, p, 8);
    if (n < 8 || header > MAX_HEADER || header > n - 8)
        return qp_err_set(err, QP_E_INPUT, "'%s' is cut off or no safetensors file: its header claims %llu of %zu bytes", file, (unsigned long long)header, n);
    json_error_t je;
    shard->header = json_loadb((const char *)p + 8, header, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(shard->header))
        return qp_err_set(err, QP_E_INPUT, "'%s': bad JSON header: %s", file, shard->header ? "not an object" : je.text);
    const uint8_t *data = p + 8 + header;
    size_t bytes = n - 8 - header, first = st->n;
    if (reserve(st, json_object_size(shard->header), err))
        return err->code;
    const char *name;
    json_t *entry;
    json_object_foreach(shard->header, name, entry)
    {
        if (!strcmp(name, "__metadata__"))
            continue;
        if (parse_tensor(file, name, entry, data, bytes, &st->tensors[st->n], err))
            return err->code;
        st->n++;
    }
    return check_cover(file, st->tensors + first, st->n - first, data, bytes, err);
}

static int open_shard(struct qp_safetensors *st, const char *path, struct qp_err *err)
{
    struct shard *s = &st->shards[st->n_shards++];
    if (!(s->path = qp_strdup(path, err)) || qp_map_open(&s->map, path, err))
        return err->code;
    return parse_shard(st, path, s->map.data, s->map.bytes, s, err);
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static int open_index(struct qp_safetensors *st, const char *path, struct qp_err *err)
{
    json_error_t je;
    json_t *index = json_load_file(path, JSON_REJECT_DUPLICATES, &je), *map = json_object_get(index, "weight_map"), *files = json_object(), *value;
    const char *name, *slash = strrchr(path, '/');
    int r = 0;
    if (!json_is_object(map))
        r = qp_err_set(err, QP_E_INPUT, "'%s': %s", path, index ? "no object 'weight_map'" : je.text);
    json_object_foreach(map, name, value)
    {
        const char *file = json_string_value(value);
        if (!r && (!file || !*file || strchr(file, '/')))
            r = qp_err_set(err, QP_E_INPUT, "'%s': weight_map: '%s' does not name a file beside the index", path, name);
        if (!r)
            json_object_set_new(files, file, json_true());
    }
    if (!r && json_object_size(files) > MAX_SHARDS)
        r = qp_err_set(err, QP_E_INPUT, "'%s': more than %d shards", path, MAX_SHARDS);
    if (!r) {
        qp_free(st->shards);
        st->shards = qp_zalloc(sizeof *st->shards * (json_object_size(files) + 1), "shards", err);
        r = st->shards ? 0 : QP_E_RESOURCE;
    }
    json_object_foreach(files, name, value)
    {
        struct qp_buf full = QP_BUF_INIT;
        qp_buf_addf(&full, "%.*s%s", slash ? (int)(slash - path + 1) : 0, path, name);
        if (!r)
            r = qp_buf_check(&full, err) ? QP_E_RESOURCE : open_shard(st, full.data, err);
        qp_buf_release(&full);
    }
    json_decref(files);
    st->index = index;
    return r;
}

static int check_index(const struct qp_safetensors *st, const char *path, struct qp_err *err)
{
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(st->index, "weight_map"), name, value)
        if (!qp_safetensors_find(st, name))
            return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' is in no shard", path, name);
    return 0;
}

static int sort_by_name(struct qp_safetensors *st, const char *path, struct qp_err *err)
{
    if (st->n)
        qsort(st->tensors, st->n, sizeof *st->tensors, by_name);
    for (size_t i = 1; i < st->n; i++)
        if (!strcmp(st->tensors[i - 1].name, st->tensors[i].name))
            return qp_err_set(err, QP_E_INPUT, "'%s': tensor '%s' is there twice", path, st->tensors[i].name);
    return 0;
}

static struct qp_safetensors *new_reader(struct qp_err *err)
{
    struct qp_safetensors *st = qp_zalloc(sizeof *st, "safetensors reader", err);
    if (st && !(st->shards = qp_zalloc(sizeof *st->shards, "shards", err))) {
        qp_free(st);
        st = NULL;
    }
    return st;
}

int qp_safetensors_open(struct qp_safetensors **out, const char *path, struct qp_err *err)
{
    *out = NULL;
    struct qp_safetensors *st = new_reader(err);
    if (!st)
        return QP_E_RESOURCE;
    int r = ends_with(path, ".json") ? open_index(st, path, err) : open_shard(st, path, err);
    if (!r)
        r = sort_by_name(st, path, err);
    if (!r && st->index)
        r = check_index(st, path, err);
    if (r) {
        qp_safetensors_close(st);
        return r;
    }
    *out = st;
    return 0;
}

int qp_safetensors_open_memory(struct qp_safetensors **out, const void *data, size_t bytes, struct qp_err *err)
{
    *out = NULL;
    struct qp_safetensors *st = new_reader(err);
    if (!st)
        return QP_E_RESOURCE;
    st->n_shards = 1;
    int r = parse_shard(st, "memory", data, bytes, &st->shards[0], err);
    if (!r)
        r = sort_by_name(st, "memory", err);
    if (r) {
        qp_safetensors_close(st);
        return r;
    }
    *out = st;
    return 0;
}

void qp_safetensors_close(struct qp_safetensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; i < st->n_shards; i++) {
        qp_free(st->shards[i].path);
        qp_map_close(&st->shards[i].map);
        json_decref(st->shards[i].header);
    }
    json_decref(st->index);
    qp_free(st->shards);
    qp_free(st->tensors);
    qp_free(st);
}

void qp_safetensors_drop_pages(const struct qp_safetensors *st)
{
    for (size_t i = 0; i < st->n_shards; i++)
        qp_map_drop(&st->shards[i].map);
}

size_t qp_safetensors_count(const struct qp_safetensors *st)
{
    return st->n;
}

const struct qp_tensor *qp_safetensors_at(const struct qp_safetensors *st, size_t i)
{
    return &st->tensors[i];
}

const struct qp_tensor *qp_safetensors_find(const struct qp_safetensors *st, const char *name)
{
    struct qp_tensor key = {.name = name};
    return st->n ? bsearch(&key, st->tensors, st->n, sizeof key, by_name) : NULL;
}

const char *qp_safetensors_file(const struct qp_safetensors *st, const struct qp_tensor *t)
{
    for (size_t i = 0; i < st->n_shards; i++) {
        const struct shard *s = &st->shards[i];
        if ((const uint8_t *)t->data >= s->map.data && (const uint8_t *)t->data < s->map.data + s->map.bytes)
            return s->path;
    }
    return NULL;
}
