/* The template, the examples and their prompts. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "qgen.h"
#include "text/dataset.h"

#define MAX_TEMPLATE ((size_t)256 << 10)

/* "\n", "\t" and "\\" as a shell's single quotes leave them. */
static void unescape(const char *s, struct qp_buf *out)
{
    for (; *s; s++) {
        char c = *s == '\\' && s[1] == 'n' ? '\n' : *s == '\\' && s[1] == 't' ? '\t' : *s == '\\' && s[1] == '\\' ? '\\' : 0;
        qp_buf_add(out, c ? &c : s, 1);
        s += c != 0;
    }
}

static int read_stops(struct qgen *a, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    for (int i = 0; i < a->stops.n; i++) {
        qp_buf_clear(&b);
        unescape(a->stops.v[i], &b);
        if (qp_buf_check(&b, err) || !(a->stop_texts[i] = qp_strdup(b.data, err)))
            break;
    }
    qp_buf_release(&b);
    return err->code;
}

/* --template: chat, chat:TEXT, @FILE or TEXT. The text of `chat` is the input itself. */
static int open_template(struct qgen *a, struct qp_err *err)
{
    const char *t = a->template;
    bool chat = !strcmp(t, "chat") || !strncmp(t, "chat:", 5), is_file = t[0] == '@';
    if (chat && qp_chat_open(&a->chat, a->tok, err))
        return qp_err_context(err, "--template chat");
    if (is_file && qp_file_read(&a->text, t + 1, MAX_TEMPLATE, err))
        return qp_err_context(err, "--template");
    if (!is_file)
        unescape(!chat ? t : t[4] ? t + 5 : "{input}", &a->text);
    if (qp_buf_check(&a->text, err))
        return QP_E_RESOURCE;
    return qp_prompt_open(&a->prompt, is_file ? t + 1 : "--template", a->text.data ? a->text.data : "", a->text.len, err);
}

/* "dir/fraud-eval.jsonl.gz" gives "fraud-eval". */
static void default_name(struct qgen *a)
{
    const char *slash = strrchr(a->data, '/');
    snprintf(a->name_buf, sizeof a->name_buf, "%s", slash ? slash + 1 : a->data);
    char *dot = strstr(a->name_buf, ".json");
    if (dot && dot > a->name_buf)
        *dot = 0;
    a->name = a->name_buf;
}

static int bad_line(const struct qgen *a, const struct qgen_example *e, struct qp_err *err)
{
    return qp_err_context(err, "'%s' line %" PRId64, a->data, e->line);
}

/* Text, or a number as JSON writes it, newly allocated; NULL with err otherwise. */
static char *text_of(const json_t *v, const char *field, struct qp_err *err)
{
    char number[64];
    if (json_is_string(v)) {
        if (strlen(json_string_value(v)) == json_string_length(v))
            return qp_strdup(json_string_value(v), err);
        qp_err_set(err, QP_E_INPUT, "field '%s' holds a zero byte", field);
        return NULL;
    }
    size_t n = json_is_number(v) ? json_dumpb(v, number, sizeof number - 1, JSON_ENCODE_ANY) : sizeof number;
    if (n < sizeof number) {
        number[n] = 0;
        return qp_strdup(number, err);
    }
    qp_err_set(err, QP_E_INPUT, "field '%s' is %s", field, v ? "neither text nor a number" : "missing");
    return NULL;
}

static int read_expected(struct qgen *a, struct qgen_example *e, const json_t *row, struct qp_err *err)
{
    const json_t *v = json_object_get(row, a->expected_field);
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (!n)
        return qp_err_set(err, QP_E_INPUT, "field '%s' is an empty list", a->expected_field);
    if (!(e->expected = qp_zalloc(n * sizeof *e->expected, "examples", err)))
        return QP_E_RESOURCE;
    while (e->n_expected < n) {
        char *text = text_of(json_is_array(v) ? json_array_get(v, e->n_expected) : v, a->expected_field, err);
        if (!text)
            return err->code;
        e->expected[e->n_expected++] = text; /* its owner before anything can fail */
        if (qp_matcher_check(a->matcher, text, err))
            return qp_err_context(err, "field '%s'", a->expected_field);
    }
    return 0;
}

static int read_fields(struct qgen *a, struct qgen_example *e, const json_t *row, struct qp_err *err)
{
    const json_t *category = json_object_get(row, a->category_field), *id = json_object_get(row, "id");
    if (read_expected(a, e, row, err))
        return err->code;
    if (category && !json_is_null(category)) {
        if (!json_is_string(category))
            return qp_err_set(err, QP_E_INPUT, "field '%s' is not a string", a->category_field);
        if (!(e->category = text_of(category, a->category_field, err)))
            return err->code;
    }
    if (id && !json_is_null(id) && !(e->id = text_of(id, "id", err)))
        return err->code;
    return 0;
}

/* Ids of the prompt, its beginning cut off where prompt and answer do not fit; marks what calibration has seen. */
static int encode_prompt(struct qgen *a, struct qgen_example *e, const struct qp_buf *user, struct qp_err *err)
{
    struct qp_buf whole = QP_BUF_INIT;
    const struct qp_buf *text = user;
    int r = 0;
    if (a->calibration.n) {
        struct qp_ids plain = {0};
        qp_buf_add(&whole, user->data, user->len);
        qp_buf_addf(&whole, "\n%s", e->expected[0]);
        r = qp_buf_check(&whole, err);
        r = r ? r : qp_tokenizer_encode(a->tok, whole.data, whole.len, QP_ENC_NO_ADDED, &plain, err);
        e->overlap = !r && qp_ngrams_find(&a->calibration, plain.v, plain.n) >= 0;
        qp_ids_release(&plain);
        qp_buf_clear(&whole);
    }
    if (!r && a->chat) {
        r = qp_chat_render(a->chat, a->system, user->data, QP_PROMPT_DATE, &whole, err);
        text = &whole;
    }
    if (!r && !a->chat && qp_tokenizer_adds_bos(a->tok)) /* a chat template has its own */
        r = qp_ids_add(&e->ids, qp_tokenizer_bos(a->tok), err);
    r = r ? r : qp_tokenizer_encode(a->tok, text->data ? text->data : "", text->len, 0, &e->ids, err);
    qp_buf_release(&whole);
    if (!r && !e->ids.n)
        r = qp_err_set(err, QP_E_INPUT, "the prompt is empty");
    int64_t room = a->longest - a->max_new;
    if (!r && (int64_t)e->ids.n > room) {
        e->cut = (int64_t)e->ids.n - room;
        memmove(e->ids.v, e->ids.v + e->cut, (size_t)room * sizeof *e->ids.v);
        e->ids.n = (size_t)room;
        a->n_cut++;
    }
    a->tokens += (int64_t)e->ids.n;
    return r;
}

static struct qgen_example *new_example(struct qgen *a, struct qp_err *err)
{
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        struct qgen_example *grown = qp_alloc_n(cap, sizeof *grown, "examples", err);
        if (!grown)
            return NULL;
        if (a->n)
            memcpy(grown, a->examples, a->n * sizeof *grown);
        qp_free(a->examples);
        a->examples = grown;
        a->cap = cap;
    }
    a->examples[a->n] = (struct qgen_example){0};
    return &a->examples[a->n++];
}

static int read_row(struct qgen *a, int64_t i, int64_t line, const json_t *row, struct qp_buf *user, struct qp_err *err)
{
    struct qgen_example *e = new_example(a, err);
    if (!e)
        return QP_E_RESOURCE;
    e->i = i;
    e->line = line;
    qp_buf_clear(user);
    int r = read_fields(a, e, row, err);
    r = r ? r : qp_prompt_render(a->prompt, row, QP_PROMPT_DATE, user, err);
    if (!r && user->len && memchr(user->data, 0, user->len))
        r = qp_err_set(err, QP_E_INPUT, "the prompt holds a zero byte");
    qp_buf_adds(user, ""); /* data is a string, even when nothing was written */
    r = r ? r : encode_prompt(a, e, user, err);
    return r ? bad_line(a, e, err) : 0;
}

static int read_rows(struct qgen *a, struct qp_err *err)
{
    struct qp_dataset *ds;
    struct qp_buf user = QP_BUF_INIT;
    json_t *row = NULL;
    int64_t line;
    int r = qp_dataset_open(&ds, a->data, NULL, err);
    if (r)
        return r;
    while ((!a->limit || a->rows < a->limit) && (r = qp_dataset_row(ds, &row, &line, err)) == 1) {
        int64_t i = a->rows++;
        r = a->shards > 1 && i % a->shards != a->shard ? 0 : read_row(a, i, line, row, &user, err);
        json_decref(row);
        if (r)
            break;
    }
    qp_buf_release(&user);
    qp_dataset_close(ds);
    return r < 0 ? r : 0;
}

static int by_id(const void *a, const void *b)
{
    const struct qgen_example *x = *(const struct qgen_example *const *)a, *y = *(const struct qgen_example *const *)b;
    int c = strcmp(x->id, y->id);
    return c ? c : (x->i > y->i) - (x->i < y->i);
}

static int check_ids(const struct qgen *a, struct qp_err *err)
{
    size_t n = 0;
    int r = 0;
    const struct qgen_example **sorted = qp_alloc_n(a->n + 1, sizeof *sorted, "examples", err);
    if (!sorted)
        return QP_E_RESOURCE;
    for (size_t i = 0; i < a->n; i++)
        if (a->examples[i].id)
            sorted[n++] = &a->examples[i];
    qsort(sorted, n, sizeof *sorted, by_id);
    for (size_t i = 1; i < n && !r; i++)
        if (!strcmp(sorted[i - 1]->id, sorted[i]->id))
            r = qp_err_set(err, QP_E_INPUT, "'%s' line %" PRId64 ": id '%.80s' is that of line %" PRId64 ", too", a->data, sorted[i]->line, sorted[i]->id, sorted[i - 1]->line);
    qp_free(sorted);
    return r;
}

static int write_source(const struct qgen *a, struct qp_tool_run *run)
{
    char sum[QP_SHA256_HEX];
    if (qp_sha256_file(sum, a->data, &run->err))
        return run->err.code;
    qp_w_begin(run->out, "source");
    qp_w_str(run->out, "role", "eval");
    qp_w_str(run->out, "name", a->name);
    qp_w_str(run->out, "path", a->data);
    qp_w_str(run->out, "sha256", sum);
    qp_w_i64(run->out, "docs", (int64_t)a->n);
    qp_w_i64(run->out, "tokens", a->tokens);
    qp_w_end(run->out);
    return 0;
}

int qgen_read(struct qgen *a, struct qp_tool_run *run)
{
    if (!a->name)
        default_name(a);
    a->longest = INT64_MAX;
    for (size_t i = 0; i < qp_model_set_count(a->models); i++) {
        int64_t n = qp_model_config(qp_model_set_at(a->models, i)->model)->max_positions;
        a->longest = n < a->longest ? n : a->longest;
    }
    if (a->max_new >= a->longest)
        return qp_err_set(&run->err, QP_E_USAGE, "--max-new-tokens %" PRId64 " leaves no room for a prompt in a context of %" PRId64 " tokens", a->max_new, a->longest);
    int r = qp_model_tokenizer(qp_model_set_at(a->models, 0)->model, &a->tok, &run->err);
    r = r ? r : open_template(a, &run->err);
    r = r ? r : read_stops(a, &run->err);
    r = r ? r : read_rows(a, &run->err);
    if (!r && !a->n)
        r = qp_err_set(&run->err, QP_E_INPUT, a->rows ? "'%s': the shard holds none of its %" PRId64 " examples" : "'%s' holds no examples", a->data, a->rows);
    r = r ? r : check_ids(a, &run->err);
    return r ? r : write_source(a, run);
}

void qgen_release_examples(struct qgen *a)
{
    for (size_t i = 0; i < a->n; i++) {
        struct qgen_example *e = &a->examples[i];
        for (size_t k = 0; e->expected && k < e->n_expected; k++)
            qp_free(e->expected[k]);
        qp_free(e->expected);
        qp_free(e->id);
        qp_free(e->category);
        qp_ids_release(&e->ids);
    }
    qp_free(a->examples);
}
