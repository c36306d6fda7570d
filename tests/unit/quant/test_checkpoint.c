/* Checkpoints: data in any order, shards, weights that change, what is refused. */
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

#include "base/mem.h"
#include "model/safetensors.h"
#include "quant/checkpoint.h"
#include "quant/gptq.h"

static char folder[] = "/tmp/qp-ck-XXXXXX";
static const struct qp_format format = {.id = QP_FMT_INT, .grid = {.bits = 4, .group_size = 8, .sym = true}};

static struct qp_model *open_model(const char *name)
{
    char path[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    struct qp_err err = {0};
    struct qp_model *m;
    if (qp_model_open(&m, path, &err))
        fail_msg("%s", err.text);
    return m;
}

static struct qp_checkpoint *open_checkpoint(const struct qp_model *m, const char *path, size_t shard_bytes)
{
    struct qp_err err = {0};
    struct qp_checkpoint *ck;
    struct qp_checkpoint_options o = {.layout = &qp_layout_gptq, .quant = {.format = format}, .shard_bytes = shard_bytes};
    if (qp_checkpoint_open(&ck, path, m, &o, &err))
        fail_msg("%s", err.text);
    return ck;
}

/* w [rows, cols] becomes what its codes say. */
static void quantize(const struct qp_weight *from, struct qp_qweight *q, float *w)
{
    struct qp_exec ex = {0};
    struct qp_err err = {0};
    assert_int_equal(qp_weight_read_rows(from, 0, from->rows, w, &err), 0);
    assert_int_equal(qp_qweight_quantize(q, &format, w, from->rows, from->cols, &ex, &err), 0);
    qp_qweight_decode(q, w);
    qp_exec_release(&ex);
}

static void check_values(const struct qp_model *m, const char *name, const float *want)
{
    struct qp_err err = {0};
    const struct qp_weight *w = qp_model_weight(m, name);
    float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
    assert_int_equal(qp_weight_read_rows(w, 0, w->rows, x, &err), 0);
    assert_memory_equal(x, want, (size_t)(w->rows * w->cols) * sizeof *x);
    free(x);
}

static void test_any_order(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_model *m = open_model("model"), *back;
    size_t n = qp_model_n_linears(m), shards[] = {0, 4000};
    for (int k = 0; k < 2; k++) {
        char path[64], index[128];
        const char *name = k ? "shards" : "one";
        snprintf(path, sizeof path, "%s/%s", folder, name);
        struct qp_checkpoint *ck = open_checkpoint(m, path, shards[k]);
        float **values = calloc(n, sizeof *values), *norm = calloc((size_t)qp_model_config(m)->d_model, sizeof *norm);
        norm[0] = 1.5f;
        norm[1] = -0.25f;
        assert_int_equal(qp_checkpoint_set_dense(ck, "model.norm.weight", norm, &err), 0);
        for (size_t i = n; i-- > 0;) {
            const struct qp_weight *w = qp_model_linear(m, i)->weight;
            struct qp_qweight q;
            values[i] = malloc((size_t)(w->rows * w->cols) * sizeof(float));
            quantize(w, &q, values[i]);
            assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, &err), 0);
            qp_qweight_release(&q);
        }
        assert_int_not_equal(access(path, F_OK), 0); /* nothing under the final name before the end */
        double diff = -1;
        if (qp_checkpoint_commit(ck, &diff, &err))
            fail_msg("%s", err.text);
        assert_true(diff == 0);
        back = open_model(name);
        for (size_t i = 0; i < n; i++) {
            check_values(back, qp_model_linear(m, i)->weight->name, values[i]);
            free(values[i]);
        }
        check_values(back, "model.norm.weight", norm);
        snprintf(index, sizeof index, "%s/model.safetensors.index.json", path);
        assert_int_equal(access(index, F_OK) == 0, k == 1);
        free(values);
        free(norm);
        qp_model_free(back);
    }
    qp_model_free(m);
}

static void test_refused(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_model *m = open_model("model");
    const struct qp_weight *w = qp_model_linear(m, 0)->weight;
    char path[64];
    float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x), big[256] = {70000};
    struct qp_qweight q;
    snprintf(path, sizeof path, "%s/refused", folder);
    struct qp_checkpoint *ck = open_checkpoint(m, path, 0);
    quantize(w, &q, x);
    assert_int_equal(qp_checkpoint_add(ck, "model.norm.weight", &q, NULL, 0, &err), QP_E_INTERNAL);
    err = (struct qp_err){0};
    assert_int_equal(qp_checkpoint_set_dense(ck, w->name, x, &err), QP_E_INTERNAL);
    err = (struct qp_err){0};
    assert_int_equal(qp_checkpoint_set_dense(ck, "model.norm.weight", big, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "'model.norm.weight' holds 70000, which float16 cannot"));
    err = (struct qp_err){0};
    assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, &err), 0);
    assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, &err), QP_E_INTERNAL);
    err = (struct qp_err){0};
    assert_int_equal(qp_checkpoint_commit(ck, NULL, &err), QP_E_INTERNAL);
    assert_non_null(strstr(err.text, "was never added"));
    assert_int_not_equal(access(path, F_OK), 0);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/refused/x", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/refused", folder);
    struct qp_checkpoint_options o = {.layout = &qp_layout_gptq, .quant = {.format = format}};
    err = (struct qp_err){0};
    assert_int_equal(qp_checkpoint_open(&ck, path, m, &o, &err), QP_E_RESOURCE);
    assert_non_null(strstr(err.text, "exists already"));
    qp_qweight_release(&q);
    free(x);
    qp_model_free(m);
}

/* Writes the whole model, each layer rounded to the format. */
static int write_rounded(const struct qp_model *m, const char *path, const struct qp_checkpoint_options *o, struct qp_err *err)
{
    struct qp_checkpoint *ck;
    struct qp_exec ex = {0};
    int r = qp_checkpoint_open(&ck, path, m, o, err);
    if (r)
        return r;
    for (size_t i = 0; i < qp_model_n_linears(m); i++) {
        const struct qp_weight *w = qp_model_linear(m, i)->weight;
        float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
        struct qp_qweight q;
        assert_int_equal(qp_weight_read_rows(w, 0, w->rows, x, err), 0);
        assert_int_equal(qp_qweight_quantize(&q, &o->quant.format, x, w->rows, w->cols, &ex, err), 0);
        assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, err), 0);
        qp_qweight_release(&q);
        free(x);
    }
    qp_exec_release(&ex);
    return qp_checkpoint_commit(ck, NULL, err);
}

/* All tensors of `want` are in `got`, the same bytes; but quant_state is JSON, which is written with other spaces. */
static void compare_tensors(const char *got, const char *want)
{
    struct qp_err err = {0};
    struct qp_safetensors *a, *b;
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/model.safetensors", got);
    assert_int_equal(qp_safetensors_open(&a, path, &err), 0);
    snprintf(path, sizeof path, "%.4000s/model.safetensors", want);
    assert_int_equal(qp_safetensors_open(&b, path, &err), 0);
    assert_int_equal(qp_safetensors_count(a), qp_safetensors_count(b));
    for (size_t i = 0; i < qp_safetensors_count(b); i++) {
        const struct qp_tensor *t = qp_safetensors_at(b, i), *ours = qp_safetensors_find(a, t->name);
        if (!ours || ours->dtype != t->dtype || ours->ndim != t->ndim)
            fail_msg("'%s' is missing or of another type", t->name);
        if (strstr(t->name, "quant_state"))
            continue;
        if (ours->bytes != t->bytes || memcmp(ours->shape, t->shape, (size_t)t->ndim * sizeof *t->shape) || memcmp(ours->data, t->data, t->bytes))
            fail_msg("'%s' differs", t->name);
    }
    qp_safetensors_close(a);
    qp_safetensors_close(b);
}

/* GPT-2's matrices lie transposed in files (Conv1D): bitsandbytes' tensors are those of the others, [out, in], as transformers saves them. */
static void test_gpt2_bitsandbytes(void **in)
{
    (void)in;
    static const char *const names[][2] = {{"nf4-dq", "gpt2-nf4-dq"}, {"int8", "gpt2-int8"}};
    struct qp_model *m = open_model("gpt2"), *back, *theirs;
    const char *root = getenv("QP_ROOT");
    for (int k = 0; k < 2; k++) {
        struct qp_err err = {0};
        struct qp_checkpoint_options o = {.layout = &qp_layout_bnb};
        char path[64], want[4200];
        snprintf(path, sizeof path, "%s/%s", folder, names[k][1]);
        snprintf(want, sizeof want, "%.4000s/tests/golden/bnb/%s", root ? root : ".", names[k][1]);
        assert_int_equal(qp_format_parse(&o.quant.format, names[k][0], &err), 0);
        if (write_rounded(m, path, &o, &err) || qp_model_open(&theirs, want, &err))
            fail_msg("%s", err.text);
        compare_tensors(path, want);
        back = open_model(names[k][1]);
        for (size_t i = 0; i < qp_model_n_linears(m); i++) { /* and theirs is read as ours is */
            const struct qp_weight *w = qp_model_weight(theirs, qp_model_linear(m, i)->weight->name);
            float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
            assert_int_equal(qp_weight_read_rows(w, 0, w->rows, x, &err), 0);
            check_values(back, w->name, x);
            free(x);
        }
        qp_model_free(back);
        qp_model_free(theirs);
    }
    qp_model_free(m);
}

/* Nothing loads them in these layouts, so nothing is begun. */
static void test_gpt2_refused(void **in)
{
    (void)in;
    static const struct {
        const struct qp_layout *layout;
        const char *format, *says;
    } cases[] = {{&qp_layout_awq, "w4g8", "gptq and gptq_v2 hold integer grids"}, {&qp_layout_ct, "w4g8", "bnb holds nf4, fp4 and int8"}, {&qp_layout_ct, "fp8", "is a Conv1D"}};
    struct qp_model *m = open_model("gpt2"), *llama = open_model("model");
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct qp_err err = {0};
        struct qp_checkpoint_options o = {.layout = cases[k].layout};
        char path[64];
        snprintf(path, sizeof path, "%s/conv%zu", folder, k);
        assert_int_equal(qp_format_parse(&o.quant.format, cases[k].format, &err), 0);
        assert_int_equal(write_rounded(m, path, &o, &err), QP_E_INPUT);
        if (!strstr(err.text, "'transformer.h.0.attn.c_attn.weight'") || !strstr(err.text, cases[k].says))
            fail_msg("case %zu says '%s'", k, err.text);
        assert_int_not_equal(access(path, F_OK), 0);
        strcat(path, ".part");
        assert_int_not_equal(access(path, F_OK), 0);
        err = (struct qp_err){0};
        snprintf(path, sizeof path, "%s/linear%zu", folder, k);
        if (write_rounded(llama, path, &o, &err))
            fail_msg("%s", err.text);
    }
    qp_model_free(m);
    qp_model_free(llama);
}

/* A layer that its tensors cannot hold (a scale that float16 does not have): the difference is measured and said when it is added. */
static void test_read_back(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_model *m = open_model("model");
    const struct qp_weight *w = qp_model_linear(m, 0)->weight;
    float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
    char path[64], says[160];
    struct qp_qweight q;
    snprintf(path, sizeof path, "%s/read-back", folder);
    struct qp_checkpoint *ck = open_checkpoint(m, path, 0);
    quantize(w, &q, x);
    q.ints.scales[3 * q.ints.n_groups] = 0.1f; /* row 3, group 0; float16 has 0.0999755859375 */
    double most = 0;
    for (int i = 0; i < 8; i++)
        most = fmax(most, fabs((double)(0.1f * ((float)q.ints.codes[3 * w->cols + i] - 8)) - (double)(0x1.998p-4f * ((float)q.ints.codes[3 * w->cols + i] - 8))));
    assert_true(most > 2e-5);
    snprintf(says, sizeof says, "'%s' reads back differently from what was quantized, by up to %g", w->name, most);
    assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, &err), QP_E_INTERNAL);
    assert_string_equal(err.text, says);
    qp_checkpoint_close(ck, false);
    assert_int_not_equal(access(path, F_OK), 0);
    qp_qweight_release(&q);
    free(x);
    qp_model_free(m);
}

/* A byte of the files that changes between writing and the end. */
static void test_changed_file(void **in)
{
    (void)in;
    struct qp_err err = {0};
    struct qp_model *m = open_model("model");
    char path[64], file[128];
    snprintf(path, sizeof path, "%s/changed", folder);
    struct qp_checkpoint *ck = open_checkpoint(m, path, 0);
    for (size_t i = 0; i < qp_model_n_linears(m); i++) {
        const struct qp_weight *w = qp_model_linear(m, i)->weight;
        float *x = malloc((size_t)(w->rows * w->cols) * sizeof *x);
        struct qp_qweight q;
        quantize(w, &q, x);
        assert_int_equal(qp_checkpoint_add(ck, w->name, &q, NULL, 0, &err), 0);
        qp_qweight_release(&q);
        free(x);
    }
    snprintf(file, sizeof file, "%s.part/files/model.safetensors", path);
    FILE *f = fopen(file, "r+b");
    uint64_t header;
    assert_true(f && fread(&header, 8, 1, f) == 1);
    fseek(f, (long)(8 + header), SEEK_SET);
    int c = fgetc(f);
    fseek(f, (long)(8 + header), SEEK_SET);
    fputc(c ^ 16, f); /* a code of the first layer */
    fclose(f);
    assert_int_equal(qp_checkpoint_commit(ck, NULL, &err), QP_E_INTERNAL);
    assert_non_null(strstr(err.text, "reads back differently from what was written"));
    assert_int_not_equal(access(path, F_OK), 0);
    qp_model_free(m);
}

static int setup(void **in)
{
    (void)in;
    const char *root = getenv("QP_ROOT");
    char cmd[4200];
    if (!mkdtemp(folder))
        return 1;
    snprintf(cmd, sizeof cmd, "cd '%.4000s/tests/golden/arch' && mkdir %s/model %s/gpt2 && cp llama/* tokenizer.json %s/model/ && cp gpt2/* tokenizer.json %s/gpt2/", root ? root : ".",
             folder, folder, folder, folder);
    return system(cmd);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_order), cmocka_unit_test(test_refused), cmocka_unit_test(test_gpt2_bitsandbytes),
                                       cmocka_unit_test(test_gpt2_refused), cmocka_unit_test(test_read_back), cmocka_unit_test(test_changed_file)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
