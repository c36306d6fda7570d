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

# From a Hugging Face folder: names, rows of q and k, the tokenizer.
"$QP_TOOLS/mkmodel" "$T/m" layers=4 d=128 ff=192
"$QP_TOOLS/mkmodel" "$T/bf16" dtype=bf16 head=1 && sed -i 's/"rope_theta": 10000.0/"rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}/' "$T/bf16/config.json"
for model in m bf16; do
    check "$model: converted" qquant -q --model "$T/$model" --method none -o "$T/$model-none.gguf"
    ppl --model "$T/$model" >"$T/folder.qp" && ppl --model "$T/$model-none.gguf" >"$T/file.qp"
    awk -v a="$(value "$T/folder.qp" ppl/)" -v b="$(value "$T/file.qp" ppl/)" 'BEGIN { exit !(a > 1 && a / b < 1 + 1e-6 && b / a < 1 + 1e-6) }' && ok "$model: gives what the folder gives" || not_ok "$model: gives what the folder gives: $(value "$T/folder.qp" ppl/) $(value "$T/file.qp" ppl/)"
done
grep -aq rope_freqs.weight "$T/bf16-none.gguf" && ok "Llama 3.1's scaling is a tensor" || not_ok "Llama 3.1's scaling is a tensor"
qcalib -q --model "$T/m" --general "$data/general.txt" --samples 4 --seq-len 64 >"$T/calib.qp"
gptq() { qquant -q --group-size 32 "$@" <"$T/calib.qp"; }
for options in "" "--asym" "--bits 8" "--method awq" "--method awq+gptq --drift 0.5" "--asym --keep *.v_proj=bf16 --keep *.0.*=w8g32" "--bpw 6 --measure-tokens 128" "--keep *=bf16"; do
    rm -f "$T/new.gguf"
    # shellcheck disable=SC2086
    set -f && gptq $options --format gguf | ppl >"$T/inline.qp" && gptq $options -o "$T/new.gguf" | ppl >"$T/file.qp" && ppl --model "$T/new.gguf" >"$T/alone.qp"
    set +f
    [ -n "$(value "$T/inline.qp" ppl/)" ] && [ "$(value "$T/inline.qp" ppl/)" = "$(value "$T/file.qp" ppl/)" ] && [ "$(value "$T/file.qp" ppl/)" = "$(value "$T/alone.qp" ppl/)" ] &&
        ok "gptq $options: file and pipe agree" || not_ok "gptq $options: file and pipe agree: $(value "$T/inline.qp" ppl/) $(value "$T/file.qp" ppl/)"
done

# Killed, it goes on behind the last whole block, to the same bytes.
"$QP_TOOLS/mkmodel" "$T/big" layers=8 d=256 ff=512
qcalib -q --model "$T/big" --general "$data/general.txt" --samples 8 --seq-len 128 >"$T/calib.qp"
gptq -o "$T/want.gguf" >"$T/want.qp"
qquant -q --group-size 32 -o "$T/got.gguf" <"$T/calib.qp" >"$T/got.qp" 2>/dev/null &
pid=$!
while [ "$(stat -c %s "$T/got.gguf.part/journal" 2>/dev/null || echo 0)" -lt 9000 ] && kill -0 $pid 2>/dev/null; do :; done
kill -KILL $pid && wait $pid 2>/dev/null
[ -e "$T/got.gguf.part/journal" ] && [ ! -e "$T/got.gguf" ] && ok "killed with blocks done" || not_ok "killed with blocks done"
gptq -o "$T/got.gguf" >"$T/got.qp"
cmp -s "$T/want.gguf" "$T/got.gguf" && [ ! -e "$T/got.gguf.part" ] && ok "goes on to the same file" || not_ok "goes on to the same file"

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
status "a folder of an architecture that is not written" 3 rtn --model "$golden/arch/gemma2" -o "$T/no.gguf"
says "says which are" "gemma2' is a folder of the architecture 'gemma2'; GGUF files are written from folders of llama, qwen2 and qwen3"
status "biases of rotated rows" 3 rtn --model "$golden/arch/llama-rope3-bias" -o "$T/no.gguf"
says "says so" "has biases of q and k, which is not written into GGUF files of 'llama'"
"$QP_TOOLS/mkmodel" "$T/lower" && sed -i 's/"normalizer": null/"normalizer": {"type": "Lowercase"}/' "$T/lower/tokenizer.json"
status "a tokenizer that GGUF cannot express" 3 rtn --model "$T/lower" -o "$T/no.gguf"
says "says why" "the tokenizer of '.*/lower': it has a normalizer other than NFC"
status "--plan" 0 rtn --model "$mixtral" -o "$T/no.gguf" --plan
qcat -t plan "$T/out" | grep -q '"problems":\[\].*"layers":13,' && ok "its plan has no problem" || not_ok "its plan has no problem"
status "--plan of 3 bits" 3 rtn --model "$mixtral" --bits 3 -o "$T/no.gguf" --plan
[ "$(qcat -t plan "$T/out" | grep -o '"reason":"weights of format w3g32: GGUF blocks hold' | wc -l)" = 13 ] && ok "names all layers" || not_ok "names all layers"
ls "$T"/no* >/dev/null 2>&1 && not_ok "nothing is left" || ok "nothing is left"
finish
