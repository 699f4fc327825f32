#!/usr/bin/env bash
# Tests the GitHub Action's script with events and a `gh` of its own: packaging/test/action.sh PROGRAM RELEASE-FOLDER
#
# What it can't test is GitHub: that the runner starts action.yml as it says, and that its API takes the comments.
set -uo pipefail
program=$(realpath "$1") release=$(realpath "$2")
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

# A repository with two revisions: the second one opens connections.
repository=$work/repository
{
    git init --quiet --initial-branch main "$repository"
    cd "$repository"
    git config user.email test@example.org
    git config user.name test
    cp -r "$source/examples/shop" deploy
    cp -r deploy broken
    cp "$source/examples/shop.assertions.yaml" tests.yaml
    git add --all
    git commit --quiet --message base
    base=$(git rev-parse HEAD)
    cp "$source/examples/shop-two-rules/backend-egress.yaml" deploy/
    echo '::error::from the file' >broken/policy.yaml
    printf 'kind: NetworkPolicy\nspec: [\n' >>broken/policy.yaml
    mkdir 'a $(touch hacked) `touch hacked`; touch hacked'
    cp deploy/* a*/
    git add --all
    git commit --quiet --message head
} || exit 1
printf '{"pull_request": {"number": 7, "base": {"sha": "%s"}}}' "$base" >"$work/event.json"

# gh: keeps what it was called with, answers with the comments of $work/comments.json, or is refused.
mkdir "$work/bin"
cat >"$work/bin/gh" <<'EOF'
#!/bin/sh
printf '%s\n' "$*" >>"$STATE/gh.calls"
[ ! -e "$STATE/gh.refused" ] || { echo "HTTP 403: Resource not accessible by integration" >&2; exit 1; }
for word; do
    case $word in body=@*) cp "${word#body=@}" "$STATE/comment.md" ;; esac
done
case $* in *--paginate*) cat "$STATE/comments.json" ;; esac
EOF
chmod 755 "$work/bin/gh"

# action NAME=VALUE…: runs the script with these variables beside the usual ones; prints its log.
action() {
    rm -rf "$work/state" "$work/temp" && mkdir "$work/state" "$work/temp"
    echo "${comments:-[]}" >"$work/state/comments.json"
    [[ -z ${refused:-} ]] || : >"$work/state/gh.refused"
    env -i PATH="$work/bin:$PATH" HOME="$work" STATE="$work/state" RUNNER_TEMP="$work/temp" GITHUB_EVENT_PATH="$work/event.json" \
        GITHUB_STEP_SUMMARY="$work/state/summary" GITHUB_OUTPUT="$work/state/output" GITHUB_REPOSITORY=owner/name \
        GITHUB_SERVER_URL=https://forge.example ACTION_REPOSITORY=owner/palisade INPUT_PATH=deploy INPUT_TESTS='' INPUT_REVISIONS='' INPUT_OPTIONS='' \
        INPUT_FAIL_ON=errors INPUT_COMMENT=false INPUT_VERSION='' INPUT_SHA256='' INPUT_PROGRAM="$program" GH_TOKEN=t \
        "$@" "$source/packaging/action.sh"
}
# check TITLE EXIT-CODE PATTERN CONDITION VARIABLE…: the exit code, a pattern in the log, and a condition about the files of the run.
check() {
    local output status=0
    output=$(action "${@:5}" 2>&1) || status=$?
    if ((status == $2)) && grep -Eq -- "$3" <<<"$output" && (cd "$work/state" && eval "$4") && [[ ! -e $repository/hacked ]]; then
        passed=$((passed + 1))
        echo "ok: $1"
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\nexit code %d, wanted %d and /%s/\n%s\n' "$1" "$status" "$2" "$3" "$output"
        head -v -n 20 "$work"/state/*
    fi
}
readonly ours='{"id": 5, "user": {"type": "Bot"}, "body": "<!-- palisade-review '

check "changes are reported, and pass" 0 '' 'grep -q "NetworkPolicy shop/backend-egress" summary && grep -q PAL017 summary && grep -qx exit-code=1 output && [[ ! -e gh.calls ]]'
check "findings fail where they should" 2 'what fail-on \(findings\) names' 'grep -q "1 of them to the internet" summary' INPUT_FAIL_ON=findings
check "what opens fails where it should" 2 'what fail-on \(opened\) names' true INPUT_FAIL_ON=opened INPUT_OPTIONS=--ignore=PAL
check "without findings, what opens passes" 0 '' 'grep -qx exit-code=0 output' INPUT_FAIL_ON=findings INPUT_OPTIONS=--ignore=PAL
check "what closes fails where it should" 2 'what fail-on \(changes\) names' true INPUT_FAIL_ON=changes INPUT_OPTIONS=--ignore=PAL INPUT_REVISIONS=HEAD..HEAD~1
check "assertions that fail now" 2 'what fail-on \(findings\) names' 'grep -q "2 assertions fail now" summary' INPUT_FAIL_ON=findings INPUT_OPTIONS=--ignore=PAL INPUT_TESTS=tests.yaml
check "no change" 0 '' 'grep -qx exit-code=0 output' INPUT_FAIL_ON=changes INPUT_REVISIONS=HEAD..HEAD
check "paths and options, one on each line" 0 '' 'grep -q exit-code=1 output' INPUT_PATH=$'deploy/backend-egress.yaml\ndeploy/workloads.yaml' INPUT_OPTIONS=$'--family=4\n--pod-cidr=10.0.0.0/8'
check "a broken file fails, and its text gives the runner no command" 2 '::error title=Palisade::there is no complete review' \
    'grep -q "not complete" summary && grep -q policy.yaml summary' INPUT_PATH=broken
check "a path with commands in it is a path" 0 '' 'grep -qx exit-code=1 output' 'INPUT_PATH=a $(touch hacked) `touch hacked`; touch hacked'
check "a path that begins with a dash is a path" 2 'no complete review' 'grep -qx exit-code=2 output' INPUT_PATH=--help
check "revisions that are an option" 2 'begin with a dash' true INPUT_REVISIONS=--output=/etc/passwd
check "a folder that doesn't exist" 2 'no complete review' 'grep -qx exit-code=2 output' INPUT_PATH=nowhere
check "a run without a pull request" 2 'set the input `revisions`' true GITHUB_EVENT_PATH=/nonexistent
echo '{"pull_request": {"number": 7, "base": {"sha": "1111111111111111111111111111111111111111"}}}' >"$work/shallow.json"
check "a checkout without the base" 2 'fetch-depth: 0' true "GITHUB_EVENT_PATH=$work/shallow.json"
check "an unknown fail-on" 2 'fail-on is' true INPUT_FAIL_ON=never
check "the first comment" 0 'commented' 'grep -q "POST repos/owner/name/issues/7/comments" gh.calls && head -1 comment.md | grep -q palisade-review' INPUT_COMMENT=true
id=$(printf 'deploy\n\n' | sha256sum | cut -c1-16)
comments="[$ours$id -->\n\"}]" check "the comment of before is updated" 0 'commented' 'grep -q "PATCH repos/owner/name/issues/comments/5 " gh.calls' INPUT_COMMENT=true
comments="[$ours$id -->\n\"}]" check "the comment of another path is not" 0 'commented' 'grep -q POST gh.calls' INPUT_COMMENT=true INPUT_PATH=broken INPUT_REVISIONS=HEAD~1..HEAD~1
refused=yes check "a token that can't comment" 0 "::warning title=Palisade::can't comment" 'grep -q backend-egress summary' INPUT_COMMENT=true
check "installs the release" 0 '' 'grep -qx exit-code=1 output' INPUT_PROGRAM= "PALISADE_MIRROR=$release"
check "a release with another digest" 2 "can't install palisade: .*sha256 requires" true INPUT_PROGRAM= "PALISADE_MIRROR=$release" INPUT_SHA256="$(printf '%064d' 0)"
check "no release" 2 "can't install palisade" true INPUT_PROGRAM= PALISADE_MIRROR=/nonexistent

# Whatever the program prints is in the log between the two lines that stop commands.
if { action INPUT_PATH=broken 2>&1 || true; } | awk '/^::stop-commands::/ { word = substr($0, 18); next } $0 == "::" word "::" { word = ""; next }
    /^::/ && word == "" && !/^::error title=Palisade::/ { exit 1 }'; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
    echo "FAILED: a line of the program gives the runner a command"
fi
echo "$passed passed, $failed failed"
((failed == 0))
