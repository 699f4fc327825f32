#!/usr/bin/env bash
# Writes the SBOM of the program: its crates with versions, sources, hashes and licenses (CycloneDX 1.5, JSON).
#
# usage: packaging/sbom.sh TARGET FILE [CARGO-FEATURE-OPTION…]
# Requires cargo-cyclonedx.
set -euo pipefail
if (($# < 2)); then
    echo "usage: packaging/sbom.sh TARGET FILE [CARGO-FEATURE-OPTION…]" >&2
    exit 2
fi
target=$1 file=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! cargo cyclonedx --version >/dev/null 2>&1; then
    echo "packaging/sbom.sh: needs cargo-cyclonedx: cargo install --locked cargo-cyclonedx@0.5.9" >&2
    exit 1
fi
# It writes one for every member of the workspace, beside its Cargo.toml.
clean() { find crates tests fuzz -name '*_bin.cdx.json' -delete 2>/dev/null || true; }
trap clean EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --describe binaries --target "$target" "$@" --manifest-path crates/palisade/Cargo.toml
cp crates/palisade/palisade_bin.cdx.json "$file"
