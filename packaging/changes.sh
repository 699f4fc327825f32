#!/usr/bin/env bash
# Prints the section of CHANGELOG.md about a version, and fails if there is none.
#
# usage: packaging/changes.sh VERSION
set -euo pipefail
if (($# != 1)); then
    echo "usage: packaging/changes.sh VERSION" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
awk -v heading="## [$1]" '
    index($0, heading) == 1 { inside = found = 1; next }
    /^## / || /^\[.*\]: / { inside = 0 }
    inside
    END { if (!found) { print "CHANGELOG.md has no section " heading > "/dev/stderr"; exit 1 } }' CHANGELOG.md
