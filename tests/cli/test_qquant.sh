#!/usr/bin/env bash
# qquant's methods beyond plain GPTQ: what they say, what they refuse, and that a checkpoint holds what the pipe carries.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
export SOURCE_DATE_EPOCH=1700000000
mk() { "$QP_TOOLS/mkmodel" "$@"; }
calib() { qcalib -q --model "$1" --general "$data/general.txt" --samples "${2:-4}" --seq-len 64; }
ppl() { qppl -q --text "$data/general-eval.txt" --max-tokens 200 --compute f32 "$@"; }
value() { qcat "$1" -t result | grep "\"metric\":\"$2" | tail -n 1 | sed 's/.*"value":\([^,}]*\).*/\1/'; }
below() { awk -v a="${1:-nan}" -v b="$2" 'BEGIN { exit !(a == a + 0 && a < b) }'; }
mk "$T/m"
calib "$T/m" >"$T/calib.qp"

# AWQ: norms that took up scales travel with the weights.
for options in "--method awq" "--method awq+gptq" "--method awq --duo both --no-clip --sym" "--method awq+gptq --drift 0.5 --no-static-groups"; do
    # shellcheck disable=SC2086
    if qquant -q --group-size 32 $options <"$T/calib.qp" >"$T/q.qp" 2>"$T/err" && ppl <"$T/q.qp" >"$T/inline.qp" 2>>"$T/err" &&
        rm -rf "$T/dir" && qquant -q --group-size 32 $options -o "$T/dir" <"$T/calib.qp" >"$T/q.qp" 2>>"$T/err" && ppl <"$T/q.qp" >"$T/dir.qp" 2>>"$T/err"; then
        [ "$(value "$T/inline.qp" ppl/)" = "$(value "$T/dir.qp" ppl/)" ] && ok "$options: checkpoint and inline weights agree" || not_ok "$options: checkpoint and inline weights agree"
        below "$(value "$T/inline.qp" kld/)" 0.01 && ok "$options: close to the model" || not_ok "$options: KL divergence '$(value "$T/inline.qp" kld/)'"
    else
        not_ok "$options"
        sed 's/^/# /' "$T/err"
    fi
done
qquant -q --threads 1 --group-size 32 --method awq <"$T/calib.qp" | qcat -t layer >"$T/one"
qquant -q --threads 4 --group-size 32 --method awq <"$T/calib.qp" | qcat -t layer >"$T/four"
cmp -s "$T/one" "$T/four" && ok "awq: the same for any number of threads" || not_ok "awq: the same for any number of threads"
grep -q '"awq":{"ratio":' "$T/one" && ok "its layer records say the ratio" || not_ok "its layer records say the ratio"
status "awq without samples" 2 qquant --method awq --model "$T/m"
says "says what it needs" "awq needs samples: qcalib"

# Formats by layer.
for options in "--keep *v_proj=fp16 --keep *layers.1*=w8g64 --keep *0*down*=w3g32" "--keep *layers.0*=w4g32-asym" "--bpw 6" "--keep-sensitive 0.3 --method awq+gptq" "--group-aware --drift 0.5 --keep *q_proj=w4g16"; do
    rm -rf "$T/dir"
    # shellcheck disable=SC2086
    set -f && qquant -q --group-size 32 $options <"$T/calib.qp" 2>"$T/err" | ppl >"$T/inline.qp" && qquant -q --group-size 32 $options -o "$T/dir" <"$T/calib.qp" 2>"$T/err" | ppl >"$T/dir.qp"
    set +f
    [ -n "$(value "$T/inline.qp" ppl/)" ] && [ "$(value "$T/inline.qp" ppl/)" = "$(value "$T/dir.qp" ppl/)" ] && ok "$options: checkpoint and inline weights agree" || not_ok "$options: checkpoint and inline weights agree"
done
qquant -q --group-size 32 --keep '*.0.*=w4g32-asym' -o "$T/some" <"$T/calib.qp" >"$T/q.qp" && grep -q '"checkpoint_format": *"gptq_v2"' "$T/some/quantize_config.json" && ok "one layer with zero points needs version 2" ||
    not_ok "one layer with zero points needs version 2"
qquant -q --group-size 32 --keep '*.v_proj=fp16' --keep 'model.layers.1.*=bf16' --keep '*.0.mlp.up_proj.weight=fp8' <"$T/calib.qp" | qcat -t layer >"$T/layers"
[ "$(grep -c '"format":"f16".*"kept":true' "$T/layers")" = 1 ] && [ "$(grep -c '"format":"bf16".*"kept":true' "$T/layers")" = 7 ] && [ "$(grep -c '"format":"e4m3".*"kept":false' "$T/layers")" = 1 ] &&
    ok "--keep: the last that matches counts" || not_ok "--keep: the last that matches counts"
qquant -q --group-size 32 --keep '*=bf16' <"$T/calib.qp" -o "$T/all" >"$T/q.qp" 2>"$T/err" && ! grep -q quantization_config "$T/all/config.json" && check "a checkpoint of which all layers are kept is a plain one" ppl <"$T/q.qp" ||
    not_ok "a checkpoint of which all layers are kept is a plain one: $(cat "$T/err")"
traces() { qquant -q --group-size 32 "$@" <"$T/calib.qp" | qcat -t layer | grep "$PATTERN" | grep -c '"hessian_trace":0[,.]'; }
[ "$(PATTERN=down_proj traces --keep '*.down_proj=fp16')" = 2 ] && [ "$(PATTERN=_proj traces --keep '*.down_proj=fp16' --keep '*.v_proj=fp16')" = 2 ] &&
    ok "no statistics where all layers that read the same inputs are kept" || not_ok "no statistics where all layers that read the same inputs are kept"
[ "$(PATTERN=down_proj traces --keep '*.down_proj=fp16' --drift 0.5)" = 0 ] && ok "but with --drift, which moves them" || not_ok "but with --drift, which moves them"
qquant -q --group-size 32 --method none --measure --measure-tokens 128 <"$T/calib.qp" >"$T/measured.qp" || not_ok "--measure"
[ "$(qcat -t sensitivity "$T/measured.qp" | grep -c '"tokens":126,"dloss":.*"kl":')" = 14 ] && ! qcat -t model "$T/measured.qp" | grep -q quantized && ok "--measure writes a record for each layer" || not_ok "--measure writes a record for each layer"
qquant -q --group-size 32 --measure-tokens 128 --bpw 5 <"$T/calib.qp" | qcat -t layer >"$T/once"
qquant -q --group-size 32 --bpw 5 <"$T/measured.qp" | qcat -t layer >"$T/again"
cmp -s "$T/once" "$T/again" && ok "--bpw from records equals --bpw that measures" || not_ok "--bpw from records equals --bpw that measures"
qquant -q --group-size 32 --bpw 5 <"$T/measured.qp" | qcat -t model | grep quantized | grep -o '"bpw":[0-9.]*' | cut -d: -f2 >"$T/bpw"
below "$(cat "$T/bpw")" 5.00001 && below 4.8 "$(cat "$T/bpw")" && ok "within the budget, and near it" || not_ok "within the budget, and near it: $(cat "$T/bpw")"
status "an unknown glob" 2 qquant --keep '*.w_proj=fp16' <"$T/calib.qp"
says "names it, and a layer" "\-\-keep '\*.w_proj' matches no linear layer; they have names like 'model.layers.0.self_attn.q_proj.weight'"
status "an unknown format" 2 qquant --keep '*=w5g64' <"$T/calib.qp"
says "lists the formats" "unknown format 'w5g64': expected fp16"
status "a --keep without format" 2 qquant --keep '*.v_proj' <"$T/calib.qp"
status "a budget below the least" 2 qquant -q --bpw 2 <"$T/measured.qp" --group-size 32
says "says what it takes" "\-\-bpw: a budget of [0-9.]+ MB is below the least that these formats take, [0-9.]+ MB"
status "a budget below the model's other weights" 2 qquant -q --budget-mb 0.01 <"$T/measured.qp" --group-size 32
status "two ways to choose" 2 qquant --bpw 5 --keep-sensitive 0.1 <"$T/measured.qp"
status "a share that is none" 2 qquant --keep-sensitive 15 <"$T/measured.qp"
status "a format that was not measured" 3 qquant -q --bpw 5 --group-size 64 <"$T/measured.qp"
says "names it" "sensitivity records lack format '"

# True-sequential: a layer's inputs come from its quantized predecessors in the block; without it, from those as they were. mkmodel's weights are float16, so
# predecessors that are kept in fp16 are as they were.
trace() { qcat -t layer "$1" | grep "model.layers.$2.weight" | sed 's/.*"hessian_trace":\([^,]*\).*/\1/'; }
same() { [ -n "$(trace "$T/$1.qp" "$3")" ] && [ "$(trace "$T/$1.qp" "$3")" = "$(trace "$T/$2.qp" "$3")" ]; }
run() { qquant -q --bits 2 --group-size 32 "${@:2}" <"$T/calib.qp" >"$T/$1.qp" || not_ok "qquant ${*:2}"; }
run on
run off --no-true-sequential
run only-o --keep 'model.layers.0.self_attn.[qkv]_proj.weight=fp16'
run only-down --keep 'model.layers.0.self_attn.*=fp16' --keep 'model.layers.0.mlp.gate_proj.weight=fp16' --keep 'model.layers.0.mlp.up_proj.weight=fp16'
same on off 0.self_attn.q_proj && ok "the first layers see the same" || not_ok "the first layers see the same"
! same on off 0.self_attn.o_proj && ! same on off 0.mlp.down_proj && ok "--no-true-sequential: those behind them do not" || not_ok "--no-true-sequential: those behind them do not"
same off only-o 0.self_attn.o_proj && same off only-down 0.mlp.down_proj && ok "but what unquantized predecessors give" || not_ok "but what unquantized predecessors give"
! same off only-down 1.self_attn.q_proj && ok "and the next block sees the quantized one" || not_ok "and the next block sees the quantized one"
rm -rf "$T/dir" && run dir --no-true-sequential -o "$T/dir" && grep -q '"true_sequential": *false' "$T/dir/config.json" && ok "its configuration says so" || not_ok "its configuration says so"
ppl <"$T/off.qp" >"$T/inline.qp" && ppl <"$T/dir.qp" >"$T/alone.qp" && [ -n "$(value "$T/inline.qp" ppl/)" ] && [ "$(value "$T/inline.qp" ppl/)" = "$(value "$T/alone.qp" ppl/)" ] &&
    ok "checkpoint and inline weights agree" || not_ok "checkpoint and inline weights agree"
# What the second block gets is what the written model makes: its first block alone, left as it is, gives the same statistics but for float16's rounding.
qcalib -q --model "$T/dir" --general "$data/general.txt" --samples 4 --seq-len 64 | qquant -q --bits 2 --group-size 32 --keep 'model.layers.0.*=fp16' >"$T/again.qp"
near() { awk -v a="$(trace "$1" "$3")" -v b="$(trace "$2" "$3")" -v e="$4" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < (e * b) ^ 2) }'; }
near "$T/again.qp" "$T/off.qp" 1.self_attn.q_proj 3e-6 && ! near "$T/only-down.qp" "$T/off.qp" 1.self_attn.q_proj 3e-6 && ok "the residual stream is the quantized model's" || not_ok "the residual stream is the quantized model's"

# Activations and Hessians that are no good.
mk "$T/huge" break=huge
calib "$T/huge" >"$T/huge.qp"
for method in gptq awq awq+gptq; do
    status "$method: activations that overflow" 3 qquant -q --group-size 32 --method $method <"$T/huge.qp"
    says "names the layer" "layer 'model.layers.0.*calibration activations are not finite"
    status "$method: into a checkpoint" 3 qquant -q --group-size 32 --method $method -o "$T/none" <"$T/huge.qp"
    says "names it, too" "layer 'model.layers.0.*calibration activations are not finite"
    [ -z "$(ls -d "$T"/none* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"
done
mk "$T/zero" break=zero
calib "$T/zero" >"$T/zero.qp"
for method in gptq awq awq+gptq; do
    status "$method: inputs that are always zero" 0 qquant --group-size 32 --method $method <"$T/zero.qp"
    grep -q "warning: 'model.layers.0.self_attn.q_proj.weight' was rounded to nearest: the Hessian is zero" "$T/err" && ok "$method: says so" || not_ok "$method: says so"
    [ "$(qcat -t layer "$T/out" | grep -c '"fallback":true')" = 14 ] && ok "$method: the records say so" || not_ok "$method: the records say so"
done
finish
