#!/usr/bin/env bash
# Builds the content of the image in a directory: the statically linked program, its SBOM, and the licenses of its dependencies.
# The program has all verbs except `lab`: a privileged container needs no cluster simulation.
#
# usage: deploy/image/build.sh DIRECTORY
# Requires a Rust toolchain with a static C library (glibc's libc.a or a musl target's), a C compiler, and cargo-cyclonedx.
set -euo pipefail
if (($# != 1)); then
    echo "usage: deploy/image/build.sh DIRECTORY" >&2
    exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd)
readonly out
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

target=$(rustc -vV | sed -n 's/^host: //p')
readonly target share=$out/usr/share/palisade features=(--no-default-features --features agent)
mkdir -p "$share"

# Only for the target: procedural macros, which run in the compiler, can't be linked statically.
RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=debuginfo \
    cargo build --release --locked --package palisade "${features[@]}" --target "$target"
install -D -m 755 "${CARGO_TARGET_DIR:-target}/$target/release/palisade" "$out/usr/local/bin/palisade"
if readelf --program-headers "$out/usr/local/bin/palisade" | grep -q INTERP; then
    echo "the program is not linked statically and would not start in an empty image" >&2
    exit 1
fi

packaging/sbom.sh "$target" "$share/sbom.cdx.json" "${features[@]}"

# The license texts of everything that is linked into the program.
install -m 644 LICENSE "$share/LICENSE"
packaging/notices.sh "$target" "${features[@]}" >"$share/NOTICES.txt"
library=$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html
readonly library
[[ ! -f $library ]] || install -m 644 "$library" "$share/NOTICES-rust.html"
