#!/usr/bin/env bash
# qgate --history: every verdict is added, checks against the last pass, the table; files that are no history.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
"$QP_TOOLS/mkmodel" "$T/m" || exit 1
qquant -q --method rtn --bits 4 --group-size 32 --model "$T/m" >"$T/q.qp"
value() { qcat -t result "$1" | grep '"model":"m-rtn-w4g32","metric":"ppl/t"' | grep -o '"value":[0-9.]*' | cut -d: -f2; }
# Two runs of one model that differ in what they measured: one has the greater perplexity.
qppl -q --text "$data/general-eval.txt" --name t --max-tokens 200 <"$T/q.qp" >"$T/a.qp"
qppl -q --text "$data/general-eval.txt" --name t --max-tokens 90 <"$T/q.qp" >"$T/b.qp"
if awk -v a="$(value "$T/a.qp")" -v b="$(value "$T/b.qp")" 'BEGIN { exit !(a > b) }'; then mv "$T/a.qp" "$T/high.qp" && mv "$T/b.qp" "$T/low.qp"; else mv "$T/a.qp" "$T/low.qp" && mv "$T/b.qp" "$T/high.qp"; fi
gate() { printf '{"name": "ci", "checks": [{"metric": "ppl/t", "max_increase_pct": %s, "against": "last-pass"}, {"metric": "kld/t", "max_value": 1e9}]}' "$1" >"$T/gate.json"; }
db=$T/ci.db
gate 0
status "against the last pass without a history" 2 qgate "$T/gate.json" <"$T/low.qp"
says "says what is needed" "compares with the last pass: --history DB is needed"
status "the first run passes" 0 qgate --history "$db" "$T/gate.json" <"$T/low.qp"
grep -q 'nothing to compare with: no verdict with this metric has passed yet' "$T/err" && ok "and says that there was nothing" || not_ok "and says that there was nothing"
status "a worse one fails" 1 qgate --history "$db" --json "$T/v.json" "$T/gate.json" <"$T/high.qp"
grep -qE 'fail +ppl/t .* against [0-9.]+ of the last pass' "$T/err" && ok "and says against what" || not_ok "and says against what"
qcat -t verdict "$T/out" | grep -q '"metric":"ppl/t","limit_kind":"max_increase_pct","limit":0,.*"against":"last-pass"' && ok "the record says so" || not_ok "the record says so"
status "the same as the last pass passes: what failed does not count" 0 qgate --history "$db" "$T/gate.json" <"$T/low.qp"
gate 1e9
status "a wider limit" 0 qgate --history "$db" "$T/gate.json" <"$T/high.qp"
gate 0
status "moves the last pass" 0 qgate --history "$db" "$T/gate.json" <"$T/high.qp"
check "the table" qgate --history "$db" --show 2
[ "$(grep -c 'm-rtn-w4g32' "$T/out")" = 4 ] && grep -qE '^ *5 +20[0-9-]+T[0-9:]+Z +ci +m-rtn-w4g32 +pass +ppl/t +[0-9.]+ +[0-9.]+ +max_increase_pct +0 +pass' "$T/out" && ok "the last two verdicts, a line for each check" ||
    { not_ok "the last two verdicts, a line for each check"; sed 's/^/# /' "$T/out"; }
check "all of it" qgate --history "$db" --show 100
[ "$(grep -c 'ppl/t' "$T/out")" = 5 ] && [ "$(grep 'ppl/t' "$T/out" | grep -c ' fail ')" = 1 ] && ok "five verdicts, one of them fail" || not_ok "five verdicts, one of them fail"
status "a history that is not there" 3 qgate --history "$T/none.db" --show 1
says "names it" "history '.*/none.db': unable to open"
status "a file that is none" 3 qgate --history "$T/m/config.json" "$T/gate.json" <"$T/low.qp"
says "says so" "history '.*/config.json': file is not a database"
status "--show without a history" 2 qgate --show 3
status "--show with a gate file" 2 qgate --history "$db" --show 3 "$T/gate.json"
says "says what goes together" "--show goes with --history DB, and with nothing else"
finish
