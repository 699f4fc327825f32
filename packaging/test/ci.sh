#!/usr/bin/env bash
# Tests what deploy/ci and .pre-commit-hooks.yaml have: packaging/test/ci.sh PROGRAM RELEASE-FOLDER
#
# The files are checked against the schemas of GitHub, GitLab and pre-commit, the script of the GitLab job is run with a `curl` that plays
# GitLab, and the hooks are run by pre-commit. Requires pre-commit, check-jsonschema, PyYAML, shellcheck, git and jq. What it can't test is
# GitLab and GitHub themselves. packaging/test/action.sh tests the GitHub Action's script.
set -uo pipefail
program=$(realpath "$1") release=$(realpath "$2")
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)) && echo "ok: $1"; }
failed() {
    failed=$((failed + 1))
    printf 'FAILED: %s\n' "$@"
}
# valid TITLE COMMAND…
valid() {
    local output
    if output=$("${@:2}" 2>&1); then ok "$1"; else failed "$1" "$output"; fi
}

cd "$source" || exit 1
valid "action.yml is an action" check-jsonschema --builtin-schema vendor.github-actions action.yml
valid "github.yml is a workflow" check-jsonschema --builtin-schema vendor.github-workflows deploy/ci/github.yml
valid "gitlab.yml is a GitLab configuration" check-jsonschema --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci deploy/ci/gitlab.yml
valid "the hooks are a manifest of pre-commit" pre-commit validate-manifest .pre-commit-hooks.yaml
python3 - deploy/ci/gitlab.yml >"$work/job.sh" <<'EOF'
import sys, yaml
print("\n".join(yaml.safe_load(open(sys.argv[1]))["palisade"]["script"]))
EOF
valid "the script of the GitLab job passes ShellCheck" shellcheck --shell=bash --exclude=SC2016 "$work/job.sh"

# A repository with two revisions: the second one opens connections.
export GIT_CONFIG_GLOBAL=$work/gitconfig
git config --global user.email test@example.org
git config --global user.name test
git config --global init.defaultBranch main
repository=$work/repository
{
    git init --quiet "$repository"
    cd "$repository"
    cp -r "$source/examples/shop" deploy
    cp "$source/examples/shop.assertions.yaml" tests.yaml
    git add --all
    git commit --quiet --message base
    base=$(git rev-parse HEAD)
    cp "$source/examples/shop-two-rules/backend-egress.yaml" deploy/
    git commit --quiet --all --message head
    head=$(git rev-parse HEAD)
} || exit 1

# curl: serves the release, plays the notes of a merge request, or is refused.
mkdir "$work/bin"
cat >"$work/bin/curl" <<'EOF'
#!/bin/bash
out= url= form= config=
while (($#)); do
    case $1 in
        -o | --output) out=$2; shift ;;
        --config) config=$(cat); shift ;;
        --form) form=${2#body=<}; shift ;;
        --request) method=$2; shift ;;
        --retry | --proto | --connect-timeout) shift ;;
        -*) ;;
        *) url=$1 ;;
    esac
    shift
done
case $url in
    https://releases.example/*) cp "$RELEASE/${url##*/}" "$out" || exit 22 ;;
    https://gitlab.example/*)
        printf '%s %s\n' "${method:-GET}" "$url" >>"$STATE/calls"
        [[ $config == 'header = "PRIVATE-TOKEN: secret"' ]] || exit 22
        [[ ! -e $STATE/refused ]] || { echo "curl: (22) 403" >&2; exit 22; }
        if [[ -n $form ]]; then cp "$form" "$STATE/note.md"; else cat "$STATE/notes-${url##*page=}.json"; fi
        ;;
    *) exit 6 ;;
esac
EOF
chmod 755 "$work/bin/curl"

# job NAME=VALUE…: runs the script as a runner does, with these variables.
job() {
    rm -rf "$work/state" "$work/clone"
    mkdir "$work/state"
    git clone --quiet "$repository" "$work/clone"
    git -C "$work/clone" checkout --quiet "$head"
    printf '%s' "${notes:-[]}" >"$work/state/notes-1.json"
    printf '%s' "${notes2:-[]}" >"$work/state/notes-2.json"
    [[ -z ${refused:-} ]] || : >"$work/state/refused"
    (cd "$work/clone" && env -i PATH="$work/bin:$PATH" HOME="$work" STATE="$work/state" RELEASE="$release" \
        CI_PROJECT_DIR="$work/clone" CI_PIPELINE_SOURCE=merge_request_event CI_API_V4_URL=https://gitlab.example/api/v4 CI_PROJECT_ID=5 \
        CI_MERGE_REQUEST_IID=7 CI_MERGE_REQUEST_DIFF_BASE_SHA="$base" CI_COMMIT_SHA="$head" PALISADE_PATH=deploy PALISADE_TESTS=tests.yaml \
        PALISADE_FAIL_ON=findings PALISADE_RELEASE=https://releases.example/v1 PALISADE_SHA256='' "$@" bash -eo pipefail "$work/job.sh")
}
# check TITLE EXIT-CODE CONDITION VARIABLE…
check() {
    local output status=0
    output=$(job "${@:4}" 2>&1) || status=$?
    if ((status == $2)) && (cd "$work/clone" && eval "$3") >/dev/null; then
        ok "$1"
    else
        failed "$1: exit code $status, wanted $2" "$output" "$(head -v -n 20 "$work"/state/* "$work"/clone/*.{md,xml,json} 2>/dev/null)"
    fi
}
marker="<!-- palisade-review $(printf deploy | sha256sum | cut -c1-16) -->"
note="[{\"id\": 3, \"body\": \"other\"}, {\"id\": 9, \"body\": \"$marker\\n\"}]"
many=$(jq -n '[range(100) | {id: ., body: "other"}]')
check "findings fail the job" 1 \
    'jq -e "length == 1 and .[0].check_name == \"ports-in-own-rule\"" gl-code-quality-report.json && grep -q "failures=\"2\"" palisade-tests.xml &&
     grep -q "2 assertions fail now" palisade-review.md && [[ ! -e ../state/calls ]]'
check "unless they are not to" 0 'grep -q "2 assertions fail now" palisade-review.md' PALISADE_FAIL_ON=errors
check "what opens fails where it should" 1 'true' PALISADE_FAIL_ON=opened
check "without a change, the job passes" 0 'jq -e "length == 0" gl-code-quality-report.json' "CI_MERGE_REQUEST_DIFF_BASE_SHA=$head"
check "without assertions" 1 '[[ ! -e palisade-tests.xml ]]' PALISADE_TESTS=
check "a path that has nothing" 2 'grep -q "not complete" palisade-review.md && jq -e "length == 0" gl-code-quality-report.json' PALISADE_PATH=nowhere
check "the first note" 1 'grep -q "POST .*/projects/5/merge_requests/7/notes$" ../state/calls && [[ $(head -n 1 ../state/note.md) == "$marker" ]]' PALISADE_TOKEN=secret
notes=$note check "the note of before is updated" 1 'grep -q "PUT .*/notes/9$" ../state/calls' PALISADE_TOKEN=secret
notes=$many notes2=$note check "also if it is on the second page" 1 'grep -q "PUT .*/notes/9$" ../state/calls' PALISADE_TOKEN=secret
refused=yes check "a token that may not write fails nothing else" 0 '[[ ! -e ../state/note.md && -s palisade-review.md ]]' PALISADE_TOKEN=secret PALISADE_FAIL_ON=errors
check "a release with another digest is not run" 1 '[[ ! -e palisade-review.md ]]' "PALISADE_SHA256=$(printf '%064d' 0)"

# The hooks, from a repository of their own, as pre-commit clones it.
hooks=$work/hooks
{
    git init --quiet "$hooks"
    mkdir -p "$hooks/deploy/ci" "$hooks/packaging"
    cp "$source/.pre-commit-hooks.yaml" "$hooks/"
    cp "$source/deploy/ci/pre-commit.sh" "$hooks/deploy/ci/"
    cp "$source/packaging/install.sh" "$hooks/packaging/"
    git -C "$hooks" add --all
    git -C "$hooks" commit --quiet --message hooks
} || exit 1
cd "$repository" || exit 1
# hook TITLE EXIT-CODE PATTERN ID ARGUMENTS VARIABLE…
hook() {
    local output status=0
    printf 'repos: [{repo: "%s", rev: "%s", hooks: [{id: %s, args: [%s]}]}]\n' "$hooks" "$(git -C "$hooks" rev-parse HEAD)" "$4" "$5" >"$work/hook.yaml"
    output=$(env -u PALISADE PRE_COMMIT_HOME="$work/pre-commit" XDG_CACHE_HOME="$work/cache" "${@:6}" pre-commit run --config "$work/hook.yaml" --all-files --verbose 2>&1) \
        || status=$?
    if ((status == $2)) && grep -Eq -- "$3" <<<"$output"; then ok "$1"; else failed "$1: exit code $status, wanted $2" "$output"; fi
}
hook "the hook finds what lint finds" 1 'PAL017' palisade-lint '-f, deploy' "PALISADE=$program"
hook "and passes without findings" 0 'no findings' palisade-lint '-f, deploy, --git, HEAD' "PALISADE=$program"
hook "the hook checks assertions" 1 '4 hold, 2 failed' palisade-test 'tests.yaml, -f, deploy' "PALISADE=$program"
hook "it installs the release" 1 'PAL017' palisade-lint '-f, deploy' "PALISADE_MIRROR=$release"
hook "once" 1 'PAL017' palisade-lint '-f, deploy' PALISADE_MIRROR=/nonexistent
rm -rf "$work/cache"
hook "without a release, it fails" 1 "can't install palisade" palisade-lint '-f, deploy' PALISADE_MIRROR=/nonexistent

echo "$passed passed, $failed failed"
((failed == 0))
