#!/usr/bin/env bash
# qlat: records, percentiles, hidden ones, ratios, memory, shapes and models that fail while the others go on, an interrupt. Structure, never speed.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
"$QP_TOOLS/mkmodel" "$T/m" && "$QP_TOOLS/mkmodel" "$T/wide" d=256 ff=512 layers=4 || exit 1
lat() { qlat -q --no-limits --prompt-len 24 --new-tokens 4 --warmup 5 "$@"; }
results() { qcat -t result "$@"; }
value() { grep "\"metric\":\"latency[a-z_]*/$1\"" "$2" | grep -o '"value":[-0-9.e]*' | head -n 1 | cut -d: -f2; }
has() { if grep -qE -e "$2" "$3"; then ok "$1"; else not_ok "$1"; fi; }
lacks() { if grep -qE -e "$2" "$3"; then not_ok "$1"; else ok "$1"; fi; }
sanitized() { case $QP_BIN in *address*) true ;; *) false ;; esac; }

# One model: which records there are.
qlat -q --model "$T/m" --prompt-len 24 --new-tokens 4 --warmup 5 --runs 100 --batch 2 --llama-bench-json "$T/lb.json" >"$T/one.qp" || not_ok "qlat"
results "$T/one.qp" >"$T/one"
want=""
for s in ttft itl e2e; do for p in p50 p90 p95 min max; do want="$want ${s}_${p}_ms"; done; done
for s in prefill prefill_seq decode decode_seq; do for p in p50 p5 min max; do want="$want ${s}_${p}_tok_s"; done; done
want="$want weights_bytes kv_bytes scratch_bytes peak_rss_bytes status"
got=$(grep -o '"metric":"latency/bs2/[a-z0-9_]*' "$T/one" | sed 's|.*/||' | sort | tr '\n' ' ')
[ "$got" = "$(tr ' ' '\n' <<<"$want" | sed '/^$/d' | sort | tr '\n' ' ')" ] && ok "the records of a shape" || { not_ok "the records of a shape"; echo "# $got"; }
has "a percentile that the runs do not support says what it takes" '"ttft_p99_ms":"takes 473 runs, there are 100"' "$T/one"
has "and steps within runs, too" '"itl_p99_ms":"takes 473 steps, there are 300"' "$T/one"
has "n is the runs" '"metric":"latency/bs2/ttft_p50_ms".*"n":100,.*"of":"runs"' "$T/one"
has "or the steps" '"metric":"latency/bs2/itl_p50_ms".*"n":300,.*"of":"steps"' "$T/one"
has "throughputs are better when higher" '"metric":"latency/bs2/decode_p5_tok_s".*"higher_is_better":true' "$T/one"
has "the limit and the share reached" '"metric":"latency/bs2/decode_p50_tok_s".*"limit":\{"bound":"(memory|compute)","read_gb_s":[0-9.]+,"matrix_gflop_s":[0-9.]+,"value":[0-9.]+,"reached_pct":[0-9.]+,"weights_gb_s":[0-9.]+' "$T/one"
has "the machine" '"metric":"latency/bs2/status","value":1.*"machine":\{"cpu":.*"load":\[.*"steal":.*"others":.*"clock":\[.*"flags":\[' "$T/one"
if grep -q '"flags":\[\]' "$T/one"; then doubtful=false; else doubtful=true; fi
has "flags make a shape doubtful" "\"status\":\"ok\",\"doubtful\":$doubtful," "$T/one"
has "the protocol" '"protocol":\{"batch":2,"prompt_len":24,"prompt":"synthetic","new_tokens":4,"context_depth":0,"cache":28,"compute":"(bf16|f32)","kv":"(bf16|f32)","isa":"[a-z0-9_]+","threads":[0-9]+,"pinned":false,"warmup":5,"runs":100,"in_turns":true\}' "$T/one"
order() { # percentiles of a series do not fall
    awk -v v="$(for p in min p50 p90 p95 max; do value "bs2/$1_${p}_ms" "$T/one"; done | tr '\n' ' ')" 'BEGIN { n = split(v, x, " "); for (i = 2; i <= n; i++) if (x[i] < x[i - 1]) exit 1; exit n != 5 }'
}
order ttft && order itl && order e2e && ok "percentiles do not fall" || not_ok "percentiles do not fall"
grep '"interval"' "$T/one" | sed 's/.*"value":\([^,]*\),.*"interval":\[\([^,]*\),\([^]]*\)\].*/\1 \2 \3/' | awk '{ if ($1 < $2 || $1 > $3) exit 1; n++ } END { exit n < 15 }' && ok "intervals hold their values" || not_ok "intervals hold their values"
awk -v a="$(value bs2/decode_p50_tok_s "$T/one")" -v b="$(value bs2/decode_seq_p50_tok_s "$T/one")" 'BEGIN { d = a / b; exit !(d > 1.999 && d < 2.001) }' && ok "the batch's throughput is that of its sequences" || not_ok "the batch's throughput is that of its sequences"
qcat --summary "$T/one.qp" >/dev/null && ok "the stream is whole" || not_ok "the stream is whole"
qreport "$T/one.qp" | grep -qE '^m +bs2(: doubtful)? +[0-9]' && ok "qreport: a row for each model and shape" || not_ok "qreport: a row for each model and shape"
qreport --csv "$T/one.qp" | grep -qE '^m,bs2(: doubtful)?,[0-9]' && ok "in CSV as well" || not_ok "in CSV as well"
[ "$(grep -c '"n_prompt": 24' "$T/lb.json")" = 1 ] && [ "$(grep -c '"n_gen": 3' "$T/lb.json")" = 1 ] && [ "$(grep -cE '"(avg|stddev)_(ns|ts)": [0-9.]+' "$T/lb.json")" = 8 ] &&
    grep -q '"model_n_params": 80960' "$T/lb.json" && grep -q '"samples_ts": \[' "$T/lb.json" && ok "llama-bench's fields" || not_ok "llama-bench's fields"

# Two models in turns; the second's weights came through the pipe.
qquant -q --method rtn --bits 4 --group-size 32 --model "$T/wide" >"$T/q.qp"
lat --batch 1 --pin <"$T/q.qp" >"$T/two.qp" && results "$T/two.qp" >"$T/two" || not_ok "two models"
for s in ttft itl e2e prefill decode; do
    has "a paired ratio of $s" "\"model\":\"wide-rtn-w4g32\",\"metric\":\"latency_ratio/bs1/$s\".*\"n\":50.*\"baseline\":\"wide\",\"confidence\":0.95,\"interval\":\[" "$T/two"
done
lacks "none of the baseline to itself" '"model":"wide","metric":"latency_ratio' "$T/two"
lacks "p95 takes more than 50 runs" '"metric":"latency/bs1/ttft_p95_ms"' "$T/two"
awk -v a="$(grep '"model":"wide",' "$T/two" | value bs1/weights_bytes /dev/stdin)" -v b="$(grep w4g32 "$T/two" | value bs1/weights_bytes /dev/stdin)" 'BEGIN { exit !(b > 0 && b < 0.6 * a) }' &&
    ok "inline weights are measured as they came" || not_ok "inline weights are measured as they came"
has "pinned" '"pinned":true' "$T/two"
lat --batch 1 --one-by-one <"$T/q.qp" | results >"$T/apart"
lacks "no ratios of models that did not run in turns" latency_ratio "$T/apart"
qreport "$T/two.qp" | grep -qE '^wide-rtn-w4g32 +bs1.* [0-9.]+ x ' && ok "qreport: against the baseline" || not_ok "qreport: against the baseline"

# Gates over latencies.
gate() { # gate NAME WANTED METRIC LIMIT VALUE
    printf '{"checks": [{"metric": "%s", "%s": %s}]}' "$3" "$4" "$5" >"$T/gate.json"
    status "$1" "$2" qgate -q "$T/gate.json" <"$T/two.qp"
}
gate "a latency below its bound passes" 0 latency/bs1/ttft_p50_ms max_value 1e9
gate "above it fails" 1 latency/bs1/ttft_p50_ms max_value 1e-9
gate "a throughput against the baseline" 0 latency/bs1/decode_p50_tok_s min_retained_pct 0.001
gate "a paired ratio" 1 latency_ratio/bs1/e2e max_value 1e-6
gate "a percentile that is hidden fails" 1 latency/bs1/ttft_p95_ms max_value 1e9

# Shapes: prompt lengths, depth, cache types, a prompt from a file.
lat --model "$T/m" --batch 1 --prompt-len 8,16 --context-depth 0,20 --kv bf16,int8 | results >"$T/shapes"
got=$(grep -o '"metric":"latency/[a-z0-9-]*/status","value":1' "$T/shapes" | cut -d/ -f2 | tr '\n' ' ')
[ "$got" = "bs1-p8-bf16 bs1-p16-bf16 bs1-p8-d20-bf16 bs1-p16-d20-bf16 bs1-p8-int8 bs1-p16-int8 bs1-p8-d20-int8 bs1-p16-d20-int8 " ] && ok "shapes have names of their own" || not_ok "shapes have names of their own: $got"
printf 'Tell me about the weather in the mountains.' >"$T/prompt.txt"
qlat -q --no-limits --model "$T/m" --batch 1 --prompt "$T/prompt.txt" --new-tokens 1 --warmup 5 | results >"$T/text"
has "a prompt from a file" '"prompt_len":[1-9][0-9]*,"prompt":".*/prompt.txt"' "$T/text"
lacks "one new token has no steps" '/(itl|decode)_' "$T/text"
status "a prompt file that is not there" 3 qlat -q --no-limits --model "$T/m" --prompt "$T/nothing"
: >"$T/empty"
status "an empty one" 3 qlat -q --no-limits --model "$T/m" --prompt "$T/empty"
says "says so" "holds no text"

# Sequences of different lengths: a range over the batch, prompts that the batch takes in turn.
qlat --no-limits --model "$T/m" --batch 1,4 --prompt-len 10-40 --new-tokens 2 --warmup 5 --llama-bench-json "$T/lb.json" 2>"$T/err" | results >"$T/range"
has "a range is spread over the batch" '"metric":"latency/bs4/status","value":1.*"protocol":\{"batch":4,"prompt_lens":\{"min":10,"median":25,"max":40,"total":100\},"prompt":"synthetic"' "$T/range"
has "one sequence has its middle" '"metric":"latency/bs1/status","value":1.*"protocol":\{"batch":1,"prompt_len":25,' "$T/range"
has "a line says so" "qlat: bs4  prompts of 10 to 40 tokens \(median 25\), 100 in all" "$T/err"
has "the cache is as long as the longest needs" '"metric":"latency/bs4/kv_bytes".*"cache":42,' "$T/range"
seq_all() { awk -v a="$(value "bs4/prefill_p50_tok_s" "$1")" -v b="$(value "bs4/prefill_seq_p50_tok_s" "$1")" 'BEGIN { d = a / b; exit !(d > 3.999 && d < 4.001) }'; }
seq_all "$T/range" && ok "prefill counts all tokens" || not_ok "prefill counts all tokens"
[ "$(grep -c '"n_prompt": 25' "$T/lb.json")" = 2 ] && ok "llama-bench's field has the mean" || not_ok "llama-bench's field has the mean"
lat --model "$T/m" --batch 2 --prompt-len 8,10-40 --kv int8 | results >"$T/range"
has "a range in a shape's name" '"metric":"latency/bs2-p10-40-int8/status","value":1' "$T/range"
printf '{"prompt": "Tell me about the weather in the mountains."}\n\n{"text": "Hello"}\n{"prompt": "What is a river?", "text": "not this one"}\n' >"$T/p.jsonl"
qlat -q --no-limits --model "$T/m" --batch 2,4 --prompt "$T/p.jsonl" --new-tokens 2 --warmup 5 | results >"$T/turns"
long=$(grep -oE '"metric":"latency/bs2/status".*"max":[0-9]+' "$T/turns" | grep -oE '[0-9]+$')
has "prompts of a file at their own lengths" '"metric":"latency/bs2/status","value":1.*"prompt_lens":\{"min":[0-9]+,"median":[0-9.]+,"max":[0-9]+,"total":[0-9]+\},"prompt":".*/p.jsonl","prompts":3' "$T/turns"
one=$(qlat -q --no-limits --model "$T/m" --batch 1 --prompt "$T/prompt.txt" --new-tokens 2 --warmup 5 | results | grep -oE '"prompt_len":[0-9]+' | head -n 1 | cut -d: -f2)
[ -n "$long" ] && [ "$long" = "$one" ] && ok "the same text has the same length" || not_ok "the same text has the same length ($long, $one)"
total() { grep -oE "\"metric\":\"latency/$1/status\".*\"total\":[0-9]+" "$T/turns" | grep -oE '[0-9]+$'; }
least() { grep -oE "\"metric\":\"latency/$1/status\".*\"min\":[0-9]+" "$T/turns" | grep -oE '[0-9]+$'; }
[ "$(total bs2)" = $((long + $(least bs2))) ] && [ "$(total bs4)" -gt $((2 * long + $(least bs4))) ] && ok "the first follows the last" || not_ok "the first follows the last"
lat --model "$T/m" --batch 3 --prompt "$T/p.jsonl" --prompt-len 4 | results >"$T/cut"
has "--prompt-len cuts them" '"metric":"latency/bs3/status","value":1.*"protocol":\{"batch":3,"prompt_len":4,' "$T/cut"
status "longer than any of them" 3 lat --model "$T/m" --batch 1 --prompt "$T/p.jsonl" --prompt-len 400,4
says "names the prompt and the file" "model 'm', bs1-p400: prompt 1 of '.*/p.jsonl' has $long tokens, not 400"
results "$T/out" >"$T/cut"
has "the other length is kept" '"metric":"latency/bs1-p4/status","value":1' "$T/cut"
{ cat "$T/p.jsonl" && printf '{"prompt": "%s"}\n' "$(yes 'word' | head -n 3000 | tr '\n' ' ')"; } >"$T/long.jsonl"
status "a prompt that is longer than the context" 2 qlat -q --no-limits --model "$T/m" --batch 1,4 --prompt "$T/long.jsonl" --new-tokens 2 --warmup 5
says "names it" "model 'm', bs4: prompt 4 of '.*/long.jsonl': 0 tokens of context, [0-9]+ of prompt and 2 new ones are more than the model's context of 2048"
results "$T/out" >"$T/cut"
has "the smaller batch is kept" '"metric":"latency/bs1/status","value":1' "$T/cut"
bad_prompts() { # bad_prompts NAME CONTENT SAYS
    printf '%b' "$2" >"$T/bad.jsonl"
    status "$1" 3 lat --model "$T/m" --batch 8 --prompt "$T/bad.jsonl"
    says "$1: says so" "$3"
}
bad_prompts "a line without a prompt" '{"prompt": "a"}\n{"question": "b"}\n' "bad.jsonl' line 2: no field 'prompt' or 'text'"
bad_prompts "a prompt that is no text" '{"prompt": 3}\n' "bad.jsonl' line 1: field 'prompt' is not a string"
bad_prompts "an empty prompt" '\n{"prompt": ""}\n' "bad.jsonl' line 2: the prompt is empty"
bad_prompts "no JSON" '{"prompt": "a"}\nb\n' "bad.jsonl' line 2: not a JSON object"
bad_prompts "no lines" '' "bad.jsonl' holds no text"
for range in 40-10 10- 0-5 8-4-2; do
    status "range $range" 2 lat --model "$T/m" --prompt-len $range
    says "range $range: says what it takes" "--prompt-len takes whole numbers from 1 to 1048576 and ranges of them \(64-512, the lesser first\), at most 32 with commas between, not '$range'"
done
status "a range with texts" 2 lat --model "$T/m" --prompt "$T/p.jsonl" --prompt-len 2-4
says "says why not" "--prompt-len takes no range where --prompt gives the texts"

# More requests than the batch takes.
qlat --no-limits --model "$T/m" --batch 1,4 --requests 9 --prompt-len 10-40 --new-tokens 1-8 --warmup 5 2>"$T/err" >"$T/r.qp" && results "$T/r.qp" >"$T/queue" || not_ok "qlat --requests"
got=$(grep -o '"metric":"latency/bs4-r9/[a-z0-9_]*' "$T/queue" | sed 's|.*/||; s/_\(p50\|p90\|p95\|p5\|min\|max\).*//' | sort -u | tr '\n' ' ')
[ "$got" = "e2e kv_bytes output peak_rss_bytes request scratch_bytes status throughput total weights_bytes " ] && ok "the records of requests that queue" || not_ok "the records of requests that queue: $got"
has "the latency of requests" '"metric":"latency/bs4-r9/request_p95_ms".*"n":450,.*"of":"requests"' "$T/queue"
has "the protocol of requests" '"protocol":\{"batch":4,"requests":9,"prompt_lens":\{"min":10,"median":25,"max":40,"total":226\},"prompt":"synthetic","new_lens":\{"min":1,"median":5,"max":8,"total":41\}' "$T/queue"
awk -v e="$(value bs4-r9/e2e_p50_ms "$T/queue")" -v t="$(value bs4-r9/throughput_p50_req_s "$T/queue")" 'BEGIN { d = t * e / 9000; exit !(d > 0.97 && d < 1.03) }' && ok "requests a second" || not_ok "requests a second"
has "a line says so" 'qlat: m  bs4-r9  request [0-9.]+ ms( \(p95 [0-9.]+\))?  throughput [0-9.]+ req/s .* output [0-9]+ tok/s' "$T/err"
qreport "$T/r.qp" | grep -qE '^m +bs4-r9.* [0-9.]+ +[0-9]+ +[0-9.]+ +[0-9.]+$' && ok "qreport: requests a second" || not_ok "qreport: requests a second"
qreport "$T/one.qp" | grep -q 'requests/s' && not_ok "qreport: no such column where none queued" || ok "qreport: no such column where none queued"
lat --model "$T/m" --batch 2 --requests 5 --prompt "$T/p.jsonl" --context-depth 20 | results >"$T/queue"
has "texts that queue, behind a context" '"metric":"latency/bs2-r5-d20/status","value":1.*"requests":5,"prompt_lens".*"prompts":3,"new_tokens":4,"context_depth":20,' "$T/queue"
status "fewer requests than the batch" 2 lat --model "$T/m" --batch 1,8 --requests 7
says "says so" "--requests 7 are fewer than a batch of 8"
status "answers of a range in step" 2 lat --model "$T/m" --new-tokens 2-4
says "says why not" "--new-tokens takes a range with --requests alone"
status "two ranges" 2 lat --model "$T/m" --requests 64 --new-tokens 2-4,8
says "says what it takes" "--new-tokens takes one number or one range, not '2-4,8'"
status "llama-bench's fields" 2 lat --model "$T/m" --requests 64 --llama-bench-json "$T/lb.json"
says "says why not" "--llama-bench-json has no fields for --requests"

# What cannot be done is recorded, the rest is measured.
status "a prompt longer than the context, beside one that is not" 2 lat --model "$T/m" --batch 1 --prompt-len 24,4000
says "says what is too long" "model 'm', bs1-p4000: 0 tokens of context, 4000 of prompt and 4 new ones are more than the model's context of 2048"
results "$T/out" >"$T/long"
has "the other is kept" '"metric":"latency/bs1-p24/status","value":1' "$T/long"
has "and the failure has its reason" '"metric":"latency/bs1-p4000/status","value":0.*"status":"failed","reason":"0 tokens of context' "$T/long"
status "more tokens than the cache" 2 lat --model "$T/m" --batch 1 --cache 26
says "says so" "24 of prompt and 4 new ones are more than the cache of 26"
qreport "$T/out" | grep -qE '^m +bs1: failed' && ok "qreport shows it" || not_ok "qreport shows it"
if sanitized; then
    skip "out of memory" "the sanitizer takes the address space"
else
    qquant -q --method none --model "$T/m" >"$T/n.qp" && cat "$T/q.qp" "$T/n.qp" >"$T/four.qp"
    status "out of memory at a batch size" 4 lat --batch 1,40,48 --cache 2000 --prompt-len 8 --new-tokens 2 --threads 2 --memory-limit 150 --one-by-one <"$T/four.qp"
    says "names model and batch" "model 'wide', bs40: .*no memory for"
    results "$T/out" >"$T/oom"
    has "it is recorded" '"model":"wide","metric":"latency/bs40/status","value":0.*"status":"out_of_memory","reason":".*no memory for' "$T/oom"
    has "a greater batch is not tried" '"model":"wide","metric":"latency/bs48/status","value":0.*"status":"skipped"' "$T/oom"
    has "the smaller is kept" '"model":"wide","metric":"latency/bs1/status","value":1' "$T/oom"
    has "and the next model goes on" '"model":"m","metric":"latency/bs40/status","value":1' "$T/oom"
    status "a model that does not fit" 4 lat --model "$T/wide" --batch 1,2 --memory-limit 10
    results "$T/out" | grep -q '"status":"out_of_memory"' && ok "it is recorded, too" || not_ok "it is recorded, too"
fi
status "batch 0" 2 lat --model "$T/m" --batch 1,0
says "says what it takes" "--batch takes whole numbers from 1 to 4096, at most 32 with commas between, not '1,0'"
status "no batch" 2 lat --model "$T/m" --batch ""
status "too few runs" 2 lat --model "$T/m" --runs 49
says "says how many" "--runs takes a whole number from 50"
status "too few warm-ups" 2 lat --model "$T/m" --warmup 4
status "a cache type that is none" 2 lat --model "$T/m" --kv bf16,int3
says "names the types" "auto, f32, bf16, f16, int8"

# Interrupted: the results so far, and a whole stream.
lat --model "$T/m" --batch 1,2,3 --seconds 1 --runs 50 >"$T/part.qp" 2>"$T/err" &
pid=$!
for _ in $(seq 300); do grep -qa 'latency/bs1/status' "$T/part.qp" && break; sleep 0.1; done
sleep 0.3
kill -INT $(pgrep -P $pid -x qlat | head -n 1) $pid 2>/dev/null
wait $pid
[ $? = 0 ] && ok "an interrupt is no failure" || not_ok "an interrupt is no failure"
qcat "$T/part.qp" | tail -n 1 | grep -q '"t":"end","tool":"qlat".*"status":"interrupted"' && ok "the end record says interrupted" || not_ok "the end record says interrupted"
results "$T/part.qp" >"$T/part"
has "what was done is there" '"metric":"latency/bs1/status","value":1' "$T/part"
lacks "what was to come is not" 'latency/bs3/' "$T/part"
finish
