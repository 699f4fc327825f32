#!/usr/bin/env bash
# Builds the release for one target into a folder: the archive with the program, manual pages, completions and notices, and its SBOM.
#
# usage: packaging/build.sh TARGET FOLDER
#   packaging/build.sh x86_64-unknown-linux-musl dist
#
# Requires the target's standard library (rustup target add TARGET), cargo-cyclonedx, Python, and a C compiler for the target.
# environment:
#   PALISADE_CARGO    how to call cargo; `cargo zigbuild` takes Zig as C compiler and linker
#   PALISADE_PROGRAM  a program that was built for TARGET already: it is packed, and nothing is compiled
#   PALISADE_RUNNER   what starts a program of TARGET here, if the machine can't: qemu-aarch64-static
set -euo pipefail
if (($# != 2)); then
    echo "usage: packaging/build.sh TARGET FOLDER" >&2
    exit 2
fi
target=$1
mkdir -p "$2"
dist=$(cd "$2" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    printf 'packaging/build.sh: %s\n' "$@" >&2
    exit 1
}

# What the release calls the target, and the options that link the program statically where it can be.
extension=tar.gz program=palisade flags=
case $target in
    x86_64-unknown-linux-*) platform=linux-amd64 flags="-C target-feature=+crt-static" ;;
    aarch64-unknown-linux-*) platform=linux-arm64 flags="-C target-feature=+crt-static" ;;
    x86_64-apple-darwin) platform=darwin-amd64 ;;
    aarch64-apple-darwin) platform=darwin-arm64 ;;
    x86_64-pc-windows-*) platform=windows-amd64 flags="-C target-feature=+crt-static" extension=zip program=palisade.exe ;;
    *) fail "no release is made for $target" ;;
esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
name=palisade-$version-$platform
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH

built=${PALISADE_PROGRAM:-}
if [[ -z $built ]]; then
    # Only for the target: procedural macros, which run in the compiler, can't be linked statically.
    read -ra cargo <<<"${PALISADE_CARGO:-cargo build}"
    RUSTFLAGS="$flags${RUSTFLAGS:+ $RUSTFLAGS}" "${cargo[@]}" --release --locked --package palisade --target "$target"
    built=${CARGO_TARGET_DIR:-target}/$target/release/$program
fi
if [[ $platform == linux-* ]] && readelf --program-headers "$built" | grep -q INTERP; then
    fail "$built is not linked statically: it would not start on a machine with another C library"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
folder=$work/$name
mkdir -p "$folder/completions"
install -m 755 "$built" "$folder/$program"
run() {
    # shellcheck disable=SC2086
    ${PALISADE_RUNNER:-} "$folder/$program" "$@"
}
[[ $(run --version) == "palisade $version"* ]] || fail "$built calls itself \"$(run --version)\", not palisade $version"
run man --dir "$folder/man"
run completions bash >"$folder/completions/palisade.bash"
run completions zsh >"$folder/completions/_palisade"
run completions fish >"$folder/completions/palisade.fish"
install -m 644 LICENSE CHANGELOG.md "$folder/"
packaging/notices.sh "$target" >"$folder/NOTICES.txt"
library=$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html
[[ ! -f $library ]] || install -m 644 "$library" "$folder/NOTICES-rust.html"

packaging/sbom.sh "$target" "$folder/sbom.cdx.json"
cp "$folder/sbom.cdx.json" "$dist/$name.cdx.json"

python3 packaging/archive.py "$folder" "$dist/$name.$extension"
echo "$dist/$name.$extension"
