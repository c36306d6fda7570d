/* Experts: the router, and rows on their way to experts and back. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

int qp_moe_load(struct qp_block *b, const struct qp_model *m, struct qp_err *err)
{
    const struct qp_model_config *c = &b->config;
    const struct qp_weight *w[] = {qp_model_part(m, b->layer, QP_ROLE_ROUTER, -1, false), qp_model_part(m, b->layer, QP_ROLE_SHARED_ROUTER, -1, false)};
    if (!(b->moe.experts = qp_zalloc((size_t)c->n_experts * sizeof *b->moe.experts, "experts", err)))
        return QP_E_RESOURCE;
    for (int64_t e = 0; e < c->n_experts; e++)
        b->moe.experts[e].F = c->d_ff_expert;
    b->moe.shared.F = c->d_ff_shared;
    return qp_packed_load(&b->moe.router, w, w[1] ? 2 : 1, QP_CODES_DECODE, qp_linear_ops_of(b->ops, QP_COMPUTE_F32), b->ops, b->ex, err);
}

static void release_mlp(struct qp_mlp *m)
{
    qp_packed_release(&m->in);
    qp_packed_release(&m->down);
}

void qp_moe_release(struct qp_moe *moe, const struct qp_model_config *c)
{
    for (int64_t e = 0; moe->experts && e < c->n_experts; e++)
        release_mlp(&moe->experts[e]);
    release_mlp(&moe->shared);
    qp_packed_release(&moe->router);
    qp_free(moe->experts);
    *moe = (struct qp_moe){0};
}

void qp_routing_release(struct qp_routing *r)
{
    qp_free(r->first);
    qp_free(r->token);
    qp_free(r->weight);
    qp_free(r->shared);
    qp_free(r->logits);
    qp_free(r->chosen);
    qp_free(r->chosen_weight);
    *r = (struct qp_routing){0};
}

static int reserve(struct qp_routing *r, const struct qp_model_config *c, int64_t T, int64_t N, struct qp_err *err)
{
    if (r->first && T <= r->room)
        return 0;
    size_t pairs = (size_t)(T * c->n_experts_used);
    qp_routing_release(r);
    r->first = qp_alloc_n((size_t)c->n_experts + 1, sizeof *r->first, "routing", err);
    r->token = qp_alloc_n(pairs, sizeof *r->token, "routing", err);
    r->weight = qp_alloc_n(pairs, sizeof *r->weight, "routing", err);
    r->shared = qp_alloc_n((size_t)T, sizeof *r->shared, "routing", err);
    r->logits = qp_alloc_n((size_t)T, (size_t)N * sizeof *r->logits, "routing", err);
    r->chosen = qp_alloc_n(pairs, sizeof *r->chosen, "routing", err);
    r->chosen_weight = qp_alloc_n(pairs, sizeof *r->chosen_weight, "routing", err);
    r->room = T;
    return r->first && r->token && r->weight && r->shared && r->logits && r->chosen && r->chosen_weight ? 0 : QP_E_RESOURCE;
}

/* Logits become probabilities. */
static void softmax(float *x, int64_t n)
{
    float most = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - most);
    for (int64_t i = 0; i < n; i++)
        x[i] /= sum;
}

/* The most probable experts; what is chosen is marked by -1. NaN, which compares with nothing, leaves the first ones that are free. */
static void choose(float *p, int64_t n, int64_t used, bool norm, int32_t *chosen, float *weight)
{
    float sum = 0;
    for (int64_t k = 0; k < used; k++) {
        int64_t best = -1;
        for (int64_t e = 0; e < n; e++)
            if (p[e] != -1 && (best < 0 || p[e] > p[best]))
                best = e;
        chosen[k] = (int32_t)best;
        sum += weight[k] = p[best];
        p[best] = -1;
    }
    for (int64_t k = 0; norm && k < used; k++)
        weight[k] /= sum;
}

/* From tokens' experts to experts' tokens: counted, then filled in. */
static void group_by_expert(struct qp_routing *r, int64_t n_experts, int64_t used, int64_t T)
{
    memset(r->first, 0, (size_t)(n_experts + 1) * sizeof *r->first);
    for (int64_t i = 0; i < T * used; i++)
        r->first[r->chosen[i] + 1]++;
    for (int64_t e = 0; e < n_experts; e++)
        r->first[e + 1] += r->first[e];
    for (int64_t i = 0; i < T * used; i++) {
        int64_t at = r->first[r->chosen[i]]++;
        r->token[at] = (int32_t)(i / used);
        r->weight[at] = r->chosen_weight[i];
    }
    memmove(r->first + 1, r->first, (size_t)n_experts * sizeof *r->first); /* each stands at its end now, where the next one begins */
    r->first[0] = 0;
}

int qp_moe_route(struct qp_routing *r, const struct qp_block *b, const float *h, int64_t T, struct qp_err *err)
{
    const struct qp_model_config *c = &b->config;
    int64_t N = b->moe.router.N, used = c->n_experts_used;
    if (reserve(r, c, T, N, err))
        return QP_E_RESOURCE;
    qp_packed_run(&b->moe.router, qp_linear_ops_of(b->ops, QP_COMPUTE_F32), b->ops, b->ex, r->logits, h, c->d_model, T, false);
    if (qp_block_check(b, err))
        return err->code;
    for (int64_t t = 0; t < T; t++) {
        float *p = r->logits + t * N;
        r->shared[t] = N > c->n_experts ? 1 / (1 + expf(-p[c->n_experts])) : 0;
        softmax(p, c->n_experts);
        choose(p, c->n_experts, used, c->norm_topk, r->chosen + t * used, r->chosen_weight + t * used);
    }
    group_by_expert(r, c->n_experts, used, T);
    return 0;
}

void qp_moe_gather(float *to, const float *h, const int32_t *tokens, int64_t n, int64_t D)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * D, h + tokens[i] * D, (size_t)D * sizeof *to);
}

void qp_moe_scatter(float *x, const float *y, const int32_t *tokens, const float *weights, int64_t n, int64_t D)
{
    for (int64_t i = 0; i < n; i++) {
        float *restrict to = x + (tokens ? tokens[i] : i) * D;
        for (int64_t d = 0; d < D; d++)
            to[d] += weights[i] * y[i * D + d];
    }
}
