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

# Activations and Hessians that are no good.
mk "$T/huge" break=huge
calib "$T/huge" >"$T/huge.qp"
for method in gptq awq awq+gptq; do
    status "$method: activations that overflow" 3 qquant -q --group-size 32 --method $method <"$T/huge.qp"
    says "names the layer" "layer 'model.layers.0.*calibration activations are not finite"
done
mk "$T/zero" break=zero
calib "$T/zero" >"$T/zero.qp"
for method in gptq awq; do
    status "$method: inputs that are always zero" 0 qquant --group-size 32 --method $method <"$T/zero.qp"
    grep -q "warning: 'model.layers.0.self_attn.q_proj.weight' was rounded to nearest: the Hessian is zero" "$T/err" && ok "$method: says so" || not_ok "$method: says so"
    [ "$(qcat -t layer "$T/out" | grep -c '"fallback":true')" = 14 ] && ok "$method: the records say so" || not_ok "$method: the records say so"
done
finish
