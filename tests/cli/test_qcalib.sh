#!/usr/bin/env bash
# qcalib: windows, quotas, the shuffle, exclusion, sources that run short, and options that make no sense.
. "$(dirname "$0")/lib.sh"
PATH=$QP_BIN:$PATH
export SOURCE_DATE_EPOCH=1700000000
"$QP_TOOLS/mkmodel" "$T/m" || exit 1
cd "$T" || exit 1
same() { # same NAME WANTED GOT
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1 (wanted '$2', got '$3')"; fi
}
calib() { qcalib -q --model m "$@"; }
samples() { qcat --bytes 16000000 --type sample "$@"; }
ids() { samples "$@" | sed 's/.*"ids":{"bin":"\([^"]*\)".*/\1/'; } # one line of base64 a sample
kinds() { samples "$1" | grep -c "\"kind\":\"$2\""; }
field() { qcat --type source "$1" | grep "\"name\":\"$2\"" | sed "s/.*\"$3\":\"*\([^,\"}]*\).*/\1/"; }

# Distinct text: a run of 13 tokens is nowhere twice.
awk 'BEGIN { for (i = 0; i < 600; i++) printf "%d zebra %d quiz %d!\n", i * 7919 % 10007, i * 104729 % 99991, i }' >gen.txt
awk 'BEGIN { for (i = 0; i < 300; i++) printf "{\"text\":\"claim %d of account %d\",\"note\":\"other %d words %d here\"}\n", i * 6131 % 10007, i * 3571 % 9973, i * 577, i * 911 }' >dom.jsonl

# Windows: the whole text in one sample, then the same ids cut up, in another order.
calib --general gen.txt --samples 1 --seq-len 8192 >whole.qp
calib --general gen.txt --samples 128 --seq-len 64 >cut.qp
ids whole.qp | base64 -d | od -An -v -td4 -w256 | sort >whole.ids
ids cut.qp | while read -r line; do echo "$line" | base64 -d | od -An -v -td4 -w256; done >cut.order
sort cut.order | cmp -s - whole.ids && ok "samples are the text's disjoint windows from its start" || not_ok "samples are the text's disjoint windows from its start"
sort -c cut.order 2>/dev/null; cmp -s cut.order whole.ids && not_ok "samples are shuffled" || ok "samples are shuffled"
same "every window once" 128 "$(sort -u cut.order | wc -l)"
same "numbered in order" "0 1 127" "$(samples cut.qp | sed 's/.*"i":\([0-9]*\).*/\1/' | sed -n '1p;2p;128p' | xargs)"
same "each with its hashes of 13 tokens: 52 of them" 128 "$(qcat --type sample cut.qp | grep -c '"ngrams":{"bin":"[^"]*","bytes":416}')"

# The order depends on the seed alone.
calib --general gen.txt --samples 128 --seq-len 64 --threads 1 | samples | cmp -s - <(samples cut.qp) && ok "threads do not change a byte" || not_ok "threads do not change a byte"
calib --general gen.txt --samples 128 --seq-len 64 --seed 1 >seed.qp
samples seed.qp | cmp -s - <(samples cut.qp) && not_ok "another seed, another order" || ok "another seed, another order"
ids seed.qp | sort | cmp -s - <(ids cut.qp | sort) && ok "of the same samples" || not_ok "of the same samples"

# Quotas.
quota() { # quota NAME GENERAL DOMAIN OPTION...
    local name=$1 want="$2 general, $3 domain"
    shift 3
    if calib --seq-len 32 --general gen.txt --domain dom.jsonl "$@" >q.qp 2>err; then
        same "$name" "$want" "$(kinds q.qp general) general, $(kinds q.qp domain) domain"
    else
        not_ok "$name ($(cat err))"
    fi
}
quota "70 % by default" 7 3 --samples 10
quota "0.7 x 128 = 89.6: 90" 90 38 --samples 128
quota "half of an odd number: the first kind gets the odd one" 3 2 --samples 5 --ratio 0.5
quota "one sample" 1 0 --samples 1
quota "ratio 1" 6 0 --samples 6 --ratio 1
quota "ratio 0" 0 6 --samples 6 --ratio 0
quota "exact counts" 100 28 --general-samples 100 --domain-samples 28
quota "one exact count alone" 0 9 --domain-samples 9
calib --general gen.txt --samples 4 --seq-len 32 >q.qp
same "without domain text all is general" "4 0" "$(kinds q.qp general) $(kinds q.qp domain)"
calib --domain dom.jsonl --ratio 0 --samples 4 --seq-len 32 >q.qp
same "domain text alone" "0 4" "$(kinds q.qp general) $(kinds q.qp domain)"
head -n 200 gen.txt >a.txt
tail -n 400 gen.txt >b.txt
calib --general a.txt --general b.txt --samples 30 --seq-len 32 >q.qp
same "files of one kind share by their size" "10 20" "$(field q.qp a.txt samples) $(field q.qp b.txt samples)"
calib --general a.txt b.txt --samples 30 --seq-len 32 >q2.qp
samples q2.qp | cmp -s - <(samples q.qp) && ok "one option with several files is the same" || not_ok "one option with several files is the same"

# Sources: forms and fields.
calib --general dom.jsonl --samples 4 --seq-len 32 >plain.qp
gzip -c dom.jsonl >dom.jsonl.gz
calib --general dom.jsonl.gz --samples 4 --seq-len 32 >gz.qp
ids gz.qp | cmp -s - <(ids plain.qp) && ok "gzip is read as what it packs" || not_ok "gzip is read as what it packs"
calib --general dom.jsonl --field note --samples 4 --seq-len 32 >note.qp
ids note.qp | cmp -s - <(ids plain.qp) && not_ok "--field chooses the text" || ok "--field chooses the text"
same "documents are counted" 300 "$(field plain.qp dom.jsonl docs)"
same "the file's SHA-256" "$(sha256sum <dom.jsonl | cut -d' ' -f1)" "$(field plain.qp dom.jsonl sha256)"

# Exclusion: sample i of 64 tokens is lines; take lines out of the middle of the text.
calib --general gen.txt --samples 60 --seq-len 64 >free.qp
sed -n '100,110p' gen.txt >eval.txt
calib --general gen.txt --samples 60 --seq-len 64 --exclude eval.txt >kept.qp
refused=$(field kept.qp gen.txt refused)
[ "$refused" -ge 2 ] && [ "$refused" -le 8 ] && ok "windows that meet the excluded text are refused ($refused)" || not_ok "windows refused: '$refused'"
same "and replaced" 60 "$(samples kept.qp | wc -l)"
same "the excluded file is on record" exclude "$(field kept.qp eval.txt role)"
runs() { samples "$1" | sed 's/.*"ngrams":{"bin":"\([^"]*\)".*/\1/' | while read -r line; do echo "$line" | base64 -d | od -An -v -tx8 -w8; done | sort -u; }
calib --general eval.txt --samples 1 --seq-len 128 >eval.qp
same "no run of 13 tokens is shared" 0 "$(comm -12 <(runs eval.qp) <(runs kept.qp) | wc -l)"
[ "$(comm -12 <(runs eval.qp) <(runs free.qp) | wc -l)" -gt 50 ] && ok "without --exclude there were such runs" || not_ok "without --exclude there were such runs"
qcalib --model m --general gen.txt --samples 60 --seq-len 64 --exclude eval.txt >/dev/null 2>err
grep -q "gen.txt: 60 general samples of 64 tokens, $refused windows left out" err && ok "a line says how many and why" || not_ok "a line says how many and why"
status "a source that is all excluded" 3 qcalib -q --model m --general gen.txt --samples 2 --seq-len 64 --exclude gen.txt
says "says so" "gen.txt' gives 0 samples of 64 tokens, 2 are needed: .* [1-9][0-9]* of its windows share 13 tokens with --exclude text"

# Sources that run short.
status "too few windows" 3 qcalib -q --model m --general gen.txt --samples 5000 --seq-len 64
says "says how many there are and are needed" "'gen.txt' gives [1-9][0-9]* samples of 64 tokens, 5000 are needed"
tail -c 30 "$T/out" | grep -q end && not_ok "and no end record" || ok "and no end record"
echo "short" >short.txt
status "text shorter than one window" 3 qcalib -q --model m --general short.txt --samples 1 --seq-len 64
says "says so" "'short.txt' gives 0 samples of 64 tokens, 1 are needed: it has [0-9]* tokens"
: >empty.txt
status "empty text" 3 qcalib -q --model m --general empty.txt --samples 1 --seq-len 64
says "says so" "'empty.txt' holds no text"
status "empty excluded text" 3 qcalib -q --model m --general gen.txt --samples 1 --seq-len 64 --exclude empty.txt
says "names it" "'empty.txt' holds no text"
status "the domain runs short" 3 qcalib -q --model m --general gen.txt --domain dom.jsonl --seq-len 64 --general-samples 1 --domain-samples 9999
says "names the domain's file" "'dom.jsonl' gives"

# Bad input.
status "no such text" 3 qcalib -q --model m --general nowhere.txt
says "names it" "'nowhere.txt': No such file"
status "no such model" 3 qcalib -q --model nowhere --general gen.txt
says "names it" "nowhere"
printf 'ab\377cd' >bad.txt
status "invalid UTF-8" 3 qcalib -q --model m --general bad.txt
says "says where" "'bad.txt' line 1: invalid UTF-8 at byte 2"
printf '{"text":"a"}\n{"text":\n' >bad.jsonl
status "a bad row" 3 qcalib -q --model m --general bad.jsonl
says "says where" "'bad.jsonl' line 2: not a JSON object"
status "a missing field" 3 qcalib -q --model m --general dom.jsonl --field body
says "says which" "'dom.jsonl' line 1: field 'body' is missing"
head -c 500 dom.jsonl.gz >cut.jsonl.gz
status "a gzip file that is cut off" 3 qcalib -q --model m --general cut.jsonl.gz
says "names it" "cannot read 'cut.jsonl.gz'"

# Usage.
status "no model" 2 qcalib --general gen.txt
says "asks for it" "^qcalib: --model M is needed"
status "no text" 2 qcalib --model m
says "asks for it" "qcalib: --general FILE is needed"
status "ratio above 1" 2 qcalib --model m --general gen.txt --ratio 1.5
says "says what it takes" "qcalib: --ratio.*0.*1"
status "no samples" 2 qcalib --model m --general gen.txt --samples 0
says "says what it takes" "qcalib: --samples"
status "a length that is no number" 2 qcalib --model m --general gen.txt --seq-len long
says "says what it takes" "qcalib: --seq-len"
status "a domain share without domain text" 2 qcalib --model m --general gen.txt --domain-samples 3
says "says so" "qcalib: --domain-samples without --domain FILE"
status "an unknown option" 2 qcalib --model m --general gen.txt --sample-length 3
says "names it" "unknown option .--sample-length"
(calib --general gen.txt --samples 128 --seq-len 64; echo "$?" >pipe) | head -c 100 >/dev/null
same "a reader that goes away ends it quietly" 0 "$(cat pipe)"

# A real tokenizer: the ids of a whole text are Hugging Face tokenizers' (reference/tokenizer-smollm2.json).
if [ -f "$QP_MODEL" ] && [ -d "$QP_SHARED/data/c4" ]; then
    qcalib -q --model "$QP_MODEL" --general "$QP_SHARED/data/c4/sample.jsonl" --samples 1 --seq-len 401897 >c4.qp
    want=$(tr -d '\n' <"$QP_SHARED/reference/tokenizer-smollm2.json" | sed 's/.*c4\/sample.jsonl texts[^}]*"sha256": *"\([0-9a-f]*\)".*/\1/')
    same "the ids of 250 documents of C4" "$want" "$(ids c4.qp | base64 -d | sha256sum | cut -d' ' -f1)"
else
    skip "the ids of C4" "no demo model or no shared data"
fi
finish
