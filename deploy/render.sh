#!/usr/bin/env bash
# Writes what follows from the chart: the plain manifests, the expected output of each case in tests/, and the chart's copies
# of the alerts and of the dashboard (a chart can't read what lies outside of it).
#
# usage: deploy/render.sh          writes them
#        deploy/render.sh --check  writes nothing, and fails with a diff where one is not as it should be
#
# HELM names the program, 3 or 4; without it `helm` is looked for on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly helm=${HELM:-helm} chart=helm/palisade
readonly check=${1:-}
if [[ -n $check && $check != --check ]] || (($# > 1)); then
    echo "usage: deploy/render.sh [--check]" >&2
    exit 2
fi
if ! command -v "$helm" >/dev/null; then
    echo "deploy/render.sh: no program \`$helm\`: install Helm, or name it in HELM" >&2
    exit 2
fi

work=$(mktemp -d)
readonly work
trap 'rm -rf "$work"' EXIT
differing=0

# put FILE: standard input becomes FILE, or is compared with it.
put() {
    cat >"$work/new"
    if [[ -z $check ]]; then
        cp "$work/new" "$1"
    elif ! diff -u --label "deploy/$1" --label "deploy/$1, rendered" "$1" "$work/new"; then
        differing=1
    fi
}

# rendered ARGUMENT…: the chart as text. A fixed version of Kubernetes, since the one that Helm assumes changes with Helm; and
# without the names of the templates, which mean nothing to whoever reads plain manifests.
rendered() {
    "$helm" template palisade "$chart" --namespace palisade-system --kube-version 1.33.0 "$@" >"$work/out"
    grep -v '^# Source: ' "$work/out"
}

# What follows is generated: where it comes from, then standard input.
generated() {
    printf '# Generated from deploy/helm/palisade by deploy/render.sh: edit the chart, then run it.\n'
    [[ -z ${1:-} ]] || printf '# %s\n' "${@}"
    cat
}

put "$chart/files/alerts.yaml" < <(sed '/^#/d' prometheus/alerts.yaml)
put "$chart/files/dashboard.json" <grafana/palisade.json
rendered --set namespace.create=true | generated \
    "Set the image of the DaemonSet to where you pushed yours; docs/install.md says how." | put manifests/palisade.yaml
rendered --set removeRules=true --show-only templates/daemonset.yaml | generated \
    "Replaces the agents of palisade.yaml by pods that take away all of Palisade's rules; docs/install.md says when and how." \
    | put manifests/remove.yaml
rendered --set explainer.clusterRole=true --show-only templates/explainer.yaml | generated \
    "The rights of people who ask the live cluster; docs/install.md says how to give them." | put manifests/explainer.yaml
for case in tests/*/; do
    rendered --values "$case/values.yaml" | put "${case}expected.yaml"
done

if ((differing)); then
    echo "not as the chart renders it; if the chart is right, run deploy/render.sh" >&2
    exit 1
fi
