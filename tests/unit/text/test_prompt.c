/* Prompts from examples, chat prompts, and whether answers match. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/match.h"
#include "text/prompt.h"

/* The rendered text, or the error's, which begins with "!". */
static const char *prompt(const char *text, const char *fields)
{
    static char result[1000];
    struct qp_prompt *p;
    struct qp_buf out = QP_BUF_INIT;
    struct qp_err err = {0};
    json_t *row = json_loads(fields, 0, NULL);
    int r = qp_prompt_open(&p, "--template", text, strlen(text), &err);
    if (!r) {
        r = qp_prompt_render(p, row, QP_PROMPT_DATE, &out, &err);
        qp_prompt_free(p);
    }
    snprintf(result, sizeof result, "%s%s", r ? "!" : "", r ? err.text : out.data ? out.data : "");
    qp_buf_release(&out);
    json_decref(row);
    return result;
}

static void test_prompts(void **state)
{
    (void)state;
    const char *row = "{\"input\": \"What\\u00e9?\", \"n\": 3, \"x\": 0.5, \"yes\": true, \"list\": [1], \"none\": null, \"a-b\": \"c\"}";
    assert_string_equal(prompt("Q: {input}\nA:", row), "Q: What\xc3\xa9?\nA:");
    assert_string_equal(prompt("{n}{x} {yes}{a-b}", row), "30.5 truec");
    assert_string_equal(prompt("{\"a\": {n}, \"b\": {}} { input } {in put} {", row), "{\"a\": 3, \"b\": {}} { input } {in put} {");
    assert_string_equal(prompt("", row), "");
    assert_string_equal(prompt("{question}", row), "!--template names the field 'question', which the example lacks");
    assert_string_equal(prompt("{list}", row), "!--template names the field 'list', which is neither text nor a number");
    assert_string_equal(prompt("{none}", row), "!--template names the field 'none', which is neither text nor a number");
    assert_string_equal(prompt("{{ input | upper }} {n}", row), "WHAT\xc3\x89? {n}");
    assert_string_equal(prompt("{{ question }}", row), "!--template line 1: 'question' is undefined");
    assert_string_equal(prompt("{% if n %}", row), "!--template line 1: 'if' is never closed by 'endif'");
    assert_string_equal(prompt("{{ strftime_now('%Y-%m-%d') }}", row), "2024-07-26");
    assert_string_equal(prompt("a\xff", row), "!--template: invalid UTF-8 at byte 1");
}

static const char *golden_dir(void)
{
    static char dir[4096];
    const char *root = getenv("QP_ROOT");
    snprintf(dir, sizeof dir, "%s/tests/golden/tokenizers", root ? root : ".");
    return dir;
}

/* A folder with a tokenizer of the goldens, its tokenizer_config.json, and chat_template.jinja unless NULL. */
static struct qp_tokenizer *tokenizer_with(const char *config, const char *jinja)
{
    char dir[64] = "/tmp/qp-prompt-XXXXXX", path[4200], command[100];
    struct qp_tokenizer *t = NULL;
    struct qp_err err = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/llama2.json", golden_dir());
    json_t *o = json_load_file(path, JSON_ALLOW_NUL, NULL);
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(json_dump_file(json_object_get(o, "tokenizer"), path, 0), 0);
    json_decref(o);
    const char *const files[][2] = {{"tokenizer_config.json", config}, {"chat_template.jinja", jinja}};
    for (int i = 0; i < 2; i++)
        if (files[i][1]) {
            char name[128];
            snprintf(name, sizeof name, "%s/%s", dir, files[i][0]);
            FILE *f = fopen(name, "w");
            assert_non_null(f);
            fputs(files[i][1], f);
            fclose(f);
        }
    if (qp_tokenizer_open_json(&t, path, &err))
        fail_msg("%s", err.text);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    return t;
}

static void chat(const char *config, const char *jinja, const char *system_text, const char *want)
{
    struct qp_tokenizer *t = tokenizer_with(config, jinja);
    struct qp_chat *c;
    struct qp_buf out = QP_BUF_INIT;
    struct qp_err err = {0};
    int r = qp_chat_open(&c, t, &err);
    if (!r) {
        r = qp_chat_render(c, system_text, "hi", QP_PROMPT_DATE, &out, &err);
        qp_chat_free(c);
    }
    assert_string_equal(r ? err.text : out.data, want);
    qp_buf_release(&out);
    qp_tokenizer_free(t);
}

static void test_chats(void **state)
{
    (void)state;
    chat("{}", NULL, NULL, "the model has no chat template; a text with {field} is accepted");
    chat("{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\"}, \"chat_template\": \"{{ bos_token }}{% for m in messages %}{{ m.role ~ ':' ~ m.content ~ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}\"}",
         NULL, "be brief", "<s>system:be brief</s>user:hi</s>>");
    chat("{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"tools\"}, {\"name\": \"default\", \"template\": \"plain {{ messages[0].content }}\"}]}", NULL, NULL, "plain hi");
    chat("{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"tools\"}]}", NULL, NULL, "tools");
    chat("{\"chat_template\": \"from the configuration\"}", "from its own file\n", NULL, "from its own file");
    chat("{\"chat_template\": \"{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}ok\"}", NULL, "x", "the model's chat template line 1: the template refuses: no system role");
    chat("{\"chat_template\": \"a\\n{% extends 'x' %}\"}", NULL, NULL, "the model's chat template line 2: the statement 'extends' is not supported");
}

/* '1' right, '0' wrong, '!' an error. */
static char matches(struct qp_match_options o, const char *expected, const char *answer)
{
    struct qp_matcher *m;
    struct qp_err err = {0};
    bool right = false;
    if (qp_matcher_new(&m, &o, &err))
        return '!';
    int r = qp_matcher_check(m, expected, &err);
    r = r ? r : qp_matcher_run(m, expected, answer, &right, &err);
    qp_matcher_free(m);
    return r ? '!' : right ? '1' : '0';
}

static void test_matches(void **state)
{
    (void)state;
    static const struct {
        struct qp_match_options o;
        const char *expected, *answer;
        char want;
    } cases[] = {
        {{.kind = QP_MATCH_CONTAINS}, "card testing", "It is card\n  testing.", '1'},
        {{.kind = QP_MATCH_CONTAINS}, "Card", "card", '0'},
        {{.kind = QP_MATCH_CONTAINS, .ignore_case = true}, "STRASSE", "die Stra\xc3\x9f" "e", '1'},
        {{.kind = QP_MATCH_CONTAINS}, "caf\xc3\xa9", "cafe\xcc\x81", '1'},
        {{.kind = QP_MATCH_CONTAINS}, "x", "", '0'},
        {{.kind = QP_MATCH_CONTAINS}, "  ", "x", '!'},
        {{.kind = QP_MATCH_CONTAINS}, "", "x", '!'},
        {{.kind = QP_MATCH_CONTAINS}, "no", "not at all", '1'},
        {{.kind = QP_MATCH_CONTAINS, .whole_words = true}, "no", "not another", '0'},
        {{.kind = QP_MATCH_CONTAINS, .whole_words = true}, "no", "not, (no)", '1'},
        {{.kind = QP_MATCH_CONTAINS, .whole_words = true}, "no", "no", '1'},
        {{.kind = QP_MATCH_CONTAINS, .whole_words = true}, "no", "\xc3\xa9no", '0'},
        {{.kind = QP_MATCH_CONTAINS, .whole_words = true}, "$5", "it is $5.", '1'},
        {{.kind = QP_MATCH_CONTAINS, .whole_words = true}, "$5", "it is $50", '0'},
        {{.kind = QP_MATCH_EXACT}, "yes", " yes\n", '1'},
        {{.kind = QP_MATCH_EXACT}, "yes", "yes.", '0'},
        {{.kind = QP_MATCH_EXACT, .ignore_case = true}, "YES", "yes", '1'},
        {{.kind = QP_MATCH_EXACT, .extract = "answer: (\\w+)"}, "yes", "the answer: yes, because", '1'},
        {{.kind = QP_MATCH_EXACT, .extract = "answer: (\\w+)"}, "yes", "no idea", '0'},
        {{.kind = QP_MATCH_EXACT, .extract = "\\w+"}, "yes", "  yes no", '1'},
        {{.kind = QP_MATCH_EXACT, .extract = "("}, "yes", "yes", '!'},
        {{.kind = QP_MATCH_REGEX}, "^(fraud|theft)\\b", "fraud, clearly", '1'},
        {{.kind = QP_MATCH_REGEX}, "^fraud", "it is fraud", '0'},
        {{.kind = QP_MATCH_REGEX, .ignore_case = true}, "\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9", '1'},
        {{.kind = QP_MATCH_REGEX}, "a(b", "x", '!'},
        {{.kind = QP_MATCH_REGEX}, "(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", '!'},
        {{.kind = QP_MATCH_NUMBER}, "42", "6 times 7 is 42.", '1'},
        {{.kind = QP_MATCH_NUMBER}, "42", "42 is 6 times 7", '0'},
        {{.kind = QP_MATCH_NUMBER, .first_number = true}, "42", "42 is 6 times 7", '1'},
        {{.kind = QP_MATCH_NUMBER}, "1234567.5", "about $1,234,567.50!", '1'},
        {{.kind = QP_MATCH_NUMBER}, "-3", "it is -3", '1'},
        {{.kind = QP_MATCH_NUMBER}, "4", "3-4", '1'},
        {{.kind = QP_MATCH_NUMBER}, "2024", "on 1,2024", '1'},
        {{.kind = QP_MATCH_NUMBER}, "0.5", "it is .5", '1'},
        {{.kind = QP_MATCH_NUMBER}, "1e3", "1000", '1'},
        {{.kind = QP_MATCH_NUMBER}, "3.14", "3.1415", '0'},
        {{.kind = QP_MATCH_NUMBER, .tolerance = 0.01}, "3.14", "3.1415", '1'},
        {{.kind = QP_MATCH_NUMBER}, "5", "five", '0'},
        {{.kind = QP_MATCH_NUMBER}, "five", "5", '!'},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (matches(cases[i].o, cases[i].expected, cases[i].answer) != cases[i].want)
            fail_msg("'%s' in '%s': not '%c'", cases[i].expected, cases[i].answer, cases[i].want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_prompts), cmocka_unit_test(test_chats), cmocka_unit_test(test_matches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
