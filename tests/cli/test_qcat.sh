#!/usr/bin/env bash
# qcat, and what every tool shares: help, options, closed and full outputs, parts named after a failure.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
export SOURCE_DATE_EPOCH=1700000000
"$QP_TOOLS/mkmodel" "$T/m"
calib() { qcalib -q --model "$T/m" --general "$QP_ROOT/pipelines/data/general.txt" --samples 3 --seq-len 32 "$@"; }
calib >"$T/a.qp"

lines() { # lines NAME WANTED COMMAND...
    local name=$1 want=$2 n
    shift 2
    n=$("$@" 2>"$T/err" | grep -c .)
    [ "$n" = "$want" ] && ok "$name" || not_ok "$name ($n lines, wanted $want)"
}
lines "a type, then a file" 3 qcat --type sample "$T/a.qp"
lines "a file, then a type" 3 qcat "$T/a.qp" --type=sample
lines "two types" 4 qcat --json -t sample -t model "$T/a.qp"
lines "from standard input" 3 qcat --type sample - <"$T/a.qp"
lines "two files" 6 qcat --type sample "$T/a.qp" "$T/a.qp"
cat "$T/a.qp" "$T/a.qp" >"$T/aa.qp"
lines "whole streams one after the other" 6 qcat --type sample "$T/aa.qp"
if command -v jq >/dev/null; then check "each line is JSON" bash -c "qcat '$T/a.qp' | jq -e .t"; else skip "each line is JSON" "no jq"; fi
check "--summary" qcat --summary "$T/a.qp"
grep -qE '^sample +3 ' "$T/out" && grep -q '^qcalib .* ok$' "$T/out" && grep -q '^whole' "$T/out" && ok "counts, parts, verdict" || not_ok "counts, parts, verdict"

size=$(stat -c %s "$T/a.qp")
head -c $((size - 10)) "$T/a.qp" >"$T/cut.qp"
status "cut off" 3 qcat "$T/cut.qp"
says "names file and part" "cut.qp was cut off inside a record: the part of 'qcalib' has no end record"
[ "$(grep -c '"t":"sample"' "$T/out")" = 3 ] && ok "what was whole is printed" || not_ok "what was whole is printed"
status "cut off, summary" 3 qcat --summary "$T/cut.qp"
grep -q 'cut off' "$T/out" && ok "the summary says so" || not_ok "the summary says so"
status "no such file" 3 qcat "$T/none"
says "names it" "cannot open '.*/none': No such file"
status "a folder" 3 qcat "$T"

qcalib --model "$T/none" --general x 2>/dev/null | status "the stage after one that failed" 3 qcat
says "names the one that failed" "the part of 'qcalib' has no end record"

for tool in qcalib qquant qppl qgate qreport qcat; do
    status "$tool --help" 0 $tool --help
    grep -q "^usage: $tool" "$T/out" && grep -q -- '--threads' "$T/out" && ok "$tool's help" || not_ok "$tool's help"
    status "$tool --version" 0 $tool --version
    status "$tool: an unknown option" 2 $tool --no-such-thing
    says "$tool names it" "^$tool: unknown option '--no-such-thing'"
    got=0
    $tool --help >/dev/full 2>"$T/err" || got=$?
    [ "$got" = 4 ] && ok "$tool: a full disk" || not_ok "$tool: a full disk (exit status $got)"
done
got=0
calib >/dev/full 2>"$T/err" || got=$?
[ "$got" = 4 ] && ok "a stream onto a full disk" || not_ok "a stream onto a full disk (exit status $got)"
says "says so" "No space left on device"
got=0
calib >&- 2>"$T/err" || got=$?
[ "$got" = 4 ] && ok "standard output closed" || not_ok "standard output closed (exit status $got)"
status "standard input closed" 3 qcat <&-
calib 2>"$T/err" | head -c 100 >/dev/null
[ "${PIPESTATUS[0]}" = 0 ] && [ ! -s "$T/err" ] && ok "a reader that leaves ends a tool quietly" || not_ok "a reader that leaves ends a tool quietly"

calib --threads 1 >"$T/1.qp"
calib --threads 2 >"$T/2.qp"
strip() { qcat "$1" | grep -vE '"t":"(head|end)"'; }
cmp -s <(strip "$T/1.qp") <(strip "$T/2.qp") && ok "the same records for any number of threads" || not_ok "the same records for any number of threads"
calib >"$T/b.qp"
cmp -s "$T/a.qp" "$T/b.qp" && ok "two runs give the same bytes" || not_ok "two runs give the same bytes"
if command -v script >/dev/null; then
    script -qec "qcalib -q --model $T/m --general $QP_ROOT/pipelines/data/general.txt --samples 2 --seq-len 16" /dev/null </dev/null >"$T/tty"
    ! grep -q quantpipe "$T/tty" && grep -q 'bits/weight' "$T/tty" && ok "a terminal gets a table, never binary" || not_ok "a terminal gets a table, never binary"
    script -qec qquant /dev/null </dev/null >"$T/tty" 2>&1
    grep -q 'standard input is a terminal' "$T/tty" && ok "standard input a terminal" || not_ok "standard input a terminal"
else
    skip "a terminal gets a table" "no script"
fi

# What a stream quotes drives no terminal.
printf '\204\241t\244head\245magic\251quantpipe\241v\001\244tool\245x\033[2J\202\241t\246result\245model\005' >"$T/esc.qp"
status "escape codes in a stream" 3 qreport "$T/esc.qp"
! grep -q $'\033' "$T/err" && ok "none reach standard error" || not_ok "none reach standard error"
qcat "$T/esc.qp" 2>/dev/null | grep -q $'\033' && not_ok "none reach standard output" || ok "none reach standard output"
finish
