#!/usr/bin/env bash
# The model's download: a good file:// address, a wrong file, an address that leads nowhere.
. "$(dirname "$0")/lib.sh"
fetch=$QP_ROOT/scripts/fetch_model.sh
model=$QP_MODEL
unset QP_MODEL
export XDG_CACHE_HOME=$T/cache
if [ -f "$model" ]; then
    check "a file:// address is fetched" "$fetch" "file://$model"
    check "its path is printed and the bytes are the same" cmp "$(cat "$T/out")" "$model"
    check "the second time it comes from the cache" "$fetch"
    [ "$(cat "$T/out")" = "$T/cache/quantpipe/SmolLM2-135M-Instruct.Q4_1.gguf" ] && ok "the cache's path" || not_ok "the cache's path"
else
    skip "a file:// address is fetched" "no demo model"
fi
rm -rf "$T/cache"
echo "not a model" >"$T/wrong"
status "a file with another checksum is refused" 3 "$fetch" "file://$T/wrong"
grep -q "SHA-256" "$T/err" && ok "and the message says so" || not_ok "and the message says so"
[ -z "$(ls -A "$T/cache/quantpipe")" ] && ok "and nothing stays in the cache" || not_ok "and nothing stays in the cache"
status "an address that leads nowhere" 3 "$fetch" "file://$T/nothing"
QP_MODEL=/some/file check "QP_MODEL is used as it is" "$fetch"
QP_MODEL=/some/file "$fetch" | grep -qx /some/file && ok "and printed" || not_ok "and printed"
finish
