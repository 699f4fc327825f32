#!/usr/bin/env bash
# Packs the Helm chart into a release folder, with the registry that has its image as default.
#
# usage: packaging/chart.sh FOLDER REGISTRY
#   packaging/chart.sh dist ghcr.io/OWNER
#
# HELM is the program, version 3 or 4. Default: `helm` on the PATH.
set -euo pipefail
if (($# != 2)); then
    echo "usage: packaging/chart.sh FOLDER REGISTRY" >&2
    exit 2
fi
mkdir -p "$1"
dist=$(cd "$1" && pwd) registry=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ! $registry =~ ^[a-z0-9][a-z0-9.:/_-]*$ ]]; then
    echo "packaging/chart.sh: \"$registry\" is not a registry" >&2
    exit 2
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -rL deploy/helm/palisade "$work/palisade"
sed -i.before "s|^  registry: \"\"\$|  registry: $registry|" "$work/palisade/values.yaml"
rm "$work/palisade/values.yaml.before"
grep -qx "  registry: $registry" "$work/palisade/values.yaml" || { echo "values.yaml has no image.registry to set" >&2; exit 1; }
"${HELM:-helm}" package "$work/palisade" --version "$version" --app-version "$version" --destination "$dist"
