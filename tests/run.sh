#!/usr/bin/env bash
# Runs every built unit test and every CLI script, prints failures in full, and closes with "N passed, N failed, N skipped".
#   B=build/release tests/run.sh [PATTERN]
set -u
cd "$(dirname "$0")/.." || exit 5
B=${B:-build/release}
export QP_BIN=$PWD/$B/bin QP_TOOLS=$PWD/$B/tests/tools QP_SHARED=${QP_SHARED:-$PWD/../shared} QP_ROOT=$PWD
export QP_MODEL=${QP_MODEL:-${XDG_CACHE_HOME:-$HOME/.cache}/quantpipe/SmolLM2-135M-Instruct.Q4_1.gguf}
export CMOCKA_MESSAGE_OUTPUT=TAP
pattern=${1:-}
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
[ -d "$QP_SHARED" ] || echo "note: no $QP_SHARED; tests against reference values are skipped"
[ -f "$QP_MODEL" ] || echo "note: no demo model ($QP_MODEL; make fetch-model); tests on a real model are skipped"

run_one() { # run_one NAME COMMAND...
    local name=$1 start=$SECONDS status ok bad skip
    shift
    case $name in *"$pattern"*) ;; *) return ;; esac
    "$@" >"$log" 2>&1 </dev/null
    status=$?
    skip=$(grep -ciE '^(not )?ok.*# *skip' "$log") # cmocka writes "not ok N # SKIP"
    ok=$(grep -E '^ok' "$log" | grep -cviE '# *skip')
    bad=$(grep -E '^not ok' "$log" | grep -cviE '# *skip')
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
    if [ "$status" -eq 0 ] && [ "$((ok + bad + skip))" -eq 0 ]; then bad=1; echo "$name: ran no test" >>"$log"; fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-44s %4d passed %s%s  (%d s)\n' "$name" "$ok" "$([ "$bad" -gt 0 ] && echo "$bad FAILED ")" \
        "$([ "$skip" -gt 0 ] && echo "$skip skipped")" $((SECONDS - start))
    if [ "$bad" -gt 0 ]; then
        echo "--- $name: exit status $status"
        grep -v '^ok' "$log" | tail -n 60
        echo "---"
    fi
}

for t in tests/unit/*/test_*.c; do
    n=${t#tests/unit/}
    run_one "${n%.c}" "$B/tests/${n%.c}"
done
for t in tests/cli/test_*.sh; do
    run_one "cli/$(basename "$t" .sh)" bash "$t"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
