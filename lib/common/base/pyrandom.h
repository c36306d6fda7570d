/* CPython's random.Random for whole-number seeds, as far as evaluation tasks draw from it: the Mersenne Twister (Matsumoto and Nishimura 1998, MT19937) and
 * sample(). Its draws name the examples in published prompts, so that they must be the same, draw for draw.
 *
 *     struct qp_pyrandom r;
 *     qp_pyrandom_seed(&r, 1234);
 *     qp_pyrandom_sample(&r, 1000, 11, idx, &err);      // Random(1234).sample(range(1000), 11)
 */
#ifndef QP_BASE_PYRANDOM_H
#define QP_BASE_PYRANDOM_H

#include <stdint.h>

#include "base/err.h"

struct qp_pyrandom {
    uint32_t mt[624];
    int at;
};

void qp_pyrandom_seed(struct qp_pyrandom *r, uint64_t seed);
/* k different indices below n (k <= n < 2^32), in the order of the draws. */
int qp_pyrandom_sample(struct qp_pyrandom *r, uint32_t n, uint32_t k, uint32_t *out, struct qp_err *err) QP_MUST_USE;

#endif
