#!/bin/sh
# The layer rule of DESIGN: a folder of lib/common includes only folders below it, a tool never includes another tool, msgpack.h is
# stream/'s alone, sqlite3.h eval/'s, and no file outgrows its limit. Prints each offence and exits 1.
set -eu
cd "$(dirname "$0")/.."
order="base stats stream text model backend engine quant eval"
bad=0
offend() { echo "check_layers: $*"; bad=1; }

allowed=""
for layer in $order; do
    allowed="$allowed $layer"
    [ -d "lib/common/$layer" ] || { offend "lib/common/$layer is missing"; continue; }
    for f in $(find "lib/common/$layer" -name '*.[ch]'); do
        for inc in $(sed -n 's/^#include "\([a-z_0-9]*\)\/.*/\1/p' "$f" | sort -u); do
            case " $allowed " in
            *" $inc "*) ;;
            *) offend "$f includes $inc/, which is not below $layer/" ;;
            esac
        done
    done
done
for f in $(grep -lE '^#include [<"]msgpack' -r lib tools | grep -v '^lib/common/stream/'); do
    offend "$f includes msgpack.h; only stream/ may"
done
for f in $(grep -lE '^#include [<"]sqlite3' -r lib tools | grep -v '^lib/common/eval/'); do
    offend "$f includes sqlite3.h; only eval/ may"
done
for f in $(grep -lE '^#include "(\.\./)?(qcalib|qquant|qppl|qmc|qgen|qlat|qgate|qreport|qcat)/' -r tools); do offend "$f includes another tool"; done
for f in $(grep -lE '(immintrin|cuda_runtime|pthread)\.h' -r lib/common/engine lib/common/quant lib/common/eval); do
    offend "$f knows an instruction set, a device or threads"
done
for f in $(find lib tools -name '*.[ch]'); do
    n=$(wc -l <"$f")
    [ "$n" -le 900 ] || offend "$f has $n lines (limit 900, aim below 500)"
done
for f in tools/*/main.c; do
    n=$(wc -l <"$f")
    [ "$n" -le 300 ] || offend "$f has $n lines; a main reads like a table of contents (limit 300)"
done
exit $bad
