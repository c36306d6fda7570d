/* A small deterministic generator (PCG32, O'Neill 2014): the same seed gives the same order on every machine. Not for secrets. */
#ifndef QP_BASE_RNG_H
#define QP_BASE_RNG_H

#include <stdint.h>

struct qp_rng {
    uint64_t state;
};

static inline uint32_t qp_rng_next(struct qp_rng *r)
{
    uint64_t old = r->state;
    r->state = old * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)(((old >> 18) ^ old) >> 27), rot = (uint32_t)(old >> 59);
    return x >> rot | x << ((32 - rot) & 31);
}

static inline struct qp_rng qp_rng_seed(uint64_t seed)
{
    struct qp_rng r = {0};
    qp_rng_next(&r);
    r.state += seed;
    qp_rng_next(&r);
    return r;
}

/* Uniform in [0, n), without modulo bias. n > 0. */
static inline uint32_t qp_rng_below(struct qp_rng *r, uint32_t n)
{
    uint32_t limit = -n % n, x;
    do
        x = qp_rng_next(r);
    while (x < limit);
    return x % n;
}

#endif
