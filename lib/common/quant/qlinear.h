/* A linear layer on an integer grid: codes with a scale and a zero point for each group of inputs.
 * w[o,i] = scale[o,g] * (code[o,i] - zero[o,g]), g = g_idx[i]. Scales are float16 values: what a checkpoint holds is what was searched. */
#ifndef QP_QUANT_QLINEAR_H
#define QP_QUANT_QLINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "model/model.h"

#define QP_GRID_BLOCK 32 /* weights of a GGUF block */

struct qp_grid {
    int bits;            /* 2, 3, 4 or 8 */
    int64_t group_size;  /* inputs that share a scale; 0: the whole row. The last group of a row may be shorter */
    bool sym;            /* zero point fixed at 2^(bits-1) */
    bool blocks;         /* stored as GGUF's blocks of 32, each with a float16 scale and, where there are zero points, a float16 minimum -scale * zero: only
                          * scales whose minimum is one are taken, so that the file holds exactly what was searched */
    bool search;         /* search the scale (and zero) that minimizes the weighted squared error, instead of covering the range */
};

struct qp_qlinear {
    int64_t rows, cols, n_groups;
    struct qp_grid grid;
    uint8_t *codes;   /* [rows, cols] */
    float *scales;    /* [rows, n_groups], float16 values */
    uint8_t *zeros;   /* [rows, n_groups] */
    int32_t *g_idx;   /* [cols] */
};

int qp_qlinear_init(struct qp_qlinear *q, int64_t rows, int64_t cols, struct qp_grid grid, struct qp_err *err) QP_MUST_USE;
void qp_qlinear_release(struct qp_qlinear *q);
int64_t qp_grid_groups(const struct qp_grid *g, int64_t cols);
/* Bits a weight with scales (16) and zeros. */
double qp_grid_bpw(const struct qp_grid *g, int64_t cols);

/* The nearest scale to s that a grid with that zero point can store: a float16 value, and with g->blocks one whose product with zero is such a value, too. */
float qp_grid_scale(const struct qp_grid *g, float s, int zero);
/* The scale (a float16 value) and zero point that cover [lo, hi], lo <= 0 <= hi. */
void qp_grid_of_range(const struct qp_grid *g, float lo, float hi, float *scale, int *zero);
/* The scale and zero point for n weights w (stride 1), importance h [n] (NULL: equal): range, or the search over shrunken ranges (GPTQ's MSE option,
 * weighted by the Hessian's diagonal). All-zero and all-equal groups give a finite scale and exact zeros. */
void qp_grid_fit(const struct qp_grid *g, const float *w, const float *h, int64_t n, float *scale, uint8_t *zero);
/* Nearest code, clamped. */
static inline int qp_grid_code(float w, float inv_scale, int zero, int max)
{
    float c = w * inv_scale + (float)zero;
    c = c < 0 ? 0 : c > (float)max ? (float)max : c;
    return (int)(c + 0.5f);
}

/* w [rows, cols] float32 */
void qp_qlinear_decode(const struct qp_qlinear *q, float *w);

#endif
