#!/usr/bin/env bash
# Prints the version of a release, and fails if the tag, the crates, the chart, the installer and the changelog don't agree on it,
# or the image of this version's table is missing.
#
# usage: packaging/version.sh [TAG]
set -euo pipefail
tag=${1:-}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
bad=0
# agree FILE FOUND: what a file has must be the version.
agree() {
    [[ $2 == "$version" ]] || { echo "$1 has the version \"$2\", Cargo.toml has $version" >&2; bad=1; }
}
agree deploy/helm/palisade/Chart.yaml "$(sed -n 's/^version: //p' deploy/helm/palisade/Chart.yaml)"
agree "appVersion of deploy/helm/palisade/Chart.yaml" "$(sed -n 's/^appVersion: //p' deploy/helm/palisade/Chart.yaml)"
agree packaging/install.sh "$(sed -n 's/^version=//p' packaging/install.sh | head -1)"
agree Dockerfile "$(sed -n 's/^ARG VERSION=//p' Dockerfile)"
agree Cargo.lock "$(sed -n '/^name = "palisade"$/ { n; s/^version = "\(.*\)"$/\1/p }' Cargo.lock)"
if [[ -n $tag ]]; then
    agree "the tag $tag" "${tag#v}"
    [[ $tag == v* ]] || { echo "the tag $tag doesn't begin with v" >&2; bad=1; }
    [[ -s crates/nft/tests/kernel/layouts/$version.batch ]] ||
        { echo "crates/nft/tests/kernel/layouts has no image of this version's table, see docs/releasing.md" >&2; bad=1; }
    grep -qF "## [$version]" CHANGELOG.md || { echo "CHANGELOG.md has no section [$version]" >&2; bad=1; }
fi
((bad == 0))
echo "$version"
