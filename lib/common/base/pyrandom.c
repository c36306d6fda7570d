#include "base/pyrandom.h"

#include "base/mem.h"

#define N 624
#define M 397

/* ---- MT19937 ---- */

static void init_genrand(struct qp_pyrandom *r, uint32_t seed)
{
    r->mt[0] = seed;
    for (uint32_t i = 1; i < N; i++)
        r->mt[i] = 1812433253u * (r->mt[i - 1] ^ r->mt[i - 1] >> 30) + i;
}

void qp_pyrandom_seed(struct qp_pyrandom *r, uint64_t seed)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t len = key[1] ? 2 : 1, i = 1, j = 0;
    init_genrand(r, 19650218u);
    for (uint32_t k = 0; k < N; k++) {
        r->mt[i] = (r->mt[i] ^ (r->mt[i - 1] ^ r->mt[i - 1] >> 30) * 1664525u) + key[j] + j;
        j = (j + 1) % len;
        if (++i == N) {
            r->mt[0] = r->mt[N - 1];
            i = 1;
        }
    }
    for (uint32_t k = 0; k < N - 1; k++) {
        r->mt[i] = (r->mt[i] ^ (r->mt[i - 1] ^ r->mt[i - 1] >> 30) * 1566083941u) - i;
        if (++i == N) {
            r->mt[0] = r->mt[N - 1];
            i = 1;
        }
    }
    r->mt[0] = 0x80000000u;
    r->at = N;
}

static void refill(struct qp_pyrandom *r)
{
    for (int i = 0; i < N; i++) {
        uint32_t y = (r->mt[i] & 0x80000000u) | (r->mt[(i + 1) % N] & 0x7fffffffu);
        r->mt[i] = r->mt[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    r->at = 0;
}

static uint32_t next(struct qp_pyrandom *r)
{
    if (r->at == N)
        refill(r);
    uint32_t y = r->mt[r->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* ---- sample ---- */

/* Uniform below n > 0: the top bits of an output, drawn again while they are too great. */
static uint32_t below(struct qp_pyrandom *r, uint32_t n)
{
    int bits = 32 - __builtin_clz(n);
    uint32_t x;
    do
        x = next(r) >> (32 - bits);
    while (x >= n);
    return x;
}

/* Below that size of a population CPython shuffles a copy of it, else it keeps a set of what was drawn. */
static uint64_t set_size(uint32_t k)
{
    uint64_t size = 21, power = 1;
    if (k > 5) {
        while (power < 3 * (uint64_t)k)
            power *= 4;
        size += power;
    }
    return size;
}

static int from_pool(struct qp_pyrandom *r, uint32_t n, uint32_t k, uint32_t *out, struct qp_err *err)
{
    uint32_t *pool = qp_alloc_n(n, sizeof *pool, "a population", err);
    if (!pool)
        return QP_E_RESOURCE;
    for (uint32_t i = 0; i < n; i++)
        pool[i] = i;
    for (uint32_t i = 0; i < k; i++) {
        uint32_t j = below(r, n - i);
        out[i] = pool[j];
        pool[j] = pool[n - i - 1];
    }
    qp_free(pool);
    return 0;
}

int qp_pyrandom_sample(struct qp_pyrandom *r, uint32_t n, uint32_t k, uint32_t *out, struct qp_err *err)
{
    if (k > n)
        return qp_err_set(err, QP_E_INTERNAL, "a sample of %u out of %u", k, n);
    if (n <= set_size(k))
        return from_pool(r, n, k, out, err);
    for (uint32_t i = 0, seen; i < k; i++)
        do {
            out[i] = below(r, n);
            for (seen = 0; seen < i && out[seen] != out[i]; seen++)
                ;
        } while (seen < i);
    return 0;
}
