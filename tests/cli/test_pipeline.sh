#!/usr/bin/env bash
# The pipe from end to end on a small random model: records, checkpoints, reproducibility, what a broken stage does.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
export SOURCE_DATE_EPOCH=1700000000
"$QP_TOOLS/mkmodel" "$T/m" || exit 1
calib() { qcalib -q --model "$T/m" --general "$data/general.txt" --domain "$data/fraud.jsonl" --samples 6 --seq-len 64 "$@"; }
pipe() { # pipe THREADS
    calib --threads "$1" | qquant -q --group-size 32 --threads "$1" | qppl -q --text "$data/general-eval.txt" --max-tokens 300 --threads "$1"
}

calib >"$T/calib.qp" 2>"$T/err"
[ "$(qcat "$T/calib.qp" -t sample | wc -l)" = 6 ] && ok "six samples" || not_ok "six samples"
[ "$(qcat "$T/calib.qp" -t sample | grep -c '"kind":"domain"')" = 2 ] && ok "30 % of six samples are domain text: two by largest remainder" || not_ok "domain quota"
calib | cmp - "$T/calib.qp" && ok "the same seed gives the same bytes" || not_ok "the same seed gives the same bytes"
calib --seed 7 | cmp -s - "$T/calib.qp" && not_ok "another seed gives another order" || ok "another seed gives another order"
[ "$(calib --general-samples 3 --domain-samples 1 | qcat -t sample | grep -c general)" = 3 ] && ok "exact counts" || not_ok "exact counts"
head -c 3000 "$data/general.txt" >"$T/seen.txt"
calib --exclude "$T/seen.txt" >"$T/excluded.qp"
qcat "$T/excluded.qp" -t source | grep -q '"refused":[1-9]' && ok "windows that share text with --exclude are left out and counted" || not_ok "exclusion is counted"
[ "$(qcat "$T/excluded.qp" -t sample | wc -l)" = 6 ] && ok "and replaced by the next ones" || not_ok "and replaced by the next ones"

pipe 1 >"$T/one.qp" && ok "qcalib | qquant | qppl" || not_ok "qcalib | qquant | qppl"
pipe 2 >"$T/two.qp"
strip() { qcat "$1" --bytes 16000000 | sed 's/"argv":\[[^]]*\]//; s/"xxh64":"[0-9a-f]*"//'; }
cmp -s <(strip "$T/one.qp") <(strip "$T/two.qp") && ok "one thread and two give the same records" || not_ok "one thread and two give the same records"
[ "$(qcat "$T/one.qp" -t layer | wc -l)" = 14 ] && ok "a layer record for each linear layer" || not_ok "a layer record for each linear layer"
for metric in ppl dlogppl kld top1; do
    qcat "$T/one.qp" -t result | grep -q "\"metric\":\"$metric/general-eval\"" && ok "result $metric" || not_ok "result $metric"
done
qcat "$T/one.qp" -t result | grep -q '"protocol":{"window":2048,"stride":512' && ok "the protocol is in the record" || not_ok "the protocol is in the record"
check "qcat --summary finds the stream whole" qcat --summary "$T/one.qp"
check "qreport" qreport "$T/one.qp"
grep -q 'm-gptq-w4g32' "$T/out" && ok "and it names the model" || not_ok "and it names the model"
check "qreport --html" qreport --html "$T/page.html" "$T/one.qp"
[ "$(grep -c '<svg ' "$T/page.html")" -ge 6 ] && grep -q '<td>m-gptq-w4g32</td>' "$T/page.html" && ok "plots and the table" || not_ok "plots and the table"
grep -qE '<script|https?:|src=|href=' "$T/page.html" && not_ok "the page needs nothing else" || ok "the page needs nothing else"
cp -r "$T/m" "$T/<b>&m" && qppl -q --model "$T/<b>&m" --text "$data/general-eval.txt" --max-tokens 100 | qreport --html - >"$T/odd.html"
grep -q '<td>&lt;b&gt;&amp;m</td>' "$T/odd.html" && ! grep -q '<b>' "$T/odd.html" && ok "names are escaped" || not_ok "names are escaped"
status "a page that cannot be written" 4 qreport --html "$T/no/such/page.html" "$T/one.qp"
status "--html with --csv" 2 qreport --html "$T/page.html" --csv "$T/one.qp"

for options in "" "--asym" "--asym --no-static-groups" "--drift 0.5" "--no-act-order --sweeps 0" "--bits 8" "--bits 3 --no-mse" "--bits 2 --asym" "--group-size -1"; do
    rm -rf "$T/dir"
    # shellcheck disable=SC2086
    if qquant -q --group-size 32 $options -o "$T/dir" <"$T/calib.qp" >"$T/rec.qp" 2>"$T/err" &&
        qppl -q --text "$data/general-eval.txt" --max-tokens 200 --compute f32 <"$T/rec.qp" >"$T/dir.qp" 2>>"$T/err" &&
        qquant -q --group-size 32 $options <"$T/calib.qp" | qppl -q --text "$data/general-eval.txt" --max-tokens 200 --compute f32 >"$T/inline.qp"; then
        a=$(qcat "$T/dir.qp" -t result | grep gptq | grep -o '"value":[-0-9.e]*' | head -n 1)
        b=$(qcat "$T/inline.qp" -t result | grep gptq | grep -o '"value":[-0-9.e]*' | head -n 1)
        [ -n "$a" ] && [ "$a" = "$b" ] && ok "checkpoint and inline weights agree ($options)" || not_ok "checkpoint and inline weights agree ($options): $a, $b"
    else
        not_ok "checkpoint ($options)"
        sed 's/^/# /' "$T/err"
    fi
done
check "rtn needs no samples" qquant -q --method rtn --model "$T/m" --group-size 32
check "none writes float16" qquant -q --method none --model "$T/m" -o "$T/plain"
qppl -q --model "$T/plain" --text "$data/general-eval.txt" --max-tokens 200 --compute f32 | qcat -t result | grep -o '"value":[0-9.]*' >"$T/a"
qppl -q --model "$T/m" --text "$data/general-eval.txt" --max-tokens 200 --compute f32 | qcat -t result | grep -o '"value":[0-9.]*' >"$T/b"
cmp -s "$T/a" "$T/b" && ok "and a float16 model stays what it was" || not_ok "and a float16 model stays what it was"

status "the demo's gate passes or fails on it, nothing else" 0 qgate "$QP_ROOT/pipelines/gates/demo.json" <"$T/one.qp"
status "the standard gate fails where tasks are missing" 1 qgate "$QP_ROOT/pipelines/gates/standard.json" <"$T/one.qp"
cp "$T/out" "$T/verdict.qp"
grep -q 'acc/mmlu .*no such result' "$T/err" && ok "and says which" || not_ok "and says which"
status "a verdict is followed by an end record even when it is FAIL" 0 qcat --summary "$T/verdict.qp"
status "shards of the windows" 0 qppl -q --model "$T/m" --text "$data/general-eval.txt" --window 64 --stride 32 --shard 1/3
status "the mean of windows" 0 qppl -q --model "$T/m" --text "$data/general-eval.txt" --window 64 --stride 32 --compat window-mean
finish
