/* Weights by what they do, and the list of linear layers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/internal.h"

int64_t qp_config_window(const struct qp_model_config *c, int64_t layer)
{
    return c->global[layer / 8] >> layer % 8 & 1 ? 0 : c->sliding_window;
}

bool qp_config_has_experts(const struct qp_model_config *c, int64_t layer)
{
    return c->n_experts > 0 && layer >= 0 && !(c->dense[layer / 8] >> layer % 8 & 1);
}

void qp_part_name(char out[256], const struct qp_arch *a, const struct qp_part *p, int64_t layer, int64_t expert)
{
    size_t n = 0;
    const char *star = strchr(p->hf, '*');
    if (layer >= 0)
        n = (size_t)snprintf(out, 256, "%s.%" PRId64 ".", a->layers, layer);
    if (star)
        snprintf(out + n, 256 - n, "%.*s%" PRId64 "%s", (int)(star - p->hf), p->hf, expert, star + 1);
    else
        snprintf(out + n, 256 - n, "%s", p->hf);
}

const struct qp_weight *qp_model_part(const struct qp_model *m, int64_t layer, enum qp_role role, int64_t expert, bool bias)
{
    char name[256];
    for (const struct qp_part *p = layer < 0 ? m->arch->model_parts : m->arch->layer_parts; p->hf; p++)
        if (p->role == role && !(p->flags & QP_PART_BIAS) == !bias && !(p->flags & QP_PART_EXPERT) == (expert < 0) && qp_part_needed(p, &m->config, layer)) {
            qp_part_name(name, m->arch, p, layer, expert);
            return qp_model_weight(m, name);
        }
    return NULL;
}

static void add_linear(struct qp_model *m, size_t *n, const struct qp_part *p, int64_t layer, int64_t expert)
{
    char name[256];
    qp_part_name(name, m->arch, p, layer, expert);
    m->linears[(*n)++] = (struct qp_linear){&qp_model_find(m, name)->pub, layer, p->role, expert};
}

/* Experts one after the other, each with all its matrices, where the table has their first one. */
static void list_layer(struct qp_model *m, size_t *n, int64_t layer)
{
    bool experts_listed = false;
    for (const struct qp_part *p = m->arch->layer_parts; p->hf; p++) {
        if (!(p->flags & QP_PART_LINEAR) || !qp_part_needed(p, &m->config, layer))
            continue;
        if (!(p->flags & QP_PART_EXPERT))
            add_linear(m, n, p, layer, -1);
        else if (!experts_listed) {
            experts_listed = true;
            for (int64_t e = 0; e < m->config.n_experts; e++)
                for (const struct qp_part *q = p; q->hf; q++)
                    if ((q->flags & QP_PART_EXPERT) && (q->flags & QP_PART_LINEAR))
                        add_linear(m, n, q, layer, e);
        }
    }
}

int qp_model_list_linears(struct qp_model *m, struct qp_err *err)
{
    size_t n = 0;
    m->linears = qp_alloc_n(m->n_weights + 1, sizeof *m->linears, "weights", err);
    m->first_linear = qp_alloc_n((size_t)m->config.n_layers + 1, sizeof *m->first_linear, "weights", err);
    if (!m->linears || !m->first_linear)
        return QP_E_RESOURCE;
    for (int64_t l = 0; l < m->config.n_layers; l++) {
        m->first_linear[l] = n;
        list_layer(m, &n, l);
    }
    m->first_linear[m->config.n_layers] = n;
    return 0;
}

size_t qp_model_n_linears(const struct qp_model *m)
{
    return m->first_linear[m->config.n_layers];
}

const struct qp_linear *qp_model_linear(const struct qp_model *m, size_t i)
{
    return &m->linears[i];
}

size_t qp_model_first_linear(const struct qp_model *m, int64_t layer)
{
    return m->first_linear[layer];
}

const struct qp_linear *qp_model_linear_by_name(const struct qp_model *m, const char *name)
{
    const struct qp_weight_impl *w = qp_model_find(m, name);
    for (size_t i = 0; w && w->linear && i < qp_model_n_linears(m); i++)
        if (m->linears[i].weight == &w->pub)
            return &m->linears[i];
    return NULL;
}
