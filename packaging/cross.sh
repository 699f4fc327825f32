#!/usr/bin/env bash
# Checks with the compiler that the program can be built for another platform, where rustup has no standard library to offer: on Debian for
# x86-64, with Debian's newest compiler and the source of its standard library. Without the Kubernetes client, which needs a C compiler for the
# target. Nothing is linked or installed.
#
# usage: packaging/cross.sh TARGET
#   packaging/cross.sh x86_64-pc-windows-gnu
#
# The compiler is kept in the build directory, in cross/.
set -euo pipefail
if (($# != 1)); then
    echo "usage: packaging/cross.sh TARGET" >&2
    exit 2
fi
target=$1
cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly work=${CARGO_TARGET_DIR:-$PWD/target}/cross

fail() {
    printf 'packaging/cross.sh: %s\n' "$@" >&2
    exit 1
}

# Debian's package lists for both architectures, in a folder of our own: those of the machine stay as they are.
apt() {
    local program=$1
    shift
    "$program" -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::State::Status=/dev/null -o APT::Sandbox::User=root "$@"
}
# needed PACKAGE PATTERN: the package that it depends on and whose name matches.
needed() { apt apt-cache depends --important "$1" | sed -n 's/^ *Depends: //p' | grep -m 1 -- "$2" || fail "Debian has no $1"; }

compiler() {
    [[ ! -e $work/complete ]] || return 0
    rm -rf "$work"
    mkdir -p "$work"/{lists,cache/archives}/partial "$work"/{packages,root}
    apt apt-get update -qq
    local runtime llvm
    runtime=$(needed libstd-rust-web-dev:amd64 '^libstd-rust-web-[0-9]')
    llvm=$(needed "$runtime" '^libllvm')
    (cd "$work/packages" && apt apt-get download -qq rustc-web:amd64 "$runtime" "$llvm" \
        libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64 rust-web-src)
    local package
    for package in "$work"/packages/*.deb; do
        dpkg-deb --extract "$package" "$work/root"
    done
    # Cargo looks for the source beside the standard libraries.
    local source=$work/root/usr/lib/rustlib/src/rust
    [[ -d $source/library ]] || { mkdir -p "$source" && ln -s "$(echo "$work"/root/usr/src/rustc-*)/library" "$source/library"; }
    cat >"$work/rustc" <<EOF
#!/bin/sh
LD_LIBRARY_PATH="$work/root/usr/lib/x86_64-linux-gnu" exec "$work/root/usr/bin/rustc" "\$@"
EOF
    chmod 755 "$work/rustc"
    rm -rf "$work"/{packages,lists,cache}
    touch "$work/complete"
}

compiler
export RUSTC=$work/rustc
oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
version=$("$RUSTC" --version | cut -d ' ' -f 2)
[[ $(printf '%s\n' "$oldest" "$version" | sort -V | head -1) == "$oldest" ]] || fail "Debian's compiler is $version; needs $oldest"

options=()
if [[ ! -d $work/root/usr/lib/rustlib/$target ]]; then
    # From its source, with what is unstable of Cargo.
    export RUSTC_BOOTSTRAP=1
    options=('-Zbuild-std=std,panic_abort')
fi
if [[ $target == x86_64-pc-windows-gnu ]] && ! command -v x86_64-w64-mingw32-dlltool >/dev/null; then
    fail "needs apt-get install binutils-mingw-w64-x86-64, for Windows' standard library"
fi
cargo check --locked --package palisade --target "$target" ${options[@]+"${options[@]}"} --no-default-features
