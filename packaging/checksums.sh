#!/usr/bin/env bash
# Writes SHA256SUMS for all files of a release folder, and checks it.
#
# usage: packaging/checksums.sh FOLDER
set -euo pipefail
if (($# != 1)); then
    echo "usage: packaging/checksums.sh FOLDER" >&2
    exit 2
fi
cd "$1"
sum() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
shopt -s nullglob
files=()
for file in *; do
    [[ ! -f $file || $file == SHA256SUMS ]] || files+=("$file")
done
if ((${#files[@]} == 0)); then
    echo "$PWD has no files" >&2
    exit 1
fi
sum "${files[@]}" >SHA256SUMS
sum --check SHA256SUMS >/dev/null
echo "$PWD/SHA256SUMS: ${#files[@]} files"
