# What the checks in a guest share. To be sourced by busybox's sh.
# shellcheck shell=dash

# report LINE: one line for the host.
report() {
    echo "$*" >/dev/ttyS1
}

# fact KEY VALUE: something that was seen, for the table of results.
fact() {
    report "fact ${check:?} $1 $2"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect CODE COMMAND…: the command ends with this exit code.
expect() {
    want=$1
    shift
    code=0
    "$@" || code=$?
    [ "$code" = "$want" ] || fail "exit code $code, want $want: $*"
}

# await SECONDS WHAT COMMAND…: the command succeeds within that time.
await() {
    until_time=$(($(cut -d. -f1 /proc/uptime) + $1))
    what=$2
    shift 2
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$until_time" ] || fail "not within the time: $what"
        sleep 1
    done
    echo "ok: $what"
}

has_ipv6() {
    [ -e /proc/net/if_inet6 ]
}
