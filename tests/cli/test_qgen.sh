#!/usr/bin/env bash
# qgen: prompts, matching, categories, shards; equal answers for any batch; the pair of models; bad input. On a small random model, whose answers are noise:
# what should have been expected is taken from a first run. Then the project's own examples on the demo model.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
"$QP_TOOLS/mkmodel" "$T/m" || exit 1
gen() { qgen -q --model "$T/m" --compute f32 "$@"; }
items() { qcat -t item; }
same() { [ -n "$2" ] && [ "$2" = "$3" ] && ok "$1" || not_ok "$1: '$2', '$3'"; }
value() { qcat -t result | grep "\"metric\":\"$1\"" | grep -o '"value":[-0-9.e]*' | head -n 1 | cut -d: -f2; }

for i in $(seq 0 19); do
    printf '{"id": "q%d", "input": "question %d%s", "expected_output": "never", "category": "%s", "n": %d}\n' "$i" "$i" "$(printf ' word%.0s' $(seq 0 "$i"))" "$([ $((i % 2)) = 0 ] && echo even || echo odd)" "$i"
done >"$T/q.jsonl"

# Answers do not depend on batch, threads or shards.
gen --data "$T/q.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 >"$T/one.qp"
items <"$T/one.qp" >"$T/want"
same "an item for each example" "$(wc -l <"$T/want")" 20
for b in 1 3; do
    same "batch $b, $b threads: the same items" "$(gen --data "$T/q.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 --batch $b --threads $b | items | cksum)" "$(cksum <"$T/want")"
done
same "less memory: the same items" "$(gen --data "$T/q.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 --kv-memory 1 | items | cksum)" "$(cksum <"$T/want")"
same "shards are the whole" "$(for i in 0 1 2; do gen --data "$T/q.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 --shard $i/3 | items; done | sort | cksum)" "$(sort "$T/want" | cksum)"
same "--limit" "$(gen --data "$T/q.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 --limit 7 | items | cksum)" "$(head -n 7 "$T/want" | cksum)"
gzip -k "$T/q.jsonl"
same "a compressed file, and its name" "$(gen --data "$T/q.jsonl.gz" --template 'Q: {input}\nA:' --max-new-tokens 12 | items | cksum)" "$(cksum <"$T/want")"

# Matching, categories: the first half is expected to answer what it answers.
python3 - "$T" <<'PY' 2>/dev/null || exit 1
import json, sys
T = sys.argv[1]
rows = [json.loads(l) for l in open(T + "/q.jsonl")]
got = [json.loads(l) for l in open(T + "/want")]
with open(T + "/known.jsonl", "w") as f:
    for r, g in zip(rows, got):
        if r["n"] < 10 and g["answer"].strip():
            r["expected_output"] = ["not this", g["answer"]]
        f.write(json.dumps(r) + "\n")
PY
gen --data "$T/known.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 --match exact --name dom >"$T/known.qp"
same "exact: what is right" "$(value acc/dom <"$T/known.qp")" 0.5
qcat -t result "$T/known.qp" | grep -q '"groups":\[{"group":"even","n":10,"value":0.5' && ok "by category" || not_ok "by category"
same "any of several answers is right" "$(qcat -t item "$T/known.qp" | grep -c '"correct":true')" 10
gen --data "$T/q.jsonl" --template '{input}' --max-new-tokens 12 --stop e --stop t --stop a --stop '\n' | items >"$T/stopped"
same "--stop ends an answer, and is not part of it" "$(grep -o '"answer":"[^"]*' "$T/stopped" | cut -c 11- | sed 's/\\u....//g; s/\\.//g' | grep -c '[eta]')" 0
grep -q '"end":"stop"' "$T/stopped" && ok "and is named as what ended it" || not_ok "and is named as what ended it"
sed 's/never/^/' "$T/q.jsonl" >"$T/re.jsonl"
same "--match regex" "$(gen --data "$T/re.jsonl" --template '{input}' --match regex --max-new-tokens 3 | value acc/re)" 1
grep -q '"tokens":12' "$T/want" && grep -q '"end":"length"' "$T/want" && ok "what ended an answer" || not_ok "what ended an answer"

# Templates: files, Jinja, the model's own.
printf 'Q: {input}\nA:' >"$T/t.txt"
same "a template from a file" "$(gen --data "$T/q.jsonl" --template "@$T/t.txt" --max-new-tokens 12 | items | cksum)" "$(cksum <"$T/want")"
same "the same in Jinja" "$(gen --data "$T/q.jsonl" --template 'Q: {{ input }}\nA:' --max-new-tokens 12 | items | cksum)" "$(cksum <"$T/want")"
status "chat, where the model has no template" 3 gen --data "$T/q.jsonl" --template chat
says "says so" "template chat: the model has no chat template"
cp -r "$T/m" "$T/chat"
printf "{%% for m in messages %%}{%% if m.role == 'system' %%}{{ m.content ~ ' ' }}{%% else %%}Q: {{ m.content }}\nA:{%% endif %%}{%% endfor %%}" >"$T/chat/chat_template.jinja"
chat() { qgen -q --model "$T/chat" --compute f32 --data "$T/q.jsonl" --max-new-tokens 12 --template "$@"; }
no_model() { sed 's/"model":"[a-z]*"//'; }
same "chat: the input as the user's message" "$(chat chat | items | no_model | cksum)" "$(no_model <"$T/want" | cksum)"
same "chat:TEXT" "$(chat 'chat:{n}' --limit 1 | items | no_model)" "$(gen --data "$T/q.jsonl" --template 'Q: {n}\nA:' --max-new-tokens 12 --limit 1 | items | no_model)"
same "--system" "$(chat chat --system sys --limit 1 | items | no_model)" "$(gen --data "$T/q.jsonl" --template 'sys Q: {input}\nA:' --max-new-tokens 12 --limit 1 | items | no_model)"
printf '{{ raise_exception("no such roles") }}' >"$T/chat/chat_template.jinja"
status "a template that refuses" 3 chat chat
says "says why, and which example" "q.jsonl' line 1: the model's chat template line 1: the template refuses: no such roles"

# Baseline and quantized; what calibration has seen.
qcalib -q --model "$T/m" --general "$T/t.txt" --general "$QP_ROOT/pipelines/data/general.txt" --samples 4 --seq-len 64 | qquant -q --method rtn --bits 4 --group-size 32 >"$T/pair.qp" || exit 1
qgen -q --data "$T/known.jsonl" --template 'Q: {input}\nA:' --max-new-tokens 12 --match exact --name dom --compute f32 <"$T/pair.qp" >"$T/both.qp"
same "items of both models" "$(qcat -t item "$T/both.qp" | wc -l)" 40
same "the baseline's are the same as alone" "$(qcat -t item "$T/both.qp" | head -n 20 | sed 's/"overlap":false,//' | cksum)" "$(qcat -t item "$T/known.qp" | cksum)"
for metric in dacc/dom retained/dom quality/all; do
    qcat -t result "$T/both.qp" | grep -q "\"metric\":\"$metric\"" && ok "$metric" || not_ok "$metric"
done
python3 - "$T" "$QP_ROOT" <<'PY'
import json, sys
T, root = sys.argv[1:]
text = open(root + "/pipelines/data/general.txt").read()
with open(T + "/seen.jsonl", "w") as f:
    for i in range(len(text) // 3000):
        f.write(json.dumps({"input": text[i * 3000:i * 3000 + 900], "expected_output": "x"}) + "\n")
    f.write(json.dumps({"input": "Nothing like this stands in any of the calibration texts, I hope.", "expected_output": "x"}) + "\n")
PY
qcalib -q --model "$T/m" --general "$QP_ROOT/pipelines/data/general.txt" --samples 100 --seq-len 64 | qgen -q --data "$T/seen.jsonl" --template '{input}' --max-new-tokens 2 | items >"$T/seen"
grep -q '"overlap":true' "$T/seen" && tail -n 1 "$T/seen" | grep -q '"overlap":false' && ok "examples that calibration has seen are marked" || not_ok "examples that calibration has seen are marked"

# A context that is too short.
cp -r "$T/m" "$T/brief" && sed -i 's/"max_position_embeddings": 2048/"max_position_embeddings": 40/' "$T/brief/config.json"
status "prompts longer than the context" 0 qgen --model "$T/brief" --data "$T/q.jsonl" --template '{input}' --max-new-tokens 8
grep -q 'prompts were longer than the context of 40 tokens less 8 to answer' "$T/err" && ok "are counted" || not_ok "are counted"
items <"$T/out" | tail -n 1 | grep -q '"cut":' && ok "and marked" || not_ok "and marked"
status "no room for a prompt" 2 qgen --model "$T/brief" --data "$T/q.jsonl" --template '{input}' --max-new-tokens 40
says "says so" "leaves no room for a prompt in a context of 40 tokens"

# Bad input: the file, the line and the field are named.
bad() { # bad NAME PATTERN LINE [OPTION...]
    local name=$1 pattern=$2 line=$3
    shift 3
    { head -n 1 "$T/q.jsonl"; printf '%b\n' "$line"; } >"$T/bad.jsonl"
    status "$name" 3 gen --data "$T/bad.jsonl" --template '{input}' --max-new-tokens 2 "$@"
    says "$name: says so" "$pattern"
}
bad "no expected answer" "bad.jsonl' line 2: field 'expected_output' is missing" '{"input": "a"}'
bad "an expected answer that is no text" "line 2: field 'expected_output' is neither text nor a number" '{"input": "a", "expected_output": {}}'
bad "an empty list of answers" "line 2: field 'expected_output' is an empty list" '{"input": "a", "expected_output": []}'
bad "an empty answer" "line 2: field 'expected_output': the expected text is empty" '{"input": "a", "expected_output": " "}'
bad "a field that the template names" "line 2: --template names the field 'input', which the example lacks" '{"question": "a", "expected_output": "b"}'
bad "a category that is no text" "line 2: field 'category' is not a string" '{"input": "a", "expected_output": "b", "category": 3}'
bad "an id twice" "line 2: id 'q0' is that of line 1, too" '{"id": "q0", "input": "a", "expected_output": "b"}'
bad "invalid UTF-8" "line 2: not a JSON object: unable to decode byte 0xff" '{"input": "\0377", "expected_output": "b"}'
bad "no JSON" "line 2: not a JSON object" 'input: a'
bad "a pattern that is none" "line 2: field 'expected_output': the expected text 'a\(' is no regular expression: .* at byte 2" '{"input": "a", "expected_output": "a("}' --match regex
bad "a number that is none" "the expected text 'never' holds no number" '{"input": "a", "expected_output": "five"}' --match number
bad "an empty prompt" "line 2: the prompt is empty" '{"input": "", "expected_output": "b"}'
: >"$T/empty.jsonl"
status "a file without examples" 3 gen --data "$T/empty.jsonl" --template '{input}'
says "says so" "holds no examples"
status "a shard without examples" 3 gen --data "$T/q.jsonl" --template '{input}' --shard 30/40
says "says so" "the shard holds none of its 20 examples"
status "a file that is no .jsonl" 3 gen --data "$T/t.txt" --template '{input}'
status "a file that is not there" 3 gen --data "$T/none.jsonl" --template '{input}'
status "a template with an error" 3 gen --data "$T/q.jsonl" --template '{% if %}'
says "says where" "template line 1: unexpected '%}', expected an expression"
status "no template" 2 gen --data "$T/q.jsonl"
status "--extract that is no pattern" 2 gen --data "$T/q.jsonl" --template '{input}' --extract '('
status "--system without chat" 2 gen --data "$T/q.jsonl" --template '{input}' --system x
status "--batch 0" 2 gen --data "$T/q.jsonl" --template '{input}' --batch 0
status "an empty --stop" 2 gen --data "$T/q.jsonl" --template '{input}' --stop ''

# The project's own examples on the demo model: some are right, and in batches of one as of sixteen.
if [ -f "$QP_MODEL" ]; then
    domain() { qgen -q --model "$QP_MODEL" --data "$QP_ROOT/pipelines/data/fraud-eval.jsonl" --template chat -i -w --max-new-tokens 16 --limit 16 --batch "$1"; }
    domain 16 >"$T/d16.qp" && domain 1 >"$T/d1.qp"
    same "the demo model: equal answers in batches of 1 and of 16" "$(qcat -t item "$T/d1.qp" | cksum)" "$(qcat -t item "$T/d16.qp" | cksum)"
    value acc/fraud-eval <"$T/d16.qp" | awk '{ exit !($1 > 0.1 && $1 < 1) }' && ok "and some are right" || not_ok "and some are right"
else
    skip "the project's own examples" "no demo model"
fi
finish
