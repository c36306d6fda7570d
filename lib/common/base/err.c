#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void fill(struct qp_err *err, int code, const char *fmt, va_list ap)
{
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    for (unsigned char *p = (unsigned char *)err->text; *p; p++) { /* names from files must not drive a terminal */
        bool c1 = *p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;
        if (*p < 0x20 || *p == 0x7f || c1)
            *p = '?';
        if (c1)
            p[1] = '?';
    }
}

int qp_err_set(struct qp_err *err, int code, const char *fmt, ...)
{
    if (!err || err->code)
        return err ? err->code : code;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    return code;
}

int qp_err_errno(struct qp_err *err, int code, const char *fmt, ...)
{
    int e = errno;
    if (e == ENOSPC || e == ENOMEM || e == EDQUOT || e == EFBIG)
        code = QP_E_RESOURCE;
    if (e == EPIPE)
        code = QP_E_PIPE;
    if (!err || err->code)
        return err ? err->code : code;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", strerror(e));
    return code;
}

int qp_err_context(struct qp_err *err, const char *fmt, ...)
{
    if (!err || !err->code)
        return err ? err->code : 0;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    fill(err, err->code, fmt, ap);
    va_end(ap);
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, ": %s", old);
    return err->code;
}
