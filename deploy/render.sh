#!/usr/bin/env bash
# Generates files from the chart: the plain manifests, the expected output of each case in tests/, and the chart's copies
# of the alerts and of the dashboard (a chart can't read files outside of its directory).
#
# usage: deploy/render.sh          writes them
#        deploy/render.sh --check  compares them instead, and fails with a diff if one is outdated
#
# HELM is the program, version 3 or 4. Default: `helm` on the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly helm=${HELM:-helm} chart=helm/palisade
readonly check=${1:-}
if [[ -n $check && $check != --check ]] || (($# > 1)); then
    echo "usage: deploy/render.sh [--check]" >&2
    exit 2
fi
if ! command -v "$helm" >/dev/null; then
    echo "deploy/render.sh: no program \`$helm\`: install Helm, or set HELM" >&2
    exit 2
fi

work=$(mktemp -d)
readonly work
trap 'rm -rf "$work"' EXIT

# put FILE: writes standard input to FILE, or compares the two.
put() {
    cat >"$work/new"
    if [[ -z $check ]]; then
        cp "$work/new" "$1"
    elif ! diff -u --label "deploy/$1" --label "deploy/$1, rendered" "$1" "$work/new"; then
        # A variable would be lost: behind a pipe this is a process of its own.
        touch "$work/differs"
    fi
}

# rendered ARGUMENT…: renders the chart. The version of Kubernetes is fixed, because Helm's default changes with its version. The names of
# the templates are removed, because they mean nothing in plain manifests.
rendered() {
    "$helm" template palisade "$chart" --namespace palisade-system --kube-version 1.33.0 "$@" >"$work/out"
    grep -v '^# Source: ' "$work/out"
}

# generated COMMENT…: writes a comment that the file is generated, then standard input.
generated() {
    printf '# Generated from deploy/helm/palisade by deploy/render.sh: edit the chart, then run it.\n'
    [[ -z ${1:-} ]] || printf '# %s\n' "${@}"
    cat
}

put "$chart/files/alerts.yaml" < <(sed '/^#/d' prometheus/alerts.yaml)
put "$chart/files/dashboard.json" <grafana/palisade.json
rendered --set namespace.create=true | generated \
    "Set the image of the DaemonSet to yours; docs/install.md describes how." | put manifests/palisade.yaml
rendered --set namespace.create=true,agent.stateDir=/var/lib/palisade,agent.startupTaint=remove | generated \
    "As palisade.yaml, for nodes whose pods are closed from the boot on, and that get no pod before; docs/install.md describes what else it needs." \
    | put manifests/palisade-from-boot.yaml
rendered --set removeRules=true,agent.stateDir=/var/lib/palisade,agent.cniChain=on --show-only templates/daemonset.yaml | generated \
    "Replaces the agents of palisade.yaml by pods that remove all of Palisade's rules; docs/install.md describes when and how." \
    | put manifests/remove.yaml
rendered --set explainer.clusterRole=true --show-only templates/explainer.yaml | generated \
    "Permissions for users of the command line; docs/install.md describes how to grant them." | put manifests/explainer.yaml
rendered --set flowReader.role=true --show-only templates/flow-reader.yaml | generated \
    "Permissions for users of \`palisade flows\` and \`palisade status\`; docs/install.md describes how to grant them." \
    | put manifests/flow-reader.yaml
for case in tests/*/; do
    rendered --values "$case/values.yaml" | put "${case}expected.yaml"
done

if [[ -e $work/differs ]]; then
    echo "generated files are outdated; if the chart is correct, run deploy/render.sh" >&2
    exit 1
fi
