/* Results and samples in the files and fields of lm-evaluation-harness 0.4.13 (--output_path, --log_samples), for scripts that read those. What is no matter of
 * multiple choice (devices, versions of Python's libraries) is null. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "qmc.h"

#define LAYOUT "0.4.13"

struct names {
    char model[256], stamp[40];
    time_t start;
};

/* Each run of characters that file names do without becomes two underscores. */
static void sanitize(const char *s, char *out, size_t n)
{
    size_t at = 0;
    while (*s && at + 3 < n) {
        size_t run = strspn(s, "\"<>:/\\|?*[]");
        if (run) {
            out[at++] = '_';
            out[at++] = '_';
            s += run;
        } else {
            out[at++] = *s++;
        }
    }
    out[at] = 0;
}

static void stamp(struct names *n)
{
    struct timespec t;
    struct tm tm;
    const char *fixed = getenv("SOURCE_DATE_EPOCH");
    clock_gettime(CLOCK_REALTIME, &t);
    if (fixed)
        t = (struct timespec){.tv_sec = strtol(fixed, NULL, 10)};
    n->start = t.tv_sec;
    localtime_r(&t.tv_sec, &tm);
    size_t at = strftime(n->stamp, sizeof n->stamp, "%Y-%m-%dT%H-%M-%S", &tm);
    snprintf(n->stamp + at, sizeof n->stamp - at, ".%06ld", t.tv_nsec / 1000);
}

/* The harness's name of a subtask: "mmlu_anatomy". */
static void leaf_name(const struct qmc_task *t, size_t leaf, char *out, size_t n)
{
    const char *group = qp_mc_task_leaf_group(t->t, leaf);
    snprintf(out, n, "%s%s", group ? "mmlu_" : qp_mc_task_spec(t->t)->name, group ? group : "");
}

/* ---- samples ---- */

static void set_text(json_t *o, const char *key, const char *text)
{
    json_object_set_new(o, key, json_string(text));
}

static void set_hash(json_t *o, const char *key, const char *text)
{
    char hex[QP_SHA256_HEX];
    qp_sha256_hex(hex, text, strlen(text));
    set_text(o, key, hex);
}

/* str() of a Python float. */
static json_t *number_text(double v)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    if (!strpbrk(text, ".en"))
        strcat(text, ".0");
    return json_string(text);
}

static void add_requests(json_t *o, const struct qp_mc_prompt *p, const struct qp_item *it)
{
    json_t *arguments = json_object(), *resps = json_array(), *filtered = json_array();
    for (int c = 0; c < p->n; c++) {
        char key[32];
        snprintf(key, sizeof key, "gen_args_%d", c);
        json_object_set_new(arguments, key, json_pack("{s:s,s:s}", "arg_0", p->text.data + p->context[c], "arg_1", p->text.data + p->continuation[c]));
        json_t *answer = json_pack("[o,s]", number_text(it->scores[c]), it->greedy >> c & 1 ? "True" : "False");
        json_array_append_new(resps, json_pack("[O]", answer));
        json_array_append_new(filtered, answer);
    }
    json_object_set_new(o, "arguments", arguments);
    json_object_set_new(o, "resps", resps);
    json_object_set_new(o, "filtered_resps", filtered);
}

static json_t *sample_of(const struct qmc_task *t, size_t i, const struct qp_item *it, const struct qp_mc_prompt *p, const char *target)
{
    const struct qp_mc_spec *s = qp_mc_task_spec(t->t);
    const json_t *doc = qp_mc_task_row(t->t, i);
    char *dump = json_dumps(doc, JSON_INDENT(2));
    json_t *o = json_object();
    json_object_set_new(o, "doc_id", json_integer(qp_mc_task_doc(t->t, i)->doc_id));
    json_object_set(o, "doc", (json_t *)doc);
    set_text(o, "target", target);
    add_requests(o, p, it);
    set_text(o, "filter", "none");
    json_object_set_new(o, "metrics", s->norm ? json_pack("[s,s]", "acc", "acc_norm") : json_pack("[s]", "acc"));
    set_hash(o, "doc_hash", dump ? dump : "");
    set_hash(o, "prompt_hash", p->text.data + p->context[0]);
    set_hash(o, "target_hash", target);
    json_object_set_new(o, "acc", json_real(it->correct));
    if (s->norm)
        json_object_set_new(o, "acc_norm", json_real(it->correct_norm > 0));
    free(dump);
    return o;
}

/* Items are in the order of i, as the questions of a subtask are: the search goes on where it ended. */
static const struct qp_item *find_item(const struct qmc *a, const struct qmc_task *t, size_t m, size_t i, size_t *at)
{
    for (size_t k = *at; k < a->items.n; k++)
        if (a->items.v[k].i == qp_mc_task_doc(t->t, i)->i && !strcmp(a->items.v[k].key, t->key[m])) {
            *at = k + 1;
            return &a->items.v[k];
        }
    return NULL;
}

static int write_line(FILE *f, const json_t *o, const char *path, struct qp_err *err)
{
    char *line = json_dumps(o, JSON_COMPACT);
    int r = !line ? qp_err_set(err, QP_E_RESOURCE, "no memory for '%s'", path) : fprintf(f, "%s\n", line) < 0 ? qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", path) : 0;
    free(line);
    return r;
}

/* The samples of one subtask; *hashes becomes what the harness hashes the task by. */
static int write_samples(const struct qmc *a, const struct qmc_task *t, size_t m, size_t leaf, const char *dir, const struct names *n, struct qp_buf *hashes, struct qp_err *err)
{
    char path[4096], name[256], target[32];
    struct qp_mc_prompt p = {0};
    struct qp_outfile out;
    leaf_name(t, leaf, name, sizeof name);
    snprintf(path, sizeof path, "%.3000s/samples_%s_%s.jsonl", dir, name, n->stamp);
    if (qp_outfile_open(&out, path, err))
        return err->code;
    size_t at = 0;
    int r = 0;
    for (size_t i = 0; i < qp_mc_task_count(t->t) && !r; i++) {
        const struct qp_item *it = qp_mc_task_doc(t->t, i)->leaf == leaf ? find_item(a, t, m, i, &at) : NULL;
        if (!it)
            continue;
        if ((r = qp_mc_prompt_make(&p, t->t, i, err)))
            break;
        snprintf(target, sizeof target, "%d", p.gold);
        json_t *o = sample_of(t, i, it, &p, qp_mc_task_spec(t->t)->blank ? p.text.data + p.target : target);
        static const char *const keys[] = {"doc_hash", "prompt_hash", "target_hash"};
        for (int k = 0; k < 3; k++)
            qp_buf_adds(hashes, json_string_value(json_object_get(o, keys[k])));
        r = write_line(out.file, o, path, err);
        json_decref(o);
    }
    qp_mc_prompt_release(&p);
    if (!r)
        return qp_outfile_commit(&out, err);
    qp_outfile_abort(&out);
    return r;
}

/* ---- results ---- */

static json_t *error_of(double se)
{
    return isfinite(se) ? json_real(se) : json_string("N/A");
}

/* A task's or group's entry: part is a subject, a section or NULL. */
static json_t *entry(const struct qmc *a, size_t m, const struct qmc_task *t, const char *name, const char *alias, const struct qp_item_task *as, const char *part, bool group)
{
    json_t *o = json_pack("{s:s,s:s}", "name", name, "alias", alias);
    const char *model = a->m[m].entry->id;
    for (int norm = 0; norm < (qp_mc_task_spec(t->t)->norm ? 2 : 1); norm++) {
        struct qp_mean v = qp_items_accuracy(&a->items, model, as, part, norm, false);
        if (!norm)
            json_object_set_new(o, "sample_len", json_integer((json_int_t)v.n));
        json_object_set_new(o, norm ? "acc_norm,none" : "acc,none", json_real(isfinite(v.mean) ? v.mean : 0));
        json_object_set_new(o, norm ? "acc_norm_stderr,none" : "acc_stderr,none", error_of(v.stderr_));
        if (group)
            json_object_set_new(o, "sample_count", json_pack("{s:I}", "acc,none", (json_int_t)v.n));
    }
    return o;
}

static const char *subject_itself(const char *group)
{
    return group;
}

static json_t *config_of(const struct qmc_task *t, const char *name)
{
    const struct qp_mc_spec *s = qp_mc_task_spec(t->t);
    json_t *metrics = json_pack("[{s:s,s:s,s:b}]", "metric", "acc", "aggregation", "mean", "higher_is_better", 1);
    if (s->norm)
        json_array_append_new(metrics, json_pack("{s:s,s:s,s:b}", "metric", "acc_norm", "aggregation", "mean", "higher_is_better", 1));
    return json_pack("{s:s,s:s,s:s?,s:s?,s:s?,s:s,s:s,s:s,s:i,s:o}", "task", name, "output_type", "multiple_choice", "description", s->description, "doc_to_text", s->question, "doc_to_choice",
                     s->choices, "doc_to_target", s->answer, "target_delimiter", s->delimiter, "fewshot_delimiter", s->shot_delimiter, "num_fewshot", (int)s->n_shots, "metric_list", metrics);
}

static void add_leaf(const struct qmc *a, size_t m, const struct qmc_task *t, size_t leaf, json_t *root)
{
    char name[256];
    const char *group = qp_mc_task_leaf_group(t->t, leaf);
    struct qp_item_task as = qmc_item_task(t);
    as.section = subject_itself;
    leaf_name(t, leaf, name, sizeof name);
    json_t *e = entry(a, m, t, name, group ? group : name, &as, group, false), *higher = json_pack("{s:b}", "acc", 1);
    if (qp_mc_task_spec(t->t)->norm)
        json_object_set_new(higher, "acc_norm", json_true());
    json_t *count = json_pack("{s:I,s:O}", "original", (json_int_t)qp_mc_task_total(t->t, leaf), "effective", json_object_get(e, "sample_len"));
    json_object_set_new(json_object_get(root, "results"), name, e);
    json_object_set_new(json_object_get(root, "configs"), name, config_of(t, name));
    json_object_set_new(json_object_get(root, "versions"), name, json_real(1.0));
    json_object_set_new(json_object_get(root, "n-shot"), name, json_integer(qp_mc_task_spec(t->t)->n_shots));
    json_object_set_new(json_object_get(root, "higher_is_better"), name, higher);
    json_object_set_new(json_object_get(root, "n-samples"), name, count);
}

static void add_group(const struct qmc *a, size_t m, const struct qmc_task *t, const char *section, json_t *root)
{
    char name[128], alias[128];
    struct qp_item_task as = qmc_item_task(t);
    snprintf(name, sizeof name, "mmlu%s%s", section ? "_" : "", section ? section : "");
    snprintf(alias, sizeof alias, "%s", section ? section : "mmlu");
    for (char *c = alias; *c; c++)
        *c = *c == '_' ? ' ' : *c;
    as.section = section ? qp_mmlu_section : NULL;
    json_t *e = entry(a, m, t, name, alias, &as, section, true);
    json_object_set(json_object_get(root, "results"), name, e);
    json_object_set_new(json_object_get(root, "groups"), name, e);
    json_object_set_new(json_object_get(root, "versions"), name, json_string("2"));
    if (section)
        json_object_set_new(json_object_get(root, "n-shot"), name, json_integer(qp_mc_task_spec(t->t)->n_shots));
    json_object_set_new(json_object_get(root, "group_subtasks"), name, json_array());
}

/* MMLU and its sections above the subjects: who holds whom. */
static void add_groups(const struct qmc *a, size_t m, const struct qmc_task *t, json_t *root)
{
    json_t *tree = json_object_get(root, "group_subtasks");
    bool whole = !qp_mc_task_spec(t->t)->only;
    if (whole)
        add_group(a, m, t, NULL, root);
    for (size_t l = 0; l < qp_mc_task_leaves(t->t); l++) {
        char name[256], leaf[256];
        const char *section = qp_mmlu_section(qp_mc_task_leaf_group(t->t, l));
        snprintf(name, sizeof name, "mmlu_%s", section);
        leaf_name(t, l, leaf, sizeof leaf);
        if (!whole && strcmp(qp_mc_task_spec(t->t)->only, section))
            continue; /* one subject by itself */
        if (!json_object_get(tree, name)) {
            add_group(a, m, t, section, root);
            json_array_append_new(json_object_get(tree, "mmlu"), json_string(name));
        }
        json_array_append_new(json_object_get(tree, name), json_string(leaf));
    }
}

static void add_token(json_t *root, const char *key, const struct qp_tokenizer *tok, int32_t id)
{
    struct qp_buf text = QP_BUF_INIT;
    char number[16];
    snprintf(number, sizeof number, "%" PRId32, id);
    if (id >= 0 && !qp_tokenizer_decode(tok, &id, 1, false, &text, &(struct qp_err){0}))
        json_object_set_new(root, key, json_pack("[s,s]", text.data ? text.data : "", number));
    else
        json_object_set_new(root, key, json_null());
    qp_buf_release(&text);
}

static void add_run(const struct qmc *a, size_t m, const struct names *n, json_t *root)
{
    const char *compute = a->compute_used == QP_COMPUTE_BF16 ? "bfloat16" : a->compute_used == QP_COMPUTE_INT8 ? "int8" : "float32", *id = a->m[m].entry->id;
    char seconds[32];
    const struct qp_model *model = a->m[m].entry->model;
    json_t *limit = a->options.limit > 0 ? json_real(a->options.limit) : json_null();
    json_object_set_new(root, "config", json_pack("{s:s,s:{s:s},s:I,s:s,s:s?,s:s,s:s,s:n,s:o,s:n,s:n,s:i,s:i,s:i,s:I}", "model", "quantpipe", "model_args", "pretrained", qp_model_path(model),
                                                  "model_num_parameters", (json_int_t)qp_model_params(model), "model_dtype", compute, "model_revision", NULL, "model_sha", a->m[m].hash,
                                                  "batch_size", "auto", "use_cache", "limit", limit, "bootstrap_iters", "gen_kwargs", "random_seed", 0, "numpy_seed", 1234, "torch_seed", 1234,
                                                  "fewshot_seed", (json_int_t)a->seed));
    json_object_set_new(root, "git_hash", json_null());
    json_object_set_new(root, "date", json_real((double)n->start));
    json_object_set_new(root, "transformers_version", json_null());
    set_text(root, "lm_eval_version", LAYOUT);
    json_object_set_new(root, "upper_git_hash", json_null());
    add_token(root, "tokenizer_pad_token", a->tok, qp_tokenizer_eos(a->tok));
    add_token(root, "tokenizer_eos_token", a->tok, qp_tokenizer_eos(a->tok));
    add_token(root, "tokenizer_bos_token", a->tok, qp_tokenizer_bos(a->tok));
    json_object_set_new(root, "eot_token_id", json_integer(qp_tokenizer_eos(a->tok)));
    json_object_set_new(root, "max_length", json_integer(a->max_length));
    set_text(root, "model_source", "quantpipe");
    set_text(root, "model_name", id);
    set_text(root, "model_name_sanitized", n->model);
    static const char *const nulls[] = {"system_instruction", "system_instruction_sha", "chat_template", "chat_template_sha", "fewshot_as_multiturn", "pretty_env_info"};
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        json_object_set_new(root, nulls[i], json_null());
    snprintf(seconds, sizeof seconds, "%.6f", a->seconds);
    set_text(root, "total_evaluation_time_seconds", seconds);
}

static int write_results(json_t *root, const char *dir, const struct names *n, struct qp_err *err)
{
    char path[4096];
    struct qp_outfile out;
    snprintf(path, sizeof path, "%.3000s/results_%s.json", dir, n->stamp);
    if (!json_object_size(json_object_get(root, "groups")))
        json_object_del(root, "groups");
    if (qp_outfile_open(&out, path, err))
        return err->code;
    if (!json_dumpf(root, out.file, JSON_INDENT(2)))
        return qp_outfile_commit(&out, err);
    qp_outfile_abort(&out);
    return qp_err_set(err, QP_E_RESOURCE, "cannot write '%s'", path);
}

static int write_model(const struct qmc *a, size_t m, struct names *n, struct qp_err *err)
{
    static const char *const parts[] = {"results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes"};
    char dir[4096], name[256], hex[QP_SHA256_HEX];
    json_t *root = json_object();
    sanitize(a->m[m].entry->id, n->model, sizeof n->model);
    snprintf(dir, sizeof dir, "%.3000s/%s", a->lm_eval_json, n->model);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        json_object_set_new(root, parts[i], json_object());
    int r = mkdir(dir, 0777) && errno != EEXIST ? qp_err_errno(err, QP_E_RESOURCE, "cannot make '%s'", dir) : 0;
    for (size_t k = 0; k < a->n_tasks && !r; k++) {
        const struct qmc_task *t = &a->task[k];
        if (qp_mc_task_spec(t->t)->subtasks)
            add_groups(a, m, t, root);
        for (size_t l = 0; l < qp_mc_task_leaves(t->t) && !r; l++) {
            struct qp_buf hashes = QP_BUF_INIT;
            add_leaf(a, m, t, l, root);
            leaf_name(t, l, name, sizeof name);
            r = write_samples(a, t, m, l, dir, n, &hashes, err);
            qp_sha256_hex(hex, hashes.data ? hashes.data : "", hashes.len);
            set_text(json_object_get(root, "task_hashes"), name, hex);
            if (!json_object_get(json_object_get(root, "group_subtasks"), name) && !qp_mc_task_leaf_group(t->t, l))
                json_object_set_new(json_object_get(root, "group_subtasks"), name, json_array());
            qp_buf_release(&hashes);
        }
    }
    add_run(a, m, n, root);
    r = r ? r : write_results(root, dir, n, err);
    json_decref(root);
    return r;
}

int qmc_write_lm_eval(struct qmc *a, struct qp_err *err)
{
    struct names n;
    stamp(&n);
    if (mkdir(a->lm_eval_json, 0777) && errno != EEXIST)
        return qp_err_errno(err, QP_E_RESOURCE, "cannot make '%s'", a->lm_eval_json);
    for (size_t m = 0; m < a->n_models; m++)
        if (write_model(a, m, &n, err))
            return err->code;
    return 0;
}
