/* The standard tasks, as lm-evaluation-harness 0.4.13 defines them, and where their files lie as publishers and the hub name them. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "eval/mc_internal.h"

/* ---- MMLU's subjects ---- */

static const struct {
    const char *name, *subjects[20];
} sections[] = {
    {"stem", {
        "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science", "college_mathematics",
        "college_physics", "computer_security", "conceptual_physics", "electrical_engineering", "elementary_mathematics", "high_school_biology",
        "high_school_chemistry", "high_school_computer_science", "high_school_mathematics", "high_school_physics", "high_school_statistics",
        "machine_learning",
    }},
    {"other", {
        "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management", "marketing", "medical_genetics",
        "miscellaneous", "nutrition", "professional_accounting", "professional_medicine", "virology",
    }},
    {"social_sciences", {
        "econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics", "high_school_microeconomics",
        "high_school_psychology", "human_sexuality", "professional_psychology", "public_relations", "security_studies", "sociology",
        "us_foreign_policy",
    }},
    {"humanities", {
        "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history", "international_law", "jurisprudence",
        "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law", "world_religions",
    }},
};

const char *qp_mmlu_section(const char *subject)
{
    for (size_t s = 0; s < sizeof sections / sizeof *sections; s++)
        for (int i = 0; i < 20 && sections[s].subjects[i]; i++)
            if (!strcmp(sections[s].subjects[i], subject))
                return sections[s].name;
    return NULL;
}

bool qp_mmlu_is_section(const char *name)
{
    for (size_t s = 0; s < sizeof sections / sizeof *sections; s++)
        if (!strcmp(sections[s].name, name))
            return true;
    return false;
}

/* ---- rows as their publishers write them ---- */

/* A list of {text, label} beside the stem (the publisher's form) becomes two lists (the hub's). */
static int convert_arc(json_t *row, struct qp_err *err)
{
    json_t *q = json_object_get(row, "question"), *list = json_object_get(q, "choices"), *c;
    size_t i;
    if (!json_is_object(q))
        return 0;
    json_t *text = json_array(), *label = json_array(), *choices = json_object();
    json_array_foreach(list, i, c)
    {
        json_array_append(text, json_object_get(c, "text"));
        json_array_append(label, json_object_get(c, "label"));
    }
    bool failed = json_object_set_new(choices, "text", text) || json_object_set_new(choices, "label", label) || json_object_set_new(row, "choices", choices) ||
                  json_object_set(row, "question", json_object_get(q, "stem"));
    return failed ? qp_err_set(err, QP_E_INPUT, "field 'question' has no 'stem'") : 0;
}

static const struct qp_mc_spec tasks[] = {
    {.name = "mmlu", .description = "The following are multiple choice questions (with answers) about {subject|spaces}.\n\n",
     .question = "{question|strip}\nA. {choices[0]}\nB. {choices[1]}\nC. {choices[2]}\nD. {choices[3]}\nAnswer:", .choice = {"A", "B", "C", "D"}, .n_choices = 4,
     .answer = "answer", .group = "subject", .subtasks = true, .section = qp_mmlu_section, .n_shots = 5, .first_n = true,
     .eval = {"mmlu/test.jsonl", "mmlu/*/test.jsonl", "mmlu/test/*_test.csv", "mmlu/data/test/*_test.csv", "data/test/*_test.csv"},
     .shots = {"mmlu/dev.jsonl", "mmlu/*/dev.jsonl", "mmlu/dev/*_dev.csv", "mmlu/data/dev/*_dev.csv", "data/dev/*_dev.csv"}},
    {.name = "hellaswag", .question = "{query}", .choices = "choices", .answer = "label", .answer_is = QP_MC_ANSWER_INDEX, .norm = true, .n_shots = 10, .excludes = true, .holdout = 1000,
     .convert = qp_mc_hellaswag, .eval = {"hellaswag/validation.jsonl", "hellaswag/hellaswag_val.jsonl", "hellaswag_val.jsonl"},
     .shots = {"hellaswag/train.jsonl", "hellaswag/hellaswag_train.jsonl", "hellaswag_train.jsonl"}},
    {.name = "arc_challenge", .question = "Question: {question}\nAnswer:", .choices = "choices.text", .labels = "choices.label", .answer = "answerKey", .norm = true, .n_shots = 25,
     .convert = convert_arc, .eval = {"arc_challenge/test.jsonl", "ARC-Challenge/test.jsonl", "ARC-Challenge/ARC-Challenge-Test.jsonl", "ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Test.jsonl"},
     .shots = {"arc_challenge/train.jsonl", "ARC-Challenge/train.jsonl", "ARC-Challenge/ARC-Challenge-Train.jsonl", "ARC-V1-Feb2018-2/ARC-Challenge/ARC-Challenge-Train.jsonl"}},
    {.name = "arc_easy", .question = "Question: {question}\nAnswer:", .choices = "choices.text", .labels = "choices.label", .answer = "answerKey", .norm = true,
     .convert = convert_arc, .eval = {"arc_easy/test.jsonl", "ARC-Easy/test.jsonl", "ARC-Easy/ARC-Easy-Test.jsonl", "ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Test.jsonl"},
     .shots = {"arc_easy/train.jsonl", "ARC-Easy/train.jsonl", "ARC-Easy/ARC-Easy-Train.jsonl", "ARC-V1-Feb2018-2/ARC-Easy/ARC-Easy-Train.jsonl"}},
    {.name = "winogrande", .blank = "sentence", .choice = {"{option1}", "{option2}"}, .n_choices = 2, .answer = "answer", .answer_is = QP_MC_ANSWER_INDEX, .first = 1, .n_shots = 5,
     .excludes = true, .eval = {"winogrande/validation.jsonl", "winogrande/dev.jsonl", "winogrande_1.1/dev.jsonl"},
     .shots = {"winogrande/train.jsonl", "winogrande/train_xl.jsonl", "winogrande_1.1/train_xl.jsonl"}},
    {.name = "piqa", .question = "Question: {goal}\nAnswer:", .choice = {"{sol1}", "{sol2}"}, .n_choices = 2, .answer = "label", .answer_is = QP_MC_ANSWER_INDEX, .norm = true,
     .excludes = true, .eval = {"piqa/validation.jsonl", "piqa/valid.jsonl", "piqa/dev.jsonl", "physicaliqa-train-dev/dev.jsonl"},
     .shots = {"piqa/train.jsonl", "physicaliqa-train-dev/train.jsonl"}},
};

const struct qp_mc_spec *qp_mc_standard(const char *name)
{
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++)
        if (!strcmp(tasks[i].name, name))
            return &tasks[i];
    return NULL;
}

void qp_mc_standard_names(char *out, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks && at < n; i++)
        at += (size_t)snprintf(out + at, n - at, "%s%s", i ? ", " : "", tasks[i].name);
}
