#!/bin/sh
# Installs the program palisade from a release, after it has verified its SHA-256.
#
#   curl -fsSL ADDRESS/install.sh | sh
#   sh install.sh --dir ~/bin --version 0.1.0
#
# Requires tar, gzip, and one of sha256sum, shasum and openssl; for addresses also curl or wget. It never asks for root: it
# writes to one folder, and fails where it may not. `--help` lists the options.
#
# Everything is in functions, and the last line starts them: a script that was transferred in part does nothing.
set -eu

# The release that this script belongs to, and where its files are. A release's own copy has both (packaging/render.sh).
version=0.1.0
releases=

usage() {
    cat <<'EOF'
Installs the program palisade from a release, after it has verified its SHA-256.

usage: install.sh [--version VERSION] [--dir FOLDER] [--sha256 DIGEST] [--kubectl]

  --version VERSION  the release to install, for instance 0.1.0; default: the one that this script belongs to
  --dir FOLDER       where the program goes; default: /usr/local/bin if it is writable, else ~/.local/bin
  --sha256 DIGEST    the archive must have this digest too, which you got from elsewhere
  --kubectl          also link it as the plugin `kubectl palisade`, with completion

environment:
  PALISADE_MIRROR    the address or folder that holds the files of the release (the archive and SHA256SUMS)
  PALISADE_DIR       the same as --dir
EOF
}

say() { printf '%s\n' "$*"; }
fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# What the release calls this machine.
platform() {
    system=$(uname -s) machine=$(uname -m)
    case $system in
        Linux) system=linux ;;
        Darwin) system=darwin ;;
        *) fail "there is no release for $system: there are ones for Linux and macOS; elsewhere, build it: cargo install --locked --path crates/palisade" ;;
    esac
    case $machine in
        x86_64 | amd64) machine=amd64 ;;
        aarch64 | arm64) machine=arm64 ;;
        *) fail "there is no release for the architecture $machine: there are ones for x86-64 and arm64; elsewhere, build it: cargo install --locked --path crates/palisade" ;;
    esac
    printf '%s-%s\n' "$system" "$machine"
}

# download NAME: the release's file of that name, as $work/NAME.
download() {
    case $mirror in
        http://* | https://*)
            case $mirror in https://*) protocols='=https' ;; *) protocols='=http,https' ;; esac
            if has curl; then
                curl --fail --silent --show-error --location --proto "$protocols" --connect-timeout 20 --retry 2 \
                    --output "$work/$1" "$mirror/$1" || fail "can't download $mirror/$1"
            elif has wget; then
                wget -q -t 3 -T 20 -O "$work/$1" "$mirror/$1" || fail "can't download $mirror/$1"
            else
                fail "needs curl or wget to download $mirror/$1; or set PALISADE_MIRROR to a folder that holds the release"
            fi
            ;;
        *)
            [ -f "$mirror/$1" ] || fail "no file $mirror/$1"
            cp "$mirror/$1" "$work/$1" || fail "can't copy $mirror/$1 to $work"
            ;;
    esac
}

# digest FILE: its SHA-256 in hexadecimal.
digest() {
    if has sha256sum; then
        sha256sum <"$1" | cut -d ' ' -f 1
    elif has shasum; then
        shasum -a 256 <"$1" | cut -d ' ' -f 1
    elif has openssl; then
        openssl dgst -sha256 <"$1" | sed 's/^.* //'
    else
        fail "needs sha256sum, shasum or openssl to verify the download; nothing was installed"
    fi
}

is_digest() {
    case $1 in *[!0-9a-f]* | '') return 1 ;; esac
    [ ${#1} -eq 64 ]
}

# expected NAME: the digest of the file of that name in SHA256SUMS, which must have it exactly once.
expected() {
    found=$(awk -v name="$1" 'NF == 2 && ($2 == name || $2 == "*" name) { print $1 }' "$work/SHA256SUMS")
    is_digest "$found" || fail "SHA256SUMS of $mirror doesn't have one digest of $1; nothing was installed"
    printf '%s\n' "$found"
}

# The folder for the program.
folder() {
    if [ -n "$dir" ]; then
        printf '%s\n' "$dir"
    elif [ -d /usr/local/bin ] && [ -w /usr/local/bin ]; then
        printf '%s\n' /usr/local/bin
    elif [ -n "${HOME:-}" ]; then
        printf '%s\n' "$HOME/.local/bin"
    else
        fail "/usr/local/bin is not writable and HOME is not set: name a folder with --dir"
    fi
}

# place FILE NAME: moves FILE into the folder under that name. It replaces what is there in one step, or not at all.
place() {
    [ ! -d "$dir/$2" ] || fail "$dir/$2 is a folder; nothing was installed"
    mv -f "$1" "$dir/$2" || fail "can't replace $dir/$2"
}

main() {
    dir=${PALISADE_DIR:-} wanted='' plugin=no
    while [ $# -gt 0 ]; do
        case $1 in
            --version | --dir | --sha256)
                if [ $# -lt 2 ] || [ -z "$2" ]; then fail "$1 needs a value; see --help"; fi
                case $1 in
                    --version) version=${2#v} ;;
                    --dir) dir=$2 ;;
                    --sha256) wanted=$(printf '%s' "$2" | tr A-F a-f) ;;
                esac
                shift 2
                ;;
            --kubectl) plugin=yes && shift ;;
            -h | --help) usage && exit ;;
            *) fail "unknown argument $1; see --help" ;;
        esac
    done
    case $version in *[!0-9A-Za-z.+-]* | '' | .*) fail "\"$version\" is not a version" ;; esac
    [ -z "$wanted" ] || is_digest "$wanted" || fail "--sha256 needs 64 hexadecimal digits"

    mirror=${PALISADE_MIRROR:-${releases:+$releases/v$version}}
    mirror=${mirror%/}
    case $mirror in
        '') fail "this copy belongs to no release: set PALISADE_MIRROR to the address or folder of one" ;;
        file://*) mirror=${mirror#file://} ;;
        http://* | https://*) ;;
        *://*) fail "PALISADE_MIRROR is a folder or an http(s) address, not $mirror" ;;
    esac

    name=palisade-$version-$(platform)
    dir=$(folder)
    # An archive that is unpacked beside its place is moved there in one step.
    mkdir -p "$dir" 2>/dev/null || fail "can't create $dir: name another folder with --dir"
    dir=$(cd "$dir" && pwd)
    work=$(mktemp -d "$dir/.palisade-install.XXXXXX" 2>/dev/null) || fail "can't write to $dir: name another folder with --dir"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' HUP INT TERM

    say "palisade $version ($(platform)) from $mirror"
    download SHA256SUMS
    download "$name.tar.gz"
    sum=$(expected "$name.tar.gz")
    got=$(digest "$work/$name.tar.gz")
    [ "$got" = "$sum" ] || fail "$name.tar.gz is damaged or not the one that was released: its SHA-256 is $got, SHA256SUMS has $sum; nothing was installed"
    [ -z "$wanted" ] || [ "$got" = "$wanted" ] || fail "the SHA-256 of $name.tar.gz is $got, not $wanted as --sha256 requires; nothing was installed"
    say "SHA-256 verified: $got"

    tar -xzof "$work/$name.tar.gz" -C "$work" "$name/palisade" || fail "can't unpack $name.tar.gz to $work; nothing was installed"
    new=$work/$name/palisade
    chmod 755 "$new"
    started=$("$new" --version) || fail "the program doesn't start in $dir; nothing was installed"
    case $started in
        "palisade $version" | "palisade $version "*) ;;
        *) fail "the program calls itself \"$started\", not palisade $version; nothing was installed" ;;
    esac

    before=
    if [ -x "$dir/palisade" ] && [ ! -d "$dir/palisade" ]; then
        before=$("$dir/palisade" --version 2>/dev/null) || before="another program"
    fi
    place "$new" palisade
    say "installed $dir/palisade${before:+ in place of $before}"
    installed=$dir/palisade
    if [ "$plugin" = yes ]; then
        for link in kubectl-palisade kubectl_complete-palisade; do
            ln -s palisade "$work/$link"
            place "$work/$link" "$link"
            installed="$installed $dir/$link"
        done
        say "installed the plugin kubectl palisade"
    fi
    case :$PATH: in
        *:"$dir":*) ;;
        *) say "$dir is not on your PATH: export PATH=\"$dir:\$PATH\"" ;;
    esac
    say "to remove it: rm $installed"
}

main "$@"
