#!/usr/bin/env bash
# Tests the chart with Helm. The content of the rendered files (capabilities, mounts, verbs, names of metrics) is tested by
# `cargo test -p palisade --test deploy`, which requires no Helm.
#
# HELM is the program, version 3 or 4. Default: `helm` on the PATH, else the one that tests/cluster builds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ -z ${HELM:-} ]]; then
    HELM=$(command -v helm || echo "$(../tests/cluster/build.sh)/helm")
fi
export HELM
readonly chart=helm/palisade
passed=0 failed=0

# check TITLE COMMAND…
check() {
    local title=$1 output
    shift
    if output=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n%s\n' "$title" "$output"
    fi
}

template() { "$HELM" template palisade "$chart" --namespace palisade-system --kube-version 1.33.0 "$@"; }

# refused PATTERN ARGUMENT…: succeeds if rendering fails with a message that matches PATTERN.
refused() {
    local pattern=$1 output
    shift
    if output=$(template "$@" 2>&1); then
        echo "was rendered"
        return 1
    fi
    grep -Eq -- "$pattern" <<<"$output" || {
        echo "refused, but not with /$pattern/: $output"
        return 1
    }
}

dashboard_is_whole() {
    template --set monitoring.dashboard.enabled=true --show-only templates/monitoring.yaml \
        | sed -n '/^  palisade.json: |$/,$ { /palisade.json: |$/d; s/^    //; p }' | sed '/^$/d' \
        | diff - grafana/palisade.json
}

# Other settings lead to another pod template, which restarts the agents.
settings_restart() {
    ! diff <(template | grep palisade.dev/config) <(template --set agent.logLevel=debug | grep palisade.dev/config)
}

# A plugin of CNI that is left behind lets no pod start, and an earlier setting may have added one.
removal_finds_the_plugin() {
    local rendered
    rendered=$(template --set removeRules=true --show-only templates/daemonset.yaml)
    grep -q 'mountPath: /etc/cni/net.d' <<<"$rendered" && grep -q 'mountPath: /opt/cni/bin' <<<"$rendered"
}

# Secrets may be deleted before the release is.
removal_needs_no_secret() {
    local rendered
    rendered=$(template --set removeRules=true,agent.otlp.headersSecret=deleted)
    ! grep deleted <<<"$rendered"
}

# notes ARGUMENT…: what `helm install` prints.
notes() { "$HELM" install palisade "$chart" --namespace palisade-system --dry-run=client "$@" | sed '1,/^NOTES:/d'; }

notes_say_what_is_enforced() {
    local enforce audit
    enforce=$(notes) && audit=$(notes --set agent.mode=audit) || return 1
    grep -q "^Each node enforces NetworkPolicies" <<<"$enforce" || return 1
    grep -q "^agent.mode is audit" <<<"$audit" || return 1
    ! grep "enforces NetworkPolicies" <<<"$audit"
}

check "committed files are up to date" ./render.sh --check
check "lint" "$HELM" lint --strict "$chart"
for case in tests/*/; do
    check "lint with $case" "$HELM" lint --strict "$chart" --values "$case/values.yaml"
done
check "the dashboard is in its ConfigMap" dashboard_is_whole
check "a change of settings restarts the agents" settings_restart
check "the removal finds the CNI plugin of an earlier setting" removal_finds_the_plugin
check "the removal needs no Secret" removal_needs_no_secret
check "the notes say what is enforced" notes_say_what_is_enforced
while IFS=$'\t' read -r values pattern; do
    [[ -n $values && $values != \#* ]] || continue
    read -ra arguments <<<"$values"
    check "refused: $values" refused "$pattern" "${arguments[@]}"
done <tests/refused.tsv
check "refused: Kubernetes 1.24" refused "kubeVersion" --kube-version 1.24.0

echo "$passed passed, $failed failed"
((failed == 0))
