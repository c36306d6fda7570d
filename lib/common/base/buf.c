#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *qp_buf_grow(struct qp_buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    if (n >= SIZE_MAX / 2 - b->len) {
        b->failed = true;
        return NULL;
    }
    if (b->len + n + 1 > b->cap) {
        size_t cap = b->cap ? b->cap : 64;
        while (cap < b->len + n + 1)
            cap += cap / 2 + 64;
        char *p = realloc(b->data, cap);
        if (!p) {
            b->failed = true;
            return NULL;
        }
        b->data = p;
        b->cap = cap;
    }
    char *at = b->data + b->len;
    b->len += n;
    b->data[b->len] = 0;
    return at;
}

void qp_buf_add(struct qp_buf *b, const void *data, size_t n)
{
    void *at = qp_buf_grow(b, n);
    if (at && n)
        memcpy(at, data, n);
}

void qp_buf_adds(struct qp_buf *b, const char *s)
{
    qp_buf_add(b, s, strlen(s));
}

void qp_buf_addf(struct qp_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *at = n >= 0 ? qp_buf_grow(b, (size_t)n) : NULL;
    if (at)
        vsnprintf(at, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
}

void qp_buf_add_clean(struct qp_buf *b, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s, next = (unsigned char)s[1];
        bool c1 = c == 0xc2 && next >= 0x80 && next <= 0x9f;
        if (c < 0x20 || c == 0x7f || c1)
            qp_buf_adds(b, "?");
        else
            qp_buf_add(b, s, 1);
        s += c1;
    }
}

void qp_buf_clear(struct qp_buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = 0;
}

void qp_buf_release(struct qp_buf *b)
{
    free(b->data);
    *b = (struct qp_buf)QP_BUF_INIT;
}

int qp_buf_check(const struct qp_buf *b, struct qp_err *err)
{
    return b->failed ? qp_err_set(err, QP_E_RESOURCE, "no memory for a buffer of more than %zu bytes", b->len) : 0;
}
