#!/bin/sh
# The hooks of .pre-commit-hooks.yaml: runs a verb of palisade with the arguments of the hook.
#
#   pre-commit.sh lint -f deploy
#
# The program is $PALISADE, else the `palisade` in PATH, else the release of this revision of the repository, which is installed once into
# the user's cache after its SHA-256 was verified.
set -eu

fail() {
    printf 'palisade: %s\n' "$*" >&2
    exit 2
}

here=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -gt 0 ] || fail "usage: pre-commit.sh lint|test [ARGUMENT…]"

program=${PALISADE:-$(command -v palisade || true)}
if [ -z "$program" ]; then
    version=$(sed -n 's/^version=//p' "$here/packaging/install.sh")
    dir=${XDG_CACHE_HOME:-${HOME:?}/.cache}/palisade/$version
    program=$dir/palisade
    if [ ! -x "$program" ]; then
        # pre-commit has cloned the repository that the configuration names; its releases are beside it.
        if [ -z "${PALISADE_MIRROR:-}" ]; then
            origin=$(git -C "$here" remote get-url origin) || fail "install palisade, or set PALISADE to the program"
            PALISADE_MIRROR=${origin%.git}/releases/download/v$version
            export PALISADE_MIRROR
        fi
        sh "$here/packaging/install.sh" --dir "$dir" >&2 || fail "can't install palisade $version: install it yourself, or set PALISADE to the program"
    fi
fi
exec "$program" "$@"
