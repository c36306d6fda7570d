/* Panels of bf16 in 12 bits a weight (packed.h): exponents in 4 bits, by steps; no value changes. */
#include <string.h>

#include "backend/cpu/avx512_bf16/packed.h"
#include "backend/cpu/variants.h"

#define WINDOW 15 /* neighbouring exponents that have codes; code 0 is exponent 0 */
#define SAMPLES 64 /* steps that are looked at to choose them */

struct job {
    uint32_t *where;  /* the matrix's; here each panel's size first, in lines, times 2, plus 1 where compact */
    uint8_t *first;   /* panel */
    uint8_t *scratch; /* a panel for each thread */
    int64_t k2;
};

/* The lowest of the 15 neighbouring exponents that most weights have. */
static int choose_window(const uint32_t *pairs, int64_t k2)
{
    int32_t count[256 + WINDOW] = {0}, sum = 0, most = -1;
    int lowest = 1;
    for (int64_t k = 0; k < k2; k += 1 + k2 / SAMPLES)
        for (int64_t n = 0; n < NR; n++) {
            count[pairs[k * NR + n] >> 7 & 255]++;
            count[pairs[k * NR + n] >> 23 & 255]++;
        }
    for (int e = 1; e <= 254; e++) {
        sum += count[e] - (e > WINDOW ? count[e - WINDOW] : 0);
        if (e >= WINDOW && sum > most) {
            most = sum;
            lowest = e - WINDOW + 1;
        }
    }
    return lowest;
}

/* The codes of 32 weights; false where one has none. */
INLINE bool codes_of(__m512i *codes, __m512i b, int lowest)
{
    __m512i e = _mm512_and_si512(_mm512_srli_epi16(b, 7), _mm512_set1_epi16(255)), c = _mm512_sub_epi16(e, _mm512_set1_epi16((short)(lowest - 1)));
    __mmask32 some = _mm512_test_epi16_mask(e, e), fits = _mm512_cmplt_epu16_mask(_mm512_sub_epi16(c, _mm512_set1_epi16(1)), _mm512_set1_epi16(WINDOW));
    *codes = _mm512_maskz_mov_epi16(some, c);
    return (some & ~fits) == 0;
}

INLINE bool step_fits(const uint32_t *pairs, int lowest)
{
    __m512i codes;
    bool fits = true;
    for (int j = 0; j < NV; j++)
        fits = codes_of(&codes, _mm512_loadu_si512(pairs + j * VL), lowest) && fits;
    return fits;
}

static void write_step(uint8_t *to, const uint32_t *pairs, int lowest)
{
    __m512i b[NV], c[NV];
    const __m512i keep = _mm512_set1_epi32((int)KEEP);
    for (int j = 0; j < NV; j++) {
        b[j] = _mm512_loadu_si512(pairs + j * VL);
        codes_of(&c[j], b[j], lowest);
    }
    for (int h = 0; h < 2; h++)
        _mm512_storeu_si512(to + h * LINE, _mm512_or_si512(_mm512_and_si512(b[2 * h], keep), _mm512_ror_epi32(_mm512_and_si512(b[2 * h + 1], keep), 8)));
    __m512i low = _mm512_or_si512(c[0], _mm512_slli_epi16(c[1], 4)), high = _mm512_or_si512(c[2], _mm512_slli_epi16(c[3], 4));
    _mm512_storeu_si512(to + 2 * LINE, _mm512_or_si512(low, _mm512_slli_epi16(high, 8)));
}

/* Writes the panel to `to`, which has room for a plain one; its bytes, or 0: it would not be smaller. */
static size_t write_compact(uint8_t *to, const uint32_t *pairs, int64_t k2)
{
    uint16_t exponents[16] = {0};
    uint32_t *whole = (uint32_t *)(void *)(to + sizeof exponents);
    int64_t n_whole = 0, most = k2 * (WHOLE_STEP - COMPACT_STEP) / (WHOLE_STEP - COMPACT_STEP + (int64_t)sizeof *whole) - 64;
    if (most <= 0)
        return 0;
    int lowest = choose_window(pairs, k2);
    for (int64_t k = 0; k < k2; k++)
        if (!step_fits(pairs + k * NR, lowest)) {
            if (n_whole >= most)
                return 0;
            whole[n_whole++] = (uint32_t)k;
        }
    whole[n_whole] = (uint32_t)k2;
    for (int c = 1; c < 16; c++)
        exponents[c] = (uint16_t)((lowest + c - 1) << 7);
    memcpy(to, exponents, sizeof exponents);
    uint8_t *at = to + compact_head(n_whole);
    for (int64_t k = 0; k < k2; k++) {
        if (*whole != k) {
            write_step(at, pairs + k * NR, lowest);
            at += COMPACT_STEP;
        } else {
            memcpy(at, pairs + k * NR, WHOLE_STEP);
            at += WHOLE_STEP;
            whole++;
        }
    }
    return (size_t)(at - to);
}

static void compact_panels(void *arg, int64_t begin, int64_t end, int thread)
{
    const struct job *j = arg;
    size_t plain = (size_t)j->k2 * WHOLE_STEP;
    uint8_t *scratch = j->scratch + (size_t)thread * plain;
    for (int64_t p = begin; p < end; p++) {
        uint8_t *panel = j->first + (size_t)p * plain;
        size_t bytes = write_compact(scratch, (const uint32_t *)(const void *)panel, j->k2);
        if (bytes)
            memcpy(panel, scratch, bytes);
        j->where[p] = bytes ? (uint32_t)(bytes / LINE * 2 + 1) : (uint32_t)(plain / LINE * 2);
    }
}

size_t qp_avx512_bf16_linear_bf16_compact(struct qp_exec *ex, void *packed, int64_t N, int64_t K)
{
    int64_t panels = panels_of(N), k2 = pairs_of(K);
    size_t plain = (size_t)k2 * WHOLE_STEP, all = where_bytes(panels) + (size_t)panels * plain;
    uint8_t *scratch = all / LINE < UINT32_MAX / 2 ? qp_exec_scratch(ex, (size_t)qp_pool_threads(ex->pool) * plain) : NULL;
    if (!scratch || !panels)
        return all;
    struct job j = {packed, (uint8_t *)packed + where_bytes(panels), scratch, k2};
    qp_pool_for(ex->pool, panels, 1, compact_panels, &j);
    uint32_t at = 0;
    for (int64_t p = 0; p < panels; p++) {
        uint32_t size = j.where[p], lines = size / 2;
        memmove(j.first + (size_t)at * LINE, j.first + (size_t)p * plain, (size_t)lines * LINE);
        j.where[p] = at * 2 + (size & 1);
        at += lines;
    }
    j.where[panels] = at * 2;
    return where_bytes(panels) + (size_t)at * LINE;
}
