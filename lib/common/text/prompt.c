#include "text/prompt.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "text/internal.h"

struct qp_prompt {
    struct qp_template *jinja; /* NULL: plain */
    char *name, *text;
    size_t n;
};

int qp_prompt_open(struct qp_prompt **out, const char *name, const char *text, size_t n, struct qp_err *err)
{
    *out = NULL;
    if (qp_utf8_valid(text, n) < n)
        return qp_err_set(err, QP_E_INPUT, "%s: invalid UTF-8 at byte %zu", name, qp_utf8_valid(text, n));
    struct qp_prompt *p = qp_zalloc(sizeof *p, "template", err);
    if (!p)
        return QP_E_RESOURCE;
    int r = 0;
    p->name = qp_strdup(name, err);
    p->text = qp_alloc(n + 1, "template", err);
    if (!p->name || !p->text)
        r = QP_E_RESOURCE;
    else {
        memcpy(p->text, text, n);
        p->text[n] = 0;
        p->n = n;
    }
    if (!r && (memmem(text, n, "{{", 2) || memmem(text, n, "{%", 2)))
        r = qp_template_open(&p->jinja, name, text, n, QP_TEMPLATE_STRICT, err);
    if (r)
        qp_prompt_free(p);
    else
        *out = p;
    return r;
}

void qp_prompt_free(struct qp_prompt *p)
{
    if (!p)
        return;
    qp_template_free(p->jinja);
    qp_free(p->name);
    qp_free(p->text);
    qp_free(p);
}

/* Length of a field's name at s, closed by '}'; 0: none. */
static size_t name_length(const char *s, const char *end)
{
    size_t n = 0;
    while (s + n < end && (s[n] == '_' || (s[n] >= 'a' && s[n] <= 'z') || (s[n] >= 'A' && s[n] <= 'Z') || (n && ((s[n] >= '0' && s[n] <= '9') || s[n] == '-'))))
        n++;
    return n && s + n < end && s[n] == '}' ? n : 0;
}

static int add_field(const struct qp_prompt *p, const char *name, size_t n, const json_t *fields, struct qp_buf *out, struct qp_err *err)
{
    char key[128];
    if (n >= sizeof key)
        return qp_err_set(err, QP_E_INPUT, "%s: the field's name '%.40s...' is too long", p->name, name);
    memcpy(key, name, n);
    key[n] = 0;
    const json_t *v = json_object_get(fields, key);
    if (!v)
        return qp_err_set(err, QP_E_INPUT, "%s names the field '%s', which the example lacks", p->name, key);
    if (json_is_string(v)) {
        qp_buf_add(out, json_string_value(v), json_string_length(v));
        return 0;
    }
    if (!json_is_number(v) && !json_is_boolean(v))
        return qp_err_set(err, QP_E_INPUT, "%s names the field '%s', which is neither text nor a number", p->name, key);
    char number[64];
    size_t len = json_dumpb(v, number, sizeof number, JSON_ENCODE_ANY);
    qp_buf_add(out, number, len < sizeof number ? len : 0);
    return 0;
}

int qp_prompt_render(const struct qp_prompt *p, const struct json_t *fields, int64_t date, struct qp_buf *out, struct qp_err *err)
{
    const char *s = p->text, *end = p->text + p->n;
    if (p->jinja)
        return qp_template_render(p->jinja, fields, date, out, err);
    while (s < end) {
        const char *brace = memchr(s, '{', (size_t)(end - s));
        size_t n = brace ? name_length(brace + 1, end) : 0;
        const char *to = !brace ? end : n ? brace : brace + 1;
        qp_buf_add(out, s, (size_t)(to - s));
        if (n && add_field(p, brace + 1, n, fields, out, err))
            return QP_E_INPUT;
        s = n ? brace + n + 2 : to;
    }
    return qp_buf_check(out, err);
}

/* ---- the model's own ---- */

struct qp_chat {
    struct qp_template *t;
    char *bos, *eos;
};

static char *token_text(const struct qp_tokenizer *tok, int32_t id, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    char *s = NULL;
    if (id < 0 || !qp_tokenizer_decode(tok, &id, 1, false, &b, err))
        s = qp_strdup(b.data ? b.data : "", err);
    qp_buf_release(&b);
    return s;
}

int qp_chat_open(struct qp_chat **out, const struct qp_tokenizer *tok, struct qp_err *err)
{
    const char *text = qp_tokenizer_chat_template(tok);
    *out = NULL;
    if (!text)
        return qp_err_set(err, QP_E_INPUT, "the model has no chat template; a text with {field} is accepted");
    struct qp_chat *c = qp_zalloc(sizeof *c, "chat template", err);
    if (!c)
        return QP_E_RESOURCE;
    c->bos = token_text(tok, qp_tokenizer_bos(tok), err);
    c->eos = c->bos ? token_text(tok, qp_tokenizer_eos(tok), err) : NULL;
    int r = c->eos ? qp_template_open(&c->t, "the model's chat template", text, strlen(text), QP_TEMPLATE_TRIM, err) : QP_E_RESOURCE;
    if (r)
        qp_chat_free(c);
    else
        *out = c;
    return r;
}

void qp_chat_free(struct qp_chat *c)
{
    if (!c)
        return;
    qp_template_free(c->t);
    qp_free(c->bos);
    qp_free(c->eos);
    qp_free(c);
}

int qp_chat_render(const struct qp_chat *c, const char *system, const char *user, int64_t date, struct qp_buf *out, struct qp_err *err)
{
    json_t *messages = json_array();
    if (system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user", "content", user));
    json_t *values = json_pack("{s:o, s:s, s:s, s:b}", "messages", messages, "bos_token", c->bos, "eos_token", c->eos, "add_generation_prompt", 1);
    int r = values ? qp_template_render(c->t, values, date, out, err) : qp_err_set(err, QP_E_INPUT, "a message is not UTF-8");
    json_decref(values);
    return r;
}
