/* Multiple-choice tasks as data: which fields of a row make the question, the choices and the answer, where examples come from, what is scored. The standard
 * tasks are a table of these (mc_spec.c), a user's own comes from a JSON file (docs/TASKS.md); what is behind them is one piece of code.
 *
 * Templates: "{field}", "{field.member}", "{field[0]}" are replaced by a row's text or whole number, "{field|strip}" by it without white space at its ends,
 * "{field|spaces}" with spaces for underscores; "{{" and "}}" are braces.
 */
#ifndef QP_EVAL_MC_SPEC_H
#define QP_EVAL_MC_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define QP_MC_PATHS 16
#define QP_MC_CHOICES 64 /* at most; two at least */

struct json_t;

enum qp_mc_answer { QP_MC_ANSWER_AUTO, QP_MC_ANSWER_INDEX, QP_MC_ANSWER_LETTER, QP_MC_ANSWER_TEXT };

struct qp_mc_spec {             /* strings are static or of `def` */
    const char *name;
    const char *description;    /* template, before the examples; may use the evaluated row's fields. NULL: none */
    const char *question;       /* template; NULL where `blank` is given */
    const char *blank;          /* field of a sentence with a `_`: each choice fills it, what follows is scored (WinoGrande's partial scoring) */
    const char *choices;        /* field with a list of texts, or NULL and: */
    const char *choice[QP_MC_CHOICES]; /* templates */
    int n_choices;
    const char *answer;         /* field */
    const char *labels;         /* field with a list of the choices' labels, in which the answer is looked up; NULL: none */
    enum qp_mc_answer answer_is;
    int64_t first;              /* a numeric answer of the first choice: 0 or 1 */
    const char *group;          /* field; NULL: none */
    bool subtasks;              /* groups are tasks of their own: examples, limits and doc ids are counted in each */
    const char *id;             /* field that must be unique; NULL: none */
    bool norm;                  /* acc_norm, too */
    const char *delimiter, *shot_delimiter; /* between question and answer; after an example */
    int64_t n_shots;
    bool first_n;               /* the first examples of the pool, else drawn at random */
    bool excludes;              /* one more is drawn, and those that equal the evaluated row are left out */
    int64_t holdout;            /* without a file of examples: the last rows of the evaluated file are the pool, and are not evaluated. 0: not so */
    const char *eval[QP_MC_PATHS], *shots[QP_MC_PATHS]; /* files under the data folder, the first that is there; a `*` takes all that match, in order */
    const char *aliases[QP_MC_PATHS][2]; /* name, field */
    int (*convert)(struct json_t *row, struct qp_err *err); /* a publisher's row into the fields named above; may be NULL */
    const char *(*section)(const char *group);
    const char *only;           /* of a task with subtasks: this group or section alone; NULL: all */
    struct json_t *def;         /* what a task file held; owned */
    char *dir;                  /* a task file's folder: its files are looked for there first; owned */
};

/* A standard task by lm-evaluation-harness's name ("mmlu", "mmlu_stem", "mmlu_anatomy", "hellaswag", ...), or a task file (a name that ends in ".json"). */
int qp_mc_spec_open(struct qp_mc_spec *out, const char *name, struct qp_err *err) QP_MUST_USE;
void qp_mc_spec_release(struct qp_mc_spec *s);
/* The part of MMLU that a subject belongs to ("stem"), NULL for a subject that is none of its 57. */
const char *qp_mmlu_section(const char *subject);
/* All that decides about a task's prompts, as one line of JSON: what hashes and protocols rest on. */
void qp_mc_spec_describe(const struct qp_mc_spec *s, struct qp_buf *out);

/* ---- rows ---- */

/* The value at a path ("choices.text", "choices[0]"); NULL: none. Borrowed. */
struct json_t *qp_mc_field(const struct json_t *row, const char *path);
/* Appends a template's text for a row. QP_E_INPUT names the field that is missing or neither text nor a whole number. */
int qp_mc_render(const char *tmpl, const struct json_t *row, struct qp_buf *out, struct qp_err *err) QP_MUST_USE;
/* Checks braces and filters of a template. */
int qp_mc_check_template(const char *tmpl, struct qp_err *err) QP_MUST_USE;
/* Length of text without white space at its end, as Python's rstrip() sees it. */
size_t qp_mc_rstrip(const char *text, size_t n);
/* Begin and end of text without white space at both ends. */
void qp_mc_strip(const char **text, size_t *n);
/* Characters (code points). */
size_t qp_mc_chars(const char *text);

#endif
