/* What one row says: its question, its choices and which of them is right. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/mc_rows.h"

/* Ends the text that was begun at `at` and returns where the next one begins. */
static void end_text(struct qp_buf *b)
{
    qp_buf_add(b, "", 1);
}

static int add_choice(struct qp_mc_prompt *p, const json_t *v, const char *field, size_t i, struct qp_err *err)
{
    if (p->n == QP_MC_CHOICES)
        return qp_err_set(err, QP_E_INPUT, "field '%s' has more than %d choices", field, QP_MC_CHOICES);
    p->choice[p->n] = p->text.len;
    if (json_is_integer(v))
        qp_buf_addf(&p->text, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_string(v) && json_string_length(v))
        qp_buf_adds(&p->text, json_string_value(v));
    else
        return qp_err_set(err, QP_E_INPUT, "field '%s[%zu]' is %s", field, i, json_is_string(v) ? "an empty choice" : "no text");
    end_text(&p->text);
    p->n++;
    return 0;
}

static int choices(const struct qp_mc_spec *s, const json_t *doc, struct qp_mc_prompt *p, struct qp_err *err)
{
    const json_t *list = s->choices ? qp_mc_field(doc, s->choices) : NULL, *v;
    size_t i;
    p->n = 0;
    for (int k = 0; k < s->n_choices; k++) {
        p->choice[p->n++] = p->text.len;
        if (qp_mc_render(s->choice[k], doc, &p->text, err))
            return err->code;
        if (p->text.len == p->choice[k])
            return qp_err_set(err, QP_E_INPUT, "choice %d ('%s') is empty", k, s->choice[k]);
        end_text(&p->text);
    }
    if (s->n_choices)
        return 0;
    if (!json_is_array(list))
        return qp_err_set(err, QP_E_INPUT, "field '%s' is %s", s->choices, list ? "no list" : "missing");
    json_array_foreach(list, i, v)
    {
        if (add_choice(p, v, s->choices, i, err))
            return err->code;
    }
    return p->n > 1 ? 0 : qp_err_set(err, QP_E_INPUT, "field '%s' has %d choices, expected two or more", s->choices, p->n);
}

/* ---- the answer ---- */

static const char *choice_text(const struct qp_mc_prompt *p, int c)
{
    return p->text.data + p->choice[c];
}

static int by_label(const struct qp_mc_spec *s, const json_t *doc, const char *answer, struct qp_mc_prompt *p, struct qp_err *err)
{
    const json_t *labels = qp_mc_field(doc, s->labels), *v;
    size_t i;
    if (!json_is_array(labels) || json_array_size(labels) != (size_t)p->n)
        return qp_err_set(err, QP_E_INPUT, "field '%s' is no list of the %d choices' labels", s->labels, p->n);
    json_array_foreach(labels, i, v)
    {
        if (json_is_string(v) && !strcmp(json_string_value(v), answer)) {
            p->gold = (int)i;
            return 0;
        }
    }
    return qp_err_set(err, QP_E_INPUT, "field '%s' is '%.80s', none of the labels in '%s'", s->answer, answer, s->labels);
}

static int outside(const struct qp_mc_spec *s, const char *answer, const struct qp_mc_prompt *p, struct qp_err *err)
{
    return qp_err_set(err, QP_E_INPUT, "field '%s' is '%.80s', outside of the %d choices", s->answer, answer, p->n);
}

/* The readings of a text that name a choice must agree: "2" could be a number and a choice's text. */
static int by_text(const struct qp_mc_spec *s, const char *answer, struct qp_mc_prompt *p, struct qp_err *err)
{
    char *end;
    long number = strtol(answer, &end, 10);
    bool any = s->answer_is == QP_MC_ANSWER_AUTO;
    int found[3] = {-1, -1, -1};
    for (int c = 0; c < p->n && (any || s->answer_is == QP_MC_ANSWER_TEXT) && found[0] < 0; c++)
        found[0] = strcmp(choice_text(p, c), answer) ? -1 : c;
    if ((any || s->answer_is == QP_MC_ANSWER_LETTER) && answer[0] && !answer[1] && ((answer[0] | 32) >= 'a' && (answer[0] | 32) < 'a' + p->n))
        found[1] = (answer[0] | 32) - 'a';
    if ((any || s->answer_is == QP_MC_ANSWER_INDEX) && *answer && !*end && number >= s->first && number < s->first + p->n)
        found[2] = (int)(number - s->first);
    p->gold = -1;
    for (int k = 0; k < 3; k++) {
        if (p->gold >= 0 && found[k] >= 0 && found[k] != p->gold)
            return qp_err_set(err, QP_E_INPUT, "field '%s' is '%.80s', which may be a choice's text or its place: say which by \"answer_is\"", s->answer, answer);
        p->gold = found[k] >= 0 ? found[k] : p->gold;
    }
    return p->gold >= 0 ? 0 : outside(s, answer, p, err);
}

static int find_gold(const struct qp_mc_spec *s, const json_t *doc, struct qp_mc_prompt *p, struct qp_err *err)
{
    const json_t *v = qp_mc_field(doc, s->answer);
    char number[32];
    if (json_is_string(v))
        return s->labels ? by_label(s, doc, json_string_value(v), p, err) : by_text(s, json_string_value(v), p, err);
    if (!json_is_integer(v))
        return qp_err_set(err, QP_E_INPUT, "field '%s' is %s", s->answer, v ? "neither text nor a whole number" : "missing");
    snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (s->labels)
        return by_label(s, doc, number, p, err);
    json_int_t at = json_integer_value(v) - s->first;
    if (at < 0 || at >= p->n)
        return outside(s, number, p, err);
    p->gold = (int)at;
    return 0;
}

/* ---- the question ---- */

/* The sentence up to its blank and each option; what follows is scored under each. */
static int fill_blank(const struct qp_mc_spec *s, const json_t *doc, struct qp_mc_prompt *p, struct qp_err *err)
{
    const json_t *v = qp_mc_field(doc, s->blank);
    const char *sentence = json_string_value(v), *at = sentence ? strchr(sentence, '_') : NULL, *rest = at ? at + 1 : NULL;
    if (!at)
        return qp_err_set(err, QP_E_INPUT, "field '%s' is %s", s->blank, !v ? "missing" : sentence ? "a sentence without '_'" : "no text");
    size_t n = strlen(rest);
    for (int c = 0; c < p->n; c++) {
        size_t n_option = strlen(choice_text(p, c)) + 1; /* with its zero */
        p->own[c] = p->text.len;
        qp_buf_add(&p->text, sentence, (size_t)(at - sentence));
        char *option = qp_buf_grow(&p->text, n_option);
        if (option)
            memcpy(option, choice_text(p, c), n_option); /* the buffer has moved, maybe */
    }
    qp_mc_strip(&rest, &n);
    p->target = p->text.len;
    qp_buf_add(&p->text, rest, n);
    end_text(&p->text);
    return 0;
}

int qp_mc_row_render(const struct qp_mc_spec *s, const json_t *doc, struct qp_mc_prompt *p, struct qp_err *err)
{
    if (choices(s, doc, p, err) || qp_buf_check(&p->text, err) || find_gold(s, doc, p, err))
        return err->code;
    if (s->blank)
        return fill_blank(s, doc, p, err) ? err->code : qp_buf_check(&p->text, err);
    for (int c = 0; c < p->n; c++)
        p->own[c] = p->text.len;
    if (qp_mc_render(s->question, doc, &p->text, err))
        return err->code;
    end_text(&p->text);
    p->target = p->choice[p->gold];
    return qp_buf_check(&p->text, err);
}
