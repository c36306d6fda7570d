#include "base/hash.h"

#include <errno.h>
#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct qp_sha256 {
    SHA256_CTX ctx;
};

struct qp_xxh64 {
    XXH64_state_t *state;
};

void qp_sha256_hex(char out[QP_SHA256_HEX], const void *data, size_t n)
{
    SHA256Data(data, n, out);
}

int qp_sha256_file(char out[QP_SHA256_HEX], const char *path, struct qp_err *err)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path);
    SHA256_CTX ctx;
    SHA256Init(&ctx);
    uint8_t chunk[65536];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        SHA256Update(&ctx, chunk, n);
    int bad = ferror(f) ? qp_err_errno(err, QP_E_INPUT, "cannot read '%s'", path) : 0;
    fclose(f);
    SHA256End(&ctx, out);
    return bad;
}

struct qp_sha256 *qp_sha256_new(void)
{
    struct qp_sha256 *h = malloc(sizeof *h);
    if (h)
        SHA256Init(&h->ctx);
    return h;
}

void qp_sha256_add(struct qp_sha256 *h, const void *data, size_t n)
{
    if (h)
        SHA256Update(&h->ctx, data, n);
}

void qp_sha256_free(struct qp_sha256 *h, char out[QP_SHA256_HEX])
{
    char ignored[QP_SHA256_HEX];
    if (h)
        SHA256End(&h->ctx, out ? out : ignored);
    else if (out)
        out[0] = 0;
    free(h);
}

uint64_t qp_xxh64(const void *data, size_t n)
{
    return XXH64(data, n, 0);
}

struct qp_xxh64 *qp_xxh64_new(void)
{
    struct qp_xxh64 *h = malloc(sizeof *h);
    if (h && !(h->state = XXH64_createState())) {
        free(h);
        return NULL;
    }
    if (h)
        XXH64_reset(h->state, 0);
    return h;
}

void qp_xxh64_add(struct qp_xxh64 *h, const void *data, size_t n)
{
    if (n)
        XXH64_update(h->state, data, n);
}

uint64_t qp_xxh64_value(const struct qp_xxh64 *h)
{
    return XXH64_digest(h->state);
}

void qp_xxh64_free(struct qp_xxh64 *h)
{
    if (h)
        XXH64_freeState(h->state);
    free(h);
}
