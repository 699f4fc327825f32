#!/usr/bin/env bash
# Builds programs of the real cluster where they aren't built yet, and prints the folder that holds them. What it is doing
# goes to stderr.
#
#   build.sh nodes         what runs on the nodes: kubelet, kube-proxy, containerd, CoreDNS, agnhost …
#   build.sh e2e           Kubernetes' end-to-end tests of SIG Network
#   build.sh conformance   the conformance tests of the Network Policy API
#   build.sh suites        the last two
#   build.sh all           (the default) all of them
#
# The sources come through Go's module proxy, pinned by the go.sum of each folder in programs/. The folder is in the user's
# cache, by the hash of what goes into the build (of this script, only the lists). A program is put there when it is complete: a
# build that fails leaves nothing half-built, and the next one continues where it ended.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
# shellcheck source=tests/go.sh source-path=SCRIPTDIR/../..
. "$here/../go.sh"

# A line for each program, in the order in which they have most in common with what was compiled before: group, folder in
# programs/, name, how, package. How: "build"; "test", the tests of a package; "crds", these with the
# CustomResourceDefinitions of the Network Policy API beside the program; "raw-sctp", with programs/raw-sctp in the place of
# the module for sockets of SCTP, which not every kernel has.
readonly builds="
nodes       kubernetes         agnhost                 build    k8s.io/kubernetes/test/images/agnhost
nodes       kubernetes         agnhost-raw-sctp        raw-sctp k8s.io/kubernetes/test/images/agnhost
nodes       kubernetes         regression-issue-74839  build    k8s.io/kubernetes/test/images/regression-issue-74839
nodes       kubernetes         kubelet                 build    k8s.io/kubernetes/cmd/kubelet
nodes       kubernetes         kube-proxy              build    k8s.io/kubernetes/cmd/kube-proxy
nodes       kubernetes         kube-scheduler          build    k8s.io/kubernetes/cmd/kube-scheduler
nodes       kubernetes         kube-controller-manager build    k8s.io/kubernetes/cmd/kube-controller-manager
nodes       containerd         containerd              build    github.com/containerd/containerd/v2/cmd/containerd
nodes       containerd         containerd-shim-runc-v2 build    github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
nodes       containerd         ctr                     build    github.com/containerd/containerd/v2/cmd/ctr
nodes       coredns            coredns                 build    palisade.dev/tests/e2e/coredns
e2e         kubernetes         ginkgo                  build    github.com/onsi/ginkgo/v2/ginkgo
e2e         kubernetes         e2e.test                test     palisade.dev/tests/e2e/kubernetes/e2e
conformance conformance/v0.1.7 conformance-v0.1.7      crds     palisade.dev/tests/e2e/conformance-v0.1.7
conformance conformance/v0.2.0 conformance-v0.2.0      crds     palisade.dev/tests/e2e/conformance-v0.2.0
conformance conformance/v0.3.0 conformance-v0.3.0      crds     palisade.dev/tests/e2e/conformance-v0.3.0
"
# Without the snapshotters and the exporter of traces that nothing here uses.
readonly tags=no_devmapper,no_zfs,no_tracing
# What compiling needs in Go's caches and in ours, in MiB, with every cache empty.
readonly room=8000

say() { echo "end-to-end programs: $*" >&2; }

case ${1:-all} in
    nodes | e2e | conformance) groups=$1 ;;
    suites) groups='e2e conformance' ;;
    all) groups='nodes e2e conformance' ;;
    *)
        say "no group \"$1\": nodes, e2e, conformance, suites or all"
        exit 2
        ;;
esac

# Prints the lines of `builds` that are asked for and not done, without the group.
missing() {
    local group folder name how package
    while read -r group folder name how package; do
        [[ " $groups " == *" $group "* && ! -x $programs/$name ]] || continue
        echo "$folder $name $how $package"
    done <<<"$builds"
}

hash=$(cd "$here" && { echo "$builds $tags" && cat programs/*/go.* programs/*/*/* programs/*/*.go; } | sha256sum | cut -c1-16)
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/palisade-ci/e2e
programs=$cache/$hash-$(uname -m)
readonly programs

finish() {
    touch "$programs"
    echo "$programs"
    exit
}

[[ -n $(missing) ]] || finish

# Two at once would compile everything twice.
mkdir -p "$cache"
exec {lock}>"$cache/lock"
if ! flock --nonblock "$lock"; then
    say "another build is under way, waiting for it"
    flock "$lock"
fi
[[ -n $(missing) ]] || finish

work=$(mktemp -d "$cache/building.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"; rmdir "$programs" 2>/dev/null || true' EXIT

use_go "$here/programs/kubernetes" "$work" || {
    say "Go could not be made ready: see above. Once built, the programs need no Go"
    exit 2
}

for folder in "$cache" "$(cd / && go env GOCACHE)" "$(cd / && go env GOMODCACHE)"; do
    mkdir -p "$folder"
    free=$(df --output=avail -BM "$folder" | tail -1 | tr -dc 0-9)
    if ((free < room)); then
        say "$folder has $free MiB of disk left, and a first build takes up to $room: free some, or move the folder" \
            "(XDG_CACHE_HOME, GOCACHE, GOMODCACHE)"
        exit 2
    fi
done

# Without these the programs call themselves v0.0.0-master or unknown, and clients behave as for that.
version_flags() {
    local version major minor
    case $1 in
        kubernetes)
            version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
            IFS=. read -r major minor _ <<<"${version#v}"
            local package=k8s.io/component-base/version
            echo "-X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
            ;;
        containerd)
            version=$(go list -m -f '{{.Version}}' github.com/containerd/containerd/v2)
            echo "-X github.com/containerd/containerd/v2/version.Version=$version"
            ;;
    esac
}

# The test of programs/raw-sctp, in a network of its own: raw sockets are for root, of a user namespace too.
test_raw_sctp() {
    local alone=(unshare --net)
    ((EUID == 0)) || alone=(unshare --user --map-root-user --net)
    # shellcheck disable=SC2016
    (cd "$here/programs/raw-sctp" && "${alone[@]}" sh -c 'ip link set lo up && go test -count=1 .' >&2) && return
    say "programs/raw-sctp does not pass its test (see above). It needs ip (Debian: iproute2), and root or user namespaces"
    return 1
}

# compile FOLDER NAME HOW PACKAGE: one program into $work.
compile() {
    cd "$here/programs/$1"
    local command=(go build) flags
    case $3 in
        test | crds) command=(go test -c) ;;
        raw-sctp)
            test_raw_sctp || return
            cp go.mod "$work/raw-sctp.mod" && cp go.sum "$work/raw-sctp.sum" || return
            echo "replace github.com/ishidawataru/sctp => $here/programs/raw-sctp" >>"$work/raw-sctp.mod"
            command+=(-modfile "$work/raw-sctp.mod")
            ;;
    esac
    # What has to be fetched is fetched first: what fails here has to do with the network, and what fails below has not.
    if ! go list -deps -test -tags "$tags" "$4" >/dev/null; then
        say "the sources of $2 could not be fetched (see above). They come through GOPROXY ($(go env GOPROXY));" \
            "a proxy of HTTP is named in HTTPS_PROXY. Run this again when it is reachable: what is complete was kept"
        return 2
    fi
    if [[ $3 == crds ]]; then
        mkdir -p "$work/$2.crds"
        cp --no-preserve=mode "$(go list -m -f '{{.Dir}}' sigs.k8s.io/network-policy-api)"/config/crd/experimental/policy.*.yaml \
            "$work/$2.crds" || return
    fi
    flags="-s -w $(version_flags "$1")"
    if ! "${command[@]}" -trimpath -buildvcs=false -tags "$tags" -ldflags="$flags" -o "$work/$2" "$4"; then
        say "$2 could not be compiled (see above); where it was killed, memory was short. What is complete was kept"
        return 1
    fi
}

mkdir -p "$programs"
say "building with $(go version | cut -d' ' -f3) what is missing of: $groups. With every cache empty this takes 15 to 20 minutes" \
    "on two cores"
while read -r folder name how package; do
    start=$SECONDS
    (compile "$folder" "$name" "$how" "$package") </dev/null || exit
    [[ $how != crds ]] || { rm -rf "${programs:?}/$name.crds" && mv "$work/$name.crds" "$programs"; }
    mv "$work/$name" "$programs/$name"
    say "$name: $((SECONDS - start)) s, $(du -m "$programs/$name" | cut -f1) MB"
done <<<"$(missing)"

say "$SECONDS s in all. Go's caches hold $(du -sm "$(cd / && go env GOMODCACHE)" | cut -f1) MB of sources and" \
    "$(du -sm "$(cd / && go env GOCACHE)" | cut -f1) MB of compiled packages, which the programs don't need:" \
    "\"go clean -cache -modcache\" empties them"
# Programs of other releases that nobody has asked for since yesterday.
find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +0 ! -path "$programs" ! -path "$work" -exec rm -rf {} +
finish
