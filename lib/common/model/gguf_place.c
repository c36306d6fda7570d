#include "model/gguf_place.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "model/internal.h"

const struct qp_gguf *qp_model_gguf(const struct qp_model *m)
{
    return m->gguf;
}

const char *qp_model_gguf_arch(const struct qp_model *m)
{
    return m->arch->gguf;
}

/* (head, half, i) at (head, i, half): llama's q and k. (head, part, i) at (part, head, i): a fused q, k, v. */
int64_t qp_gguf_row(int64_t rotated, int64_t parted, int64_t n, int64_t r)
{
    if (rotated) {
        int64_t in_head = r % rotated;
        return r - in_head + in_head % (rotated / 2) * 2 + in_head / (rotated / 2);
    }
    if (parted) {
        int64_t heads = n / (3 * parted);
        return (r / parted % 3 * heads + r / (3 * parted)) * parted + r % parted;
    }
    return r;
}

int64_t qp_gguf_place_row(const struct qp_gguf_place *p, int64_t n, int64_t r)
{
    return qp_gguf_row(p->rotated, p->parted, n, r);
}

static void place(const struct qp_model *m, struct qp_gguf_place *places, const struct qp_part *p, int64_t layer, int64_t expert)
{
    char name[256];
    if (!qp_part_needed(p, &m->config, layer))
        return;
    qp_part_name(name, m->arch, p, layer, expert);
    const struct qp_weight_impl *w = qp_model_find(m, name);
    struct qp_gguf_place *to = &places[w - m->weights];
    *to = (struct qp_gguf_place){.expert = expert, .n_experts = expert < 0 ? 0 : m->config.n_experts, .vector = p->rows == QP_DIM_1,
                                 .rotated = m->arch->gguf_rotated && p->rotated != QP_DIM_1 ? m->config.head_dim : 0,
                                 .parted = p->flags & QP_PART_BY_HEAD ? m->config.head_dim : 0, .dtype = w->store ? QP_DT_COUNT : w->tensor.dtype};
    to->plus_one = m->config.norm == QP_NORM_RMS_PLUS_ONE && (p->role == QP_ROLE_FINAL_NORM || (p->role >= QP_ROLE_NORM1 && p->role <= QP_ROLE_K_NORM));
    if (layer < 0)
        snprintf(to->tensor, sizeof to->tensor, "%s", p->gguf);
    else
        snprintf(to->tensor, sizeof to->tensor, "blk.%" PRId64 ".%s", layer, p->gguf);
}

int qp_gguf_places(struct qp_gguf_place **places, const struct qp_model *m, struct qp_err *err)
{
    *places = qp_zalloc((m->n_weights + 1) * sizeof **places, "tensor list", err);
    if (!*places)
        return QP_E_RESOURCE;
    for (const struct qp_part *p = m->arch->model_parts; p->hf; p++)
        place(m, *places, p, -1, -1);
    for (int64_t l = 0; l < m->config.n_layers; l++)
        for (const struct qp_part *p = m->arch->layer_parts; p->hf; p++) {
            int64_t experts = p->flags & QP_PART_EXPERT ? m->config.n_experts : 0;
            if (!experts)
                place(m, *places, p, l, -1);
            for (int64_t e = 0; e < experts; e++)
                place(m, *places, p, l, e);
        }
    return 0;
}
