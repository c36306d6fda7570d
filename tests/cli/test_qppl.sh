#!/usr/bin/env bash
# Perplexity of the demo model against transformers' (reference/README.md): first 8,192 tokens of WikiText-2, window 2048, stride 512.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
text=$QP_SHARED/data/wikitext-2-raw-v1/test.jsonl
if [ ! -f "$QP_MODEL" ] || [ ! -f "$text" ]; then
    skip "perplexity of the demo model" "needs QP_MODEL and QP_SHARED"
    finish
fi
value() { qcat "$1" -t result | grep -o "\"$2\":[0-9.]*" | head -n 1 | cut -d: -f2; }
near() { # near NAME VALUE WANTED SHARE
    awk -v v="$2" -v w="$3" -v s="$4" 'BEGIN { d = v / w - 1; exit !(v > 0 && d < s && d > -s) }' && ok "$1: $2" || not_ok "$1: $2, wanted $3 within $4"
}
for compute in f32 bf16; do
    qppl --model "$QP_MODEL" --text "$text" --name wikitext2 --max-tokens 8192 --compute "$compute" >"$T/$compute.qp" 2>"$T/err" || not_ok "qppl --compute $compute"
    grep 'tokens/s' "$T/err" | sed 's/^/# /'
done
near "float32 within 0.01 % of transformers" "$(value "$T/f32.qp" value)" 22.0404 0.0001
near "the mean of windows, too" "$(value "$T/f32.qp" window_mean)" 24.0321 0.0002
near "bfloat16 within 0.1 % of transformers" "$(value "$T/bf16.qp" value)" 22.0366 0.001
qcat "$T/f32.qp" -t result | grep -q '"tokens":8192,"scored":8191,"windows":13' && ok "the windows of the Hugging Face guide" || not_ok "the windows of the Hugging Face guide"
finish
