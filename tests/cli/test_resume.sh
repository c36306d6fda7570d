#!/usr/bin/env bash
# qquant -o is killed and goes on: the same folder and the same stream as a run that was left alone; other models, samples and options are refused.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
data=$QP_ROOT/pipelines/data
export SOURCE_DATE_EPOCH=1700000000
mk() { "$QP_TOOLS/mkmodel" "$@"; }
calib() { qcalib -q --model "$1" --general "$data/general.txt" --samples 8 --seq-len 128 "${@:2}"; }
mk "$T/m" layers=8 d=256 ff=512
mk "$T/other" layers=8 d=256 ff=512 seed=2
calib "$T/m" >"$T/calib.qp"
mkdir "$T/run"
cd "$T/run" || exit 5
records() { qcat "$1" | grep -v '"t":"head"\|"t":"end"'; }
journal() { stat -c %s out.part/journal 2>/dev/null || echo 0; }
# stop_at SIGNAL BYTES COMMAND...: sends the signal once the journal is that long
stop_at() {
    local signal=$1 bytes=$2 pid
    shift 2
    "$@" >"$T/got.qp" 2>"$T/err" &
    pid=$!
    while [ "$(journal)" -lt "$bytes" ] && kill -0 $pid 2>/dev/null; do :; done
    kill "-$signal" $pid 2>/dev/null
    wait $pid 2>/dev/null
}

for how in "gptq" "awq+gptq --drift 0.5 --asym" "gptq --no-true-sequential" "rtn"; do
    go() { exec qquant -q --method $how --group-size 32 -o out "$@" <"$T/calib.qp"; }
    (go) >"$T/want.qp" 2>"$T/err" || { not_ok "$how: $(head -n 1 "$T/err")"; continue; }
    mv out "$T/want"
    (go --memory 1K) >"$T/got.qp" 2>"$T/err"
    diff -r out "$T/want" >/dev/null && [ "$(records "$T/got.qp")" = "$(records "$T/want.qp")" ] && ok "$how: the same with all activations in files" || not_ok "$how: the same with all activations in files"
    rm -rf out
    resumed=0
    for at in 100 $((RANDOM % 5000 + 2000)) $((RANDOM % 5000 + 9000)); do
        stop_at KILL $at go
        [ -e out ] && break
        [ "$(journal)" -gt 3000 ] && resumed=$((resumed + 1))
    done
    [ $resumed -ge 1 ] && ok "$how: killed with blocks done" || not_ok "$how: killed with blocks done"
    [ -e out ] || (go --threads 1) >"$T/got.qp" 2>"$T/err"
    diff -r out "$T/want" >/dev/null && ok "$how: killed $resumed times: the same folder" || not_ok "$how: killed $resumed times: the same folder"
    [ ! -e out.part ] && ok "$how: nothing is left beside it" || not_ok "$how: nothing is left beside it"
    [ "$(records "$T/got.qp")" = "$(records "$T/want.qp")" ] && ok "$how: the same records" || not_ok "$how: the same records"
    rm -rf out "$T/want"
done

# A signal leaves what can be gone on with; other runs are kept out.
go() { exec qquant -q --group-size 32 -o out "$@" <"$T/calib.qp"; }
(go) >/dev/null && mv out "$T/want"
stop_at INT 6000 go
grep -q "blocks are done and kept in 'out.part'; the same command goes on from there" "$T/err" && [ ! -e out ] && ok "an interrupted run says that it can go on" || not_ok "an interrupted run says that it can go on: $(cat "$T/err")"
refused() { # refused NAME PATTERN COMMAND...
    local before name=$1 pattern=$2
    before=$(cat out.part/journal out.part/files/* | md5sum)
    status "$name" 3 "${@:3}"
    says "says what differs" "$pattern"
    [ "$before" = "$(cat out.part/journal out.part/files/* | md5sum)" ] && ok "and leaves the work alone" || not_ok "and leaves the work alone"
}
calib "$T/other" >"$T/other.qp"
calib "$T/m" --seed 7 >"$T/seed.qp"
refused "a resume directory of another model" "'out.part' is the unfinished work of a run with another model" qquant --group-size 32 -o out <"$T/other.qp"
refused "of other samples" "with another calibration" qquant --group-size 32 -o out <"$T/seed.qp"
refused "of another option" "with another damp \(0.1.*, now 0.2" qquant --group-size 32 --damp 0.2 -o out <"$T/calib.qp"
exec 9<>out.part/journal && flock 9 && status "while another process writes it" 4 qquant --group-size 32 -o out <"$T/calib.qp"
says "says so" "another process is writing"
exec 9<&-
truncate -s -5 out.part/journal
printf 'half an entry' >>out.part/journal
(go) >"$T/got.qp" 2>"$T/err"
diff -r out "$T/want" >/dev/null && ok "a journal that ends in half an entry" || not_ok "a journal that ends in half an entry: $(cat "$T/err")"
rm -rf out
mkdir out.part && touch out.part/mine
status "a folder in the way that is no unfinished checkpoint" 4 qquant --group-size 32 -o out <"$T/calib.qp"
[ -e out.part/mine ] && ok "is left alone" || not_ok "is left alone"
finish
