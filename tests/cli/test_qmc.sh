#!/usr/bin/env bash
# qmc: standard tasks and a user's own on a tiny model: items, totals, pairs, shards, resumed runs, the cache, the harness's files; and everything a task file or
# a row can get wrong, each named by file, line and field.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
"$QP_TOOLS/mkmodel" "$T/m" || exit 1
qmc() { command qmc -q "$@"; }
mc() { qmc --model "$T/m" --compute f32 "$@"; }
same() { [ -n "$2" ] && [ "$2" = "$3" ] && ok "$1" || not_ok "$1: '$2', '$3'"; }
has() { grep -q -e "$2" "$T/out" && ok "$1" || { not_ok "$1 (no '$2')"; head -n 3 "$T/out" | sed 's/^/# /'; }; }
records() { qcat -t item -t result; }
field() { grep -o "\"$1\":[-0-9.e]*" | head -n 1 | cut -d: -f2; }

# A user's own task.
task() { # task FILE KEY=VALUE...: a task file in which some members are replaced, or left out (KEY=)
    local out=$1 kv
    shift
    declare -A o=([task]='"own"' [template]='"{q}\n>"' [choices]='"options"' [answer]='"right"' [id]='"id"' [group]='"kind"' [metric]='["acc","acc_norm"]' [data]='"own.jsonl"')
    for kv in "$@"; do
        o[${kv%%=*}]=${kv#*=}
    done
    { printf '{"comment": "a test"'
      for k in "${!o[@]}"; do [ -n "${o[$k]}" ] && printf ', "%s": %s' "$k" "${o[$k]}"; done
      printf '}\n'; } >"$out"
}
for i in 0 1 2 3 4 5 6 7 8 9; do
    echo "{\"id\": \"row $i\", \"q\": \"What comes after $i and before the other?\", \"options\": [\"this\", \"that one $i\", \"none\"], \"right\": $((i % 3)), \"kind\": \"k$((i % 2))\"}"
done >"$T/own.jsonl"
task "$T/own.json"
status "a task file" 0 mc --task "$T/own.json" --num-fewshot 2
cp "$T/out" "$T/whole.qp"
records <"$T/whole.qp" >"$T/out"
has "an item for each question" '"task":"own","i":9,"group":"k1","id":"row 9","correct":'
has "acc by groups" '"metric":"acc/own".*"n":10,.*"groups":\[{"group":"k0","n":5,'
has "acc_norm" '"metric":"acc_norm/own"'
has "the protocol" '"protocol":{"num_fewshot":2,"sampler":"default","seed":1234,"questions":10,"max_length":'
same "accuracy is the items'" "$(grep -c '"t":"item".*"correct":true' "$T/out" | awk '{ print $1 / 10 }')" "$(grep '"metric":"acc/own"' "$T/out" | field value)"
qcat -t source "$T/whole.qp" | grep -q "\"role\":\"eval\",\"name\":\"own\",.*\"sha256\":\"$(sha256sum <"$T/own.jsonl" | cut -c 1-64)\",\"docs\":10" && ok "its source" || not_ok "its source"
gzip -k "$T/own.jsonl" && mv "$T/own.jsonl" "$T/plain.jsonl"
same "a compressed file gives the same scores" "$(mc --task "$T/own.json" --num-fewshot 2 | records | sed 's/,"key":"[0-9a-f]*"//')" "$(records <"$T/whole.qp" | sed 's/,"key":"[0-9a-f]*"//')"
mv "$T/plain.jsonl" "$T/own.jsonl" && rm "$T/own.jsonl.gz"

# Threads, limits, shards.
same "the same bytes for any number of threads" "$(mc --threads 1 --task "$T/own.json" --num-fewshot 2 | records | sha256sum)" "$(mc --threads 3 --task "$T/own.json" --num-fewshot 2 | records | sha256sum)"
same "--limit N" "$(mc --task "$T/own.json" --limit 3 | qcat -t item | grep -c '"i":[012],')" 3
same "--limit FRACTION is rounded up" "$(mc --task "$T/own.json" --limit 0.21 | qcat -t item | wc -l)" 3
for i in 0 1 2; do mc --task "$T/own.json" --num-fewshot 2 --shard $i/3 >"$T/shard$i.qp"; done
same "shards have each item once, with the same scores" "$(cat "$T"/shard?.qp | qcat -t item | sort)" "$(qcat -t item "$T/whole.qp" | sort)"
status "qcat --merge joins them" 0 qcat --merge "$T/shard2.qp" "$T/shard0.qp" "$T/shard1.qp"
cp "$T/out" "$T/joined.qp"
same "into the whole run's items and results" "$(records <"$T/joined.qp" | sha256sum)" "$(records <"$T/whole.qp" | sha256sum)"
qcat -s "$T/joined.qp" | grep -q '^whole' && ok "in a stream that is whole" || not_ok "in a stream that is whole"
status "a shard that is missing" 3 qcat --merge "$T/shard2.qp" "$T/shard0.qp"
says "is named" "task 'own': shard 1/3 is missing"
status "a shard twice" 3 qcat --merge "$T/shard2.qp" "$T/shard0.qp" "$T/shard1.qp" "$T/shard1.qp"
says "its item is named" "task 'own': item [0-9]+ of 'm' comes twice"
mc --task "$T/own.json" --num-fewshot 1 --shard 1/3 >"$T/other.qp"
status "a shard of another protocol" 3 qcat --merge "$T/shard2.qp" "$T/shard0.qp" "$T/other.qp"
says "is refused" "made under different protocols"
mc --task "$T/own.json" --shard 1/4 >"$T/other.qp"
status "shards of different counts" 3 qcat --merge "$T/shard0.qp" "$T/other.qp"
says "are refused" "a shard of 4 beside one of 3"
qppl -q --model "$T/m" --text "$QP_ROOT/pipelines/data/general-eval.txt" --max-tokens 100 >"$T/ppl.qp"
status "streams without items" 3 qcat --merge "$T/ppl.qp"
says "are refused, too" "the streams hold no items"
status "--limit 0" 2 mc --task "$T/own.json" --limit 0
says "says what it takes" "number of questions, or a share below 1"
status "a shard that is none" 2 mc --task "$T/own.json" --shard 3/3
status "a task that is none" 2 mc --task nothing --data "$T"
says "names those that are" "unknown task 'nothing'; known: mmlu, hellaswag"
status "a task twice" 2 mc --task "$T/own.json,$T/own.json"
status "no data folder" 2 mc --task hellaswag
says "says that it is needed" "[-]-data DIR is needed for task 'hellaswag'"

# A run that was cut off goes on from its own output.
head -c $(($(wc -c <"$T/whole.qp") * 6 / 10)) "$T/whole.qp" >"$T/cut.qp"
command qmc --model "$T/m" --compute f32 --task "$T/own.json" --num-fewshot 2 --resume "$T/cut.qp" >"$T/resumed.qp" 2>"$T/err"
grep -q 'qmc: [1-9] items taken from runs before' "$T/err" && grep -q 'qmc: [1-9] items in .* s' "$T/err" && ok "some items are taken, others scored" || not_ok "some items are taken, others scored"
same "the resumed run equals the whole one" "$(records <"$T/resumed.qp" | sha256sum)" "$(records <"$T/whole.qp" | sha256sum)"
command qmc --model "$T/m" --compute f32 --task "$T/own.json" --num-fewshot 1 --resume "$T/whole.qp" 2>"$T/err" >"$T/other.qp"
grep -q 'taken from runs before' "$T/err" && not_ok "another protocol takes none" || ok "another protocol takes none"
status "a file to resume that is not there" 3 mc --task "$T/own.json" --resume "$T/nothing"

# A baseline and a quantized model, in one pass; the baseline's items are kept.
qcalib -q --model "$T/m" --samples 4 --seq-len 32 --general "$QP_ROOT/pipelines/data/general.txt" | qquant -q --method rtn --bits 2 >"$T/quant.qp"
command qmc --compute f32 --task "$T/own.json" --cache "$T/cache" <"$T/quant.qp" >"$T/pair.qp" 2>"$T/err"
qcat -t item -t result "$T/pair.qp" >"$T/out"
has "differences by item" '"metric":"dacc/own".*"bootstrap":.*"p_mcnemar":.*"groups":'
has "what is retained" '"metric":"retained/own"'
has "the quality score" '"metric":"quality/all"'
has "items say whether calibration has seen them" '"overlap":false'
grep -q 'retained\|points' "$T/err" && ok "and lines for people" || not_ok "and lines for people"
same "the baseline comes first" "$(head -n 1 "$T/out" | grep -o '"model":"[^"]*"')" '"model":"m"'
qppl -q --text "$QP_ROOT/pipelines/data/general-eval.txt" --name t --max-tokens 60 <"$T/pair.qp" >"$T/many.qp"
qreport "$T/many.qp" >"$T/out"
grep -qE '^acc/own +[0-9.]+ % .* [0-9.]+ % ' "$T/out" && grep -qE '^top1/t  ' "$T/out" && ok "qreport: many metrics are rows, models are columns" || not_ok "qreport: many metrics are rows, models are columns"
command qmc --compute f32 --task "$T/own.json" --cache "$T/cache" <"$T/quant.qp" 2>"$T/err" >"$T/again.qp"
grep -q 'qmc: 10 items taken from runs before' "$T/err" && ok "the second time the baseline comes from the cache" || not_ok "the second time the baseline comes from the cache"
same "with the same results" "$(records <"$T/again.qp" | sha256sum)" "$(records <"$T/pair.qp" | sha256sum)"
echo '{"name": "t", "checks": [{"metric": "acc/own", "min_retained_pct": 0}]}' >"$T/gate.json"
status "qgate judges it" 0 qgate "$T/gate.json" <"$T/pair.qp"
qcat -t verdict "$T/out" | grep -q '"paired":true' && ok "by the paired interval" || not_ok "by the paired interval"

for i in 0 1; do qmc --compute f32 --task "$T/own.json" --shard $i/2 <"$T/quant.qp" >"$T/pair$i.qp"; done
qcat --merge "$T/pair0.qp" "$T/pair1.qp" >"$T/joined.qp"
same "pairs are made again from shards" "$(records <"$T/joined.qp" | sort | sha256sum)" "$(records <"$T/pair.qp" | sort | sha256sum)"
status "qgate judges the joined stream" 0 qgate "$T/gate.json" <"$T/joined.qp"

# Calibration text that holds a question.
head -n 1 "$T/own.jsonl" | sed 's/.*"q": "\([^"]*\)".*/\1 Some more text to fill the sample up, and then some./' >"$T/seen.txt"
for _ in 1 2 3 4 5 6; do cat "$T/seen.txt"; done >"$T/seen2.txt"
qcalib -q --model "$T/m" --samples 2 --seq-len 64 --general "$T/seen2.txt" | qmc --compute f32 --task "$T/own.json" | records >"$T/out"
has "a question that calibration has seen is marked" '"i":0,.*"overlap":true'
has "and left out in a second value" '"overlap":{"items":[1-9][0-9]*'

# MMLU's subjects: examples and limits in each, parts of the task.
mkdir -p "$T/data/mmlu/test" "$T/data/mmlu/dev"
for s in anatomy astronomy sociology; do
    for i in 1 2 3 4 5 6; do echo "Question $i of $s?,one,two,three,four,$(echo ABCDAB | cut -c $i)"; done >"$T/data/mmlu/test/${s}_test.csv"
    for i in 1 2 3 4 5; do echo "Example $i of $s?,one,two,three,four,D"; done >"$T/data/mmlu/dev/${s}_dev.csv"
done
mc --task mmlu --data "$T/data" --limit 4 --lm-eval-json "$T/lm" >"$T/mmlu.qp"
records <"$T/mmlu.qp" >"$T/out"
has "MMLU's total" '"metric":"acc/mmlu",.*"n":12,.*"pooled":true'
has "and its parts" '"metric":"acc/mmlu_stem",.*"n":8,'
has "by subject" '"groups":\[{"group":"anatomy","n":4,.*"group":"sociology","n":4,'
mc --task mmlu_anatomy --data "$T/data/mmlu" | records >"$T/out"
has "one subject by itself, from the folder itself" '"metric":"acc/mmlu_anatomy",.*"n":6,'
results=$(echo "$T"/lm/m/results_*.json)
for key in '"acc,none"' '"acc_stderr,none"' '"mmlu_social_sciences"' '"group_subtasks"' '"n-samples"' '"effective": 4' '"original": 6' '"task_hashes"' '"sample_count"'; do
    grep -q -e "$key" "$results" || not_ok "results of the harness's layout: $key"
done
same "samples of each subject" "$(cat "$T"/lm/m/samples_mmlu_anatomy_*.jsonl | grep -c '"doc_id":[0-3],"doc":{.*"gen_args_3":{"arg_0":"The following are multiple choice questions (with answers) about anatomy.*"arg_1":" D"}.*"filter":"none"')" 4
for i in 0 1; do mc --task mmlu --data "$T/data" --limit 1 --shard $i/2 >"$T/part$i.qp"; done
qcat --merge "$T/part0.qp" "$T/part1.qp" >"$T/joined.qp"
same "shards of which some lack a part of the task" "$(records <"$T/joined.qp" | sha256sum)" "$(mc --task mmlu --data "$T/data" --limit 1 | records | sha256sum)"
printf 'Fine?,a,b,c,d,A\nBad \377?,a,b,c,d,A\n' >"$T/data/mmlu/test/anatomy_test.csv"
status "invalid UTF-8 in a .csv file" 3 mc --task mmlu --data "$T/data"
says "named with its line" "anatomy_test.csv' line 2: invalid UTF-8"
printf 'Fine?,a,b,c,d,A\nShort?,a,b,c,A\n' >"$T/data/mmlu/test/anatomy_test.csv"
status "a .csv row with too few fields" 3 mc --task mmlu --data "$T/data"
says "named with its line" "anatomy_test.csv' line 2: 5 fields, expected question, four choices and the answer's letter"
printf 'Fine?,a,b,c,d,E\n' >"$T/data/mmlu/test/anatomy_test.csv"
status "an answer's letter that is none" 3 mc --task mmlu --data "$T/data"
says "named with its field" "anatomy_test.csv' line 1: field 'answer' is 'E', outside of the 4 choices"
printf 'Fine?,a,b,c,d,A\n' >"$T/data/mmlu/test/anatomy_test.csv"
rm "$T/data/mmlu/dev/anatomy_dev.csv"
status "a subject without examples" 3 mc --task mmlu --data "$T/data"
says "is named" "task 'mmlu', anatomy: 5 examples wanted, 0 rows"
status "a folder without the split" 3 mc --task hellaswag --data "$T/data"
says "says what was looked for" "no questions under '.*': looked for hellaswag/validation.jsonl"

# What rows can get wrong: file, line and field.
bad() { # bad NAME PATTERN ROW
    { head -n 1 "$T/own.jsonl"; printf '%b\n' "$3"; } >"$T/bad.jsonl"
    task "$T/bad.json" data='"bad.jsonl"'
    status "$1" 3 mc --task "$T/bad.json"
    says "$1: named" "bad.jsonl' line 2: $2"
}
bad "a field that is missing" "field 'q' is missing" '{"id": 1, "options": ["a", "b"], "right": 0, "kind": "k"}'
bad "an answer outside of the choices" "field 'right' is '2', outside of the 2 choices" '{"id": 1, "q": "?", "options": ["a", "b"], "right": 2, "kind": "k"}'
bad "an answer that is none" "field 'right' is 'C', outside of the 2 choices" '{"id": 1, "q": "?", "options": ["a", "b"], "right": "C", "kind": "k"}'
bad "an answer that may be two things" "field 'right' is '1', which may be a choice's text or its place" '{"id": 1, "q": "?", "options": ["1", "2"], "right": "1", "kind": "k"}'
bad "an empty choice" "field 'options\[1\]' is an empty choice" '{"id": 1, "q": "?", "options": ["a", ""], "right": 0, "kind": "k"}'
bad "one choice" "field 'options' has 1 choices" '{"id": 1, "q": "?", "options": ["a"], "right": 0, "kind": "k"}'
bad "choices that are no list" "field 'options' is no list" '{"id": 1, "q": "?", "options": "a", "right": 0, "kind": "k"}'
bad "a group that is missing" "field 'kind' is missing" '{"id": 1, "q": "?", "options": ["a", "b"], "right": 0}'
bad "an id twice" "field 'id' is \"row 0\", as in line 1" '{"id": "row 0", "q": "?", "options": ["a", "b"], "right": 0, "kind": "k"}'
bad "invalid UTF-8" "not a JSON object: .*0xff" '{"id": 1, "q": "\xff?", "options": ["a", "b"], "right": 0, "kind": "k"}'
bad "a field twice" "not a JSON object: duplicate object key" '{"id": 1, "q": "?", "q": "!", "options": ["a", "b"], "right": 0, "kind": "k"}'
task "$T/gone.json" data='"gone.jsonl"'
status "a data file that is not there" 3 mc --task "$T/gone.json"
says "is named" "looked for gone.jsonl"
task "$T/space.json" template='"{q|strip}"' delimiter='""' metric='"acc"' data='"space.jsonl"'
echo '{"id": "x", "q": " ", "options": ["a", "b"], "right": 0, "kind": "k"}' >"$T/space.jsonl"
status "a question of nothing" 3 mc --task "$T/space.json"
says "named" "space.jsonl' line 1: the question is empty"

# What a task file can get wrong.
wrong() { # wrong NAME PATTERN KEY=VALUE...
    local name=$1 pattern=$2
    shift 2
    task "$T/wrong.json" "$@"
    status "$name" 3 mc --task "$T/wrong.json"
    says "$name: named" "wrong.json': $pattern"
}
wrong "no template" "field 'template' is missing" template=
wrong "no answer" "field 'answer' is missing" answer=
wrong "no data" "field 'data' is missing" data=
wrong "a template that is broken" "field 'template': template .* expected \{field\}" template='"{q"'
wrong "a key that is unknown" "unknown field 'shots'" shots=3
wrong "a metric that is none" "field 'metric': expected" metric='"f1"'
wrong "one choice" "field 'choices': expected" choices='["a"]'
wrong "examples without a number" "field 'fewshot': expected" fewshot='{"data": "own.jsonl"}'
wrong "a standard task's name" "field 'task': 'mmlu' is a standard task's name" task='"mmlu"'
echo '{"task": ' >"$T/wrong.json"
status "a task file that is no JSON" 3 mc --task "$T/wrong.json"
says "named with its line" "wrong.json' line [0-9]+: not a JSON object"

# A question longer than the model's context loses its beginning, is counted, and scored.
"$QP_TOOLS/mkmodel" "$T/short" && sed -i 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 24/' "$T/short/config.json"
command qmc --model "$T/short" --compute f32 --task "$T/own.json" 2>"$T/err" | records >"$T/out"
grep -q "qmc: 10 items are longer than the model's 24 tokens" "$T/err" && ok "items that are cut are counted" || not_ok "items that are cut are counted"
has "and marked" '"i":0,.*"cut":[1-9]'
has "in the result too" '"metric":"acc/own",.*"cut":10'
"$QP_TOOLS/mkmodel" "$T/tiny" && sed -i 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 2/' "$T/tiny/config.json"
status "a choice longer than the context" 3 qmc --model "$T/tiny" --task "$T/own.json"
says "is named" "own.jsonl' line 1: choice 0 has [0-9]+ tokens, the model takes 2"
finish
