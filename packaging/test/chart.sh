#!/usr/bin/env bash
# Packs the chart, pushes it to a registry as the release does, and installs from there: HELM=… packaging/test/chart.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
helm=${HELM:-helm}
work=$(mktemp -d)
exec {registry}< <(exec python3 packaging/test/registry.py)
server=$!
trap 'kill "$server"; rm -rf "$work"' EXIT
read -r -t 30 port <&"$registry"
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data

version=$(packaging/version.sh)
mkdir "$work/pulled"
packaging/chart.sh "$work" registry.example.org/network
"$helm" push --plain-http "$work/palisade-$version.tgz" "oci://127.0.0.1:$port/charts"
"$helm" pull --plain-http "oci://127.0.0.1:$port/charts/palisade" --version "$version" --destination "$work/pulled"
cmp "$work/palisade-$version.tgz" "$work/pulled/palisade-$version.tgz"
"$helm" template palisade --plain-http "oci://127.0.0.1:$port/charts/palisade" --version "$version" --namespace palisade-system \
    --kube-version 1.33.0 >"$work/rendered"
grep -q "image: \"\\?registry.example.org/network/palisade:$version" "$work/rendered"
if packaging/chart.sh "$work" 'registry.example.org/x|y' 2>/dev/null; then
    echo "a registry that is none was taken" >&2
    exit 1
fi
echo "chart: packed, pushed, pulled, rendered"
