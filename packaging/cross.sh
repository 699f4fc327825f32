#!/usr/bin/env bash
# Builds the release for another platform on Debian for x86-64, where rustup has no standard library to offer: with Debian's newest compiler, its
# standard library of the target or the source of one, and its C compilers for the target. Nothing is installed.
#
# usage: packaging/cross.sh TARGET FOLDER
#   packaging/cross.sh aarch64-unknown-linux-gnu dist     # starts the program with qemu-aarch64-static
#   packaging/cross.sh x86_64-pc-windows-gnu dist         # compiles the standard library too; starts the program with wine
#   packaging/cross.sh x86_64-pc-windows-gnu --check      # compiles as far as errors are found, and starts nothing; any target of rustc
#
# The compiler is kept in the build directory, in cross/.
set -euo pipefail
if (($# != 2)); then
    echo "usage: packaging/cross.sh TARGET FOLDER|--check" >&2
    exit 2
fi
target=$1 folder=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ $folder == --check || $folder == /* ]] || folder=$OLDPWD/$folder
readonly work=${CARGO_TARGET_DIR:-$PWD/target}/cross

fail() {
    printf 'packaging/cross.sh: %s\n' "$@" >&2
    exit 1
}
# programs NAME=PACKAGE…: what the target needs beside the compiler.
programs() {
    local each missing=()
    for each; do
        command -v "${each%=*}" >/dev/null || missing+=("${each#*=}")
    done
    ((${#missing[@]} == 0)) || fail "needs apt-get install ${missing[*]}"
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

# Compiles the standard library from its source, with what is unstable of Cargo.
from_source() { export RUSTC_BOOTSTRAP=1 && options=('-Zbuild-std=std,panic_abort'); }

options=()
if [[ $folder == --check ]]; then
    [[ -d $work/root/usr/lib/rustlib/$target ]] || from_source
    # The standard library of Windows needs it even so.
    [[ $target != x86_64-pc-windows-gnu ]] || programs x86_64-w64-mingw32-dlltool=binutils-mingw-w64-x86-64
    cargo check --locked --package palisade --target "$target" ${options[@]+"${options[@]}"} --no-default-features
    exit
fi
case $target in
    aarch64-unknown-linux-gnu)
        programs aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu qemu-aarch64-static=qemu-user-static
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc PALISADE_RUNNER=qemu-aarch64-static
        ;;
    x86_64-pc-windows-gnu)
        programs x86_64-w64-mingw32-gcc=gcc-mingw-w64-x86-64 wine64=wine64
        export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc PALISADE_RUNNER=wine64
        from_source
        ;;
    *) fail "doesn't build for $target" ;;
esac
PALISADE_CARGO="cargo build ${options[*]}" packaging/build.sh "$target" "$folder"
