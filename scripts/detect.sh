#!/bin/sh
# Probes the compiler and each library by compiling and linking a tiny program. Writes make variables to OUT, the findings to standard error.
#   detect.sh OUT CC        (environment: BLAS, DNNL, CUDA = 0 to leave an optional library out, 1 to demand it, empty to probe)
set -eu
out=$1 cc=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
missing="" packages=""

try() { # try FLAGS HEADER EXPRESSION
    printf '#include <stddef.h>\n%s\nint main(void) { return (int)(size_t)(%s) == 12345; }\n' "$2" "$3" >"$dir/t.c"
    # shellcheck disable=SC2086
    $cc -w "$dir/t.c" -o "$dir/t" $1 >"$dir/log" 2>&1
}

say() { printf '  %-22s %s\n' "$1" "$2" >&2; }

required() { # required NAME PACKAGE HEADER EXPRESSION FLAGS...
    name=$1 package=$2 header=$3 expr=$4
    shift 4
    for flags; do
        if try "$flags" "#include <$header>" "$expr"; then
            say "$name" "yes ($flags)"
            libs="$libs $flags"
            return
        fi
    done
    say "$name" "MISSING (package $package)"
    missing="$missing $name"
    packages="$packages $package"
}

optional() { # optional NAME VARIABLE SETTING HEADER EXPRESSION FLAGS...
    name=$1 var=$2 setting=$3 header=$4 expr=$5
    shift 5
    if [ "$setting" = 0 ]; then
        say "$name" "off ($var=0)"
        printf 'HAVE_%s :=\n' "$var" >>"$out.tmp"
        return
    fi
    for flags; do
        if try "$flags" "#include <$header>" "$expr"; then
            say "$name" "yes ($flags)"
            printf 'HAVE_%s := 1\nLIBS_%s := %s\n' "$var" "$var" "${flags##-I* }" >>"$out.tmp"
            return
        fi
    done
    if [ "$setting" = 1 ]; then
        say "$name" "MISSING, but $var=1 asks for it"
        missing="$missing $name"
    else
        say "$name" "no (optional)"
    fi
    printf 'HAVE_%s :=\n' "$var" >>"$out.tmp"
}

mkdir -p "$(dirname "$out")"
: >"$out.tmp"
libs=""
echo "quantpipe: detection" >&2
if ! try "" "" "0"; then
    say "C compiler ($cc)" "MISSING (package gcc)"
    missing="$missing cc"
    packages="$packages gcc libc6-dev"
else
    say "C compiler" "$($cc --version | head -n 1)"
fi
required msgpack-c "libmsgpack-dev or libmsgpack-c-dev" msgpack.h "&msgpack_unpack_next" -lmsgpackc -lmsgpack-c
required jansson libjansson-dev jansson.h "&json_loadb" -ljansson
required pcre2 libpcre2-dev "stddef.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h" "&pcre2_compile_8" -lpcre2-8
required utf8proc libutf8proc-dev utf8proc.h "&utf8proc_map" -lutf8proc
required xxhash libxxhash-dev xxhash.h "&XXH64" -lxxhash
required libmd libmd-dev sha256.h "&SHA256Init" -lmd
required zlib zlib1g-dev zlib.h "&gzopen" -lz
required sqlite3 libsqlite3-dev sqlite3.h "&sqlite3_open_v2" -lsqlite3
optional cmocka CMOCKA "" "stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h" "&_cmocka_run_group_tests" -lcmocka
optional OpenBLAS BLAS "${BLAS:-}" cblas.h "&cblas_sgemm" -lopenblas "-I/usr/include/openblas -lopenblas"
optional oneDNN DNNL "${DNNL:-}" oneapi/dnnl/dnnl.h "&dnnl_engine_create" -ldnnl

isas=ref
arch=$($cc -dumpmachine 2>/dev/null || uname -m)
case $arch in
x86_64*)
    for isa in avx2:-mavx2 avx512:-mavx512bw avx512_vnni:-mavx512vnni avx512_bf16:-mavx512bf16; do
        try "${isa#*:}" "#include <immintrin.h>" 0 && isas="$isas ${isa%%:*}"
    done
    ;;
esac
say "instruction sets" "$isas (chosen at run time)"
{
    printf 'DETECTED_LIBS :=%s\nISAS := %s\n' "$libs" "$isas"
    printf 'MISSING :=%s\nMISSING_PACKAGES :=%s\n' "$missing" "$packages"
} >>"$out.tmp"
mv "$out.tmp" "$out"
