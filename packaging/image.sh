#!/usr/bin/env bash
# Builds and publishes the image of the agent, one architecture at a time, on machines of that architecture.
#
# usage: packaging/image.sh build REGISTRY PLATFORM REVISION   builds REGISTRY/palisade:VERSION-ARCHITECTURE
#        packaging/image.sh push REGISTRY PLATFORM             pushes it
#        packaging/image.sh join REGISTRY                      joins both under REGISTRY/palisade:VERSION, and prints the digest
#
# Requires docker with buildx, and a login for all but `build`. DOCKER is the program.
set -euo pipefail
usage() {
    sed -n 's/^# usage: //p; s/^#        //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}
(($# >= 2)) || usage
docker=${DOCKER:-docker}
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(packaging/version.sh)
image=$2/palisade:$version
case $1-$# in
    build-4)
        "$docker" build --platform "$3" --build-arg "VERSION=$version" --build-arg "REVISION=$4" --tag "$image-${3#linux/}" .
        # It starts, and is what it says.
        [[ $("$docker" run --rm --platform "$3" "$image-${3#linux/}" --version) == "palisade $version"* ]]
        ;;
    push-3) "$docker" push "$image-${3#linux/}" ;;
    join-2)
        "$docker" buildx imagetools create --tag "$image" "$image-amd64" "$image-arm64" >&2
        "$docker" buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}'
        ;;
    *) usage ;;
esac
