/* Prompts: templates over the fields of an example, and the model's own chat template.
 *
 * A text with "{{" or "{%" is Jinja over the fields (absent names are errors, as in lm-evaluation-harness); in any other text {name} stands for a field, and
 * braces around what is no name are text.
 *
 *     qp_prompt_open(&p, "--template", "Question: {input}\nAnswer:", n, &err);
 *     qp_prompt_render(p, row, date, &text, &err);                  // row: a jansson object
 *     qp_chat_open(&c, tok, &err);
 *     qp_chat_render(c, system, text.data, date, &prompt, &err);    // encode it without adding special tokens: the template has them
 */
#ifndef QP_TEXT_PROMPT_H
#define QP_TEXT_PROMPT_H

#include "text/template.h"
#include "text/tokenizer.h"

/* The day that templates get for today, so that prompts do not change overnight: 26 July 2024, which Llama 3's templates fall back to. */
#define QP_PROMPT_DATE INT64_C(1721952000)

struct qp_prompt;
/* name is used in messages. Copies text. */
int qp_prompt_open(struct qp_prompt **out, const char *name, const char *text, size_t n, struct qp_err *err) QP_MUST_USE;
void qp_prompt_free(struct qp_prompt *p);
/* Appends to out. Fields that are text are taken as they are, numbers and booleans as JSON writes them. QP_E_INPUT names an absent field, or one that is a list. */
int qp_prompt_render(const struct qp_prompt *p, const struct json_t *fields, int64_t date, struct qp_buf *out, struct qp_err *err) QP_MUST_USE;

struct qp_chat;
/* The chat template of tok, with its BOS and EOS as text; tok is borrowed no longer than the call. QP_E_INPUT when it has none. */
int qp_chat_open(struct qp_chat **out, const struct qp_tokenizer *tok, struct qp_err *err) QP_MUST_USE;
void qp_chat_free(struct qp_chat *c);
/* Appends the prompt of one user message, after a system message unless system is NULL, up to where the assistant answers. */
int qp_chat_render(const struct qp_chat *c, const char *system, const char *user, int64_t date, struct qp_buf *out, struct qp_err *err) QP_MUST_USE;

#endif
