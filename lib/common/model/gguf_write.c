#include "model/gguf_write.h"

#include <string.h>

#include "base/mem.h"

enum { T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STR = 8, T_ARRAY = 9 };

static void u32(struct qp_buf *b, uint32_t v)
{
    qp_buf_add(b, &v, sizeof v);
}

static void u64(struct qp_buf *b, uint64_t v)
{
    qp_buf_add(b, &v, sizeof v);
}

static void text(struct qp_buf *b, const char *s, size_t n)
{
    u64(b, n);
    if (n)
        qp_buf_add(b, s, n);
}

static void begin(struct qp_gguf_meta *m, const char *key, uint32_t type)
{
    text(&m->bytes, key, strlen(key));
    u32(&m->bytes, type);
    m->n++;
}

static void begin_array(struct qp_gguf_meta *m, const char *key, uint32_t type, size_t n)
{
    begin(m, key, T_ARRAY);
    u32(&m->bytes, type);
    u64(&m->bytes, n);
}

void qp_gguf_put_str(struct qp_gguf_meta *m, const char *key, const char *value)
{
    begin(m, key, T_STR);
    text(&m->bytes, value, strlen(value));
}

void qp_gguf_put_u32(struct qp_gguf_meta *m, const char *key, uint32_t value)
{
    begin(m, key, T_U32);
    u32(&m->bytes, value);
}

void qp_gguf_put_f32(struct qp_gguf_meta *m, const char *key, float value)
{
    begin(m, key, T_F32);
    qp_buf_add(&m->bytes, &value, sizeof value);
}

void qp_gguf_put_bool(struct qp_gguf_meta *m, const char *key, bool value)
{
    uint8_t byte = value;
    begin(m, key, T_BOOL);
    qp_buf_add(&m->bytes, &byte, 1);
}

void qp_gguf_put_strs(struct qp_gguf_meta *m, const char *key, const char *const *values, const size_t *lengths, size_t n)
{
    begin_array(m, key, T_STR, n);
    for (size_t i = 0; i < n; i++)
        text(&m->bytes, values[i], lengths[i]);
}

void qp_gguf_put_texts(struct qp_gguf_meta *m, const char *key, const char *const *values, size_t n)
{
    begin_array(m, key, T_STR, n);
    for (size_t i = 0; i < n; i++)
        text(&m->bytes, values[i], strlen(values[i]));
}

void qp_gguf_put_i32s(struct qp_gguf_meta *m, const char *key, const int32_t *values, size_t n)
{
    begin_array(m, key, T_I32, n);
    if (n)
        qp_buf_add(&m->bytes, values, n * sizeof *values);
}

void qp_gguf_put_f32s(struct qp_gguf_meta *m, const char *key, const float *values, size_t n)
{
    begin_array(m, key, T_F32, n);
    if (n)
        qp_buf_add(&m->bytes, values, n * sizeof *values);
}

void qp_gguf_put_entry(struct qp_gguf_meta *m, const struct qp_gguf_entry *e)
{
    qp_buf_add(&m->bytes, e->raw, e->bytes);
    m->n++;
}

void qp_gguf_meta_release(struct qp_gguf_meta *m)
{
    qp_buf_release(&m->bytes);
    *m = (struct qp_gguf_meta){0};
}

/* ---- the file ---- */

static size_t aligned(size_t at, size_t alignment)
{
    return (at + alignment - 1) & ~(alignment - 1);
}

static int list_tensor(struct qp_buf *b, const struct qp_tensor *t, uint64_t offset, struct qp_err *err)
{
    int type = qp_gguf_type(t->dtype);
    if (type < 0)
        return qp_err_set(err, QP_E_INTERNAL, "GGUF has no type for tensor '%s' of dtype '%s'", t->name, qp_dtype_info[t->dtype].name);
    text(b, t->name, strlen(t->name));
    u32(b, (uint32_t)t->ndim);
    for (int i = t->ndim; i-- > 0;) /* fastest axis first */
        u64(b, (uint64_t)t->shape[i]);
    u32(b, (uint32_t)type);
    u64(b, offset);
    return 0;
}

int qp_gguf_image(struct qp_image **out, const char *path, const struct qp_gguf_meta *meta, const struct qp_tensor *decl, size_t n, size_t alignment, bool fresh, struct qp_err *err)
{
    *out = NULL;
    struct qp_buf head = QP_BUF_INIT;
    struct qp_extent *at = qp_alloc_n(n + 1, sizeof *at, "tensor list", err);
    int r = at ? qp_buf_check(&meta->bytes, err) : QP_E_RESOURCE;
    qp_buf_add(&head, "GGUF\3\0\0\0", 8);
    u64(&head, n);
    u64(&head, meta->n);
    if (!r && meta->bytes.len)
        qp_buf_add(&head, meta->bytes.data, meta->bytes.len);
    size_t data = 0;
    for (size_t i = 0; i < n && !r; i++) {
        at[i] = (struct qp_extent){data, decl[i].bytes};
        r = list_tensor(&head, &decl[i], data, err);
        data = aligned(data + decl[i].bytes, alignment);
    }
    while (!r && !head.failed && head.len % alignment)
        qp_buf_add(&head, "", 1);
    r = r ? r : qp_buf_check(&head, err);
    for (size_t i = 0; i < n && !r; i++)
        at[i].begin += head.len;
    struct qp_image_plan plan = {.head = head.data, .head_bytes = head.len, .at = at, .n = n, .bytes = head.len + data};
    r = r ? r : qp_image_open(out, path, &plan, fresh, err);
    qp_buf_release(&head);
    qp_free(at);
    return r;
}
