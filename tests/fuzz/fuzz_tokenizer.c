/* The tokenizer.json reader over any bytes: what it accepts must encode and decode. */
#include <stdint.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "Hello  world, na\xc3\xafve 123 \xe2\x96\x81x\n\n<s>";
    struct qp_tokenizer *t;
    struct qp_err err = {0};
    struct qp_ids ids = {0};
    struct qp_buf out = QP_BUF_INIT;
    if (qp_tokenizer_open_memory(&t, (const char *)data, n, &err))
        return 0;
    if (!qp_tokenizer_encode(t, text, strlen(text), QP_ENC_SPECIAL, &ids, &err) && qp_tokenizer_decode(t, ids.v, ids.n, true, &out, &err))
        err.code = 0;
    qp_ids_release(&ids);
    qp_buf_release(&out);
    qp_tokenizer_free(t);
    return 0;
}
