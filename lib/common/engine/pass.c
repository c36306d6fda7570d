/* Tokens on their way through blocks, stage by stage: the inputs of each group of linear layers, for the quantizers. Experts come one after the other, each
 * with its tokens gathered, and the shared one last: the order of qp_engine_forward. */
#include "base/mem.h"
#include "engine/internal.h"

#define SLICE 2048 /* rows whose outputs exist before they are added to the stream */

struct qp_pass {
    struct qp_spool *spool;
    const struct qp_model_config *c;
    int64_t n_seq, len, T;
    float *x, *h, *wide; /* [T, D] residual stream, [T, D] normed, [T, widest inputs of o and down] */
    float *rows; /* [T, D] an expert's tokens; NULL without experts */
    struct qp_routing routing;
    struct qp_block *b;
    struct qp_stage stage;
};

enum kind { READS_QKV, READS_O, READS_IN, READS_DOWN };

static enum kind kind_of(const struct qp_linear *l)
{
    switch (l->role) {
    case QP_ROLE_Q:
    case QP_ROLE_K:
    case QP_ROLE_V:
    case QP_ROLE_QKV: return READS_QKV;
    case QP_ROLE_O: return READS_O;
    case QP_ROLE_DOWN:
    case QP_ROLE_SHARED_DOWN: return READS_DOWN;
    default: return READS_IN;
    }
}

static bool is_shared(const struct qp_linear *l)
{
    return l->role >= QP_ROLE_SHARED_GATE;
}

bool qp_same_stage(const struct qp_linear *a, const struct qp_linear *b)
{
    return a->layer == b->layer && kind_of(a) == kind_of(b) && a->expert == b->expert && is_shared(a) == is_shared(b);
}

/* Widest inputs of o and down. */
static size_t widest(const struct qp_model_config *c)
{
    size_t q = (size_t)(c->n_heads * c->head_dim), F = (size_t)qp_block_widest(c) / 2;
    return q > F ? q : F;
}

int qp_pass_new(struct qp_pass **out, const struct qp_model *m, int64_t n_seq, int64_t len, struct qp_err *err)
{
    return qp_pass_new_in(out, m, n_seq, len, NULL, err);
}

size_t qp_pass_floats(const struct qp_model *m, int64_t n_seq, int64_t len)
{
    const struct qp_model_config *c = qp_model_config(m);
    return (size_t)(n_seq * len) * ((size_t)c->d_model * (c->n_experts ? 3 : 2) + widest(c));
}

int qp_pass_new_in(struct qp_pass **out, const struct qp_model *m, int64_t n_seq, int64_t len, struct qp_spool *spool, struct qp_err *err)
{
    *out = NULL;
    const struct qp_model_config *c = qp_model_config(m);
    struct qp_pass *p = qp_zalloc(sizeof *p, "activations", err);
    if (!p)
        return QP_E_RESOURCE;
    size_t T, floats;
    if (!qp_mul((size_t)n_seq, (size_t)len, &T) || !qp_mul(T, widest(c) + (size_t)c->d_model, &floats) || floats > SIZE_MAX / 8) {
        qp_pass_free(p);
        return qp_err_set(err, QP_E_RESOURCE, "%lld sequences of %lld tokens are too many", (long long)n_seq, (long long)len);
    }
    p->c = c;
    p->spool = spool;
    p->n_seq = n_seq;
    p->len = len;
    p->T = (int64_t)T;
    p->x = qp_spool_floats(spool, T * (size_t)c->d_model, "activations", err);
    p->h = p->x ? qp_spool_floats(spool, T * (size_t)c->d_model, "activations", err) : NULL;
    p->wide = p->h ? qp_spool_floats(spool, T * widest(c), "activations", err) : NULL;
    if (c->n_experts && p->wide)
        p->rows = qp_spool_floats(spool, T * (size_t)c->d_model, "activations", err);
    if (!p->x || !p->h || !p->wide || (c->n_experts && !p->rows)) {
        qp_pass_free(p);
        return QP_E_RESOURCE;
    }
    *out = p;
    return 0;
}

void qp_pass_free(struct qp_pass *p)
{
    if (!p)
        return;
    qp_spool_free(p->spool, p->x);
    qp_spool_free(p->spool, p->h);
    qp_spool_free(p->spool, p->wide);
    qp_spool_free(p->spool, p->rows);
    qp_routing_release(&p->routing);
    qp_free(p);
}

float *qp_pass_stream(struct qp_pass *p)
{
    return p->x;
}

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

static void passed(const struct qp_pass *p, const float *x, int64_t rows, int64_t width)
{
    qp_spool_passed(p->spool, x, (size_t)(rows * width) * sizeof *x);
}

/* h = norm(x) */
static void norm(struct qp_pass *p, const struct qp_norm *n)
{
    int64_t D = p->c->d_model;
    for (int64_t t = 0; t < p->T; t += SLICE) {
        int64_t some = at_most(p->T - t, SLICE);
        qp_norm_run(n, p->c, p->b->ops, p->b->ex, p->h + t * D, p->x + t * D, some, D);
        passed(p, p->h + t * D, some, D);
        passed(p, p->x + t * D, some, D);
    }
}

/* wide = attention(h), whole sequences at a time. */
static int attend(struct qp_pass *p, struct qp_err *err)
{
    int64_t D = p->c->d_model, q = p->c->n_heads * p->c->head_dim, group = p->len < SLICE ? SLICE / p->len : 1;
    for (int64_t i = 0; i < p->n_seq; i += group) {
        int64_t n = at_most(p->n_seq - i, group), t = i * p->len;
        if (qp_block_attn(p->b, p->h + t * D, n, p->len, p->wide + t * q, err))
            return err->code;
        passed(p, p->h + t * D, n * p->len, D);
        passed(p, p->wide + t * q, n * p->len, q);
    }
    return 0;
}

/* The stage that begins at linear `first`: its neighbours with the same inputs. */
static int fill(struct qp_pass *p, int first, struct qp_stage *out, struct qp_err *err)
{
    struct qp_block *b = p->b;
    const struct qp_linear *l = &b->linears[first];
    enum kind kind = kind_of(l);
    struct qp_stage s = {.linears = l, .n = p->T, .width = l->weight->cols, .expert = l->expert};
    while (first + s.count < b->n_linears && qp_same_stage(l, l + s.count))
        s.count++;
    s.inputs = kind == READS_QKV || kind == READS_IN ? p->h : p->wide;
    s.writes_stream = kind == READS_O ? !b->post_attn.w : kind == READS_DOWN && !b->post_mlp.w && l->expert < 0 && !is_shared(l);
    if (l->expert >= 0) {
        const int64_t *at = p->routing.first + l->expert;
        s.n = at[1] - at[0];
        if (kind == READS_IN) {
            qp_moe_gather(p->rows, p->h, p->routing.token + at[0], s.n, p->c->d_model);
            s.inputs = p->rows;
        }
    }
    p->stage = *out = s;
    return qp_block_check(b, err) ? err->code : 1;
}

int qp_pass_enter(struct qp_pass *p, struct qp_block *b, struct qp_stage *s, struct qp_err *err)
{
    p->b = b;
    norm(p, &b->norm1);
    return fill(p, 0, s, err);
}

/* x += norm(wide · Wᵀ) */
static int add_to_stream(struct qp_pass *p, const struct qp_packed *w, const struct qp_norm *after, struct qp_err *err)
{
    int64_t D = p->c->d_model;
    if (after->w && qp_block_reserve(p->b, (size_t)(SLICE * D), err))
        return err->code;
    for (int64_t t = 0; t < p->T; t += SLICE) {
        int64_t some = at_most(p->T - t, SLICE);
        qp_block_add(p->b, w, after, p->x + t * D, p->wide + t * w->K, some, p->b->buf);
        passed(p, p->x + t * D, some, D);
        passed(p, p->wide + t * w->K, some, w->K);
    }
    return 0;
}

static int after_attention(struct qp_pass *p, struct qp_err *err)
{
    struct qp_block *b = p->b;
    if (p->c->parallel_residual)
        norm(p, qp_block_norm2(b));
    if (add_to_stream(p, &b->o, &b->post_attn, err))
        return err->code;
    if (!p->c->parallel_residual)
        norm(p, qp_block_norm2(b));
    return qp_config_has_experts(p->c, b->layer) ? qp_moe_route(&p->routing, b, p->h, p->T, err) : 0;
}

static const struct qp_mlp *mlp_of(const struct qp_pass *p)
{
    const struct qp_linear *l = p->stage.linears;
    return l->expert >= 0 ? &p->b->moe.experts[l->expert] : is_shared(l) ? &p->b->moe.shared : &p->b->mlp;
}

/* What an expert's down gives, times the router's weight, to its tokens; the shared one's times its gate to all. */
static int add_expert(struct qp_pass *p, struct qp_err *err)
{
    const struct qp_mlp *mlp = mlp_of(p);
    const struct qp_routing *r = &p->routing;
    struct qp_block *b = p->b;
    int64_t D = p->c->d_model, e = p->stage.expert, n = p->stage.n;
    if (qp_block_reserve(b, (size_t)((n < SLICE ? n : SLICE) * D), err))
        return err->code;
    for (int64_t t = 0; t < n; t += SLICE) {
        int64_t some = at_most(n - t, SLICE);
        qp_packed_run(&mlp->down, b->lin, b->ops, b->ex, b->buf, p->wide + t * mlp->F, mlp->F, some, false);
        if (e >= 0)
            qp_moe_scatter(p->x, b->buf, r->token + r->first[e] + t, r->weight + r->first[e] + t, some, D);
        else
            qp_moe_scatter(p->x + t * D, b->buf, NULL, r->shared + t, some, D);
    }
    return 0;
}

/* wide = what down reads */
static int feed(struct qp_pass *p, struct qp_err *err)
{
    const struct qp_mlp *mlp = mlp_of(p);
    int64_t D = p->c->d_model;
    for (int64_t t = 0; t < p->stage.n; t += SLICE) {
        int64_t some = at_most(p->stage.n - t, SLICE);
        if (qp_mlp_all(p->b, mlp, p->stage.inputs + t * D, some, p->wide + t * mlp->F, err))
            return err->code;
        passed(p, p->stage.inputs + t * D, some, D);
        passed(p, p->wide + t * mlp->F, some, mlp->F);
    }
    return 0;
}

int qp_pass_next(struct qp_pass *p, struct qp_stage *s, struct qp_err *err)
{
    struct qp_block *b = p->b;
    int next = (int)(p->stage.linears - b->linears) + p->stage.count, r = 0;
    switch (kind_of(p->stage.linears)) {
    case READS_QKV: r = attend(p, err); break;
    case READS_O: r = after_attention(p, err); break;
    case READS_IN: r = feed(p, err); break;
    case READS_DOWN: r = mlp_of(p) == &b->mlp ? add_to_stream(p, &b->mlp.down, &b->post_mlp, err) : add_expert(p, err); break;
    }
    if (r)
        return r;
    if (next < b->n_linears)
        return fill(p, next, s, err);
    p->b = NULL;
    return qp_block_check(b, err);
}
