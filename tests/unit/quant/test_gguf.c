/* GGUF checkpoints: blocks as ggml publishes them, grids that they hold exactly, files that keep all that their model's file had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"
#include "base/rng.h"
#include "model/decode.h"
#include "model/gguf.h"
#include "model/gguf_place.h"
#include "quant/checkpoint.h"
#include "quant/gptq.h"

static char folder[] = "/tmp/qp-gguf-XXXXXX";

static struct qp_format grid(int bits, int64_t group, bool sym)
{
    return (struct qp_format){.id = QP_FMT_INT, .grid = {.bits = bits, .group_size = group, .sym = sym, .blocks = true, .search = true}};
}

static float *random_weights(int64_t n, float scale)
{
    struct qp_rng rng = qp_rng_seed(7);
    float *w = malloc((size_t)n * sizeof *w);
    for (int64_t i = 0; i < n; i++)
        w[i] = scale * ((float)((double)(qp_rng_next(&rng) >> 8) * 0x1p-23) - 1.2f);
    return w;
}

static void quantize(struct qp_qweight *q, const struct qp_format *f, const float *w, int64_t rows, int64_t cols)
{
    struct qp_exec ex = {0};
    struct qp_err err = {0};
    if (qp_qweight_quantize(q, f, w, rows, cols, &ex, &err))
        fail_msg("%s", err.text);
    qp_exec_release(&ex);
}

/* block_q4_0 {half d; uint8 qs[16]}, block_q4_1 {half d, m; uint8 qs[16]}, block_q8_0 {half d; int8 qs[32]}; weight j of a block in the low nibble of byte j, j + 16 in the high one. */
static void test_blocks(void **in)
{
    (void)in;
    static const struct {
        int bits;
        bool sym;
        enum qp_dtype dtype;
        size_t bytes;
    } kinds[] = {{4, true, QP_DT_Q4_0, 18}, {4, false, QP_DT_Q4_1, 20}, {8, true, QP_DT_Q8_0, 34}};
    int64_t rows = 3, cols = 160, groups[] = {32, 64, 128, 96, 0};
    float scales[] = {1, 1e-6f, 3e3f};
    for (int k = 0; k < 3; k++)
        for (int g = 0; g < 5; g++)
            for (int e = 0; e < 3; e++) {
                struct qp_format f = grid(kinds[k].bits, groups[g], kinds[k].sym);
                struct qp_err err = {0};
                struct qp_qweight q;
                struct qp_parts p;
                float *w = random_weights(rows * cols, scales[e]), *want = malloc((size_t)(rows * cols) * sizeof *want), *got = malloc((size_t)(rows * cols) * sizeof *got);
                quantize(&q, &f, w, rows, cols);
                if (qp_pack(QP_PACK_GGUF, &f, rows, cols, &q, &p, &err))
                    fail_msg("%s", err.text);
                assert_int_equal(p.n, 1);
                assert_string_equal(p.v[0].name, "weight");
                assert_int_equal(p.v[0].dtype, kinds[k].dtype);
                assert_int_equal(p.v[0].bytes, (size_t)(rows * cols / 32) * kinds[k].bytes);
                const uint8_t *at = p.v[0].data;
                for (int64_t b = 0; b < rows * cols / 32; b++, at += kinds[k].bytes) {
                    int64_t row = b / (cols / 32), first = b % (cols / 32) * 32, group = row * q.ints.n_groups + (groups[g] ? first / groups[g] : 0);
                    const uint8_t *codes = q.ints.codes + row * cols + first, *qs = at + (kinds[k].dtype == QP_DT_Q4_1 ? 4 : 2);
                    uint16_t d, m;
                    memcpy(&d, at, 2);
                    memcpy(&m, at + 2, 2);
                    assert_true(qp_f16_to_f32(d) == q.ints.scales[group]);
                    if (kinds[k].dtype == QP_DT_Q4_1)
                        assert_true(qp_f16_to_f32(m) == -q.ints.scales[group] * (float)q.ints.zeros[group]);
                    for (int j = 0; j < 32; j++) {
                        int code = kinds[k].bits == 8 ? (int8_t)qs[j] + 128 : j < 16 ? qs[j] & 15 : qs[j - 16] >> 4;
                        assert_int_equal(code, codes[j]);
                    }
                }
                qp_qweight_decode(&q, want);
                qp_decode(p.v[0].dtype, p.v[0].data, rows * cols, got);
                assert_memory_equal(got, want, (size_t)(rows * cols) * sizeof *got);
                qp_parts_release(&p);
                qp_qweight_release(&q);
                free(w);
                free(want);
                free(got);
            }
}

/* Every zero point, every binade: the minimum is a float16 value, and no scale moves further than half a step of those that are left. */
static void test_scales(void **in)
{
    (void)in;
    struct qp_rng rng = qp_rng_seed(3);
    struct qp_grid g = grid(4, 32, false).grid;
    static const int digits[16] = {11, 11, 11, 9, 11, 8, 9, 8, 11, 7, 8, 7, 9, 7, 8, 7};
    for (int e = -24; e < 12; e++)
        for (int zero = 0; zero < 16; zero++)
            for (int i = 0; i < 200; i++) {
                float s = ldexpf(1 + (float)((double)qp_rng_next(&rng) * 0x1p-32), e), to = qp_grid_scale(&g, s, zero), m = to * (float)zero;
                assert_true(to > 0 && qp_f16_to_f32(qp_f32_to_f16(to)) == to);
                assert_true(qp_f16_to_f32(qp_f32_to_f16(m)) == m);
                assert_true(fabsf(to - s) <= fmaxf(ldexpf(1, e - digits[zero]), 0x1p-25f) * 1.001f);
            }
    assert_true(qp_grid_scale(&g, 1e9f, 15) * 15 <= 65504 && qp_grid_scale(&g, 0, 15) == 0x1p-24f);
}

static void refused(const struct qp_format *f, int64_t cols, const char *why)
{
    struct qp_err err = {0};
    struct qp_parts p;
    assert_int_equal(qp_pack(QP_PACK_GGUF, f, 2, cols, NULL, &p, &err), QP_E_INPUT);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
}

static void test_refused(void **in)
{
    (void)in;
    struct qp_format f = grid(4, 24, true), permuted = grid(4, 32, true), nf4 = {.id = QP_FMT_NF4, .block_size = 64};
    refused(&f, 96, "w4g24: GGUF blocks hold 32 weights");
    f = grid(3, 32, true);
    refused(&f, 96, "w3g32: GGUF blocks hold integer grids of 4 bits");
    f = grid(8, 32, false);
    refused(&f, 96, "w8g32-asym: GGUF blocks hold integer grids of 4 bits");
    refused(&nf4, 96, "nf4: GGUF blocks hold integer grids");
    permuted.permuted = true;
    refused(&permuted, 96, "neighbouring inputs only");
    f = grid(4, 32, true);
    refused(&f, 72, "72 inputs do not divide into GGUF's blocks of 32");
    /* A grid that was not made for it: 15 steps of a scale of 11 digits are no float16 value. */
    struct qp_qweight q;
    struct qp_err err = {0};
    struct qp_parts p;
    float *w = random_weights(32, 1);
    f = grid(4, 32, false);
    quantize(&q, &f, w, 1, 32);
    q.ints.scales[0] = 1 + 0x1p-10f;
    q.ints.zeros[0] = 15;
    assert_int_equal(qp_pack(QP_PACK_GGUF, &f, 1, 32, &q, &p, &err), QP_E_INTERNAL);
    qp_qweight_release(&q);
    free(w);
}

/* ---- files ---- */

static struct qp_model *open_model(const char *path)
{
    struct qp_err err = {0};
    struct qp_model *m;
    if (qp_model_open(&m, path, &err))
        fail_msg("%s", err.text);
    return m;
}

static float *read_weight(const struct qp_weight *w)
{
    struct qp_err err = {0};
    float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
    assert_int_equal(qp_weight_read_rows(w, 0, w->rows, x, &err), 0);
    return x;
}

static void same_values(const struct qp_model *m, const char *name, const float *want)
{
    const struct qp_weight *w = qp_model_weight(m, name);
    float *x = read_weight(w);
    assert_memory_equal(x, want, (size_t)(w->rows * w->cols) * sizeof *x);
    free(x);
}

/* What stands in `from` stands in `to`, but for the two keys that say what the weights are. */
static void same_metadata(const struct qp_gguf *from, const struct qp_gguf *to, int64_t file_type)
{
    struct qp_err err = {0};
    int64_t type = -1, version = -1;
    for (size_t i = 0; i < qp_gguf_n_entries(from); i++) {
        struct qp_gguf_entry a = qp_gguf_entry_at(from, i);
        size_t j = 0;
        while (j < qp_gguf_n_entries(to) && strcmp(qp_gguf_entry_at(to, j).key, a.key))
            j++;
        assert_true(j < qp_gguf_n_entries(to));
        struct qp_gguf_entry b = qp_gguf_entry_at(to, j);
        if (strcmp(a.key, "general.file_type") && strcmp(a.key, "general.quantization_version")) {
            assert_int_equal(a.bytes, b.bytes);
            assert_memory_equal(a.raw, b.raw, a.bytes);
        }
    }
    assert_int_equal(qp_gguf_i64(to, "general.file_type", &type, &err), 1);
    assert_int_equal(qp_gguf_i64(to, "general.quantization_version", &version, &err), 1);
    assert_int_equal(type, file_type);
    assert_int_equal(version, 2);
}

/* Mixtral: q and k rows in pairs, experts in one tensor; one layer kept, one norm set. */
static void test_file(void **in)
{
    (void)in;
    const char *root = getenv("QP_ROOT");
    struct qp_err err = {0};
    char path[4300], out[64];
    snprintf(path, sizeof path, "%.4000s/tests/golden/gguf/mixtral.gguf", root ? root : ".");
    snprintf(out, sizeof out, "%s/new.gguf", folder);
    struct qp_model *m = open_model(path);
    size_t n = qp_model_n_linears(m);
    struct qp_format most = grid(4, 32, false), kept = {.id = QP_FMT_BF16}, *formats = calloc(n, sizeof *formats);
    float **values = calloc(n, sizeof *values), norm[32];
    for (size_t i = 0; i < n; i++)
        formats[i] = qp_model_linear(m, i)->role == QP_ROLE_K ? kept : most;
    for (int i = 0; i < 32; i++)
        norm[i] = 1 + (float)i / 7;
    struct qp_checkpoint_options o = {.layout = &qp_layout_gguf, .gguf = true, .quant = {.format = most, .formats = formats, .asymmetric = true}};
    struct qp_checkpoint *ck;
    if (qp_checkpoint_open(&ck, out, m, &o, &err))
        fail_msg("%s", err.text);
    for (size_t i = n; i-- > 0;) {
        const struct qp_weight *w = qp_model_linear(m, i)->weight;
        struct qp_qweight q;
        values[i] = read_weight(w);
        quantize(&q, &formats[i], values[i], w->rows, w->cols);
        qp_qweight_decode(&q, values[i]);
        assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, &err), 0);
        qp_qweight_release(&q);
    }
    assert_int_equal(qp_checkpoint_set_dense(ck, "model.norm.weight", norm, &err), 0);
    assert_int_not_equal(access(out, F_OK), 0); /* nothing under the final name before the end */
    if (qp_checkpoint_commit(ck, NULL, &err))
        fail_msg("%s", err.text);
    struct qp_model *back = open_model(out);
    for (size_t i = 0; i < n; i++) {
        same_values(back, qp_model_linear(m, i)->weight->name, values[i]);
        free(values[i]);
    }
    same_values(back, "model.norm.weight", norm);
    const struct qp_gguf *a = qp_model_gguf(m), *b = qp_model_gguf(back);
    same_metadata(a, b, 3);
    assert_int_equal(qp_gguf_count(a), qp_gguf_count(b));
    const struct qp_tensor *from = qp_gguf_find(a, "token_embd.weight"), *to = qp_gguf_find(b, "token_embd.weight"), *k = qp_gguf_find(b, "blk.0.attn_k.weight");
    assert_true(from->dtype == to->dtype && k->dtype == QP_DT_BF16 && qp_gguf_find(b, "blk.0.ffn_up_exps.weight")->dtype == QP_DT_Q4_1);
    assert_memory_equal(from->data, to->data, from->bytes);
    assert_int_equal(((uintptr_t)to->data | (uintptr_t)k->data) % 32, 0);
    qp_model_free(back);
    assert_int_not_equal(qp_checkpoint_open(&ck, out, m, &o, &err), 0);
    assert_non_null(strstr(err.text, "exists already; give a new file"));
    err = (struct qp_err){0};
    unlink(out);
    for (size_t i = 0; i < n; i++) /* experts in more than one type */
        formats[i] = qp_model_linear(m, i)->expert == 1 ? kept : most;
    assert_int_equal(qp_checkpoint_open(&ck, out, m, &o, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "experts.1."));
    assert_non_null(strstr(err.text, "all of them are one tensor"));
    assert_int_not_equal(access(out, F_OK), 0);
    free(values);
    free(formats);
    qp_model_free(m);
}

/* The same model in 16 bits, whatever it was in before; what was in 16 or 32 bits already is copied. */
static void test_conversion(void **in)
{
    (void)in;
    const char *root = getenv("QP_ROOT");
    struct qp_err err = {0};
    char path[4300], out[64];
    snprintf(path, sizeof path, "%.4000s/tests/golden/gguf/qwen2moe.gguf", root ? root : ".");
    snprintf(out, sizeof out, "%s/none.gguf", folder);
    struct qp_model *m = open_model(path), *back;
    struct qp_checkpoint *ck;
    struct qp_checkpoint_options o = {.gguf = true};
    if (qp_checkpoint_open(&ck, out, m, &o, &err) || qp_checkpoint_commit(ck, NULL, &err))
        fail_msg("%s", err.text);
    back = open_model(out);
    for (size_t i = 0; i < qp_model_n_weights(m); i++) {
        float *x = read_weight(qp_model_weight_at(m, i));
        same_values(back, qp_model_weight_at(m, i)->name, x);
        free(x);
    }
    assert_int_equal(qp_gguf_count(qp_model_gguf(m)), qp_gguf_count(qp_model_gguf(back)));
    qp_model_free(back);
    qp_model_free(m);
}

/* Byte-level, of 26 letters: the models have 32 tokens. */
static void write_tokenizer(const char *dir)
{
    char path[96];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"model\": {\"type\": \"BPE\", \"merges\": [], \"vocab\": {", f);
    for (int i = 0; i < 26; i++)
        fprintf(f, "%s\"%c\": %d", i ? ", " : "", 'a' + i, i);
    fputs("}}}", f);
    assert_int_equal(fclose(f), 0);
}

/* Folders: all weights read back as they were, vectors and all, and the arithmetic's numbers. */
static void test_folder(void **in)
{
    (void)in;
    static const char *const archs[] = {"llama", "llama-linear", "qwen2", "qwen3"};
    const char *root = getenv("QP_ROOT");
    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        struct qp_err err = {0};
        char path[64], out[64], cmd[4200];
        snprintf(path, sizeof path, "%s/%s", folder, archs[a]);
        snprintf(out, sizeof out, "%s/%s.gguf", folder, archs[a]);
        snprintf(cmd, sizeof cmd, "mkdir %s && cp %.4000s/tests/golden/arch/%s/* %s", path, root ? root : ".", archs[a], path);
        assert_int_equal(system(cmd), 0);
        write_tokenizer(path);
        struct qp_model *m = open_model(path), *back;
        struct qp_checkpoint *ck;
        struct qp_checkpoint_options o = {.gguf = true};
        if (qp_checkpoint_open(&ck, out, m, &o, &err) || qp_checkpoint_commit(ck, NULL, &err))
            fail_msg("%s: %s", archs[a], err.text);
        back = open_model(out);
        assert_int_equal(qp_model_n_weights(m), qp_model_n_weights(back));
        for (size_t i = 0; i < qp_model_n_weights(m); i++) {
            float *x = read_weight(qp_model_weight_at(m, i));
            same_values(back, qp_model_weight_at(m, i)->name, x);
            free(x);
        }
        const struct qp_model_config *c = qp_model_config(m), *d = qp_model_config(back);
        assert_string_equal(c->arch, d->arch);
        assert_true(c->n_heads == d->n_heads && c->n_kv_heads == d->n_kv_heads && c->head_dim == d->head_dim && c->max_positions == d->max_positions && c->d_ff == d->d_ff);
        assert_true((float)c->norm_eps == (float)d->norm_eps && (float)c->rope_theta == (float)d->rope_theta && c->rope_scaling == d->rope_scaling);
        assert_true(c->rope_scaling != QP_ROPE_LINEAR || c->rope_factor == d->rope_factor);
        qp_model_free(back);
        qp_model_free(m);
    }
}

static int setup(void **in)
{
    (void)in;
    return !mkdtemp(folder);
}

static int teardown(void **in)
{
    (void)in;
    char cmd[64];
    snprintf(cmd, sizeof cmd, "rm -rf %s", folder);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks), cmocka_unit_test(test_scales), cmocka_unit_test(test_refused), cmocka_unit_test(test_file),
                                       cmocka_unit_test(test_conversion), cmocka_unit_test(test_folder)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
