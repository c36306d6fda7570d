#!/usr/bin/env bash
# qquant --plan: what a run would need, before any of it is done.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
mk() { "$QP_TOOLS/mkmodel" "$@"; }
field() { qcat -t plan "$T/plan.qp" | sed "s/.*\"$1\":\([^,}]*\).*/\1/"; }
mk "$T/m" layers=2 d=64 ff=128
qcalib -q --model "$T/m" --general "$data/general.txt" --samples 4 --seq-len 64 >"$T/calib.qp"

plan() { qquant --plan "$@" <"$T/calib.qp" >"$T/plan.qp"; }
check "a plan of GPTQ" plan -o "$T/made"
[ ! -e "$T/made" ] && [ ! -e "$T/made.part" ] && ok "writes nothing" || not_ok "writes nothing"
[ "$(field problems)" = "[]" ] && [ "$(field layers)" = 14 ] && ok "14 layers, all of which can be stored" || not_ok "14 layers, all of which can be stored"
awk -v s="$(field seconds)" 'BEGIN { exit !(s > 0 && s < 600) }' && ok "a time" || not_ok "a time: $(field seconds)"
[ "$(field spooled_bytes)" = 0 ] && [ "$(field state_bytes)" = $((2 * 256 * 64 * 4)) ] && ok "two residual streams beside it" || not_ok "two residual streams beside it: $(field state_bytes)"
qquant -q -o "$T/made" <"$T/calib.qp" >/dev/null # the tensors end the file, behind a header whose length its first 8 bytes tell
header=$(od -An -t d8 -N 8 "$T/made/model.safetensors" | tr -d ' ')
[ "$(field result_bytes)" = $(($(stat -c %s "$T/made/model.safetensors") - 8 - header)) ] && ok "the size is that of the checkpoint" || not_ok "the size is that of the checkpoint: $(field result_bytes)"
check "with little memory" plan --memory 1K --method awq+gptq --drift 0.5
[ "$(field spooled_bytes)" -gt 100000 ] && ok "activations go to files" || not_ok "activations go to files: $(field spooled_bytes)"
for how in "rtn" "none"; do
    check "a plan of $how, from a model alone" bash -c "qquant --plan --model '$T/m' --method $how >'$T/plan.qp'"
done
bytes() { field result_bytes; }
check "a plan of w4" plan --group-size 32 && all=$(bytes)
check "a plan with layers kept" plan --group-size 32 --keep '*.v_proj=fp16' && [ "$(bytes)" -gt "$all" ] && ok "counts their bytes: $(bytes) for $all" || not_ok "counts their bytes: $(bytes) for $all"
less() { awk -v a="${1:-nan}" -v b="$2" 'BEGIN { exit !(a == a + 0 && a < b) }'; }
for how in "gptq" "awq+gptq"; do
    check "$how: a plan of all layers" plan --method $how --group-size 32 && seconds=$(field seconds) peak=$(field peak_bytes)
    check "$how: a plan with all layers kept" plan --method $how --group-size 32 --keep '*=bf16'
    less "$(field seconds)" "$(awk -v s="$seconds" 'BEGIN { print s / 4 }')" && ok "takes the time of the forward pass alone" || not_ok "takes the time of the forward pass alone: $(field seconds) of $seconds"
    [ "$(field peak_bytes)" -lt "$peak" ] && ok "and less memory: $(field peak_bytes) of $peak" || not_ok "and less memory: $(field peak_bytes) of $peak"
    check "$how: a plan with the widest inputs' layers kept" plan --method $how --group-size 32 --keep '*.down_proj=fp16' && [ "$(field peak_bytes)" -lt "$peak" ] &&
        ok "takes less memory: $(field peak_bytes) of $peak" || not_ok "takes less memory: $(field peak_bytes) of $peak"
done
check "a plan by sensitivity" plan --group-size 32 --bpw 5
grep -q "which are to differ is measured in the run itself" "$T/err" && ok "says what is not known yet" || not_ok "says what is not known yet"
mk "$T/odd" layers=2 d=64 ff=100
qcalib -q --model "$T/odd" --general "$data/general.txt" --samples 2 --seq-len 64 >"$T/calib.qp"
status "shapes that do not divide" 3 plan -o "$T/odd-out"
[ "$(grep -c "mlp.*cannot be stored as gptq: " "$T/err")" = 6 ] && grep -q "6 of 14 layers cannot be stored as gptq" "$T/err" && ok "each is named, with the reason" || not_ok "each is named, with the reason"
[ "$(qcat -t plan "$T/plan.qp" 2>/dev/null | grep -o '"name":"model.layers.[01].mlp' | wc -l)" = 6 ] && ok "in the record, too" || not_ok "in the record, too"
[ ! -e "$T/odd-out.part" ] && ok "and nothing was begun" || not_ok "and nothing was begun"
finish
