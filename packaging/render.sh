#!/usr/bin/env bash
# Adds to a release folder what names its version, address and digests: the shell installer, the krew manifest and the Homebrew formula.
#
# usage: packaging/render.sh FOLDER REPOSITORY
#   packaging/render.sh dist https://github.com/OWNER/palisade
#
# The files of the release are at REPOSITORY/releases/download/vVERSION. A platform whose archive is not in the folder is left out of the
# manifest and the formula, and named.
set -euo pipefail
if (($# != 2)); then
    echo "usage: packaging/render.sh FOLDER REPOSITORY" >&2
    exit 2
fi
dist=$(cd "$1" && pwd)
repository=${2%/}
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ ! $repository =~ ^https?://[A-Za-z0-9._:/-]+$ ]]; then
    echo "packaging/render.sh: \"$repository\" is not an address" >&2
    exit 2
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -1)
releases=$repository/releases/download
readonly dist repository version releases

sed -e "s|^version=.*|version=$version|" -e "s|^releases=.*|releases=$releases|" -e "s|ADDRESS/install.sh|$repository/releases/latest/download/install.sh|" \
    install.sh >"$dist/install.sh"
grep -qx "releases=$releases" "$dist/install.sh"
python3 render.py "$dist" "$version" "$repository"
