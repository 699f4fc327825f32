#!/usr/bin/env bash
# Makes the Debian package of an archive of the release: the program, as a plugin of kubectl too, its manual pages and completions.
#
# usage: packaging/deb.sh FOLDER PLATFORM MAINTAINER
#   packaging/deb.sh dist linux-amd64 'Name <name@example.org>'
#
# Requires dpkg-deb. The program is linked statically, so the package depends on nothing and installs on every release of Debian and Ubuntu.
set -euo pipefail
if (($# != 3)); then
    echo "usage: packaging/deb.sh FOLDER PLATFORM MAINTAINER" >&2
    exit 2
fi
dist=$(cd "$1" && pwd) platform=$2 maintainer=$3
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
name=palisade-$version-$platform
architecture=${platform#linux-}
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$dist/$name.tar.gz" -C "$work"
from=$work/$name to=$work/package
share=$to/usr/share doc=$to/usr/share/doc/palisade
# Not of whoever builds it.
umask 022
mkdir -p "$to/DEBIAN" "$to/usr/bin" "$doc" "$share"/{man/man1,bash-completion/completions,zsh/vendor-completions} \
    "$share"/{fish/vendor_completions.d,lintian/overrides}

install -m 755 "$from/palisade" "$to/usr/bin/palisade"
install -m 644 "$from"/man/*.1 "$share/man/man1/"
gzip -9n "$share"/man/man1/*.1
for link in kubectl-palisade kubectl_complete-palisade; do
    ln -s palisade "$to/usr/bin/$link"
    ln -s palisade.1.gz "$share/man/man1/$link.1.gz"
done
install -m 644 "$from/completions/palisade.bash" "$share/bash-completion/completions/palisade"
install -m 644 "$from/completions/_palisade" "$share/zsh/vendor-completions/_palisade"
install -m 644 "$from/completions/palisade.fish" "$share/fish/vendor_completions.d/palisade.fish"

{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: palisade\n\n'
    printf 'Files: *\nCopyright: %s The Palisade authors\nLicense: Apache-2.0\n' "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y)"
    printf ' The full text is in /usr/share/common-licenses/Apache-2.0. The licenses of the\n'
    printf ' libraries that are linked into the program are in NOTICES.txt.gz and\n NOTICES-rust.html.gz beside this file.\n'
} >"$doc/copyright"
{
    printf 'palisade (%s) unstable; urgency=medium\n\n  * Release %s: upstream'"'"'s CHANGELOG.md lists the changes.\n\n' "$version" "$version"
    printf ' -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')"
} >"$doc/changelog"
install -m 644 "$from/CHANGELOG.md" "$doc/CHANGELOG.md"
install -m 644 "$from/NOTICES.txt" "$from/sbom.cdx.json" "$doc/"
[[ ! -f $from/NOTICES-rust.html ]] || install -m 644 "$from/NOTICES-rust.html" "$doc/"
gzip -9n "$doc"/{changelog,CHANGELOG.md,NOTICES*,sbom.cdx.json}
cat >"$share/lintian/overrides/palisade" <<'EOF'
# One program for every release of Debian and Ubuntu, the same as in the other archives.
palisade: statically-linked-binary [usr/bin/palisade]
# The same, where the program is position-independent, which lintian takes for a shared library.
palisade: shared-library-lacks-prerequisites [usr/bin/palisade]
# The names of functions, for the backtrace of a panic.
palisade: unstripped-binary-or-object [usr/bin/palisade]
EOF

cat >"$to/DEBIAN/control" <<EOF
Package: palisade
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size "$to/usr" | cut -f 1)
Section: admin
Priority: optional
Suggests: nftables
Description: Kubernetes network policies: explained, tested and enforced
 Palisade answers whether a connection in a Kubernetes cluster is allowed, by
 which policy, rule and line, and what an edit of the policies would open and
 close. It reads manifests or a running cluster.
 .
 "palisade lab" builds a cluster's network of network namespaces on one
 machine, enforces its policies with nftables, and tests every connection with
 real packets. "palisade agent" enforces policies on a node.
EOF
(cd "$to" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$to/DEBIAN/md5sums"
find "$to" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group -Zgzip --build "$to" "$dist/palisade_${version}_$architecture.deb" >/dev/null
echo "$dist/palisade_${version}_$architecture.deb"
