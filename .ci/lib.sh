# What the scripts in .ci/steps share: where things are, and how a program is run and checked. To be sourced by bash.
#
# PALISADE_CI_SCRATCH is the folder that the steps of one run share. A step that is started alone makes one for itself.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $(id -u) != 0 ]]; then
    echo "$0: must be root: the lab runs both as root and as an unprivileged user" >&2
    exit 2
fi

readonly target=${CARGO_TARGET_DIR:-$PWD/target}
readonly tools=${XDG_CACHE_HOME:-$HOME/.cache}/palisade-ci
readonly nobody=65534

# One seed for all random tests of a run: fresh unless it is given, printed by .ci/run, and enough to repeat what failed.
PALISADE_TEST_SEED=${PALISADE_TEST_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
export PALISADE_TEST_SEED
export CARGO_TERM_COLOR=never
export PATH="$tools/bin:$PATH"

# A folder that an unprivileged user can read, with a home and a temporary folder of its own to write to.
if [[ -z ${PALISADE_CI_SCRATCH:-} ]]; then
    PALISADE_CI_SCRATCH=$(mktemp -d /tmp/palisade-ci.XXXXXX)
    trap 'rm -rf "$PALISADE_CI_SCRATCH"' EXIT
    chmod 755 "$PALISADE_CI_SCRATCH"
    mkdir -p "$PALISADE_CI_SCRATCH"/{bin,home,tmp,root-tmp}
    chown "$nobody:$nobody" "$PALISADE_CI_SCRATCH/home" "$PALISADE_CI_SCRATCH/tmp"
    cp -r examples "$PALISADE_CI_SCRATCH/examples"
    chmod -R a+rX "$PALISADE_CI_SCRATCH/examples"
fi
export PALISADE_CI_SCRATCH
readonly scratch=$PALISADE_CI_SCRATCH

# The release binary's target. It is linked statically, as a release is: with the machine's C library.
host=$(rustc -vV | sed -n 's/^host: //p')
readonly host

# In the environment of every program that is checked, and so of all that it starts: the step `leftovers` finds processes by it.
readonly tag=PALISADE_CI=$scratch

# The release binary, as it will be installed. `release_binary` builds it where a step is started alone.
readonly bin=$scratch/bin/palisade

# Runs a command without privileges, and with nothing of our environment but PATH.
readonly as_nobody=(
    setpriv --reuid "$nobody" --regid "$nobody" --clear-groups --inh-caps=-all
    env -i "PATH=$PATH" "HOME=$scratch/home" "TMPDIR=$scratch/tmp" "$tag"
)

fail() {
    printf '%s\n' "$@" >&2
    return 1
}

# For a step that compiles beside tests that measure times: everything that it starts from now on leaves them the processors.
yield_processors() {
    renice -n 10 -p "$BASHPID" >/dev/null
}

# For a step that builds the program with other features than the steps beside it, whose tests start `target/debug/palisade`: what
# is compiled stays in one folder, and the programs go to another one.
separate_programs() {
    export CARGO_BUILD_BUILD_DIR=$target CARGO_TARGET_DIR=$target/$1
}

release_binary() {
    [[ -x $bin ]] || .ci/steps/release-binary
}

# The program that writes SBOMs, compiled without optimization where the cache doesn't have it.
cyclonedx() {
    local version=0.5.9
    if [[ $(cargo-cyclonedx cyclonedx --version 2>/dev/null) != "cargo-cyclonedx-cyclonedx $version" ]]; then
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR="$scratch/cargo-cyclonedx" \
            cargo install --quiet --locked --root "$tools" "cargo-cyclonedx@$version"
        rm -rf "$scratch/cargo-cyclonedx"
    fi
}

# The release folder that packaging/ makes of the release binary, as if http://127.0.0.1:8000 were its repository: $scratch/dist.
release_folder() {
    (
        flock 9
        [[ ! -f $scratch/dist/SHA256SUMS ]] || exit 0
        cyclonedx
        platform=linux-$(dpkg --print-architecture)
        PALISADE_PROGRAM=$bin packaging/build.sh "$host" "$scratch/dist"
        packaging/deb.sh "$scratch/dist" "$platform" 'The Palisade authors <palisade@users.noreply.github.com>'
        packaging/render.sh "$scratch/dist" http://127.0.0.1:8000
        packaging/checksums.sh "$scratch/dist"
    ) 9>"$scratch/dist.lock"
}

# The programs from PyPI of the steps ci-templates and sarif, in these versions, once for the cache: $python_programs.
readonly python_programs=$tools/ci-templates
install_python_programs() {
    local wanted=(pre-commit==4.7.0 check-jsonschema==0.39.0 PyYAML==6.0.4)
    python3 -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
    if [[ "$(cat "$python_programs/programs" 2>/dev/null)" != "${wanted[*]}" ]]; then
        rm -rf "$python_programs"
        python3 -m venv "$python_programs"
        "$python_programs/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}"
        echo "${wanted[*]}" >"$python_programs/programs"
    fi
}

palisade() {
    env TMPDIR="$scratch/root-tmp" "$tag" "$bin" "$@"
}

# One step at a time: others run beside it, and apt-get fails if another one runs.
install_packages() {
    (
        flock 9
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    ) 9>"$tools/packages.lock"
}

# What the nodes of the real cluster take from Debian, and what is copied into its images. tests/e2e/README.md says what each is for.
e2e_packages() {
    local package missing=()
    for package in runc containernetworking-plugins iptables nftables conntrack \
        bash bind9-dnsutils coreutils curl dash grep hostname iproute2 netcat-openbsd sed wget; do
        dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# What the lab could leave behind: links, tables, kept namespaces, files, processes. A network namespace lives by a mount, a
# process in it, or a process that holds it open. There is no other way.
traces() {
    ls /sys/class/net
    nft list tables
    grep nsfs /proc/self/mountinfo | awk '{print $5}' || true
    find "$scratch/tmp" "$scratch/root-tmp" -mindepth 1 ! -type d
    find /run -maxdepth 2 -name '*palisade*' 2>/dev/null || true
    local environment
    for environment in $(grep -lsF "$tag" /proc/[0-9]*/environ || true); do
        # The steps of this run hold the folder's name too, in another variable.
        tr '\0' '\n' <"$environment" 2>/dev/null | grep -qxF "$tag" || continue
        echo "process ${environment//[^0-9]/}: $(tr '\0' ' ' <"${environment%environ}cmdline" || true)"
    done
}
