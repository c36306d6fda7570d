#!/usr/bin/env bash
# Bad input: the documented exit status, one clear line, nothing half-written.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
mk() { "$QP_TOOLS/mkmodel" "$@"; }
mk "$T/m"
calib() { qcalib -q --model "$T/m" --general "$data/general.txt" --samples 2 --seq-len 64; }
calib >"$T/calib.qp"
qquant -q --group-size 32 <"$T/calib.qp" >"$T/quant.qp"
qppl -q --text "$data/general-eval.txt" --max-tokens 200 <"$T/quant.qp" >"$T/ppl.qp"

# A stream that is cut off, for every tool, at many places.
size=$(stat -c %s "$T/quant.qp")
for tool in "qquant" "qppl --text $data/general-eval.txt" "qgate $QP_ROOT/pipelines/gates/demo.json" "qcat --summary" "qreport"; do
    bad=0
    for cut in 0 1 50 300 1000 2000 5000 20000 $((size - 200)) $((size - 60)) $((size - 1)); do
        head -c "$cut" "$T/quant.qp" >"$T/cut.qp"
        got=0
        $tool <"$T/cut.qp" >"$T/out" 2>"$T/err" || got=$?
        [ "$got" = 3 ] && [ "$(grep -c . "$T/err")" = 1 ] || { bad=1; echo "# $tool cut at $cut: status $got: $(cat "$T/err")"; }
    done
    [ "$bad" = 0 ] && ok "${tool%% *}: a cut-off stream exits 3 with one line" || not_ok "${tool%% *}: a cut-off stream exits 3 with one line"
done
head -c $((size - 60)) "$T/quant.qp" | status "the tool whose part is missing is named" 3 qppl --text "$data/general-eval.txt"
says "qquant" "the part of 'qquant' has no end record"
printf '\337\377\377\377\377' | status "a record of 2^32 entries" 3 qcat
says "says so" "16 MiB"
printf 'GGUF' >"$T/x" && status "a stream that is none" 3 qcat "$T/x"
python3 - "$T/quant.qp" "$T/flip.qp" 2>/dev/null <<'P' || skip "flip" "no python3"
import sys
b = bytearray(open(sys.argv[1], "rb").read())
b[len(b) // 2] ^= 4
open(sys.argv[2], "wb").write(b)
P
[ -f "$T/flip.qp" ] && status "a flipped bit in the weights" 3 qppl --text "$data/general-eval.txt" <"$T/flip.qp"

# Models.
status "a folder without weights" 3 qppl --model "$T" --text "$data/general-eval.txt"
says "says what is missing" "config.json"
mkdir "$T/empty" && cp "$T/m/config.json" "$T/empty" && status "a model folder without weights" 3 qppl --model "$T/empty" --text "$data/general-eval.txt"
says "names the files" "holds no weights: expected model.safetensors"
mk "$T/heads" break=heads && status "zero heads" 3 qppl --model "$T/heads" --text "$data/general-eval.txt"
says "names the key" "attention heads is 0"
mk "$T/nan" break=nan && status "NaN weights" 3 qppl --model "$T/nan" --text "$data/general-eval.txt"
says "names the tensor" "layers.0.self_attn.k_proj.weight.*NaN"
qcalib -q --model "$T/nan" --general "$data/general.txt" --samples 2 --seq-len 64 >"$T/nan.qp"
status "NaN weights in qquant" 3 qquant <"$T/nan.qp"
mk "$T/merge" break=merge && status "a missing merge" 3 qcalib --model "$T/merge" --general "$data/general.txt"
says "names it" "tokenizer.json.*merge 0 \('a b'\): the result is not in the vocabulary"
mk "$T/shard" break=shard && status "a missing shard" 3 qppl --model "$T/shard" --text "$data/general-eval.txt"
says "names it" "model-00002-of-00002.safetensors"
mk "$T/short" break=short && status "a weight file that ends early" 3 qppl --model "$T/short" --text "$data/general-eval.txt"
echo '{"model_type": "mamba"}' >"$T/empty/config.json" && status "an unknown architecture" 3 qppl --model "$T/empty" --text "$data/general-eval.txt"
says "lists what is known" "mamba.*llama, mistral, qwen2, qwen3"
printf 'GGUF\003\000\000\000\377\377\377\377\377\377\377\177\001\000\000\000\000\000\000\000' >"$T/absurd.gguf"
status "a GGUF file with absurd counts" 3 qppl --model "$T/absurd.gguf" --text "$data/general-eval.txt"
says "says so" "claims"
printf '\100\000\000\000\000\000\000\000{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[4],"data_offsets":[4,12]}}            123456789012' >"$T/over"
cp -r "$T/m" "$T/overlap" && { printf '\150\000\000\000\000\000\000\000'; tail -c +9 "$T/over"; } >"$T/overlap/model.safetensors"
status "overlapping tensors" 3 qppl --model "$T/overlap" --text "$data/general-eval.txt"

# Texts.
: >"$T/nothing.txt"
status "an empty text" 3 qppl --model "$T/m" --text "$T/nothing.txt"
says "says so" "holds no text"
status "an empty calibration text" 3 qcalib --model "$T/m" --general "$T/nothing.txt"
printf 'Hello there, short text.' >"$T/short.txt"
status "a text shorter than a window is one window" 0 qppl -q --model "$T/m" --text "$T/short.txt"
printf 'x' >"$T/one.txt"
status "a text of one token" 3 qppl --model "$T/m" --text "$T/one.txt"
status "a calibration text that runs short" 3 qcalib --model "$T/m" --general "$T/short.txt" --samples 4 --seq-len 16
says "says how much there is" "gives [0-9]+ samples of 16 tokens, 4 are needed"
printf 'bad \377 bytes' >"$T/latin.txt"
status "invalid UTF-8" 3 qppl --model "$T/m" --text "$T/latin.txt"
says "says where" "invalid UTF-8 at byte 4"
printf '{"text": "a"}\n{"txt": "b"}\n' >"$T/field.jsonl"
status "a row without the field" 3 qcalib --model "$T/m" --general "$T/field.jsonl"
says "names file, line and field" "field.jsonl' line 2: field 'text' is missing"

# Output.
status "-o in a folder that is not there" 4 qquant -o "$T/no/such/dir" <"$T/calib.qp"
mkdir "$T/full" && touch "$T/full/file"
status "-o where something is already" 4 qquant -o "$T/full" <"$T/calib.qp"
[ "$(ls "$T/full")" = file ] && ok "and it is left alone" || not_ok "and it is left alone"
if (ulimit -f 40 && : >"$T/limit") 2>/dev/null; then
    (trap '' XFSZ && ulimit -f 40 && status "a disk that fills up" 4 qquant -q --group-size 32 -o "$T/big" <"$T/calib.qp")
    [ -z "$(ls -d "$T"/big* 2>/dev/null)" ] && ok "leaves nothing behind" || not_ok "leaves nothing behind"
fi
status "a full device as standard output" 4 bash -c "qcalib -q --model '$T/m' --general '$data/general.txt' --samples 2 --seq-len 64 >/dev/full"
qquant -q --group-size 32 <"$T/calib.qp" 2>"$T/err" | head -c 100 >/dev/null
[ "${PIPESTATUS[0]}" = 0 ] && [ ! -s "$T/err" ] && ok "head -c 100 downstream ends it quietly" || not_ok "head -c 100 downstream ends it quietly"
if command -v script >/dev/null; then
    for tool in "qquant" "qppl --text $data/general-eval.txt" "qcat" "qreport"; do
        script -qec "$QP_BIN/$tool" /dev/null >"$T/tty" 2>&1 </dev/null
        [ $? = 2 ] && grep -q "standard input is a terminal" "$T/tty" && ok "${tool%% *}: standard input is a terminal" || not_ok "${tool%% *}: standard input is a terminal"
    done
else
    skip "standard input is a terminal" "no script(1)"
fi

# Options.
status "an unknown option" 2 qppl --textt x
status "a number out of range" 2 qquant --bits 9
says "says what it takes" "\-\-bits takes a whole number from 2 to 8, not '9'"
status "bits that no layout has" 2 qquant --bits 5
status "an unknown method" 2 qquant --method magic
says "lists the methods" "takes one of rtn, gptq, awq, "
status "an unknown backend" 2 qppl --model "$T/m" --text "$data/general-eval.txt" --backend mmx
echo '{"checks": [{"metric": "ppl/*", "max_incraese_pct": 5}]}' >"$T/typo.json"
status "a typo in a gate file" 3 qgate "$T/typo.json" <"$T/ppl.qp"
says "is named" "unknown key 'max_incraese_pct'"
echo '{"checks": [' >"$T/json.json" && status "a gate file that is no JSON" 3 qgate "$T/json.json" <"$T/ppl.qp"
status "a stream without a quantized model" 3 qgate "$QP_ROOT/pipelines/gates/demo.json" <"$T/calib.qp"
for tool in qcalib qquant qppl qgen qgate qreport qcat; do
    check "$tool --help" "$tool" --help
    check "$tool --version" "$tool" --version
done
finish
