/* Prompts of every document in the reference files of lm-evaluation-harness (reference/lmeval), byte for byte, with the draws of their examples; and rows in
 * the forms of their publishers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval/mc_task.h"
#include "text/dataset.h"

static const char *shared(const char *name)
{
    static char path[4096];
    const char *dir = getenv("QP_SHARED");
    snprintf(path, sizeof path, "%s/%s", dir ? dir : "../shared", name);
    return path;
}

static struct qp_mc_task *open_task(const char *name, const char *dir, const struct qp_mc_options *o)
{
    struct qp_mc_spec spec;
    struct qp_mc_task *t;
    struct qp_err err = {0};
    if (qp_mc_spec_open(&spec, name, &err) || qp_mc_task_open(&t, &spec, dir, o, &err))
        fail_msg("%s", err.text);
    return t;
}

/* The question of that subject and doc_id. */
static size_t find(const struct qp_mc_task *t, const char *task, int64_t doc_id)
{
    for (size_t i = 0; i < qp_mc_task_count(t); i++) {
        const struct qp_mc_doc *d = qp_mc_task_doc(t, i);
        if (d->doc_id == doc_id && (!qp_mc_task_leaf_group(t, d->leaf) || strstr(task, qp_mc_task_leaf_group(t, d->leaf))))
            return i;
    }
    fail_msg("%s has no document %lld", task, (long long)doc_id);
    return 0;
}

static void same_text(const char *what, const struct qp_mc_prompt *p, size_t at, const char *want)
{
    if (strcmp(p->text.data + at, want))
        fail_msg("%s: '%s', wanted '%s'", what, p->text.data + at, want);
}

static void compare(const struct qp_mc_task *t, const json_t *want, struct qp_mc_prompt *p)
{
    struct qp_err err = {0};
    const char *prefix = json_string_value(json_object_get(want, "context_prefix")), *context = json_string_value(json_object_get(want, "context"));
    const json_t *conts = json_object_get(want, "continuations"), *tails = json_object_get(want, "context_tails"), *shots = json_object_get(want, "fewshot_idx");
    size_t i = find(t, json_string_value(json_object_get(want, "task")), json_integer_value(json_object_get(want, "doc_id"))), n;
    const uint32_t *drawn = qp_mc_task_shots(t, i, &n);
    assert_int_equal(qp_mc_prompt_make(p, t, i, &err), 0);
    assert_int_equal(p->n, json_array_size(conts));
    assert_int_equal(p->gold, json_integer_value(json_object_get(want, "gold")));
    for (int c = 0; c < p->n; c++) {
        char full[32768];
        if (prefix)
            snprintf(full, sizeof full, "%s%s", prefix, json_string_value(json_array_get(tails, (size_t)c)));
        same_text("context", p, p->context[c], prefix ? full : context);
        same_text("continuation", p, p->continuation[c], json_string_value(json_array_get(conts, (size_t)c)));
    }
    assert_int_equal(n, json_array_size(shots));
    for (size_t k = 0; k < n; k++)
        assert_int_equal(drawn[k], json_integer_value(json_array_get(shots, k)));
}

static void test_reference(void **state)
{
    (void)state;
    static const struct {
        const char *file, *task;
        enum qp_mc_sampler sampler;
        double limit;
    } runs[] = {{"mmlu", "mmlu", QP_MC_SAMPLER_TASK, 8}, {"mmlu_frac", "mmlu", QP_MC_SAMPLER_TASK, 0.1}, {"hellaswag", "hellaswag", QP_MC_SAMPLER_TASK, -1},
                {"hellaswag_firstn", "hellaswag", QP_MC_SAMPLER_FIRST_N, -1}, {"arc_challenge", "arc_challenge", QP_MC_SAMPLER_TASK, 6},
                {"arc_challenge_firstn", "arc_challenge", QP_MC_SAMPLER_FIRST_N, -1}, {"winogrande", "winogrande", QP_MC_SAMPLER_TASK, 20},
                {"winogrande_firstn", "winogrande", QP_MC_SAMPLER_FIRST_N, 6}};
    if (access(shared("reference/lmeval"), R_OK))
        skip();
    size_t docs = 0;
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        struct qp_mc_options o = {.n_shots = -1, .sampler = runs[k].sampler, .limit = runs[k].limit};
        struct qp_mc_task *t = open_task(runs[k].task, shared("data"), &o);
        struct qp_mc_prompt p = {0};
        struct qp_dataset *ds;
        struct qp_err err = {0};
        char name[128];
        json_t *row;
        int64_t line;
        snprintf(name, sizeof name, "reference/lmeval/%s.jsonl", runs[k].file);
        assert_int_equal(qp_dataset_open(&ds, shared(name), NULL, &err), 0);
        for (; qp_dataset_row(ds, &row, &line, &err) == 1; docs++) {
            compare(t, row, &p);
            json_decref(row);
        }
        qp_dataset_close(ds);
        qp_mc_prompt_release(&p);
        qp_mc_task_free(t);
    }
    assert_int_equal(docs, 52);
}

/* Limits count in each subject, shares are rounded up; shards have every question once. */
static void test_limits(void **state)
{
    (void)state;
    if (access(shared("data/mmlu/test.jsonl"), R_OK))
        skip();
    static const struct {
        const char *task;
        double limit;
        size_t n;
    } cases[] = {{"mmlu", -1, 14042}, {"mmlu", 0.2, 2827}, {"mmlu", 1, 57}, {"mmlu_stem", 3, 57}, {"mmlu_anatomy", 0.1, 14}, {"mmlu_astronomy", 1000, 152}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct qp_mc_task *t = open_task(cases[k].task, shared("data"), &(struct qp_mc_options){.n_shots = -1, .limit = cases[k].limit});
        assert_int_equal(qp_mc_task_count(t), cases[k].n);
        qp_mc_task_free(t);
    }
    struct qp_mc_task *whole = open_task("arc_challenge", shared("data/arc_challenge"), &(struct qp_mc_options){.n_shots = -1, .limit = 10}), *part;
    size_t at[3] = {0}, n;
    for (size_t i = 0; i < 10; i++) {
        part = open_task("arc_challenge", shared("data"), &(struct qp_mc_options){.n_shots = -1, .limit = 10, .shard = (int64_t)i % 3, .shards = 3});
        assert_int_equal(qp_mc_task_doc(part, at[i % 3])->i, qp_mc_task_doc(whole, i)->i);
        assert_memory_equal(qp_mc_task_shots(part, at[i % 3]++, &n), qp_mc_task_shots(whole, i, &n), 25 * sizeof(uint32_t));
        qp_mc_task_free(part);
    }
    qp_mc_task_free(whole);
}

/* ---- files as publishers write them ---- */

static char root[64];

static void put(const char *name, const char *text)
{
    char path[4096], *slash;
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char *under(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static int begin(void **state)
{
    (void)state;
    snprintf(root, sizeof root, "/tmp/qp-mc-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void prompt_is(const char *task, const char *dir, int64_t n_shots, const char *context, const char *continuation, int gold)
{
    struct qp_mc_task *t = open_task(task, dir, &(struct qp_mc_options){.n_shots = n_shots, .limit = -1});
    struct qp_mc_prompt p = {0};
    struct qp_err err = {0};
    if (qp_mc_prompt_make(&p, t, 0, &err))
        fail_msg("%s", err.text);
    same_text(task, &p, p.context[0], context);
    same_text(task, &p, p.continuation[p.n - 1], continuation);
    assert_int_equal(p.gold, gold);
    qp_mc_prompt_release(&p);
    qp_mc_task_free(t);
}

static void test_publishers(void **state)
{
    (void)state;
    put("mmlu/test/anatomy_test.csv", "\" A \"\"quoted\"\", question\nof two lines \",a,\"b, c\",c,d,B\n");
    put("mmlu/dev/anatomy_dev.csv", "One?,1,2,3,4,D\r\nTwo?,1,2,3,4,A\r\n");
    prompt_is("mmlu", under(""), 1,
              "The following are multiple choice questions (with answers) about anatomy.\n\nOne?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: D\n\n"
              "A \"quoted\", question\nof two lines\nA. a\nB. b, c\nC. c\nD. d\nAnswer:", " D", 1);
    put("ARC-Easy/ARC-Easy-Test.jsonl", "{\"id\":\"x\",\"question\":{\"stem\":\"Why?\",\"choices\":[{\"text\":\"so\",\"label\":\"1\"},{\"text\":\"no\",\"label\":\"2\"}]},\"answerKey\":\"2\"}\n");
    prompt_is("arc_easy", under(""), 0, "Question: Why?\nAnswer:", " no", 1);
    put("hellaswag/hellaswag_val.jsonl", "{\"ind\":1,\"activity_label\":\" Baking\",\"ctx_a\":\"[header] How to bake [title] Mix it.  He\",\"ctx_b\":\"wALKS \xc3\x89 away\",\"label\":\"1\","
                                         "\"endings\":[\"[substeps] a   b\",\" goes [title] on [x\"]}\n");
    prompt_is("hellaswag", under(""), 0, "Baking: How to bake. Mix it. He Walks \xc3\xa9 away", " goes. on [x", 1);
    put("piqa/valid.jsonl", "{\"goal\":\"Open it\",\"sol1\":\"pull\",\"sol2\":\"push\"}\n{\"goal\":\"Shut it\",\"sol1\":\"pull\",\"sol2\":\"push\"}\n");
    put("piqa/valid-labels.lst", "1\n0\n");
    prompt_is("piqa", under("piqa"), 0, "Question: Open it\nAnswer:", " push", 1);
    put("winogrande/dev.jsonl", "{\"qID\":\"q\",\"sentence\":\"The cup fell as _'s lid broke. \",\"option1\":\"it\",\"option2\":\"he\",\"answer\":\"1\"}\n");
    prompt_is("winogrande", under(""), 0, "The cup fell as it", " 's lid broke.", 0);
}

/* Without a file of examples the questions themselves are the pool; a question and its copies are no example of themselves. */
static void test_own_task(void **state)
{
    (void)state;
    put("own.json", "{\"task\": \"own\", \"description\": \"Say.\\n\", \"fields\": {\"q\": \"body.text\"}, \"template\": \"{{{q|strip}}} ({kind})\\n>\", \"choices\": \"body.options\","
                    " \"answer\": \"right\", \"group\": \"kind\", \"id\": \"id\", \"metric\": [\"acc\", \"acc_norm\"], \"data\": \"own.jsonl\","
                    " \"fewshot\": {\"num\": 2, \"sampler\": \"first_n\"}, \"fewshot_delimiter\": \"\\n--\\n\"}");
    put("own.jsonl", "{\"id\": \"a\", \"body\": {\"text\": \" one \", \"options\": [\"x\", 7]}, \"right\": \"b\", \"kind\": \"k\"}\n"
                     "{\"id\": \"b\", \"body\": {\"text\": \"two\", \"options\": [\"x\", \"y\", \"z\"]}, \"right\": 2, \"kind\": \"k\"}\n"
                     "{\"id\": \"c\", \"body\": {\"text\": \"three\", \"options\": [\"x\", \"y\"]}, \"right\": \"y\", \"kind\": \"l\"}\n");
    char path[4096];
    snprintf(path, sizeof path, "%s", under("own.json"));
    prompt_is(path, NULL, -1, "Say.\n{two} (k)\n> z\n--\n{three} (l)\n> y\n--\n{one} (k)\n>", " 7", 1);
    struct qp_mc_task *t = open_task(path, NULL, &(struct qp_mc_options){.n_shots = -1, .limit = -1});
    assert_string_equal(qp_mc_task_doc(t, 2)->id, "c");
    assert_string_equal(qp_mc_task_doc(t, 2)->group, "l");
    assert_int_equal(qp_mc_task_leaves(t), 1);
    qp_mc_task_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_limits), cmocka_unit_test_setup_teardown(test_publishers, begin, end),
                                       cmocka_unit_test_setup_teardown(test_own_task, begin, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
