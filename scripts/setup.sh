#!/bin/sh
# Installs what is missing to build and test quantpipe on Debian or Ubuntu: says what, then uses apt-get (sudo when not root).
set -eu
need=""

have_header() { printf '#include <%s>\n' "$1" | ${CC:-cc} -E -x c - >/dev/null 2>&1; }
want() { need="$need $1"; }
available() { apt-cache show "$1" >/dev/null 2>&1; }

command -v "${CC:-cc}" >/dev/null 2>&1 || want gcc
command -v ar >/dev/null 2>&1 || want binutils
command -v pip3 >/dev/null 2>&1 || command -v pip >/dev/null 2>&1 || want python3-pip
have_header stdlib.h || want libc6-dev
have_header msgpack.h || want msgpack
have_header jansson.h || want libjansson-dev
have_header pcre2posix.h || want libpcre2-dev
have_header utf8proc.h || want libutf8proc-dev
have_header xxhash.h || want libxxhash-dev
have_header sha256.h || want libmd-dev
have_header zlib.h || want zlib1g-dev
have_header sqlite3.h || want libsqlite3-dev
printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <cmocka.h>\n' |
    ${CC:-cc} -E -x c - >/dev/null 2>&1 || want libcmocka-dev
[ -n "$need" ] || exit 0

echo "quantpipe: missing:$need" >&2
if ! command -v apt-get >/dev/null 2>&1; then
    echo "quantpipe: this machine has no apt-get; please install the above with its package manager, then run make again" >&2
    exit 4
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "quantpipe: not root and no sudo: run as root: apt-get install$need" >&2; exit 4; }
    sudo=sudo
fi
$sudo apt-get update -q >&2
# Debian 12 and Ubuntu 22.04 ship msgpack-c in libmsgpack-dev, later releases in libmsgpack-c-dev.
if available libmsgpack-c-dev; then msgpack=libmsgpack-c-dev; else msgpack=libmsgpack-dev; fi
need=$(echo "$need" | sed "s/\bmsgpack\b/$msgpack/")
echo "quantpipe: apt-get install$need" >&2
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $need >&2
