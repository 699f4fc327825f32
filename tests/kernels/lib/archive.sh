# Kernels and the guest's shell from Debian's archive: resolved, downloaded and checked by apt, in a state directory of their
# own, so that the machine's apt is neither used nor changed. To be sourced by bash.
# shellcheck shell=bash

# mirror AREA: where the archive is, taken from the machine's own apt sources. AREA is debian or debian-security.
mirror() {
    if [[ -n ${PALISADE_DEBIAN_MIRROR:-} ]]; then
        echo "${PALISADE_DEBIAN_MIRROR%/}/$1"
        return
    fi
    local found
    # shellcheck disable=SC2016
    found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sed 's|/$||' | grep -m1 "/$1\$" || true)
    [[ -n $found ]] || missing "apt has no source that ends in /$1" \
        "set PALISADE_DEBIAN_MIRROR to the address that is followed by /debian and /debian-security on a mirror of Debian"
    echo "$found"
}

# prepare_apt RELEASE AREA/SUITE…: a state directory of apt for these archives, and their lists, which are at most a day old.
prepare_apt() {
    local state=$cache/apt/$1 source address
    mkdir -p "$state/lists/partial" "$state/archives/partial"
    [[ -z $(find "$state/updated" -mmin -1440 2>/dev/null) ]] || return 0
    : >"$state/status"
    for source in "${@:2}"; do
        address=$(mirror "${source%%/*}") || exit
        echo "deb [arch=amd64 signed-by=$keyring] $address ${source#*/} main"
    done >"$state/sources.list"
    cat >"$state/apt.conf" <<CONF
Dir::Etc::SourceList "$state/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$state/lists";
Dir::State::Status "$state/status";
Dir::Cache "$state";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
APT::Sandbox::User "";
CONF
    # apt reports an unreachable archive as a warning, and continues with the old lists.
    APT_CONFIG=$state/apt.conf apt-get update -qq -o APT::Update::Error-Mode=any && touch "$state/updated"
}

in_apt() {
    APT_CONFIG=$cache/apt/$1/apt.conf "${@:2}"
}

# candidate RELEASE PACKAGE: its current version there.
candidate() {
    in_apt "$1" apt-cache policy "$2" | sed -n 's/^  Candidate: //p'
}

# download RELEASE FOLDER PACKAGE=VERSION…: checked by apt against the signed lists, and unpacked there.
download() {
    local folder=$2 package
    mkdir -p "$folder"
    (cd "$folder" && in_apt "$1" apt-get download -qq "${@:3}")
    for package in "$folder"/*.deb; do
        echo "  $(basename "$package")  sha256 $(sha256sum "$package" | cut -d' ' -f1)"
        dpkg-deb -x "$package" "$folder/unpacked"
        rm "$package"
    done
}

# fetch_kernel NAME: the kernel of kernels.list, in $cache/NAME/VERSION: vmlinuz, and the modules that a node's network needs.
# Prints what is used to stderr, and the folder to stdout. If the archive can't be reached, the last one that was fetched is used.
fetch_kernel() {
    local name=$1 package release sources version folder
    read -r _ package release sources < <(list_row "$here/kernels.list" "$name")
    # shellcheck disable=SC2086
    if ! prepare_apt "$release" $sources >&2; then
        folder=$(find "$cache/$name" -mindepth 1 -maxdepth 1 -type d ! -name '*.partial' 2>/dev/null | sort -V | tail -n 1)
        [[ -n $folder ]] || missing "Debian's archive can't be read, and kernel $name was never fetched" \
            "check the network, or set PALISADE_DEBIAN_MIRROR to a mirror that has $release"
        echo "kernel $name: Debian's archive can't be read; using the last one that was fetched" >&2
        echo "$folder"
        return
    fi
    version=$(candidate "$release" "$package")
    folder=$cache/$name/$version
    if [[ ! -d $folder ]]; then
        local parts
        parts=$(kernel_packages "$release" "$package=$version")
        [[ -n $parts ]] || missing "$package $version of $release depends on no kernel" "see tests/kernels/kernels.list"
        enough_disk "$cache" 1500
        echo "kernel $name: fetching from $release" >&2
        # shellcheck disable=SC2086
        keep_kernel "$release" "$folder" "$version" $parts >&2
    fi
    echo "$folder"
}

# kernel_packages RELEASE PACKAGE=VERSION: the packages that hold the kernel and its modules. Newer releases have several.
kernel_packages() {
    local part
    for part in $(in_apt "$1" apt-cache show "$2" | sed -n 's/^Depends: //p' | tr ',' '\n' \
        | sed -nE 's/^ *(linux-(image|binary|modules)-[0-9][^ ]*) \(= ([^)]*)\).*/\1=\3/p'); do
        echo "$part"
        kernel_packages "$1" "$part"
    done
}

# keep_kernel RELEASE FOLDER VERSION PACKAGE=VERSION…: what a guest needs of these packages. Other versions are removed.
keep_kernel() {
    local release=$1 folder=$2 version=$3 partial modules
    partial=$folder.partial
    rm -rf "$(dirname "$folder")"
    mkdir -p "$partial/modules"
    download "$release" "$partial/deb" "${@:4}" | tee "$partial/packages"
    # In /boot, or in newer releases beside the modules.
    find "$partial/deb/unpacked" -name 'vmlinuz*' -exec cp {} "$partial/vmlinuz" \;
    modules=$(find "$partial/deb/unpacked" -type d -path '*/lib/modules/*/kernel' -prune)
    (cd "$modules" && find arch crypto lib net drivers/net -path 'drivers/net/*/*' -prune -o -name '*.ko*' -print) \
        | (cd "$modules" && cpio_pass "$partial/modules")
    find "$partial/modules" -name '*.xz' -exec xz -d {} +
    # Newer packages leave these lists out.
    find "$(dirname "$modules")" -maxdepth 1 \( -name modules.builtin -o -name modules.order \) -exec cp {} "$partial/modules/" \;
    basename "$(dirname "$modules")" >"$partial/release"
    printf '%s\n' "$version" >"$partial/version"
    rm -rf "$partial/deb"
    mv "$partial" "$folder"
}

# cpio_pass FOLDER: copies the files whose names it reads.
cpio_pass() {
    tar -cf - -T - | tar -xf - -C "$1"
}

# fetch_busybox: the guest's shell and its tools. Prints the path of the program. It only runs in guests, and is not shipped.
fetch_busybox() {
    local folder=$cache/busybox sources release
    if [[ ! -x $folder/busybox ]]; then
        read -r _ _ release sources < <(list_row "$here/kernels.list" 6.1)
        # shellcheck disable=SC2086
        prepare_apt "$release" $sources >&2
        rm -rf "$folder"
        download "$release" "$folder.partial" "busybox-static" >&2
        cp "$folder.partial"/unpacked/bin/busybox "$folder.partial/busybox"
        rm -r "$folder.partial/unpacked"
        mv "$folder.partial" "$folder"
    fi
    echo "$folder/busybox"
}
