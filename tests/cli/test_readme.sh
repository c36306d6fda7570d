#!/usr/bin/env bash
# Every command of README.md's section "Use" runs as it stands there, on a tiny model and the project's own texts under the names that it uses.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
mkdir "$T/w" && cd "$T/w" || exit 1
"$QP_TOOLS/mkmodel" model.gguf || exit 1
data=$QP_ROOT/pipelines/data
# The tiny model's tokens are letters, so texts of one language share runs of 13 of them: what is evaluated is written backwards.
{ cat "$data/general.txt"; awk '{ for (i = NF; i; i--) printf "%s ", $i; print "" }' "$data/general.txt"; } \
    | awk 'NF { gsub(/["\\]/, ""); printf "{\"text\": \"%s\"}\n", $0 }' >c4.jsonl
cp "$data/fraud.jsonl" fraud.jsonl
rev "$data/general-eval.txt" >wiki.test.raw
cp "$QP_ROOT/pipelines/gates/demo.json" gate.json

commands=$(awk '/^## Use/ { on = 1 } on && /^```/ { if (block++) exit; next } block' "$QP_ROOT/README.md")
[ -n "$commands" ] && ok "README.md has a section Use with commands" || not_ok "README.md has a section Use with commands"
while IFS= read -r line; do
    got=0
    bash -c "set -o pipefail; $line" >out 2>err || got=$?
    case $line:$got in
    *:0 | *qgate*:1 | *qgate*:6) ok "$line" ;; # a gate may fail on a model of random weights; it may not break
    *) not_ok "$line (exit status $got)"; sed 's/^/# /' err | head -n 5 ;;
    esac
done <<<"$commands"
finish
