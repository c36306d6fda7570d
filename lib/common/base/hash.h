/* Hashes: SHA-256 (libmd) for content that people compare, XXH64 (xxhash, seed 0) for checksums inside a stream. */
#ifndef QP_BASE_HASH_H
#define QP_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define QP_SHA256_HEX 65 /* with the terminating zero */

void qp_sha256_hex(char out[QP_SHA256_HEX], const void *data, size_t n);
int qp_sha256_file(char out[QP_SHA256_HEX], const char *path, struct qp_err *err) QP_MUST_USE;

struct qp_sha256; /* incremental */
struct qp_sha256 *qp_sha256_new(void); /* NULL: no memory */
void qp_sha256_add(struct qp_sha256 *h, const void *data, size_t n);
void qp_sha256_free(struct qp_sha256 *h, char out[QP_SHA256_HEX]); /* writes the digest (out may be NULL), frees h */

uint64_t qp_xxh64(const void *data, size_t n);
struct qp_xxh64;
struct qp_xxh64 *qp_xxh64_new(void);
void qp_xxh64_add(struct qp_xxh64 *h, const void *data, size_t n);
uint64_t qp_xxh64_value(const struct qp_xxh64 *h);
void qp_xxh64_free(struct qp_xxh64 *h);

#endif
