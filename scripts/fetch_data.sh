#!/bin/sh
# Brings the standard evaluation sets from their publishers into a folder that qmc --data takes, each checked by SHA-256, and prints the folder.
#   fetch_data.sh [DIR [SET...]]      sets: mmlu hellaswag arc winogrande piqa; default: all, into the user's cache
# A set that is there is left alone. The sums are those that the Hugging Face project recorded for these files (datasets/*/dataset_infos.json);
# MMLU's is the one that several public projects pin for the same address.
# Environment: XDG_CACHE_HOME, QP_DATA_TABLE (another table, in the form of the one below; a sum "-" is not known: the first download's is kept in DIR/data.lock
# and later ones are compared with it)
set -eu
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/quantpipe/data}
[ $# -eq 0 ] || shift
sets=${*:-mmlu hellaswag arc winogrande piqa}

# set, what it becomes (a file's name, or the archive's parts that are taken out), address, sum
table() {
    if [ -n "${QP_DATA_TABLE:-}" ]; then
        cat "$QP_DATA_TABLE"
        return
    fi
    cat <<'END'
mmlu mmlu/data/test,mmlu/data/dev https://people.eecs.berkeley.edu/~hendrycks/data.tar bec563ba4bac1d6aaf04141cd7d1605d7a5ca833e38f994051e818489592989b
hellaswag hellaswag/hellaswag_train.jsonl https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_train.jsonl dae5e69249868cb9fe4e23ff925c60b66169564cfb7072d793cd7356a2b69f8d
hellaswag hellaswag/hellaswag_val.jsonl https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl 0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588
arc ARC-V1-Feb2018-2/ARC-Challenge,ARC-V1-Feb2018-2/ARC-Easy https://s3-us-west-2.amazonaws.com/ai2-website/data/ARC-V1-Feb2018.zip 6d2d5ab50b2ceec6ba5f79c921be77cf2de712ea25a2b3f4fff3acc101cecfa0
winogrande winogrande_1.1 https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip 3619ab104d8be2977b25c90ff420cb42d491707dcc75362a1e5d22bc082b7318
piqa physicaliqa-train-dev https://storage.googleapis.com/ai2-mosaic/public/physicaliqa/physicaliqa-train-dev.zip 54d32a04f59a7e354396f321723c8d7ec35cc6b08506563d8d1ffcc15ce98ddd
END
}

say() { echo "fetch_data: $*" >&2; }
mkdir -p "$dir"
tmp=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

download() { # download URL FILE; curl reads file:// too
    say "downloading $1"
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --retry 2 --connect-timeout 10 -o "$2" "$1"
    else
        python3 -c 'import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])' "$1" "$2"
    fi
}

known() { # known URL SUM: the sum to compare with, or nothing
    if [ "$2" != - ]; then
        echo "$2"
    elif [ -f "$dir/data.lock" ]; then
        awk -v u="$1" '$2 == u { print $1 }' "$dir/data.lock"
    fi
}

verify() { # verify FILE URL SUM
    got=$(sha256sum "$1" | cut -d' ' -f1)
    want=$(known "$2" "$3")
    if [ -z "$want" ]; then
        say "no sum is known for $2: $got is kept in $dir/data.lock"
        echo "$got $2" >>"$dir/data.lock"
    elif [ "$got" != "$want" ]; then
        say "$2 has the SHA-256 $got, not $want; it was thrown away"
        return 1
    fi
}

# Takes the parts (paths with commas between) out of an archive: only .csv, .jsonl and .lst files below them. MMLU's archive begins with data/ and goes under mmlu/.
unpack() { # unpack ARCHIVE PARTS
    python3 - "$1" "$2" "$tmp/out" <<'END'
import os, sys, tarfile, zipfile
path, parts, out = sys.argv[1], sys.argv[2].split(","), sys.argv[3]
if zipfile.is_zipfile(path):
    archive = zipfile.ZipFile(path)
    names, read = archive.namelist(), archive.read
else:
    archive = tarfile.open(path)
    names = [m.name for m in archive if m.isfile()]
    read = lambda n: archive.extractfile(n).read()
taken = 0
for name in names:
    for part in parts:
        for prefix in ("", part.split("/")[0] + "/"):
            full = prefix + name
            if full.startswith(part + "/") and ".." not in full.split("/") and full.endswith((".csv", ".jsonl", ".lst")):
                target = os.path.join(out, full)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as f:
                    f.write(read(name))
                taken += 1
                break
sys.exit(0 if taken else "fetch_data: the archive holds none of " + ", ".join(parts))
END
}

fetch() { # fetch WHAT URL SUM
    first=${1%%,*}
    if [ -e "$dir/$first" ]; then
        return 0
    fi
    rm -rf "$tmp/file" "$tmp/out"
    download "$2" "$tmp/file" || { say "cannot download '$2'"; return 1; }
    verify "$tmp/file" "$2" "$3" || return 1
    case $2 in
    *.tar | *.tar.gz | *.tgz | *.zip) unpack "$tmp/file" "$1" || return 1 ;;
    *) mkdir -p "$tmp/out/$(dirname "$1")" && mv "$tmp/file" "$tmp/out/$1" ;;
    esac
    # the first part is moved last: a set is there when it is whole
    for part in $(echo "$1" | tr , '\n' | tac); do
        mkdir -p "$dir/$(dirname "$part")"
        rm -rf "${dir:?}/$part"
        mv "$tmp/out/$part" "$dir/$part"
    done
}

failed=0
for set in $sets; do
    table | grep -q "^$set " || { say "unknown set '$set'; known: mmlu, hellaswag, arc, winogrande, piqa"; exit 2; }
    table | grep "^$set " >"$tmp/rows"
    while read -r _ what url sum; do
        fetch "$what" "$url" "$sum" || failed=1
    done <"$tmp/rows"
done
[ "$failed" -eq 0 ] || { say "not all sets could be brought; what is missing can be put into $dir by hand (docs/TASKS.md says where)"; exit 3; }
echo "$dir"
