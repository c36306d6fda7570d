/* Templates from any bytes: what is read must render, or say why not, within its bounds. */
#include <jansson.h>
#include <stdint.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static json_t *values;
    struct qp_template *t;
    struct qp_err err = {0};
    struct qp_buf out = QP_BUF_INIT;
    if (!values)
        values = json_pack("{s:[{s:s,s:s},{s:s,s:s}], s:s, s:b, s:i, s:f, s:n, s:{s:[i,i]}}", "messages", "role", "system", "content", " Be \xc3\xa9. ", "role", "user", "content",
                           "Hi\n", "s", "a-b c", "add_generation_prompt", 1, "n", 7, "x", 2.5, "none_value", "d", "l", 1, 2);
    if (!n || qp_template_open(&t, "fuzz", (const char *)data + 1, n - 1, data[0] & 3, &err))
        return 0;
    if (qp_template_render(t, values, 1721995200, &out, &err))
        err.code = 0;
    qp_buf_release(&out);
    qp_template_free(t);
    return 0;
}
