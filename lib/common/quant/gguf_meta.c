#include "quant/gguf_meta.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/gguf_place.h"

/* llama.cpp's numbers for what most of a file's matrices are. */
static uint32_t file_type(enum qp_dtype most)
{
    switch (most) {
    case QP_DT_F32: return 0;
    case QP_DT_Q4_0: return 2;
    case QP_DT_Q4_1: return 3;
    case QP_DT_Q8_0: return 7;
    case QP_DT_BF16: return 32;
    default: return 1;
    }
}

static int by_position(const void *a, const void *b)
{
    const struct qp_gguf_entry *x = a, *y = b;
    return x->raw < y->raw ? -1 : x->raw > y->raw;
}

/* Says nothing of the new weights: the text that others were weighed by, the pieces that the file came in. */
static bool is_stale(const char *key)
{
    return !strncmp(key, "quantize.imatrix.", strlen("quantize.imatrix.")) || !strncmp(key, "split.", strlen("split."));
}

static int take_over(struct qp_gguf_meta *meta, const struct qp_gguf *g, uint32_t type, struct qp_err *err)
{
    static const char *const type_key = "general.file_type", *const version_key = "general.quantization_version";
    size_t n = qp_gguf_n_entries(g);
    bool has_type = false, has_version = false;
    struct qp_gguf_entry *v = qp_alloc_n(n + 1, sizeof *v, "metadata", err);
    if (!v)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < n; i++)
        v[i] = qp_gguf_entry_at(g, i);
    qsort(v, n, sizeof *v, by_position);
    for (size_t i = 0; i < n; i++) {
        bool is_type = !strcmp(v[i].key, type_key), is_version = !strcmp(v[i].key, version_key);
        if (is_type)
            qp_gguf_put_u32(meta, type_key, type);
        else if (is_version)
            qp_gguf_put_u32(meta, version_key, 2);
        else if (!is_stale(v[i].key))
            qp_gguf_put_entry(meta, &v[i]);
        has_type |= is_type;
        has_version |= is_version;
    }
    if (!has_type)
        qp_gguf_put_u32(meta, type_key, type);
    if (!has_version)
        qp_gguf_put_u32(meta, version_key, 2);
    qp_free(v);
    return 0;
}

int qp_gguf_metadata(struct qp_gguf_meta *meta, size_t *alignment, const struct qp_model *m, enum qp_dtype most, struct qp_err *err)
{
    const struct qp_gguf *g = qp_model_gguf(m);
    int64_t align = QP_GGUF_ALIGNMENT;
    *alignment = QP_GGUF_ALIGNMENT;
    if (!g)
        return qp_gguf_metadata_of_folder(meta, m, file_type(most), err);
    if (qp_gguf_i64(g, "general.alignment", &align, err) < 0) /* a power of two, or the file would not be open */
        return err->code;
    *alignment = (size_t)align;
    return take_over(meta, g, file_type(most), err);
}
