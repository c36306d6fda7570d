#!/usr/bin/env bash
# qquant -o FILE.gguf: what the file holds, that it gives what the pipe carries, and what is refused before any work.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
golden=$QP_ROOT/tests/golden
export SOURCE_DATE_EPOCH=1700000000
ppl() { qppl -q --text "$data/general-eval.txt" --max-tokens 200 --compute f32 "$@"; }
value() { qcat "$1" -t result | grep "\"metric\":\"$2" | tail -n 1 | sed 's/.*"value":\([^,}]*\).*/\1/'; }
mixtral=$golden/gguf/mixtral.gguf
rtn() { qquant -q --method rtn --group-size 32 "$@"; }

# From a GGUF file.
for options in "" "--asym" "--bits 8"; do
    rm -f "$T/m.gguf"
    # shellcheck disable=SC2086
    check "mixtral ${options:---sym}" rtn --model "$mixtral" $options -o "$T/m.gguf"
    [ -f "$T/m.gguf" ] && [ ! -e "$T/m.gguf.part" ] && ok "one file, and nothing beside it" || not_ok "one file, and nothing beside it"
done
rtn --model "$mixtral" -o "$T/again.gguf" --format gguf >"$T/q.qp" && rtn --model "$mixtral" -o "$T/named.gguf" --threads 1 >/dev/null && cmp -s "$T/again.gguf" "$T/named.gguf" &&
    ok "the name means the format; the same for any number of threads" || not_ok "the name means the format; the same for any number of threads"
qcat -t model "$T/q.qp" | grep quantized | grep -q '"bpw":4.5,.*"quant_method":"gguf"' && ok "its record says 4.5 bits" || not_ok "its record says 4.5 bits"
rtn --model "$mixtral" --group-size -1 -o "$T/row.gguf" >"$T/q.qp" && qcat -t model "$T/q.qp" | grep quantized | grep -q '"bpw":4.5,' && ok "longer groups are cut into blocks" || not_ok "longer groups are cut into blocks"
if [ -f "$QP_MODEL" ]; then
    mixed() { rtn --model "$QP_MODEL" --asym --keep '*.v_proj=bf16' --keep '*.0.*=w8g32' --keep '*.1.*=w4g64' "$@"; }
    mixed --format gguf | ppl >"$T/inline.qp" && mixed -o "$T/real.gguf" | ppl >"$T/file.qp" && ppl --model "$T/real.gguf" >"$T/alone.qp"
    [ -n "$(value "$T/inline.qp" ppl/)" ] && [ "$(value "$T/inline.qp" ppl/)" = "$(value "$T/file.qp" ppl/)" ] && [ "$(value "$T/file.qp" ppl/)" = "$(value "$T/alone.qp" ppl/)" ] &&
        ok "SmolLM2 in Q4_1, Q4_0, Q8_0 and BF16: file and pipe agree" || not_ok "SmolLM2 in Q4_1, Q4_0, Q8_0 and BF16: file and pipe agree"
else
    skip "SmolLM2: file and pipe agree" "no demo model"
fi

# What it refuses, before any work.
status "groups that are no blocks" 3 rtn --model "$mixtral" --group-size 24 -o "$T/no.gguf"
says "names the layer and what the format holds" "'model.layers.0.self_attn.q_proj.weight' as a gguf checkpoint: weights of format w4g24: GGUF blocks hold 32 weights: groups of 32, 64"
status "3 bits" 3 rtn --model "$mixtral" --bits 3 -o "$T/no.gguf"
says "says what it holds" "q_proj.weight' as a gguf checkpoint: weights of format w3g32: GGUF blocks hold integer grids of 4 bits \(symmetric: Q4_0, with zero points: Q4_1\) and of 8 bits, symmetric"
status "8 bits with zero points" 3 rtn --model "$mixtral" --bits 8 --asym -o "$T/no.gguf"
status "nf4" 3 qquant -q --model "$mixtral" --method nf4 -o "$T/no.gguf"
says "says what it holds" "weights of format nf4: GGUF blocks hold"
status "experts narrower than a block" 3 rtn --model "$golden/gguf/qwen2moe.gguf" -o "$T/no.gguf"
says "names the layer" "down_proj.weight' as a gguf checkpoint: (16|24) inputs do not divide into GGUF's blocks of 32"
status "experts of one tensor in two formats" 3 rtn --model "$mixtral" --keep '*experts.1.*=f16' -o "$T/no.gguf"
says "says why" "experts\.1\..*all of them are one tensor"
status "a folder for --format gguf" 2 rtn --model "$mixtral" --format gguf -o "$T/no"
says "says what it takes" "\-\-format gguf writes one file: --output takes a name that ends in .gguf, not '"
status "a .gguf name for a folder" 2 rtn --model "$mixtral" --format gptq -o "$T/no.gguf"
says "says so" "is the name of a GGUF file, --format gptq writes a folder"
status "a file that is there" 4 rtn --model "$mixtral" -o "$T/m.gguf"
says "is left alone" "m.gguf' exists already; give a new file"
"$QP_TOOLS/mkmodel" "$T/m"
status "a Hugging Face folder" 3 rtn --model "$T/m" -o "$T/no.gguf"
says "says what it takes" "/m' is a Hugging Face folder; a GGUF file is written from a GGUF file"
status "--plan" 0 rtn --model "$mixtral" -o "$T/no.gguf" --plan
qcat -t plan "$T/out" | grep -q '"problems":\[\].*"layers":13,' && ok "its plan has no problem" || not_ok "its plan has no problem"
status "--plan of 3 bits" 3 rtn --model "$mixtral" --bits 3 -o "$T/no.gguf" --plan
[ "$(qcat -t plan "$T/out" | grep -o '"reason":"weights of format w3g32: GGUF blocks hold' | wc -l)" = 13 ] && ok "names all layers" || not_ok "names all layers"
ls "$T"/no* >/dev/null 2>&1 && not_ok "nothing is left" || ok "nothing is left"
finish
