/* Task files: a user's own multiple-choice set as JSON. Unknown keys are refused, so that a typo cannot change a protocol silently. */
#include "eval/mc_spec.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/mc_internal.h"

#define MAX_FILE ((size_t)1 << 20)

static int bad(const char *path, const char *key, const char *expected, struct qp_err *err)
{
    return qp_err_set(err, QP_E_INPUT, "'%s': field '%s': expected %s", path, key, expected);
}

/* A text under key, or absent where it may be. */
static int text(const char *path, const json_t *o, const char *key, bool needed, const char **out, struct qp_err *err)
{
    const json_t *v = json_object_get(o, key);
    if (!v)
        return needed ? qp_err_set(err, QP_E_INPUT, "'%s': field '%s' is missing", path, key) : 0;
    if (!json_is_string(v) || (needed && !json_string_length(v)))
        return bad(path, key, "a text", err);
    *out = json_string_value(v);
    return 0;
}

static int template(const char *path, const char *key, const char *tmpl, struct qp_err *err)
{
    if (tmpl && qp_mc_check_template(tmpl, err))
        return qp_err_context(err, "'%s': field '%s'", path, key);
    return 0;
}

static int known_keys(const char *path, const json_t *o, const char *where, const char *const *known, struct qp_err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)o, key, v)
    {
        int i = 0;
        while (known[i] && strcmp(known[i], key))
            i++;
        if (!known[i])
            return qp_err_set(err, QP_E_INPUT, "'%s': unknown field '%s%.60s'; docs/TASKS.md lists what a task file may hold", path, where, key);
    }
    return 0;
}

static int parse_choices(struct qp_mc_spec *s, const char *path, const json_t *def, struct qp_err *err)
{
    const json_t *v = json_object_get(def, "choices"), *c;
    size_t i;
    if (json_is_string(v)) {
        s->choices = json_string_value(v);
        return 0;
    }
    if (!json_is_array(v) || json_array_size(v) < 2 || json_array_size(v) > QP_MC_CHOICES)
        return bad(path, "choices", "the name of a field with a list, or a list of 2 to 64 templates", err);
    json_array_foreach(v, i, c)
    {
        if (!json_is_string(c) || !json_string_length(c))
            return bad(path, "choices", "templates that are not empty", err);
        s->choice[s->n_choices++] = json_string_value(c);
        if (template(path, "choices", json_string_value(c), err))
            return err->code;
    }
    return 0;
}

static int parse_files(const char *path, const char *key, const json_t *v, const char *out[QP_MC_PATHS], struct qp_err *err)
{
    if (!json_is_string(v) || !json_string_length(v))
        return bad(path, key, "the path of a .jsonl file", err);
    out[0] = json_string_value(v);
    return 0;
}

static int parse_shots(struct qp_mc_spec *s, const char *path, const json_t *def, struct qp_err *err)
{
    static const char *const known[] = {"data", "num", "sampler", NULL};
    const json_t *o = json_object_get(def, "fewshot"), *num = json_object_get(o, "num"), *data = json_object_get(o, "data");
    const char *sampler = "default";
    if (!o)
        return 0;
    if (!json_is_object(o) || !json_is_integer(num) || json_integer_value(num) < 0 || json_integer_value(num) > 1000)
        return bad(path, "fewshot", "an object {\"num\": 0 to 1000, \"data\": FILE, \"sampler\": \"default\" or \"first_n\"}", err);
    if (known_keys(path, o, "fewshot.", known, err) || text(path, o, "sampler", false, &sampler, err))
        return err->code;
    if (strcmp(sampler, "default") && strcmp(sampler, "first_n"))
        return bad(path, "fewshot.sampler", "\"default\" or \"first_n\"", err);
    s->n_shots = json_integer_value(num);
    s->first_n = !strcmp(sampler, "first_n");
    s->excludes = !data;
    return data ? parse_files(path, "fewshot.data", data, s->shots, err) : 0;
}

static int parse_metric(struct qp_mc_spec *s, const char *path, const json_t *def, struct qp_err *err)
{
    const json_t *v = json_object_get(def, "metric"), *m;
    bool acc = !v;
    for (size_t i = 0; v && i < (json_is_array(v) ? json_array_size(v) : 1); i++) {
        m = json_is_array(v) ? json_array_get(v, i) : v;
        const char *name = json_is_string(m) ? json_string_value(m) : "";
        acc = acc || !strcmp(name, "acc");
        s->norm = s->norm || !strcmp(name, "acc_norm");
        if (strcmp(name, "acc") && strcmp(name, "acc_norm"))
            return bad(path, "metric", "\"acc\", \"acc_norm\" or a list of both", err);
    }
    return acc || s->norm ? 0 : bad(path, "metric", "\"acc\", \"acc_norm\" or a list of both", err);
}

static int parse_answer(struct qp_mc_spec *s, const char *path, const json_t *def, struct qp_err *err)
{
    static const char *const names[] = {"auto", "index", "letter", "text"};
    const json_t *first = json_object_get(def, "first");
    const char *is = "auto";
    int k = 0;
    if (text(path, def, "answer", true, &s->answer, err) || text(path, def, "labels", false, &s->labels, err) || text(path, def, "answer_is", false, &is, err))
        return err->code;
    while (k < 4 && strcmp(names[k], is))
        k++;
    if (k == 4)
        return bad(path, "answer_is", "\"index\", \"letter\" or \"text\"", err);
    s->answer_is = (enum qp_mc_answer)k;
    if (first && (!json_is_integer(first) || json_integer_value(first) < 0 || json_integer_value(first) > 1))
        return bad(path, "first", "0 or 1, the number of the first choice", err);
    s->first = json_integer_value(first);
    return 0;
}

static int parse_aliases(struct qp_mc_spec *s, const char *path, json_t *def, struct qp_err *err)
{
    json_t *o = json_object_get(def, "fields"), *v;
    const char *key;
    int n = 0;
    if (!o)
        return 0;
    if (!json_is_object(o) || json_object_size(o) >= QP_MC_PATHS)
        return bad(path, "fields", "an object of names and the fields that they stand for", err);
    json_object_foreach(o, key, v)
    {
        if (!json_is_string(v))
            return bad(path, "fields", "names of fields as texts", err);
        s->aliases[n][0] = key;
        s->aliases[n++][1] = json_string_value(v);
    }
    return 0;
}

static int parse(struct qp_mc_spec *s, const char *path, json_t *def, struct qp_err *err)
{
    static const char *const known[] = {"task", "comment", "description", "fields", "template", "blank", "choices", "answer", "answer_is", "first", "labels", "group", "id",
                                        "metric", "data", "fewshot", "delimiter", "fewshot_delimiter", NULL};
    const json_t *data = json_object_get(def, "data");
    s->delimiter = " ";
    s->shot_delimiter = "\n\n";
    if (known_keys(path, def, "", known, err) || text(path, def, "task", true, &s->name, err) || text(path, def, "description", false, &s->description, err) ||
        text(path, def, "blank", false, &s->blank, err) || text(path, def, "template", !s->blank, &s->question, err) || parse_choices(s, path, def, err) ||
        parse_answer(s, path, def, err) || text(path, def, "group", false, &s->group, err) || text(path, def, "id", false, &s->id, err) || parse_metric(s, path, def, err) ||
        parse_aliases(s, path, def, err) || text(path, def, "delimiter", false, &s->delimiter, err) || text(path, def, "fewshot_delimiter", false, &s->shot_delimiter, err) ||
        template(path, "template", s->question, err) || template(path, "description", s->description, err) || parse_shots(s, path, def, err))
        return err->code;
    if (s->blank && s->question)
        return qp_err_set(err, QP_E_INPUT, "'%s': fields 'blank' and 'template' exclude each other", path);
    if (strspn(s->name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != strlen(s->name) || strlen(s->name) > 100)
        return bad(path, "task", "a name of letters, digits, '_', '-' and '.'", err);
    if (qp_mc_standard(s->name))
        return qp_err_set(err, QP_E_INPUT, "'%s': field 'task': '%s' is a standard task's name", path, s->name);
    if (!data)
        return qp_err_set(err, QP_E_INPUT, "'%s': field 'data' is missing", path);
    return parse_files(path, "data", data, s->eval, err);
}

static int open_file(struct qp_mc_spec *s, const char *path, struct qp_err *err)
{
    struct qp_buf buf = QP_BUF_INIT;
    json_error_t je;
    const char *slash = strrchr(path, '/');
    if (qp_file_read(&buf, path, MAX_FILE, err))
        return err->code;
    s->def = json_loadb(buf.data ? buf.data : "", buf.len, JSON_REJECT_DUPLICATES, &je);
    qp_buf_release(&buf);
    if (!json_is_object(s->def))
        return qp_err_set(err, QP_E_INPUT, "'%s' line %d: not a JSON object%s%s", path, s->def ? 1 : je.line, s->def ? "" : ": ", s->def ? "" : je.text);
    if (!(s->dir = qp_strdup(slash ? path : ".", err)))
        return QP_E_RESOURCE;
    if (slash)
        s->dir[slash == path ? 1 : slash - path] = 0;
    return parse(s, path, s->def, err);
}

static int open_standard(struct qp_mc_spec *s, const char *name, struct qp_err *err)
{
    const struct qp_mc_spec *found = qp_mc_standard(name);
    char names[256];
    bool part = !found && !strncmp(name, "mmlu_", 5) && (qp_mmlu_is_section(name + 5) || qp_mmlu_section(name + 5));
    if (part)
        found = qp_mc_standard("mmlu");
    if (!found) {
        qp_mc_standard_names(names, sizeof names);
        return qp_err_set(err, QP_E_USAGE, "--task: unknown task '%s'; known: %s, mmlu_SUBJECT, mmlu_stem, mmlu_other, mmlu_social_sciences, mmlu_humanities, or a .json file", name, names);
    }
    *s = *found;
    s->delimiter = " ";
    s->shot_delimiter = "\n\n";
    if (!part)
        return 0;
    if (!(s->def = json_pack("{s:s,s:s}", "name", name, "only", name + 5)))
        return qp_err_set(err, QP_E_RESOURCE, "no memory for a task");
    s->name = json_string_value(json_object_get(s->def, "name"));
    s->only = json_string_value(json_object_get(s->def, "only"));
    return 0;
}

int qp_mc_spec_open(struct qp_mc_spec *out, const char *name, struct qp_err *err)
{
    struct qp_err local = {0};
    size_t n = strlen(name);
    err = err ? err : &local;
    *out = (struct qp_mc_spec){0};
    int r = n > 5 && !strcmp(name + n - 5, ".json") ? open_file(out, name, err) : open_standard(out, name, err);
    if (r)
        qp_mc_spec_release(out);
    return r;
}

void qp_mc_spec_release(struct qp_mc_spec *s)
{
    json_decref(s->def);
    qp_free(s->dir);
    *s = (struct qp_mc_spec){0};
}

static void add(struct qp_buf *out, const char *key, const char *value)
{
    json_t *v = json_string(value ? value : "");
    char *dump = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    if (value)
        qp_buf_addf(out, ", \"%s\": %s", key, dump ? dump : "null");
    free(dump);
    json_decref(v);
}

void qp_mc_spec_describe(const struct qp_mc_spec *s, struct qp_buf *out)
{
    qp_buf_addf(out, "{\"first_n\": %d, \"excludes\": %d, \"n_shots\": %lld, \"holdout\": %lld, \"norm\": %d, \"answer_is\": %d, \"first\": %lld", s->first_n, s->excludes,
                (long long)s->n_shots, (long long)s->holdout, s->norm, s->answer_is, (long long)s->first);
    const char *const pairs[][2] = {{"description", s->description}, {"template", s->question}, {"blank", s->blank}, {"choices", s->choices}, {"answer", s->answer},
                                    {"labels", s->labels}, {"group", s->group}, {"delimiter", s->delimiter}, {"fewshot_delimiter", s->shot_delimiter}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        add(out, pairs[i][0], pairs[i][1]);
    for (int i = 0; i < s->n_choices; i++)
        add(out, "choice", s->choice[i]);
    for (int i = 0; i < QP_MC_PATHS && s->aliases[i][0]; i++)
        add(out, s->aliases[i][0], s->aliases[i][1]);
    qp_buf_adds(out, "}");
}
