#!/usr/bin/env bash
# The GitHub Action of action.yml: runs `palisade review` and reports what a pull request changes.
#
# Reads its inputs, and what GitHub says about the run, from variables. Requires git, jq, and for comments gh; every runner of GitHub has them.
set -euo pipefail

# Input that ends up in the log can't give commands to the runner: they are disabled until a random token is printed.
stop=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
show() { printf '::stop-commands::%s\n' "$stop"; cat "$@"; printf '\n::%s::\n' "$stop"; }
fail() {
    # A message is one line, and its percent signs, returns and new lines are escaped.
    local text=${1//'%'/%25}
    text=${text//$'\r'/%0D}
    printf '::error title=Palisade::%s\n' "${text//$'\n'/%0A}"
    exit 2
}

work=$(mktemp -d "${RUNNER_TEMP:-/tmp}/palisade.XXXXXX")
case $INPUT_FAIL_ON in errors | findings | opened | changes) ;; *) fail "fail-on is \"errors\", \"findings\", \"opened\" or \"changes\"" ;; esac
case $INPUT_COMMENT in true | false) ;; *) fail "comment is \"true\" or \"false\"" ;; esac

program=$INPUT_PROGRAM
if [[ -z $program ]]; then
    arguments=(--dir "$work/bin")
    [[ -z $INPUT_VERSION ]] || arguments+=(--version "$INPUT_VERSION")
    [[ -z $INPUT_SHA256 ]] || arguments+=(--sha256 "$INPUT_SHA256")
    here=$(dirname "${BASH_SOURCE[0]}")
    version=${INPUT_VERSION:-$(sed -n 's/^version=//p' "$here/install.sh")}
    PALISADE_MIRROR=${PALISADE_MIRROR:-$GITHUB_SERVER_URL/${ACTION_REPOSITORY:-$GITHUB_REPOSITORY}/releases/download/v${version#v}} \
        sh "$here/install.sh" "${arguments[@]}" >"$work/install.log" 2>&1 || fail "can't install palisade: $(<"$work/install.log")"
    program=$work/bin/palisade
fi

# Of the event: the revision that the pull request is merged into, and its number.
base='' number=''
if [[ -f ${GITHUB_EVENT_PATH:-} ]]; then
    base=$(jq -r '.pull_request.base.sha // empty' "$GITHUB_EVENT_PATH")
    number=$(jq -r '.pull_request.number // empty' "$GITHUB_EVENT_PATH")
fi
revisions=$INPUT_REVISIONS
if [[ -z $revisions ]]; then
    [[ -n $base ]] || fail "this run belongs to no pull request: set the input \`revisions\`"
    revisions=$base...HEAD
    git cat-file -e "$base^{commit}" 2>/dev/null \
        || fail "the repository has no commit $base, which the pull request is based on: set \`fetch-depth: 0\` for actions/checkout"
fi
[[ $revisions != -* ]] || fail "revisions begin with a dash: $revisions"

# Paths are part of an option's word, so that they are none themselves.
options=()
each() {
    local line
    while IFS= read -r line; do
        [[ -z $line ]] || options+=("$1$line")
    done <<<"$2"
}
each --file= "$INPUT_PATH"
each --tests= "$INPUT_TESTS"
each '' "$INPUT_OPTIONS"
[[ $INPUT_FAIL_ON == errors ]] || options+=("--fail-on=$INPUT_FAIL_ON")
# GitHub takes 65,536 characters of comment; some are kept for the messages.
status=0
"$program" review "--git=$revisions" --color=never --output=markdown --max-size=60000 --keep-going ${options[@]+"${options[@]}"} \
    >"$work/answer.md" 2>"$work/messages" || status=$?
show "$work/messages"
((status <= 2)) || fail "palisade review ended with exit code $status"

report=$work/report.md
{
    # The first line of the report, by which a comment is found again. A pull request may have one for each path.
    printf '<!-- palisade-review %s -->\n' "$(printf '%s\n' "$INPUT_PATH" "$INPUT_OPTIONS" | sha256sum | cut -c1-16)"
    ((status < 2)) || printf '**The review is not complete, or there is none.** The messages below say why.\n\n'
    cat "$work/answer.md"
    if [[ -s $work/messages ]]; then
        # Indented, so that no message can end the block.
        printf '\n<details><summary>Messages</summary>\n\n'
        sed 's/^/    /' "$work/messages"
        printf '\n</details>\n'
    fi
} >"$report"
# GitHub takes 1 MiB of summary for a step, and 65,536 characters of comment.
shorten() {
    if (($(wc -c <"$report") <= $1)); then
        cat "$report"
    else
        head -c "$1" "$report" | sed '$d'
        printf '\n\n*Shortened: the whole report has %s bytes.*\n' "$(wc -c <"$report" | tr -d ' ')"
    fi
}
shorten 1000000 >>"$GITHUB_STEP_SUMMARY"
printf 'exit-code=%s\nreport=%s\n' "$status" "$report" >>"$GITHUB_OUTPUT"

if [[ $INPUT_COMMENT == true && -n $number ]]; then
    shorten 65000 >"$work/comment.md"
    comments=repos/$GITHUB_REPOSITORY/issues/$number/comments
    marker=$(head -n 1 "$report")
    if gh api --paginate "$comments" 2>"$work/gh.log" \
        | jq -r --arg marker "$marker" '.[] | select(.user.type == "Bot" and (.body | startswith($marker))) | .id' >"$work/ids" \
        && if [[ -s $work/ids ]]; then
            gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$(head -n 1 "$work/ids")" --field "body=@$work/comment.md"
        else
            gh api --method POST "$comments" --field "body=@$work/comment.md"
        fi >/dev/null 2>>"$work/gh.log"; then
        echo "commented on the pull request"
    else
        # A pull request from a fork has a token that can't comment. Its summary has the report.
        echo "::warning title=Palisade::can't comment on the pull request; the job summary has the report"
        show "$work/gh.log"
    fi
fi

case $status-$INPUT_FAIL_ON in
    0-* | 1-errors) ;;
    1-*) fail "the review has what fail-on ($INPUT_FAIL_ON) names: the job summary lists it" ;;
    *) fail "there is no complete review: the job summary has the messages" ;;
esac
