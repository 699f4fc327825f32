#!/usr/bin/env bash
# Installs the release in a fresh system, as its users do, and with everything that can go wrong. To be run by packaging/test/inside.sh as root,
# with the examples in /examples.
#
# usage: install-cases.sh VERSION
set -uo pipefail
readonly version=$1 server=http://127.0.0.1:8000 nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all)
platform=linux-$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
readonly archive=palisade-$version-$platform.tar.gz
passed=0 failed=0

# check TITLE COMMAND…
check() {
    local output
    if output=$("${@:2}" 2>&1); then
        passed=$((passed + 1))
        echo "ok: $1"
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n%s\n' "$1" "$output"
    fi
}

# The line of README.md, with the address of this server.
one_line() { curl -fsSL "$server/releases/latest/download/install.sh" | sh -s -- "$@"; }

lab_runs() {
    "$@" lab run /examples/shop >/tmp/matrix && diff /examples/shop/expected.txt /tmp/matrix
}

as_root() {
    one_line && [[ $(stat -c '%a %u' /usr/local/bin/palisade) == "755 0" ]] && palisade --version && lab_runs palisade
}

# With wget, into the user's own folder, which doesn't exist yet.
as_user() {
    rm -rf /home/user && mkdir -p /home/user /tmp/only-wget && chown 65534:65534 /home/user
    local program
    for program in /usr/bin/* /bin/*; do
        [[ $program == */curl ]] || ln -sf "$program" /tmp/only-wget/
    done
    "${nobody[@]}" env HOME=/home/user PATH=/tmp/only-wget sh -c "wget -qO- $server/releases/latest/download/install.sh | sh" \
        | tee /tmp/said && grep -q 'not on your PATH' /tmp/said && lab_runs "${nobody[@]}" env HOME=/home/user TMPDIR=/tmp /home/user/.local/bin/palisade
}

# From a folder, by a system that has neither curl nor wget.
from_folder() {
    [[ $(PALISADE_MIRROR=/tmp/release sh /tmp/release/install.sh --dir /tmp/a) == *"installed /tmp/a/palisade"* ]] \
        && [[ $(PALISADE_MIRROR=file:///tmp/release sh /tmp/release/install.sh --dir /tmp/a) == *"in place of palisade $version"* ]]
}

plugin() {
    one_line --kubectl --dir /tmp/plugin && [[ $(/tmp/plugin/kubectl-palisade can --help) == *"Usage: kubectl palisade can"* ]] \
        && /tmp/plugin/kubectl-palisade can shop/frontend shop/backend:8080 -f /examples/shop \
        && /tmp/plugin/kubectl_complete-palisade '' | grep -q '^can'
}

removed() {
    local line
    line=$(one_line --dir /tmp/removed | sed -n 's/^to remove it: //p') && [[ $line == rm\ * ]] && $line && [[ -z $(ls -A /tmp/removed) ]]
}

# Nothing but the program: no C library, no shell.
alone() {
    mkdir -p /tmp/alone && cp /usr/local/bin/palisade /tmp/alone/ && cp -r /examples /tmp/alone/ \
        && chroot /tmp/alone /palisade can shop/frontend shop/backend:8080 -f /examples/shop
}

# The Debian package: the program, its manual page and completions; nothing is left when it is purged.
package() {
    # What Debian's documentation-free images leave out is installed here.
    rm -f /etc/dpkg/dpkg.cfg.d/*
    dpkg -i /palisade.deb && [[ $(command -v palisade) == /usr/bin/palisade ]] && lab_runs palisade \
        && [[ $(kubectl-palisade can --help) == *"Usage: kubectl palisade can"* ]] \
        && gzip -dc /usr/share/man/man1/palisade-lab-run.1.gz | grep -q '^\.SH' && gzip -t /usr/share/man/man1/kubectl-palisade.1.gz \
        && bash -c '. /usr/share/bash-completion/completions/palisade && complete -p palisade' \
        && dpkg --purge palisade && ! find / -xdev -iname '*palisade*' ! -path '/palisade.deb' ! -path '/proc/*' ! -path '/tmp/*' | grep .
}
check "the Debian package: installed, run, purged without a trace" package
check "one line, as root: installs the program, and the lab runs" as_root
check "one line, as a user with wget: installs it, and the lab runs without root" as_user
mkdir -p /tmp/release
for file in install.sh SHA256SUMS "$archive"; do
    curl -fsSL -o "/tmp/release/$file" "$server/releases/latest/download/$file"
done
check "from a folder, replacing what is there" from_folder
check "the plugin of kubectl, with completion" plugin
check "the line that removes it" removed
check "the program in an empty file system" alone

# A program of before, which every failure below leaves as it is.
mkdir -p /tmp/kept
printf '#!/bin/sh\necho palisade 0.0.1\n' >/tmp/kept/palisade
chmod 755 /tmp/kept/palisade
kept=$(cksum </tmp/kept/palisade)
readonly kept

# refused PATTERN COMMAND…: fails with a message that matches, changes nothing and leaves nothing.
refused() {
    local output status=0
    output=$("${@:2}" 2>&1) || status=$?
    if ((status == 0)) || ! grep -Eq -- "$1" <<<"$output" || [[ $(cksum </tmp/kept/palisade) != "$kept" ]] \
        || [[ $(ls -A /tmp/kept) != palisade ]] || grep -q "^installed" <<<"$output"; then
        printf 'exit code %d, wanted /%s/:\n%s\n' "$status" "$1" "$output"
        ls -lA /tmp/kept
        return 1
    fi
}
# install MIRROR ARGUMENT…: the installer with another mirror, into the folder that is kept.
install() { PALISADE_MIRROR=$1 sh /tmp/release/install.sh --dir /tmp/kept "${@:2}"; }
# with_programs NAME…: the installer on a system that has these programs only.
with_programs() {
    rm -rf /tmp/programs && mkdir /tmp/programs
    local program
    for program in sh cat uname mktemp mkdir rm cp mv ln tar gzip awk sed cut chmod tr "$@"; do
        ln -s "$(command -v "$program")" /tmp/programs/
    done
    PATH=/tmp/programs install "$mirror"
}
# pretending SYSTEM MACHINE: the installer on another kind of machine.
pretending() {
    mkdir -p /tmp/pretend
    printf '#!/bin/sh\n[ "$1" = -s ] && echo "%s" || echo "%s"\n' "$1" "$2" >/tmp/pretend/uname
    chmod 755 /tmp/pretend/uname
    PATH=/tmp/pretend:$PATH install "$server/releases/latest/download"
}
# copied COMMAND: the installer from a copy of the release, changed by a command.
copied() {
    rm -rf /tmp/copy && cp -r /tmp/release /tmp/copy && (cd /tmp/copy && eval "$1") && install /tmp/copy
}
# on_tmpfs OPTIONS: the installer into a file system of these options; $kept is not its folder.
on_tmpfs() {
    mkdir -p /tmp/fs && mount -t tmpfs -o "$1" tmpfs /tmp/fs || return 0
    PALISADE_MIRROR=/tmp/release sh /tmp/release/install.sh --dir /tmp/fs
    local status=$?
    [[ -z $(ls -A /tmp/fs) ]] || { echo "installed: left behind: $(ls -A /tmp/fs)"; }
    umount /tmp/fs
    return "$status"
}
interrupted() { timeout 2 env "PALISADE_MIRROR=$server/slow" sh /tmp/release/install.sh --dir /tmp/kept || { echo "interrupted"; return 1; }; }
half_a_script() { head -c "$(($(wc -c </tmp/release/install.sh) * 9 / 10))" /tmp/release/install.sh | PALISADE_MIRROR=/tmp/release sh -s -- --dir /tmp/kept; }
only_read() { "${nobody[@]}" env PALISADE_MIRROR=/tmp/release sh /tmp/release/install.sh --dir /usr/local/bin; }
no_folder() { "${nobody[@]}" env PALISADE_MIRROR=/tmp/release sh /tmp/release/install.sh --dir /usr/local/new/bin; }
a_folder() { mkdir -p /tmp/b/palisade && PALISADE_MIRROR=/tmp/release sh /tmp/release/install.sh --dir /tmp/b; }

check "refused: a tampered archive" refused 'damaged or not the one that was released.*nothing was installed' install "$server/bad/tampered"
check "refused: a tampered archive from a folder" refused 'damaged or not' copied "printf x >>$archive"
check "refused: no checksums" refused "can't download .*SHA256SUMS" install "$server/bad/no-checksums"
check "refused: no checksums in a folder" refused 'no file .*/SHA256SUMS' copied 'rm SHA256SUMS'
check "refused: checksums without the archive" refused "doesn't have one digest" copied "sed -i /$archive/d SHA256SUMS"
check "refused: two checksums of the archive" refused "doesn't have one digest" copied "echo \"\$(printf '%064d' 0)  $archive\" >>SHA256SUMS"
check "refused: a checksum that is none" refused "doesn't have one digest" copied "echo '*  $archive' >SHA256SUMS"
check "refused: empty checksums" refused "doesn't have one digest" copied ': >SHA256SUMS'
check "refused: an HTML page as checksums" refused "doesn't have one digest" copied "echo '<html>$archive</html>' >SHA256SUMS"
check "refused: no archive" refused "no file .*$archive" copied "rm $archive"
check "refused: an archive without the program" refused "can't unpack" copied "mkdir d && tar czf $archive d && sha256sum $archive >SHA256SUMS"
check "refused: another program in the archive" refused 'calls itself "something else"' copied \
    "n=\${PWD}/palisade-$version-$platform; mkdir \$n; printf '#!/bin/sh\necho something else\n' >\$n/palisade; tar czf $archive \${n##*/}; sha256sum $archive >SHA256SUMS"
check "refused: half of the archive, by curl" refused "can't download" install "$server/truncated"
mirror=$server/truncated
check "refused: half of the archive, by wget" refused "can't download|doesn't have one digest|damaged" with_programs wget sha256sum
mirror=$server/releases/latest/download
check "refused: neither curl nor wget" refused 'needs curl or wget' with_programs sha256sum
check "refused: nothing that computes SHA-256" refused 'needs sha256sum, shasum or openssl' with_programs curl
check "refused: an unknown architecture" refused 'no release for the architecture riscv64' pretending Linux riscv64
check "refused: an unknown system" refused 'no release for FreeBSD' pretending FreeBSD amd64
check "refused: a release that doesn't exist" refused "can't download" install "$server/bad/nothing"
check "refused: a server that isn't there" refused "can't download" install http://127.0.0.1:1
check "refused: a version that doesn't exist" refused "can't download" install "$mirror" --version 9.9.9
check "refused: a version that is a path" refused 'is not a version' install "$mirror" --version ../../x
check "refused: another digest than the one asked for" refused 'as --sha256 requires' install "$mirror" --sha256 "$(printf '%064d' 0)"
check "refused: a digest that is none" refused '64 hexadecimal digits' install "$mirror" --sha256 abc
check "refused: a mirror of another scheme" refused 'http\(s\) address' install ftp://127.0.0.1
check "refused: an unknown option" refused 'unknown argument' install "$mirror" --force
check "refused: an option without its value" refused 'needs a value' install "$mirror" --version
check "refused: a folder that can only be read" refused "can't write to /usr/local/bin" only_read
check "refused: a folder that can't be created" refused "can't create /usr/local/new/bin" no_folder
check "refused: a folder of the program's name" refused 'is a folder' a_folder
check "refused: a disk that is full during the download" refused "can't copy" on_tmpfs size=1m
check "refused: a disk that is full during unpacking" refused "can't unpack" on_tmpfs \
    "size=$(($(wc -c <"/tmp/release/$archive") / 1024 + 1024))k"
check "refused: a file system without programs" refused "doesn't start" on_tmpfs noexec
check "refused: an interruption leaves nothing" refused 'from .*/slow' interrupted
check "refused: nine tenths of the script" refused 'yntax error|nd of file' half_a_script

echo "$passed passed, $failed failed"
((failed == 0))
