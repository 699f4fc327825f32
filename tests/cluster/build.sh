#!/usr/bin/env bash
# Builds the control plane of the cluster tests where it isn't built yet, and prints the folder that holds it: etcd,
# kube-apiserver, kubectl, helm. What it is doing goes to stderr.
#
# The sources come through Go's module proxy, pinned by control-plane/go.sum. The folder is in the user's cache, by the hash
# of what goes into the build, so that it is built once and again only for another release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tests/go.sh source-path=SCRIPTDIR/../..
. ../go.sh

readonly programs=(
    etcd=go.etcd.io/etcd/server/v3
    kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver
    kubectl=k8s.io/kubernetes/cmd/kubectl
    helm=helm.sh/helm/v4/cmd/helm
)

say() { echo "control plane: $*" >&2; }

hash=$(cat build.sh control-plane/go.mod control-plane/go.sum | sha256sum | cut -c1-16)
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/palisade-ci/control-plane
folder=$cache/$hash-$(uname -m)
readonly folder
if [[ -d $folder ]]; then
    echo "$folder"
    exit
fi

# Two at once would compile everything twice.
mkdir -p "$cache"
exec {lock}>"$cache/lock"
if ! flock --nonblock "$lock"; then
    say "another build is under way, waiting for it"
    flock "$lock"
fi
if [[ -d $folder ]]; then
    echo "$folder"
    exit
fi

work=$(mktemp -d "$cache/building.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

use_go control-plane "$work" || {
    say "Go could not be made ready: see above; or put the programs into a folder and name it in PALISADE_CONTROL_PLANE"
    exit 2
}

cd control-plane
# Without this the programs call themselves v0.0.0-master, and clients behave as for that.
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
readonly package=k8s.io/component-base/version
readonly flags="-s -w -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"

mkdir "$work/programs"
say "Kubernetes $version with $(go version | cut -d' ' -f3): this takes some minutes the first time"
for program in "${programs[@]}"; do
    name=${program%%=*} start=$SECONDS
    say "compiling $name"
    go build -trimpath -buildvcs=false -ldflags="$flags" -o "$work/programs/$name" "${program#*=}"
    say "$name: $((SECONDS - start)) s"
done
mv "$work/programs" "$folder"
# Earlier releases are not needed any more.
find "$cache" -mindepth 1 -maxdepth 1 -type d ! -path "$folder" ! -path "$work" -exec rm -rf {} +
echo "$folder"
