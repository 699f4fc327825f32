# What the scripts share that build other projects' programs from their Go modules. To be sourced by bash.
# shellcheck shell=bash

# use_go MODULE WORK: puts a Go into PATH and the environment that can build the module in folder MODULE, pinned as its
# go.sum says. Where the machine's is too old to fetch another release of itself, that release is laid into folder WORK.
use_go() {
    local major minor release toolchain
    if ! command -v go >/dev/null; then
        echo "needs Go, of any release since 1.16: it fetches the one that $1/go.mod names (Debian: apt-get install" \
            "golang-go ca-certificates)" >&2
        return 2
    fi

    # A Go before 1.21 can't fetch another release of itself, but it can fetch what it takes for a module, and checks it
    # against Go's checksum database as any other.
    IFS=. read -r major minor _ <<<"$(cd / && GOTOOLCHAIN=local go env GOVERSION | sed 's/^go//; s/[^0-9.].*//')"
    if ((major == 1 && minor < 21)); then
        release=$(sed -n 's/^go //p' "$1/go.mod")
        echo "Go 1.$minor is too old, fetching $release" >&2
        toolchain=golang.org/toolchain@v0.0.1-go$release.$(go env GOHOSTOS)-$(go env GOHOSTARCH)
        mkdir -p "$2/empty"
        if ! (cd "$2/empty" && go mod download -json "$toolchain") >"$2/toolchain.json"; then
            echo "Go $release could not be fetched: is GOPROXY ($(go env GOPROXY)) reachable?" >&2
            return 2
        fi
        cp -r "$(sed -n 's/^\t"Dir": "\(.*\)",$/\1/p' "$2/toolchain.json")" "$2/go" || return 2
        # Modules are unpacked without the right to be run.
        chmod -R u+w "$2/go"
        chmod -R u+x "$2/go/bin" "$2/go/pkg/tool"
        unset GOROOT
        PATH=$2/go/bin:$PATH
    fi

    export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off
    # An older Go fetches the release that go.mod asks for, unless somebody has forbidden it.
    [[ $(go env GOTOOLCHAIN) != local ]] || export GOTOOLCHAIN=auto
}
