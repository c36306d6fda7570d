/* HellaSwag's text as lm-evaluation-harness cleans it: contexts joined and capitalized, WikiHow's brackets taken out. */
#include <jansson.h>
#include <string.h>
#include <utf8proc.h>

#include "eval/mc_internal.h"

/* str.capitalize(): the first character in title case, all others in lower case (by simple case mappings). */
static void add_capitalized(struct qp_buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (used <= 0) /* rows are valid UTF-8 */
            break;
        qp_buf_add(out, bytes, (size_t)utf8proc_encode_char(i ? utf8proc_tolower(c) : utf8proc_totitle(c), bytes));
        i += (size_t)used;
    }
}

/* Every `from` becomes `to`, in one pass from the left. */
static void replace(struct qp_buf *text, const char *from, const char *to)
{
    struct qp_buf out = QP_BUF_INIT;
    size_t n = strlen(from);
    const char *p = text->data ? text->data : "";
    for (const char *hit; (hit = strstr(p, from)); p = hit + n) {
        qp_buf_add(&out, p, (size_t)(hit - p));
        qp_buf_adds(&out, to);
    }
    qp_buf_adds(&out, p);
    qp_buf_release(text);
    *text = out;
}

/* Deletes each span from a "[" to the next "]" in the same line. */
static void drop_brackets(struct qp_buf *text)
{
    struct qp_buf out = QP_BUF_INIT;
    for (const char *p = text->data ? text->data : ""; *p;) {
        size_t inside = *p == '[' ? 1 + strcspn(p + 1, "]\n") : 0;
        if (inside && p[inside] == ']') {
            p += inside + 1;
        } else {
            qp_buf_add(&out, p, 1);
            p++;
        }
    }
    qp_buf_release(text);
    *text = out;
}

static json_t *cleaned(const char *s, size_t n, struct qp_err *err)
{
    struct qp_buf text = QP_BUF_INIT;
    json_t *v = NULL;
    qp_mc_strip(&s, &n);
    qp_buf_add(&text, s, n);
    replace(&text, " [title]", ". ");
    drop_brackets(&text);
    replace(&text, "  ", " ");
    if (!qp_buf_check(&text, err) && !(v = json_stringn(text.data ? text.data : "", text.len)))
        qp_err_set(err, QP_E_RESOURCE, "no memory for a row");
    qp_buf_release(&text);
    return v;
}

static int need(const json_t *row, const char *field, const char **s, size_t *n, struct qp_err *err)
{
    const json_t *v = json_object_get(row, field);
    if (!json_is_string(v))
        return qp_err_set(err, QP_E_INPUT, "field '%s' is %s", field, v ? "no text" : "missing");
    *s = json_string_value(v);
    *n = json_string_length(v);
    return 0;
}

static int prepare(json_t *row, struct qp_err *err)
{
    const char *label, *a, *b;
    size_t n_label, na, nb, i;
    struct qp_buf text = QP_BUF_INIT;
    json_t *ending, *endings = json_object_get(row, "endings"), *choices = json_array(), *query = NULL;
    if (!need(row, "activity_label", &label, &n_label, err) && !need(row, "ctx_a", &a, &na, err) && !need(row, "ctx_b", &b, &nb, err)) {
        qp_buf_add(&text, label, n_label);
        qp_buf_adds(&text, ": ");
        qp_buf_add(&text, a, na);
        qp_buf_adds(&text, " ");
        add_capitalized(&text, b, nb);
        if (!qp_buf_check(&text, err))
            query = cleaned(text.data, text.len, err);
    }
    json_array_foreach(endings, i, ending)
    {
        if (err->code)
            break;
        if (!json_is_string(ending))
            qp_err_set(err, QP_E_INPUT, "field 'endings[%zu]' is no text", i);
        else
            json_array_append_new(choices, cleaned(json_string_value(ending), json_string_length(ending), err));
    }
    if (!err->code && (json_object_set_new(row, "query", query) || json_object_set(row, "choices", choices)))
        qp_err_set(err, QP_E_RESOURCE, "no memory for a row");
    json_decref(choices);
    qp_buf_release(&text);
    return err->code;
}

int qp_mc_hellaswag(json_t *row, struct qp_err *err)
{
    if (!json_is_array(json_object_get(row, "endings")))
        return qp_err_set(err, QP_E_INPUT, "field 'endings' is %s", json_object_get(row, "endings") ? "no list" : "missing");
    if (!json_object_get(row, "query"))
        return prepare(row, err);
    return json_object_set(row, "choices", json_object_get(row, "endings")) ? qp_err_set(err, QP_E_RESOURCE, "no memory for a row") : 0;
}
