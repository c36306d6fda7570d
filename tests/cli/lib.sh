# Helpers for the CLI scripts: source this first. Prints TAP-like lines; `finish` sets the exit status.
#   check NAME COMMAND...            passes when the command succeeds
#   status NAME WANTED COMMAND...    passes when the exit status is WANTED; output in $T/out, $T/err
#   says NAME PATTERN                passes when the last command's standard error matches (grep -E), and is one line
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
FAILED=0
ok() { echo "ok - $1"; }
not_ok() { echo "not ok - $1"; FAILED=1; }
skip() { echo "ok - $1 # skip $2"; }
check() {
    local name=$1
    shift
    if "$@" >"$T/out" 2>"$T/err"; then ok "$name"; else not_ok "$name"; sed 's/^/# /' "$T/err" | head -n 5; fi
}
status() {
    local name=$1 want=$2 got=0
    shift 2
    "$@" >"$T/out" 2>"$T/err" || got=$?
    if [ "$got" = "$want" ]; then ok "$name"; else not_ok "$name (exit status $got, wanted $want)"; sed 's/^/# /' "$T/err" | head -n 5; fi
}
says() {
    local name=$1 pattern=$2 lines
    lines=$(wc -l <"$T/err")
    if [ "$lines" = 1 ] && grep -qE -e "$pattern" "$T/err"; then ok "$name"; else
        not_ok "$name (wanted one line matching '$pattern')"
        sed 's/^/# /' "$T/err" | head -n 5
    fi
}
finish() { exit "$FAILED"; }
