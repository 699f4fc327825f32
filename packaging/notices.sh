#!/usr/bin/env bash
# Prints the license texts of everything that is linked into the program for a target; most licenses require them.
#
# usage: packaging/notices.sh TARGET [CARGO-FEATURE-OPTION…]
# Beside the crates, this is the C library: glibc (LGPL: this repository contains what is needed to relink the program) or musl.
# Rust's standard library has notices of its own, in the toolchain's share/doc/rust/COPYRIGHT-library.html.
set -euo pipefail
shopt -s nullglob nocaseglob
if (($# == 0)); then
    echo "usage: packaging/notices.sh TARGET [CARGO-FEATURE-OPTION…]" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1
shift

cargo tree --locked --package palisade "$@" --edges normal --target "$target" --prefix none --no-dedupe --format '{p}' \
    | sed -n 's/^\([^ ]*\) v\([^ ]*\)$/\1-\2/p' | sort -u | while read -r crate; do
    printf '\n==== %s\n' "$crate"
    for file in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$crate"/{licen[cs]e,copying,notice,copyright}*; do
        [[ ! -f $file ]] || { printf -- '---- %s\n\n' "${file##*/}"; cat "$file"; }
    done
done

# The web pages are built into the program, unless it is built with some features only.
case " $* " in
    *" --no-default-features "*) ;;
    *) printf '\n==== the pages of palisade ui\n' && cat ui/dist/licenses.txt ;;
esac

# library NAME FILE…: the first of these files, which has the license of the C library.
library() {
    local file
    for file in "${@:2}"; do
        if [[ -f $file ]]; then
            printf '\n==== %s\n' "$1"
            cat "$file"
            return
        fi
    done
    echo "none of these files has the license of $1: ${*:2}" >&2
    return 1
}
case $target in
    *-linux-gnu) library glibc /usr/share/doc/libc6-dev/copyright ;;
    # PALISADE_MUSL_LICENSE names it where neither Debian's package nor Zig has it.
    *-linux-musl) library musl ${PALISADE_MUSL_LICENSE:+"$PALISADE_MUSL_LICENSE"} /usr/share/doc/musl-dev/copyright \
        /usr/share/doc/musl/copyright ;;
esac
