# A node with real pods: network namespaces with a server each, two of them routed as ptp does it and two on a bridge. To be
# sourced by busybox's sh.
# shellcheck shell=dash

# The shell would take its own, which knows no veth pairs.
ip=/usr/sbin/ip

make_node() {
    [ ! -e /run/netns/web ] || return 0
    mkdir -p /run/netns /run/www
    echo hello >/run/www/index.html
    echo 1 >/proc/sys/net/ipv4/ip_forward
    ! has_ipv6 || echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
    routed_pod web 10
    routed_pod frontend 11
    routed_pod other 12
    "$ip" link add cni0 type bridge
    "$ip" addr add 10.244.2.1/24 dev cni0
    ! has_ipv6 || "$ip" addr add fd00:10:244:2::1/64 dev cni0 nodad
    "$ip" link set cni0 up
    bridged_pod db 10
    bridged_pod client 11
}

pod() {
    "$ip" netns add "$1"
    "$ip" -n "$1" link set lo up
    "$ip" link add "veth-$1" type veth peer name eth0 netns "$1"
    "$ip" link set "veth-$1" up
    "$ip" -n "$1" link set eth0 up
}

serve() {
    "$ip" netns exec "$1" httpd -p 0.0.0.0:80 -h /run/www
    ! has_ipv6 || "$ip" netns exec "$1" httpd -p '[::]:81' -h /run/www
    "$ip" netns exec "$1" nc -ll -p 7 -e /bin/cat >/dev/null 2>&1 &
}

routed_pod() {
    pod "$1"
    "$ip" -n "$1" addr add "10.244.1.$2/32" dev eth0
    "$ip" -n "$1" route add 169.254.1.1 dev eth0
    "$ip" -n "$1" route add default via 169.254.1.1
    "$ip" addr add 169.254.1.1/32 dev "veth-$1"
    "$ip" route add "10.244.1.$2" dev "veth-$1"
    if has_ipv6; then
        "$ip" addr add fe80::1/64 dev "veth-$1" nodad
        "$ip" -n "$1" addr add "fd00:10:244:1::$2/128" dev eth0 nodad
        "$ip" -n "$1" route add default via fe80::1 dev eth0
        "$ip" route add "fd00:10:244:1::$2" dev "veth-$1"
    fi
    serve "$1"
}

bridged_pod() {
    pod "$1"
    "$ip" link set "veth-$1" master cni0
    "$ip" -n "$1" addr add "10.244.2.$2/24" dev eth0
    "$ip" -n "$1" route add default via 10.244.2.1
    if has_ipv6; then
        "$ip" -n "$1" addr add "fd00:10:244:2::$2/64" dev eth0 nodad
        "$ip" -n "$1" route add default via fd00:10:244:2::1
    fi
    serve "$1"
}

v4_of() {
    case $1 in
        web) echo 10.244.1.10 ;;
        frontend) echo 10.244.1.11 ;;
        other) echo 10.244.1.12 ;;
        late) echo 10.244.1.13 ;;
        db) echo 10.244.2.10 ;;
        client) echo 10.244.2.11 ;;
        later) echo 10.244.2.12 ;;
    esac
}

# v6_of POD: the same with the other prefix.
v6_of() {
    v4_of "$1" | sed 's/10\.244\.\(.\)\.\(.*\)/fd00:10:244:\1::\2/'
}

# get SRC ADDRESS PORT: whether the server there answers.
get() {
    printf 'GET / HTTP/1.0\r\n\r\n' | timeout 8 "$ip" netns exec "$1" nc -w 3 "$2" "$3" 2>/dev/null | grep -qx hello
}

# reaches SRC DST: a connection over each family that the node has is answered.
reaches() {
    get "$1" "$(v4_of "$2")" 80 || return 1
    ! has_ipv6 || get "$1" "$(v6_of "$2")" 81
}

# blocked SRC DST: over none of them.
blocked() {
    ! get "$1" "$(v4_of "$2")" 80 || return 1
    ! has_ipv6 || ! get "$1" "$(v6_of "$2")" 81
}

# must reaches|blocked SRC DST
must() {
    "$@" || fail "want: $2 $1 $3"
    echo "ok: $2 $1 $3"
}

# hold NAME SRC DST: an open connection to the echo server of DST. `echoes NAME WORD` sends over it.
hold() {
    mkfifo "/run/$1.in"
    "$ip" netns exec "$2" nc "$(v4_of "$3")" 7 <"/run/$1.in" >"/run/$1.out" 2>/dev/null &
    sleep 3600 >"/run/$1.in" &
    await 20 "an open connection $2 to $3" echoes "$1" hello
}

# echoes NAME WORD: it comes back within three seconds.
echoes() {
    echo "$2" >"/run/$1.in"
    for _ in 1 2 3; do
        sleep 1
        ! grep -qx "$2" "/run/$1.out" || return 0
    done
    return 1
}

manifests=/run/manifests

# Writes the pods of the node, and what `policies` prints. The agent sees one complete change.
apply() {
    mkdir -p "$manifests"
    for pod in web frontend other db client; do
        printf -- '---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, labels: {app: %s}}\n' "$pod" "$pod"
        printf 'spec: {nodeName: node-1, containers: [{name: main, image: x}]}\n'
        printf 'status: {phase: Running, podIPs: [{ip: "%s"}, {ip: "%s"}]}\n' "$(v4_of "$pod")" "$(v6_of "$pod")"
    done >"$manifests/.pods"
    {
        printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n'
        printf -- '---\napiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n'
        printf 'status: {addresses: [{type: InternalIP, address: 10.244.2.1}]}\n'
        cat "$manifests/.pods" -
    } >"$manifests/.all"
    mv "$manifests/.all" "$manifests/all.yaml"
}

# only_from TARGET SOURCE…: a policy that lets only these reach TARGET.
only_from() {
    printf -- '---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: shop}\n' "$1"
    printf 'spec:\n  podSelector: {matchLabels: {app: %s}}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n' "$1"
    shift
    for source in "$@"; do
        printf '    - podSelector: {matchLabels: {app: %s}}\n' "$source"
    done
}

start_agent() {
    palisade agent --source "dir:$manifests" --node-name node-1 --listen off --log-level debug >>/run/agent.log 2>&1 &
    # shellcheck disable=SC2034
    agent=$!
}

is_ready() {
    palisade node status >/run/status 2>&1
}

# logged TEXT: the agent said so.
logged() {
    grep -qF -- "$1" /run/agent.log
}

show_log() {
    echo "the agent's log:"
    tail -n 60 /run/agent.log
}
