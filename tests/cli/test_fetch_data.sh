#!/usr/bin/env bash
# make data: sets from file:// addresses into a folder that qmc takes; sums that are wrong, not known, or changed; archives of both kinds.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
fetch=$QP_ROOT/scripts/fetch_data.sh
mkdir -p "$T/src/data/test" "$T/src/data/dev" "$T/src/data/other" "$T/src/pi"
for i in 1 2 3 4 5; do echo "Question $i?,one,two,three,four,A"; done | tee "$T/src/data/test/anatomy_test.csv" >"$T/src/data/dev/anatomy_dev.csv"
echo x >"$T/src/data/other/x.csv"
tar -C "$T/src" -cf "$T/data.tar" data
echo '{"goal":"Open it","sol1":"pull","sol2":"push"}' >"$T/src/pi/dev.jsonl"
echo 1 >"$T/src/pi/dev-labels.lst"
(cd "$T/src" && mkdir physicaliqa-train-dev && mv pi/* physicaliqa-train-dev && python3 -m zipfile -c "$T/p.zip" physicaliqa-train-dev)
echo '{"ind":1}' >"$T/h.jsonl"
sum() { sha256sum "$1" | cut -d' ' -f1; }
cat >"$T/table" <<END
mmlu mmlu/data/test,mmlu/data/dev file://$T/data.tar $(sum "$T/data.tar")
piqa physicaliqa-train-dev file://$T/p.zip $(sum "$T/p.zip")
hellaswag hellaswag/hellaswag_val.jsonl file://$T/h.jsonl -
wrong wrong/w.jsonl file://$T/h.jsonl $(sum "$T/data.tar")
gone gone/g.jsonl file://$T/nothing -
END
export QP_DATA_TABLE=$T/table
status "sets are fetched" 0 "$fetch" "$T/d" mmlu piqa hellaswag
[ "$(cat "$T/out")" = "$T/d" ] && ok "the folder is printed" || not_ok "the folder is printed"
check "an archive's parts, and no more" test -f "$T/d/mmlu/data/dev/anatomy_dev.csv" -a ! -e "$T/d/mmlu/data/other"
check "a file" cmp "$T/h.jsonl" "$T/d/hellaswag/hellaswag_val.jsonl"
grep -q "$(sum "$T/h.jsonl") file://$T/h.jsonl" "$T/d/data.lock" && ok "a sum that is not known is kept" || not_ok "a sum that is not known is kept"
"$QP_TOOLS/mkmodel" "$T/m"
check "qmc takes the folder" qmc -q --model "$T/m" --data "$T/d" --task mmlu,piqa
echo '{"ind":2}' >"$T/h.jsonl"
status "what is there is left alone" 0 "$fetch" "$T/d" hellaswag
grep -q downloading "$T/err" && not_ok "and not downloaded again" || ok "and not downloaded again"
rm -r "$T/d/hellaswag"
status "a file that has changed since" 3 "$fetch" "$T/d" hellaswag
grep -q "has the SHA-256 .* not" "$T/err" && ok "is refused" || not_ok "is refused"
status "a sum that is wrong" 3 "$fetch" "$T/d" wrong
[ ! -e "$T/d/wrong" ] && ok "nothing stays" || not_ok "nothing stays"
status "an address that leads nowhere" 3 "$fetch" "$T/d" gone
status "a set that is none" 2 "$fetch" "$T/d" nothing
[ -z "$(find "$T/d" -name 'fetch.*')" ] && ok "no temporary files stay" || not_ok "no temporary files stay"
unset QP_DATA_TABLE
[ "$(sed -n "/<<'END'/,/^END/p" "$fetch" | grep -cE '^[a-z]+ [^ ]+ https://[^ ]+ [0-9a-f]{64}$')" = 6 ] && ok "every set has its sum" || not_ok "every set has its sum"
finish
