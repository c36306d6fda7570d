/* Is a generated answer right? Four ways to compare it with what was expected; docs/NUMBERS.md has the definitions.
 *
 *     qp_matcher_new(&m, &(struct qp_match_options){.kind = QP_MATCH_CONTAINS, .ignore_case = true}, &err);
 *     qp_matcher_check(m, expected, &err);              // once a row: what can never match is an error
 *     qp_matcher_run(m, expected, answer, &right, &err);
 */
#ifndef QP_TEXT_MATCH_H
#define QP_TEXT_MATCH_H

#include <stdbool.h>

#include "base/err.h"

enum qp_match_kind {
    QP_MATCH_CONTAINS, /* the answer holds the expected text, both normalized: NFC, white space at the ends taken off, runs of it one blank */
    QP_MATCH_EXACT,    /* the normalized texts are equal */
    QP_MATCH_REGEX,    /* the expected text is a pattern (PCRE2, UTF) that is found in the answer as it is */
    QP_MATCH_NUMBER    /* the answer's last number (or first) is the expected one's, within the tolerance */
};

struct qp_match_options {
    enum qp_match_kind kind;
    bool ignore_case;      /* full case folding; for patterns PCRE2's */
    bool whole_words;      /* contains: no letter or digit stands right before or after it */
    bool first_number;
    double tolerance;      /* numbers: |a - b| <= tolerance, or equal to nine digits */
    const char *extract;   /* NULL, or a pattern: its first group (or all of it, where it has none) in the answer stands for the answer; not found: wrong */
};

struct qp_matcher;
int qp_matcher_new(struct qp_matcher **out, const struct qp_match_options *o, struct qp_err *err) QP_MUST_USE;
void qp_matcher_free(struct qp_matcher *m);
/* QP_E_INPUT: empty text, a pattern that is none (with its offset), no number. */
int qp_matcher_check(const struct qp_matcher *m, const char *expected, struct qp_err *err) QP_MUST_USE;
/* QP_E_INPUT: as above, or a pattern that takes more than a million steps. */
int qp_matcher_run(const struct qp_matcher *m, const char *expected, const char *answer, bool *right, struct qp_err *err) QP_MUST_USE;

#endif
