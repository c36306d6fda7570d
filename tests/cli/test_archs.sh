#!/usr/bin/env bash
# Every architecture through the whole pipe: calibrated, quantized, written, read again. The models are tiny and random, so numbers only need to agree.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
golden=$QP_ROOT/tests/golden/arch
data=$QP_ROOT/pipelines/data
export SOURCE_DATE_EPOCH=1700000000
calib() { qcalib -q --model "$1" --general "$data/general.txt" --samples 8 --seq-len 32; }
ppl() { qppl -q "$@" --text "$data/general-eval.txt" --max-tokens 200 --window 32 --stride 16; }
value() { qcat -t result | grep "$1" | sed 's/.*"value":\([^,}]*\).*/\1/' | tail -n 1; }
below() { awk -v a="${1:-nan}" -v b="$2" 'BEGIN { exit !(a == a + 0 && a < b) }'; }

for model in "$golden"/*/; do
    name=$(basename "$model")
    cp -r "$model" "$T/$name"
    cp "$golden/tokenizer.json" "$T/$name/"
    for method in rtn gptq none; do
        limit=0.02
        [ $method = none ] && limit=1e-3 # bfloat16 weights rounded to float16
        calib "$T/$name" | qquant -q --method $method --bits 8 --group-size 8 -o "$T/$name-$method" >"$T/stream.qp" 2>"$T/err" || { not_ok "$name: $method: $(head -n 1 "$T/err")"; continue; }
        ppl <"$T/stream.qp" >"$T/paired.qp" 2>"$T/err" || not_ok "$name: $method is read from the stream: $(head -n 1 "$T/err")"
        kld=$(value '"metric":"kld/' <"$T/paired.qp")
        below "$kld" $limit && ok "$name: $method at 8 bits is close to the model" || not_ok "$name: $method: KL divergence '$kld'"
        [ "$(ppl --model "$T/$name-$method" | value '"metric":"ppl/')" = "$(value '"metric":"ppl/' <"$T/paired.qp")" ] &&
            ok "$name: $method: the checkpoint read alone gives the same" || not_ok "$name: $method: the checkpoint read alone gives the same"
    done
done

# GPT-2's Conv1D: what loads them holds them, what does not is refused before the work.
gpt2() { qquant -q --model "$T/gpt2" --group-size 8 "$@"; }
for how in "rtn --format gptq" "rtn --format gptq_v2 --asym" "nf4" "int8" "fp4 --double-quant" "nf4 --keep *.c_attn=fp16"; do
    rm -rf "$T/dir"
    # shellcheck disable=SC2086
    set -f && gpt2 --method $how >"$T/inline.qp" && gpt2 --method $how -o "$T/dir" >/dev/null
    set +f
    want=$(ppl <"$T/inline.qp" | value '"metric":"ppl/')
    [ -n "$want" ] && [ "$want" = "$(ppl --model "$T/dir" | value '"metric":"ppl/')" ] && ok "gpt2: $how holds what the pipe carries" || not_ok "gpt2: $how holds what the pipe carries"
done
rm -rf "$T/dir"
for how in "rtn --format awq" "rtn --format compressed-tensors" "int8 --format compressed-tensors" "fp8"; do
    # shellcheck disable=SC2086
    status "gpt2: $how is refused" 3 gpt2 --method $how -o "$T/dir"
    says "and says what holds it" "^qquant: 'transformer.h.0.attn.c_attn.weight' as a (awq|compressed-tensors) checkpoint: the layer is a Conv1D, .*; gptq and gptq_v2 hold integer grids of it, bnb holds nf4, fp4 and int8$"
    # shellcheck disable=SC2086
    status "gpt2: $how: --plan says so" 3 gpt2 --method $how --plan -o "$T/dir"
    [ "$(grep -c "the layer is a Conv1D" "$T/err")" = 8 ] && ok "of each layer" || not_ok "of each layer"
    [ -z "$(ls -d "$T"/dir* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"
done

# Experts: 16 tokens are too few for some of them, and that is said: in their records, in warnings, in one line at the end.
qcalib -q --model "$T/qwen2-moe" --general "$data/general.txt" --samples 1 --seq-len 16 >"$T/few.qp"
few() { qquant "$@" --bits 8 --group-size 8 <"$T/few.qp" >"$T/few-out.qp"; }
status "an expert that saw too few tokens is no failure" 0 few --min-expert-tokens 8
grep -qE "^qquant: warning: '.*experts\.[0-3]\.(gate|up|down)_proj.weight' was rounded to nearest: [0-7] of 16 calibration tokens reached expert [0-3], fewer than 8$" "$T/err" &&
    ok "its fallback is a warning" || not_ok "its fallback is a warning"
grep -qE "^qquant: coverage: [0-9]+ of 12 matrices of experts quantized from calibration, [1-9][0-9]* rounded for lack of it; fewest tokens [0-7]$" "$T/err" &&
    ok "a line sums up the coverage" || { not_ok "a line sums up the coverage"; tail -n 3 "$T/err"; }
n=$(qcat -t layer "$T/few-out.qp" | grep experts | grep '"tokens":[0-7],' | grep '"fallback":true' | grep '"method":"rtn"' | grep -c 'calibration tokens reached expert')
[ "$n" -gt 0 ] && [ "$n" = "$(grep -c 'was rounded to nearest' "$T/err")" ] && ok "their records say so" || not_ok "their records say so ($n)"
status "without --min-expert-tokens a 32nd of the inputs, here 1 token, is enough" 0 few
[ "$(qcat -t layer "$T/few-out.qp" | grep -c '"fallback":true')" = "$(qcat -t layer "$T/few-out.qp" | grep -c '"tokens":0,')" ] &&
    ok "an expert without tokens is rounded in any case" || not_ok "an expert without tokens is rounded in any case"
for bad in num_experts_per_tok=9 moe_intermediate_size=0 decoder_sparse_step=0; do
    cp -r "$T/qwen2-moe" "$T/bad"
    sed -i "s/\"${bad%=*}\": [0-9]*/\"${bad%=*}\": ${bad#*=}/" "$T/bad/config.json"
    status "a configuration with $bad" 3 ppl --model "$T/bad"
    says "is refused" "^qppl: '.*config.json': .* is ${bad#*=}, expected 1 (to [0-9]+|or more)$"
    rm -r "$T/bad"
done
finish
