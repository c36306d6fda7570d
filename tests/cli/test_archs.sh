#!/usr/bin/env bash
# Every architecture through the whole pipe: calibrated, quantized, written, read again. The models are tiny and random, so numbers only need to agree.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
golden=$QP_ROOT/tests/golden/arch
data=$QP_ROOT/pipelines/data
export SOURCE_DATE_EPOCH=1700000000
calib() { qcalib -q --model "$1" --general "$data/general.txt" --samples 8 --seq-len 32; }
ppl() { qppl -q "$@" --text "$data/general-eval.txt" --max-tokens 200 --window 32 --stride 16; }
value() { qcat -t result | grep "$1" | sed 's/.*"value":\([^,}]*\).*/\1/' | tail -n 1; }
below() { awk -v a="${1:-nan}" -v b="$2" 'BEGIN { exit !(a == a + 0 && a < b) }'; }

for model in "$golden"/*/; do
    name=$(basename "$model")
    cp -r "$model" "$T/$name"
    cp "$golden/tokenizer.json" "$T/$name/"
    for method in rtn gptq none; do
        limit=0.02
        [ $method = none ] && limit=1e-3 # bfloat16 weights rounded to float16
        calib "$T/$name" | qquant -q --method $method --bits 8 --group-size 8 -o "$T/$name-$method" >"$T/stream.qp" 2>"$T/err" || { not_ok "$name: $method: $(head -n 1 "$T/err")"; continue; }
        ppl <"$T/stream.qp" >"$T/paired.qp" 2>"$T/err" || not_ok "$name: $method is read from the stream: $(head -n 1 "$T/err")"
        kld=$(value '"metric":"kld/' <"$T/paired.qp")
        below "$kld" $limit && ok "$name: $method at 8 bits is close to the model" || not_ok "$name: $method: KL divergence '$kld'"
        [ "$(ppl --model "$T/$name-$method" | value '"metric":"ppl/')" = "$(value '"metric":"ppl/' <"$T/paired.qp")" ] &&
            ok "$name: $method: the checkpoint read alone gives the same" || not_ok "$name: $method: the checkpoint read alone gives the same"
    done
done
finish
