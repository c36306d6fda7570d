/* Rotary positions: frequencies and their scaling (linear; Llama 3.1's by wavelength; GGUF's factors). */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

static double llama3_scaled(double f, const struct qp_model_config *c)
{
    double wavelength = 2 * 3.14159265358979323846 / f, low = (double)c->rope_original_positions / c->rope_low_freq_factor;
    double high = (double)c->rope_original_positions / c->rope_high_freq_factor;
    if (wavelength < high)
        return f;
    if (wavelength > low)
        return f / c->rope_factor;
    double smooth = ((double)c->rope_original_positions / wavelength - c->rope_low_freq_factor) / (c->rope_high_freq_factor - c->rope_low_freq_factor);
    return (1 - smooth) * f / c->rope_factor + smooth * f;
}

static double scaled(double f, const struct qp_model_config *c, int64_t i)
{
    if (c->rope_scaling == QP_ROPE_LINEAR)
        f /= c->rope_factor;
    else if (c->rope_scaling == QP_ROPE_LLAMA3)
        f = llama3_scaled(f, c);
    return c->has_rope_factors ? f / (double)c->rope_factors[i] : f;
}

void qp_rope_init(struct qp_rope *r, const struct qp_model_config *c, bool local)
{
    *r = (struct qp_rope){.half = c->head_dim / 2, .scale = c->rope_attention_factor > 0 ? c->rope_attention_factor : 1};
    int64_t dims = c->learned_positions ? 0 : c->rope_dims ? c->rope_dims : c->head_dim;
    r->rotates = dims / 2;
    r->limit = c->rope_scaling == QP_ROPE_LONG ? c->rope_original_positions : 0;
    for (int64_t i = 0; i < r->rotates; i++) {
        double f = 1.0 / pow(local ? c->rope_theta_local : c->rope_theta, (double)(2 * i) / (double)dims);
        r->inv_freq[i] = (float)(local ? f : scaled(f, c, i));
    }
}

int qp_rope_reserve(struct qp_rope *r, int64_t positions, struct qp_err *err)
{
    if (positions <= r->n)
        return 0;
    if (r->limit && positions > r->limit)
        return qp_err_set(err, QP_E_INPUT, "a text of %lld tokens: beyond the %lld of its original context the model takes other rotary factors (longrope), which is not supported",
                          (long long)positions, (long long)r->limit);
    int64_t n = positions > 2 * r->n ? positions : 2 * r->n;
    float *table = qp_alloc_n((size_t)(n * r->half), 2 * sizeof *table, "rotary positions", err);
    if (!table)
        return QP_E_RESOURCE;
    if (r->n)
        memcpy(table, r->table, (size_t)(r->n * r->half) * 2 * sizeof *table);
    for (int64_t p = r->n; p < n; p++)
        for (int64_t i = 0; i < r->half; i++) {
            float angle = (float)p * r->inv_freq[i];
            double s = i < r->rotates ? r->scale : 1; /* what does not rotate turns by 0 */
            table[(p * r->half + i) * 2] = (float)(s * cos((double)angle));
            table[(p * r->half + i) * 2 + 1] = (float)(s * sin((double)angle));
        }
    qp_free(r->table);
    r->table = table;
    r->n = n;
    return 0;
}

void qp_rope_release(struct qp_rope *r)
{
    qp_free(r->table);
    r->table = NULL;
    r->n = 0;
}
