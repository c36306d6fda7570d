#!/usr/bin/env bash
# The main job on a real model: calibrate, quantize, measure, judge; then a table and PASS or FAIL. `make demo` runs it.
# Environment: B (build folder), DATA (folder with real WikiText-2 and C4, see below), QP_MODEL (another model)
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/${B:-build/release}/bin
PATH=$bin:$PATH
out=$PWD/build/demo
mkdir -p "$out"
model=$(scripts/fetch_model.sh)

if [ -n "${DATA:-}" ]; then
    # DATA holds wikitext-2-raw-v1/test.jsonl (rows of the test split) and c4/sample.jsonl, as their hub exports are laid out.
    general=$DATA/c4/sample.jsonl eval=$DATA/wikitext-2-raw-v1/test.jsonl name=wikitext2
    calib=(--general "$general" --domain pipelines/data/fraud.jsonl --general-samples 30 --domain-samples 2 --seq-len 512)
    eval_opts=(--max-tokens 8192)
    for f in "$general" "$eval"; do
        [ -f "$f" ] || { echo "demo: DATA=$DATA has no ${f#"$DATA"/}" >&2; exit 3; }
    done
else
    eval=pipelines/data/general-eval.txt name=general
    calib=(--general pipelines/data/general.txt --domain pipelines/data/fraud.jsonl --ratio 0.7 --samples 20 --seq-len 256)
    eval_opts=()
fi

echo "model  $model"
echo "pipe   qcalib | qquant --method gptq --bits 4 --group-size 64 | qppl --text ${eval##*/} | qgate demo.json"
start=$(date +%s%N)
status=0
qcalib --model "$model" "${calib[@]}" --exclude "$eval" \
    | qquant --method gptq --bits 4 --group-size 64 \
    | qppl --text "$eval" --name "$name" "${eval_opts[@]}" \
    | qgate pipelines/gates/demo.json >"$out/stream.qp" || status=$?
seconds=$(awk -v a="$start" -v b="$(date +%s%N)" 'BEGIN { printf "%.1f", (b - a) / 1e9 }')
[ "$status" -eq 0 ] || [ "$status" -eq 1 ] || [ "$status" -eq 6 ] || exit "$status"
echo
qreport "$out/stream.qp"
echo
echo "quantized, evaluated and judged in $seconds s; the whole stream is in build/demo/stream.qp (qcat build/demo/stream.qp)"
exit "$status"
