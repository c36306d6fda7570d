#!/usr/bin/env bash
# qppl: texts, windows, shards, marks for text that calibration has seen; then the demo model against transformers' perplexity
# (reference/README.md): first 8,192 tokens of WikiText-2, window 2048, stride 512.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
eval_text=$QP_ROOT/pipelines/data/general-eval.txt
"$QP_TOOLS/mkmodel" "$T/m" || exit 1
ppl() { qppl -q --model "$T/m" --compute f32 "$@"; }
results() { qcat -t result; }
field() { grep -o "\"$1\":[-0-9.e]*" | head -n 1 | cut -d: -f2; }
same() { [ -n "$2" ] && [ "$2" = "$3" ] && ok "$1" || not_ok "$1: '$2', '$3'"; }

# Texts: rows of .jsonl are joined by two newlines, other files are taken as they are.
printf '%s\n' '{"text": "The first row."}' '{"text": "The second \u00e9."}' '{"text": "", "body": "x"}' >"$T/rows.jsonl"
printf 'The first row.\n\nThe second \303\251.\n\n' >"$T/rows.txt"
gzip -k "$T/rows.jsonl"
want=$(ppl --text "$T/rows.txt" | results | field value)
same "rows are joined by two newlines" "$(ppl --text "$T/rows.jsonl" | results | field value)" "$want"
same "a compressed file, too" "$(ppl --text "$T/rows.jsonl.gz" | results | field value)" "$want"
ppl --text "$T/rows.jsonl.gz" | results | grep -q '"metric":"ppl/rows"' && ok "the name comes from the file's" || not_ok "the name comes from the file's"
ppl --text "$T/rows.txt" --name wiki | results | grep -q '"metric":"ppl/wiki"' && ok "--name" || not_ok "--name"
ppl --text "$T/rows.txt" | qcat -t source | grep -q "\"role\":\"eval\".*\"sha256\":\"$(sha256sum <"$T/rows.txt" | cut -c 1-64)\"" && ok "the source's checksum" || not_ok "the source's checksum"
status "a field that is missing" 3 ppl --text "$T/rows.jsonl" --field body
says "names the line and the field" "line 1: field 'body' is missing"
status "BOS where the tokenizer has none" 3 ppl --text "$T/rows.txt" --bos always
status "a text that is not there" 3 ppl --text "$T/nothing.txt"
printf 'ab' >"$T/two.txt"
same "one scored token has no standard error" "$(ppl --text "$T/two.txt" | results | grep -o '"stderr":null,"n":1')" '"stderr":null,"n":1'

# Windows.
"$QP_TOOLS/mkmodel" "$T/long" && sed -i 's/"max_position_embeddings": [0-9]*/"max_position_embeddings": 48/' "$T/long/config.json"
qppl -q --model "$T/long" --text "$eval_text" --max-tokens 100 | results | grep -q '"window":48,"stride":12' && ok "windows end at the model's longest context" || not_ok "windows end at the model's longest context"
status "a stride beyond the window" 2 ppl --text "$eval_text" --window 64 --stride 65
says "says why" "stride 65 is more than the window of 64 tokens"
status "a window of one token" 2 ppl --text "$eval_text" --window 1
status "a shard that is none" 2 ppl --text "$eval_text" --shard 3/3
ppl --text "$eval_text" --max-tokens 300 --window 64 --stride 64 | results | grep -q '"tokens":300,"scored":295,"windows":5' && ok "windows that touch: each one's first token has no prediction" || not_ok "windows that touch"
windows="--window 64 --stride 16 --max-tokens 300"
# shellcheck disable=SC2086
for i in 0 1 2; do ppl --text "$eval_text" $windows --shard $i/3 | results; done >"$T/shards"
# shellcheck disable=SC2086
ppl --text "$eval_text" $windows | results >"$T/whole"
same "shards add up" "$(grep -o '"nll_sum":[0-9.]*' "$T/shards" | awk -F: '{ s += $2 } END { printf "%.6f", s }')" "$(field nll_sum <"$T/whole" | awk '{ printf "%.6f", $1 }')"
same "and so do their tokens" "$(grep -o '"scored":[0-9]*' "$T/shards" | awk -F: '{ s += $2 } END { print s }')" 299
# shellcheck disable=SC2086
same "--compat window-mean" "$(ppl --text "$eval_text" $windows --compat window-mean | results | field value)" "$(field window_mean <"$T/whole")"

# Types of the KV cache: each says what it is, and none is far from float32.
for kv in f32 bf16 f16 int8; do
    ppl --text "$eval_text" --max-tokens 300 --kv $kv | results >"$T/kv.$kv"
    grep -q "\"kv\":\"$kv\"" "$T/kv.$kv" && awk -v a="$(field value <"$T/kv.$kv")" -v b="$(field value <"$T/kv.f32")" 'BEGIN { d = a / b - 1; exit !(d < 0.01 && d > -0.01) }' &&
        ok "--kv $kv" || not_ok "--kv $kv"
done
same "what a cache of f32 gives is not what int8 gives" "$([ "$(field value <"$T/kv.f32")" != "$(field value <"$T/kv.int8")" ] && echo differ)" differ
status "a cache type that is none" 2 ppl --text "$eval_text" --kv int3
says "names the types" "auto, f32, bf16, f16, int8"

# Text that calibration has seen.
calib() { qcalib -q --model "$T/m" --samples 4 --seq-len 64 "$@"; }
calib --general "$eval_text" | qppl -q --text "$eval_text" | results >"$T/seen"
[ "$(grep -o '"overlap":{"tokens":[0-9]*' "$T/seen" | cut -d: -f3)" -ge 250 ] && ok "tokens that calibration has seen are counted" || not_ok "tokens that calibration has seen are counted"
grep -q '"ppl_without":[0-9]' "$T/seen" && ok "and left out in a second value" || not_ok "and left out in a second value"
calib --general "$QP_ROOT/pipelines/data/general.txt" --exclude "$eval_text" | qppl -q --text "$eval_text" | results >"$T/clean"
same "none where they were excluded" "$(grep -o '"overlap":{"tokens":[0-9]*' "$T/clean" | cut -d: -f3)" 0

# A model against itself.
qquant -q --method none --model "$T/m" | qppl -q --text "$eval_text" --max-tokens 200 --compute f32 | results >"$T/itself"
grep '"dlogppl/' "$T/itself" | grep -q '"value":0,"stderr":0.*"significant":false' && ok "no difference to itself, and not a significant one" || not_ok "no difference to itself"
grep '"kld/' "$T/itself" | grep -q '"value":0,' && grep '"top1/' "$T/itself" | grep -q '"value":1,' && ok "no divergence from itself" || not_ok "no divergence from itself"

# Codes times activations of 8 bits: the same on every instruction set, another number than with activations of 16 bits, and close to it.
qcalib -q --model "$T/m" --samples 4 --seq-len 64 --general "$eval_text" | qquant -q --method rtn --group-size 32 >"$T/w4.qp"
number() { qcat "$T/$1" -t result | grep '"model":"[^"]*rtn' | grep '"metric":"ppl/' | grep -o '"value":[0-9.]*' | cut -d: -f2; }
for backend in auto ref; do qppl -q --text "$eval_text" --max-tokens 200 --compute int8 --backend "$backend" <"$T/w4.qp" >"$T/int8-$backend.qp"; done
qppl -q --text "$eval_text" --max-tokens 200 --compute bf16 <"$T/w4.qp" >"$T/bf16.qp"
echo "# int8 $(number int8-auto.qp), reference $(number int8-ref.qp), bf16 $(number bf16.qp)"
awk -v a="$(number int8-auto.qp)" -v r="$(number int8-ref.qp)" -v b="$(number bf16.qp)" 'BEGIN { d = a / r - 1; e = a / b - 1
    exit !(a > 0 && b > 0 && d < 1e-4 && d > -1e-4 && e < 0.02 && e > -0.02 && a != b) }' && ok "--compute int8" || not_ok "--compute int8"
qcat "$T/int8-auto.qp" -t result | grep -q '"compute":"int8","kv":"bf16"' && ok "the protocol says int8" || not_ok "the protocol says int8"

text=$QP_SHARED/data/wikitext-2-raw-v1/test.jsonl
if [ ! -f "$QP_MODEL" ] || [ ! -f "$text" ]; then
    skip "perplexity of the demo model" "needs QP_MODEL and QP_SHARED"
    finish
fi
value() { qcat "$1" -t result | grep -o "\"$2\":[0-9.]*" | head -n 1 | cut -d: -f2; }
near() { # near NAME VALUE WANTED SHARE
    awk -v v="$2" -v w="$3" -v s="$4" 'BEGIN { d = v / w - 1; exit !(v > 0 && d < s && d > -s) }' && ok "$1: $2" || not_ok "$1: $2, wanted $3 within $4"
}
for compute in f32 bf16 int8; do
    qppl --model "$QP_MODEL" --text "$text" --name wikitext2 --max-tokens 8192 --compute "$compute" >"$T/$compute.qp" 2>"$T/err" || not_ok "qppl --compute $compute"
    grep 'tokens/s' "$T/err" | sed 's/^/# /'
done
near "float32 within 0.01 % of transformers" "$(value "$T/f32.qp" value)" 22.0404 0.0001
near "the mean of windows, too" "$(value "$T/f32.qp" window_mean)" 24.0321 0.0002
near "bfloat16 within 0.1 % of transformers" "$(value "$T/bf16.qp" value)" 22.0366 0.001
near "int8 within 0.3 % of bfloat16" "$(value "$T/int8.qp" value)" "$(value "$T/bf16.qp" value)" 0.003
qcat "$T/f32.qp" -t result | grep -q '"tokens":8192,"scored":8191,"windows":13' && ok "the windows of the Hugging Face guide" || not_ok "the windows of the Hugging Face guide"
finish
