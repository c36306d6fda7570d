/* Items as records and in memory; totals from them: lm-evaluation-harness's pooled errors (golden/mc.json), pairs of models, items that overlap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "eval/item_report.h"

static struct qp_writer *writer(int *fd)
{
    struct qp_writer *w;
    struct qp_err err = {0};
    char *argv[] = {"test", NULL};
    *fd = memfd_create("items", 0);
    assert_int_equal(qp_writer_new(&w, *fd, &err), 0);
    qp_w_head(w, "test", 1, argv, 0);
    return w;
}

/* The stream's records as JSON lines. */
static void finish(struct qp_writer *w, int fd, struct qp_items *items, struct qp_buf *json)
{
    struct qp_reader *rd;
    struct qp_record rec;
    struct qp_err err = {0};
    qp_w_tail(w, "test", "ok");
    assert_int_equal(qp_writer_flush(w, &err), 0);
    qp_writer_free(w);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(qp_reader_new(&rd, fd, "test", &err), 0);
    while (qp_reader_next(rd, &rec, &err) == 1) {
        if (items && qp_record_is(&rec, "item") && qp_items_read(items, &rec, &err))
            fail_msg("%s", err.text);
        qp_record_json(&rec, 0, json);
        qp_buf_adds(json, "\n");
    }
    qp_reader_free(rd);
    close(fd);
}

static void test_round_trip(void **state)
{
    (void)state;
    int fd;
    struct qp_writer *w = writer(&fd);
    struct qp_items got = {0};
    struct qp_buf json = QP_BUF_INIT;
    const double scores[] = {-1.5, -INFINITY, -0.25};
    const struct qp_item want = {.model = "m", .task = "t", .i = 5, .group = "g", .id = "row 5", .key = "0123456789abcdef", .correct = true, .correct_norm = 0, .scores = scores,
                                 .n_scores = 3, .greedy = 5, .gold = 2, .pred = 2, .pred_norm = 0, .overlap = 1, .cut = 9, .answer = "", .expected = "x", .end = "eos", .tokens = 4};
    struct qp_item bare = QP_ITEM_INIT;
    bare.model = "m";
    bare.task = "t";
    qp_item_write(w, &want);
    qp_item_write(w, &bare);
    finish(w, fd, &got, &json);
    assert_int_equal(got.n, 2);
    const struct qp_item *a = &got.v[0], *b = &got.v[1];
    assert_true(a->i == 5 && a->correct && a->correct_norm == 0 && a->n_scores == 3 && a->scores[0] == -1.5 && a->scores[1] == -INFINITY && a->scores[2] == -0.25);
    assert_true(a->greedy == 5 && a->gold == 2 && a->pred == 2 && a->pred_norm == 0 && a->overlap == 1 && a->cut == 9 && a->tokens == 4);
    assert_string_equal(a->group, "g");
    assert_string_equal(a->id, "row 5");
    assert_string_equal(a->key, want.key);
    assert_string_equal(a->answer, "");
    assert_string_equal(a->expected, "x");
    assert_string_equal(a->end, "eos");
    assert_ptr_equal(a->model, b->model);
    assert_true(!b->correct && b->correct_norm == -1 && !b->n_scores && b->gold == -1 && b->overlap == -1 && b->tokens == -1 && !b->group && !b->answer && !b->key);
    assert_non_null(strstr(json.data, "{\"t\":\"item\",\"model\":\"m\",\"task\":\"t\",\"i\":0,\"correct\":false}"));
    qp_items_release(&got);
    qp_buf_release(&json);
}

static void add(struct qp_items *l, const char *model, const char *task, int64_t i, const char *group, bool right, int overlap)
{
    struct qp_err err = {0};
    struct qp_item it = QP_ITEM_INIT;
    it.model = model;
    it.task = task;
    it.i = i;
    it.group = group;
    it.correct = right;
    it.overlap = overlap;
    assert_int_equal(qp_items_add(l, &it, &err), 0);
}

static void test_sort(void **state)
{
    (void)state;
    struct qp_items l = {0};
    struct qp_err err = {0};
    add(&l, "base", "b", 2, NULL, true, -1);
    add(&l, "base", "a", 1, NULL, true, -1);
    add(&l, "base", "b", 0, NULL, true, -1);
    add(&l, "quant", "b", 2, NULL, false, -1);
    add(&l, "quant", "b", 0, NULL, false, -1);
    assert_int_equal(qp_items_sort(&l, &err), 0);
    const struct {
        const char *task;
        int64_t i;
        bool base;
    } want[] = {{"b", 0, true}, {"b", 0, false}, {"b", 2, true}, {"b", 2, false}, {"a", 1, true}};
    for (size_t i = 0; i < 5; i++)
        assert_true(!strcmp(l.v[i].task, want[i].task) && l.v[i].i == want[i].i && l.v[i].correct == want[i].base);
    qp_items_release(&l);
}

static void test_totals(void **state)
{
    (void)state;
    char path[4096];
    const char *root = getenv("QP_ROOT");
    snprintf(path, sizeof path, "%.2000s/tests/golden/mc.json", root ? root : ".");
    json_t *all = json_load_file(path, 0, NULL), *t;
    size_t k;
    assert_non_null(all);
    json_array_foreach(json_object_get(all, "totals"), k, t)
    {
        struct qp_items l = {0};
        json_t *sizes = json_object_get(t, "sizes"), *right = json_object_get(t, "right");
        int64_t at = 0;
        for (size_t g = 0; g < json_array_size(sizes); g++) {
            char group[32];
            snprintf(group, sizeof group, "g%zu", g);
            for (json_int_t i = 0; i < json_integer_value(json_array_get(sizes, g)); i++)
                add(&l, "m", "t", at++, group, i < json_integer_value(json_array_get(right, g)), -1);
        }
        struct qp_item_task pooled = {.name = "t", .pooled = true}, plain = {.name = "t"};
        struct qp_mean p = qp_items_accuracy(&l, "m", &pooled, NULL, false, false), q = qp_items_accuracy(&l, "m", &plain, NULL, false, false);
        assert_true(p.n == (size_t)at && fabs(p.mean - json_number_value(json_object_get(t, "mean"))) < 1e-12);
        assert_true(fabs(p.stderr_ - json_number_value(json_object_get(t, "pooled"))) < 1e-12);
        assert_true(fabs(q.stderr_ - json_number_value(json_object_get(t, "plain"))) < 1e-12);
        qp_items_release(&l);
    }
    assert_int_equal(k, 4);
    json_decref(all);
}

static const char *section(const char *group)
{
    return group[0] == 'a' ? "left" : "right";
}

static void test_report(void **state)
{
    (void)state;
    int fd;
    struct qp_writer *w = writer(&fd);
    struct qp_items l = {0};
    struct qp_buf json = QP_BUF_INIT, lines = QP_BUF_INIT;
    struct qp_err err = {0};
    static const char *const groups[] = {"a", "a1", "b"};
    for (int64_t i = 0; i < 30; i++) {
        add(&l, "base", "t", i, groups[i / 10], i % 2 == 0, i < 3);
        add(&l, "quant", "t", i, groups[i / 10], i % 2 == 0 && i < 28, i < 3);
    }
    const struct qp_item_model models[] = {{"base", NULL}, {"quant", "base"}};
    const struct qp_item_task task = {.name = "t", .pooled = true, .section = section};
    const struct qp_item_report r = {.items = &l, .models = models, .n_models = 2, .tasks = &task, .n_tasks = 1, .seed = 42};
    if (qp_items_report(w, &r, "x: ", &lines, &err))
        fail_msg("%s", err.text);
    finish(w, fd, NULL, &json);
    assert_non_null(strstr(json.data, "\"model\":\"base\",\"metric\":\"acc/t\",\"value\":0.5,"));
    assert_non_null(strstr(json.data, "\"overlap\":{\"items\":3,\"value_without\":0.48148148148148145,"));
    assert_non_null(strstr(json.data, "\"metric\":\"acc/t_left\",\"value\":0.5,"));
    assert_non_null(strstr(json.data, "\"model\":\"quant\",\"metric\":\"acc/t_right\",\"value\":0.4,"));
    assert_non_null(strstr(json.data, "\"groups\":[{\"group\":\"a\",\"n\":10,\"value\":0.5,\"stderr\":0.166666666666666"));
    assert_non_null(strstr(json.data, "\"metric\":\"dacc/t\",\"value\":-0.0333333333333333"));
    assert_non_null(strstr(json.data, "\"lost\":1,\"gained\":0"));
    assert_non_null(strstr(json.data, "\"metric\":\"retained/t\",\"value\":93.333333333333"));
    assert_non_null(strstr(json.data, "\"metric\":\"quality/all\""));
    assert_null(strstr(json.data, "acc_norm"));
    assert_non_null(strstr(lines.data, "x: base  acc/t 50.00 % +- "));
    assert_non_null(strstr(lines.data, "not significant"));
    /* an item that the baseline has not */
    add(&l, "quant", "t", 30, "b", true, 0);
    w = writer(&fd);
    assert_int_equal(qp_items_report(w, &r, "", NULL, &err), QP_E_INPUT);
    assert_non_null(strstr(err.text, "task 't': 'quant' has an item 30 that 'base' has not"));
    qp_writer_free(w);
    close(fd);
    qp_items_release(&l);
    qp_buf_release(&json);
    qp_buf_release(&lines);
}

static void test_bad_records(void **state)
{
    (void)state;
    static const struct {
        const char *field, *message;
    } cases[] = {{"correct", "field 'correct' is missing"}, {"i", "field 'i' is missing"}, {"greedy", "field 'greedy' holds 64"}, {"scores", "field 'scores'"}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int fd;
        struct qp_writer *w = writer(&fd);
        struct qp_items l = {0};
        struct qp_reader *rd;
        struct qp_record rec;
        struct qp_err err = {0};
        qp_w_begin(w, "item");
        qp_w_str(w, "model", "m");
        qp_w_str(w, "task", "t");
        if (k != 1)
            qp_w_i64(w, "i", 0);
        if (k)
            qp_w_bool(w, "correct", true);
        qp_w_i64s(w, "greedy", (int64_t[]){k == 2 ? 64 : 63}, 1);
        double many[QP_ITEM_SCORES + 1] = {0};
        qp_w_f64s(w, "scores", many, QP_ITEM_SCORES + (k == 3));
        qp_w_end(w);
        assert_int_equal(qp_writer_flush(w, &err), 0);
        qp_writer_free(w);
        lseek(fd, 0, SEEK_SET);
        assert_int_equal(qp_reader_new(&rd, fd, "test", &err), 0);
        assert_int_equal(qp_reader_next(rd, &rec, &err), 1);
        assert_int_equal(qp_reader_next(rd, &rec, &err), 1);
        assert_int_equal(qp_items_read(&l, &rec, &err), QP_E_INPUT);
        assert_non_null(strstr(err.text, cases[k].message));
        qp_reader_free(rd);
        close(fd);
        qp_items_release(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_sort), cmocka_unit_test(test_totals), cmocka_unit_test(test_report),
                                       cmocka_unit_test(test_bad_records)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
