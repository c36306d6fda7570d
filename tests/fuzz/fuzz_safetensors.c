/* The safetensors reader over any bytes: what it accepts must be readable to its last byte. */
#include <stdint.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct qp_safetensors *st;
    struct qp_err err = {0};
    volatile uint8_t sink = 0;
    if (qp_safetensors_open_memory(&st, data, n, &err))
        return 0;
    for (size_t i = 0; i < qp_safetensors_count(st); i++) {
        const struct qp_tensor *t = qp_safetensors_at(st, i);
        for (size_t k = 0; k < t->bytes; k++)
            sink ^= ((const uint8_t *)t->data)[k];
    }
    qp_safetensors_close(st);
    return sink == 257;
}
