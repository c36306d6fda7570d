/* The GGUF reader over any bytes: what it accepts must be readable to its last byte, its metadata too. */
#include <stdint.h>

#include "base/mem.h"
#include "model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct qp_gguf *g;
    struct qp_err err = {0};
    const char **strs, *text;
    size_t *lengths, count;
    float *f;
    volatile uint8_t sink = 0;
    if (qp_gguf_open_memory(&g, data, n, &err))
        return 0;
    for (size_t i = 0; i < qp_gguf_count(g); i++) {
        const struct qp_tensor *t = qp_gguf_at(g, i);
        for (size_t k = 0; k < t->bytes; k++)
            sink ^= ((const uint8_t *)t->data)[k];
    }
    if (qp_gguf_strs(g, "a", &strs, &lengths, &count, &err) == 1) {
        qp_free((void *)strs);
        qp_free(lengths);
    }
    err.code = 0;
    if (qp_gguf_f32s(g, "a", &f, &count, &err) == 1)
        qp_free(f);
    int64_t v = 0;
    double d = 0;
    sink ^= (uint8_t)(qp_gguf_i64(g, "a", &v, &err) + qp_gguf_f64(g, "a", &d, &err) + qp_gguf_str(g, "a", &text, &err));
    qp_gguf_close(g);
    return sink == 257;
}
