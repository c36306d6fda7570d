/* Prompts from a file, and how long each sequence's prompt is. */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "qlat.h"
#include "stats/stats.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

#define MAX_PROMPT ((size_t)64 << 20)

static int add(struct qlat *a, const char *text, const struct qp_tokenizer *tok, struct qp_err *err)
{
    if (strlen(text) > MAX_PROMPT)
        return qp_err_set(err, QP_E_INPUT, "the prompt is longer than 64 MiB");
    if (a->n_prompts == a->prompts_cap) {
        size_t cap = a->prompts_cap ? 2 * a->prompts_cap : 16;
        struct qlat_prompt *grown = qp_alloc_n(cap, sizeof *grown, "prompts", err);
        if (!grown)
            return QP_E_RESOURCE;
        if (a->n_prompts)
            memcpy(grown, a->prompts, a->n_prompts * sizeof *grown);
        qp_free(a->prompts);
        a->prompts = grown;
        a->prompts_cap = cap;
    }
    struct qlat_prompt *p = &a->prompts[a->n_prompts];
    *p = (struct qlat_prompt){.text = qp_strdup(text, err), .tokens = qp_latency_prompt_len(tok, text, err)};
    a->n_prompts += p->text != NULL;
    if (!p->text || p->tokens < 0)
        return err->code;
    return p->tokens && *text ? 0 : qp_err_set(err, QP_E_INPUT, "the prompt is empty");
}

/* {"prompt": ...}, as vllm's benchmarks take it, or {"text": ...}. */
static int read_rows(struct qlat *a, struct qp_dataset *ds, const struct qp_tokenizer *tok, struct qp_err *err)
{
    json_t *row = NULL;
    int64_t line;
    int r = 0;
    while ((int64_t)a->n_prompts < qlat_most_prompts(a) && (r = qp_dataset_row(ds, &row, &line, err)) == 1) {
        const char *field = json_object_get(row, "prompt") ? "prompt" : "text";
        const json_t *v = json_object_get(row, field);
        if (json_is_string(v))
            r = add(a, json_string_value(v), tok, err);
        else
            r = v ? qp_err_set(err, QP_E_INPUT, "field '%s' is not a string", field) : qp_err_set(err, QP_E_INPUT, "no field 'prompt' or 'text'");
        json_decref(row);
        if (r)
            return qp_err_context(err, "'%s' line %" PRId64, a->prompt_path, line);
    }
    return r < 0 ? r : 0;
}

static int read_text(struct qlat *a, struct qp_dataset *ds, const struct qp_tokenizer *tok, struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    int r = qp_dataset_next(ds, &text, err);
    if (r == 1 && text.len && strlen(text.data) != text.len)
        r = qp_err_set(err, QP_E_INPUT, "'%s' holds no text", a->prompt_path);
    else if (r == 1 && text.len)
        r = add(a, text.data, tok, err) ? qp_err_context(err, "'%s'", a->prompt_path) : 0;
    qp_buf_release(&text);
    return r < 0 ? r : 0;
}

static int read_file(struct qlat *a, struct qp_err *err)
{
    struct qp_tokenizer *tok = NULL;
    struct qp_dataset *ds = NULL;
    int r = qp_dataset_open(&ds, a->prompt_path, NULL, err);
    r = r ? r : qp_model_tokenizer(a->list[0].model, &tok, err);
    r = r ? r : qp_dataset_is_lines(ds) ? read_rows(a, ds, tok, err) : read_text(a, ds, tok, err);
    if (!r && !a->n_prompts)
        r = qp_err_set(err, QP_E_INPUT, "'%s' holds no text", a->prompt_path);
    qp_dataset_close(ds);
    qp_tokenizer_free(tok);
    return r;
}

int qlat_read_prompts(struct qlat *a, struct qp_err *err)
{
    size_t most = (size_t)qlat_most_prompts(a);
    a->prompt_tokens = qp_alloc_n(most, sizeof *a->prompt_tokens, "lengths", err);
    a->new_tokens = qp_alloc_n(most, sizeof *a->new_tokens, "lengths", err);
    a->sorted = qp_alloc_n(most, sizeof *a->sorted, "lengths", err);
    if (!a->prompt_tokens || !a->new_tokens || !a->sorted || (a->prompt_path && read_file(a, err)))
        return err->code;
    if (!(a->texts = qp_alloc_n(a->n_prompts, sizeof *a->texts, "prompts", err)))
        return QP_E_RESOURCE;
    for (size_t i = 0; i < a->n_prompts; i++)
        a->texts[i] = a->prompts[i].text;
    return 0;
}

void qlat_release_prompts(struct qlat *a)
{
    for (size_t i = 0; i < a->n_prompts; i++)
        qp_free(a->prompts[i].text);
    qp_free(a->prompts);
    qp_free(a->texts);
    qp_free(a->prompt_tokens);
    qp_free(a->new_tokens);
    qp_free(a->sorted);
}

static struct qlat_spread spread_of(const int64_t *v, int64_t n, double *sorted)
{
    struct qlat_spread s = {0};
    for (int64_t i = 0; i < n; i++) {
        sorted[i] = (double)v[i];
        s.total += v[i];
    }
    qp_sort(sorted, (size_t)n);
    s.least = (int64_t)sorted[0];
    s.most = (int64_t)sorted[n - 1];
    s.median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    return s;
}

/* One is in the middle. */
static void spread(int64_t *v, int64_t n, int64_t least, int64_t most)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = n > 1 ? least + ((most - least) * i + (n - 1) / 2) / (n - 1) : (least + most) / 2;
}

static void shuffle(int64_t *v, int64_t n, uint64_t seed)
{
    struct qp_rng rng = qp_rng_seed(seed);
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = qp_rng_below(&rng, (uint32_t)i + 1), kept = v[i];
        v[i] = v[k];
        v[k] = kept;
    }
}

static void take_texts(struct qlat *a, int64_t n, int64_t cut)
{
    int64_t longest = 0;
    for (size_t i = 0; i < a->n_prompts; i++)
        longest = a->prompts[i].tokens > longest ? a->prompts[i].tokens : longest;
    for (int64_t i = 0; i < n; i++) {
        int64_t own = a->prompts[(size_t)i % a->n_prompts].tokens;
        a->prompt_tokens[i] = cut && (own > cut || longest < cut) ? cut : own;
    }
}

void qlat_lengths(struct qlat *a, int64_t n, int64_t least, int64_t most)
{
    spread(a->new_tokens, n, a->new_lens.v[0], a->new_lens.to[0]);
    if (a->n_prompts)
        take_texts(a, n, least);
    else
        spread(a->prompt_tokens, n, least, most);
    if (a->requests && !a->n_prompts)
        shuffle(a->prompt_tokens, n, (uint64_t)a->seed);
    if (a->requests)
        shuffle(a->new_tokens, n, (uint64_t)a->seed + 1);
    a->of_prompts = spread_of(a->prompt_tokens, n, a->sorted);
    a->of_answers = spread_of(a->new_tokens, n, a->sorted);
}
