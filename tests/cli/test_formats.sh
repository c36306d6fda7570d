#!/usr/bin/env bash
# Number formats: every method and layout of checkpoint gives the model that the pipe carries; files that contradict themselves are refused.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
export SOURCE_DATE_EPOCH=1700000000
"$QP_TOOLS/mkmodel" "$T/m" d=128 ff=256
ppl() { qppl -q --text "$data/general-eval.txt" --max-tokens 200 --compute f32 "$@"; }
value() { qcat "$1" -t result | grep "\"metric\":\"$2" | tail -n 1 | sed 's/.*"value":\([^,}]*\).*/\1/'; }
below() { awk -v a="${1:-nan}" -v b="$2" 'BEGIN { exit !(a == a + 0 && a < b) }'; }
quant() { qquant -q --model "$T/m" --group-size 32 "$@"; }

# Inline and as a checkpoint, through qppl, in each layout that holds it.
while read -r name options; do
    # shellcheck disable=SC2086
    if quant $options >"$T/q.qp" 2>"$T/err" && ppl <"$T/q.qp" >"$T/inline.qp" 2>>"$T/err"; then
        below "$(value "$T/inline.qp" kld/)" 0.05 && ok "$name: close to the model" || not_ok "$name: KL divergence '$(value "$T/inline.qp" kld/)'"
    else
        not_ok "$name"
        sed 's/^/# /' "$T/err"
        continue
    fi
    for layout in auto gptq_v2 awq bnb compressed-tensors; do
        rm -rf "$T/dir"
        # shellcheck disable=SC2086
        if quant $options --format $layout -o "$T/dir" >"$T/q.qp" 2>"$T/err"; then
            [ "$(qcat -t model "$T/q.qp" | grep -c '"path":"[^"]*/dir","read_back_max_diff":0[,.]')" = 1 ] && ok "$name: $layout was read back" || not_ok "$name: $layout was read back"
            ppl <"$T/q.qp" >"$T/dir.qp" 2>"$T/err"
            ppl --model "$T/dir" >"$T/alone.qp" 2>>"$T/err"
            [ "$(value "$T/inline.qp" ppl/)" = "$(value "$T/dir.qp" ppl/)" ] && ok "$name: $layout holds what the pipe carries" || { not_ok "$name: $layout and the pipe differ"; sed 's/^/# /' "$T/err"; }
            [ "$(value "$T/dir.qp" ppl/)" = "$(value "$T/alone.qp" ppl/)" ] && ok "$name: $layout by itself" || not_ok "$name: $layout by itself"
        else
            grep -qE "^qquant: 'model.layers.0.self_attn.q_proj.weight' as a $layout checkpoint: weights of format .*hold" "$T/err" && [ ! -e "$T/dir" ] &&
                ok "$name: $layout refuses it" || { not_ok "$name: $layout"; sed 's/^/# /' "$T/err"; }
        fi
    done
done <<'L'
nf4 --method nf4
nf4-dq --method nf4 --double-quant
fp4-256 --method fp4 --block-size 256 --double-quant
int8 --method int8
fp8 --method fp8
fp8-tensor --method fp8 --fp8-scales tensor
fp8-block --method fp8 --fp8-scales block
e5m2 --method fp8 --fp8-type e5m2
w4g32 --method rtn
w4g32-asym --method rtn --asym
w3row --method rtn --bits 3 --group-size -1 --asym
w8g32 --method rtn --bits 8
L
quant --method nf4 | qcat -t model | grep -q '"id":"m-nf4"' && ok "its id says the format" || not_ok "its id says the format"

# Options.
status "--block-size that is no power of two" 2 quant --method nf4 --block-size 96
says "says what it takes" "32, 64, 128"
status "--double-quant of rtn" 2 quant --method rtn --double-quant
status "an AWQ export of groups that do not divide" 3 qquant -q --model "$T/m" --method rtn --group-size 48 --format awq -o "$T/no"
says "says so" "in groups of 48 is none that AWQ tensors hold"
status "an AWQ export of 8 bits" 3 quant --method rtn --bits 8 --format awq -o "$T/no"
[ ! -e "$T/no" ] && ok "and nothing is left" || not_ok "and nothing is left"

# Formats that a checkpoint's one configuration cannot say side by side: refused before the work, by --plan, too.
mixed() { # mixed NAME WHY OPTIONS...
    status "$1" 3 quant "${@:3}" -o "$T/no"
    says "says so" "^qquant: '[^']*v_proj.weight' as a [a-z]* checkpoint: $2$"
    status "$1: --plan" 3 quant "${@:3}" -o "$T/no" --plan
    [ "$(grep -c "v_proj.weight' cannot be stored as" "$T/err")" = 2 ] && ok "says so of both layers" || not_ok "says so of both layers"
    [ -z "$(ls -d "$T"/no* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"
}
mixed "AWQ groups of 16 beside groups of 32" "groups of 16 beside groups of 32: an AWQ configuration has one size for all layers" --method rtn --format awq --keep '*.v_proj=w4g16'
mixed "int8 beside nf4" "int8 beside nf4: a bitsandbytes configuration is for 4 or for 8 bits" --method nf4 --keep '*.v_proj=int8'
mixed "nf4 beside int8" "nf4 beside int8: a bitsandbytes configuration is for 4 or for 8 bits" --method int8 --keep '*.v_proj=nf4'
check "fp4 of another block size beside nf4" quant --method nf4 --keep '*.v_proj=fp4-128' --keep '*.o_proj=fp16' -o "$T/both"
check "layers kept beside AWQ groups of 32" quant --method rtn --format awq --keep '*.v_proj=fp16' -o "$T/kept"
"$QP_TOOLS/mkmodel" "$T/rows" ff=108
status "an AWQ export of rows that do not divide" 3 qquant -q --model "$T/rows" --method rtn --group-size -1 --format awq -o "$T/no"
says "says so" "'model.layers.0.mlp.gate_proj.weight' as a awq checkpoint: a layer of 108 x 64 weights in groups of 64 is none that AWQ tensors hold: outputs by 8"
[ -z "$(ls -d "$T"/no* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"

# Checkpoints that contradict themselves.
quant --method nf4 -o "$T/nf4" >/dev/null
quant --method rtn -o "$T/gptq" >/dev/null
quant --method fp8 -o "$T/fp8" >/dev/null
bad() { # NAME FROM SED-EXPRESSION PATTERN
    rm -rf "$T/bad" && cp -r "$T/$2" "$T/bad" && sed -i "$3" "$T/bad/config.json"
    status "$1" 3 qppl --model "$T/bad" --text "$data/general-eval.txt"
    says "says so" "$4"
}
bad "an unknown quant_method" gptq 's/"quant_method": "gptq"/"quant_method": "magic"/' "quant_method 'magic' is not supported; supported: gptq, awq, bitsandbytes, compressed-tensors"
bad "bitsandbytes of 4 and 8 bits" nf4 's/"load_in_8bit": false/"load_in_8bit": true/' "load_in_4bit and load_in_8bit contradict"
bad "bitsandbytes of neither" nf4 's/"load_in_4bit": true/"load_in_4bit": false/' "neither load_in_4bit nor load_in_8bit"
bad "4-bit tensors that are said to be 8-bit" nf4 's/"load_in_8bit": false/"load_in_8bit": true/; s/"load_in_4bit": true/"load_in_4bit": false/' "contradicts quantization_config"
bad "GPTQ tensors that are said to be bitsandbytes" gptq 's/"quant_method": "gptq"/"quant_method": "bitsandbytes", "load_in_4bit": true/' "stored as GPTQ, which contradicts quantization_config"
bad "GPTQ tensors that are said to be AWQ" gptq 's/"quant_method": "gptq"/"quant_method": "awq"/; s/"checkpoint_format": "gptq"/"version": "gemm"/' "qweight' is .*expected"
bad "other bits than the tensors have" gptq 's/"bits": 4/"bits": 8/' "qweight' is 16 x 128, which does not fit .*expected 32 x 128"
bad "two names of the layout" gptq 's/"checkpoint_format": "gptq"/"checkpoint_format": "gptq", "format": "gptq_v2"/' "contradict each other"
bad "a group size of 0" gptq 's/"group_size": 32/"group_size": 0/' "group_size is 0"
bad "an AWQ version that is not read" gptq 's/"quant_method": "gptq"/"quant_method": "awq", "version": "gemv"/' "AWQ version 'gemv' is not supported"
bad "a compressed-tensors format that is not read" fp8 's/"format": "float-quantized"/"format": "nvfp4-pack-quantized"/' "format 'nvfp4-pack-quantized' is not supported"
bad "weights that are not compressed" fp8 's/"quantization_status": "compressed"/"quantization_status": "frozen"/' "quantization_status is 'frozen'"
rm -rf "$T/bad" && cp -r "$T/gptq" "$T/bad" && cp "$T/m/model.safetensors" "$T/bad/model.safetensors"
status "a quantization_config and no quantized layer" 3 qppl --model "$T/bad" --text "$data/general-eval.txt"
says "says so" "has a quantization_config, but no layer is stored quantized"
cp "$T/gptq/model.safetensors" "$T/bad/model.safetensors" && cp "$T/m/config.json" "$T/bad/config.json"
status "quantized layers and no quantization_config" 3 qppl --model "$T/bad" --text "$data/general-eval.txt"
says "says so" "stored as GPTQ, which contradicts quantization_config"
# Codes of 8-bit floating point that are no numbers, in every tool's way of reading them.
quant --method fp8 --fp8-type e5m2 -o "$T/e5m2" >/dev/null
poke() { # poke DIR TENSOR BYTE: the tensor's 130th byte
    python3 - "$1/model.safetensors" "$2" "$3" <<'P'
import json, struct, sys
with open(sys.argv[1], "r+b") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    f.seek(8 + n + json.loads(f.read(n))[sys.argv[2]]["data_offsets"][0] + 130)
    f.write(bytes([int(sys.argv[3], 16)]))
P
}
tensor=model.layers.1.mlp.up_proj.weight
retype() { # retype DIR TENSOR TYPE: in the header
    python3 - "$1/model.safetensors" "$2" "$3" <<'P'
import json, struct, sys
b = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", b[:8])[0]
h = json.loads(b[8:8 + n])
h[sys.argv[2]]["dtype"] = sys.argv[3]
s = json.dumps(h).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(s)) + s + b[8 + n:])
P
}
if command -v python3 >/dev/null; then
    quant --method int8 -o "$T/int8" >/dev/null
    quant --method rtn --format awq -o "$T/awq" >/dev/null
    q=model.layers.0.self_attn.q_proj
    for case in m:weight:I16:"has dtype i16, which is not supported" gptq:qweight:F32:"has dtype f32, expected i32" gptq:qzeros:F32:"has dtype f32, expected i32" \
        gptq:scales:BF16:"has dtype bf16, expected f16" gptq:g_idx:F32:"has dtype f32, expected i32" awq:qweight:F32:"has dtype f32, expected i32" awq:scales:I16:"has dtype i16, expected f16" \
        nf4:weight.absmax:I32:"has dtype i32, expected f32" nf4:weight.quant_map:I32:"has dtype i32, expected f32" int8:weight:U8:"has dtype u8, expected i8" \
        int8:SCB:I32:"has dtype i32, expected f32" fp8:weight:U8:"has dtype u8, which is not supported"; do
        IFS=: read -r from part type why <<<"$case"
        rm -rf "$T/bad" && cp -r "$T/$from" "$T/bad" && retype "$T/bad" "$q.$part" "$type"
        status "$from: a $part of $type" 3 qppl --model "$T/bad" --text "$data/general-eval.txt"
        says "says so" "/bad': tensor '$q.$part' $why"
        status "$from: a $part of $type, quantized again" 3 qquant --model "$T/bad" --method rtn -o "$T/no"
        [ -z "$(ls -d "$T"/no* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"
    done
    # Two shards, of which the second one is bad.
    python3 - "$T/gptq" "$T/shards" <<'P'
import json, os, shutil, struct, sys
source, out = sys.argv[1:]
shutil.copytree(source, out)
b = open(out + "/model.safetensors", "rb").read()
os.remove(out + "/model.safetensors")
n = struct.unpack("<Q", b[:8])[0]
h, data, names = json.loads(b[8:8 + n]), b[8 + n:], {}
h.pop("__metadata__", None)
for i in (1, 2):
    part, at, head = b"", 0, {}
    for name, t in h.items():
        if (".layers.1." in name) == (i == 2):
            x = data[slice(*t["data_offsets"])]
            head[name] = dict(t, data_offsets=[at, at + len(x)])
            part, at = part + x, at + len(x)
            names[name] = f"model-{i:05}-of-00002.safetensors"
    s = json.dumps(head).encode()
    open(f"{out}/model-{i:05}-of-00002.safetensors", "wb").write(struct.pack("<Q", len(s)) + s + part)
json.dump({"metadata": {}, "weight_map": names}, open(out + "/model.safetensors.index.json", "w"))
P
    ppl --model "$T/shards" >"$T/shards.qp" && ppl --model "$T/gptq" >"$T/one.qp" && [ "$(value "$T/shards.qp" ppl/)" = "$(value "$T/one.qp" ppl/)" ] && ok "two shards are one model" || not_ok "two shards are one model"
    second=$T/shards/model-00002-of-00002.safetensors
    bytes=$(stat -c %s "$second")
    for cut in $((bytes - 1)) 5000 300 4 0; do
        truncate -s $cut "$second"
        for tool in "qppl --text $data/general-eval.txt" "qquant --method rtn -o $T/no"; do
            # shellcheck disable=SC2086
            status "${tool%% *}: a shard cut off at $cut" 3 $tool --model "$T/shards"
            says "names it" "model-00002-of-00002.safetensors'"
        done
    done
    rm "$second"
    status "qquant: a missing shard" 3 qquant --method rtn -o "$T/no" --model "$T/shards"
    says "names it" "cannot open '[^']*model-00002-of-00002.safetensors'"
    [ -z "$(ls -d "$T"/no* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"
    for case in fp8:7f:NaN fp8:ff:NaN e5m2:7c:infinite e5m2:fe:NaN; do
        IFS=: read -r from byte what <<<"$case"
        rm -rf "$T/bad" && cp -r "$T/$from" "$T/bad" && poke "$T/bad" $tensor "$byte"
        for compute in auto f32; do
            status "$from: the code 0x$byte, $compute" 3 qppl --model "$T/bad" --text "$data/general-eval.txt" --compute $compute
            says "names file, tensor and place" "/bad/model.safetensors': tensor '$tensor' holds the code 0x$byte \(row 1, input 2\), which is $what"
        done
        status "$from: the code 0x$byte, quantized again" 3 qquant --model "$T/bad" --method rtn -o "$T/no"
        says "names them, too" "/bad/model.safetensors': tensor '$tensor' holds the code 0x$byte"
        [ -z "$(ls -d "$T"/no* 2>/dev/null)" ] && ok "and nothing is left" || not_ok "and nothing is left"
    done
else
    skip "codes that are no numbers" "no python3"
fi
for from in nf4 gptq fp8; do
    rm -rf "$T/bad" && cp -r "$T/$from" "$T/bad" && head -c 20000 "$T/$from/model.safetensors" >"$T/bad/model.safetensors"
    status "$from: weights that end early" 3 qppl --model "$T/bad" --text "$data/general-eval.txt"
done
finish
