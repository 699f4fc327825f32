//! Pods that start under a policy which denies them everything: what their first packets meet.
//!
//! The container runtime waits until a pod is isolated (docs/start-of-pods.md). So not one packet may pass, from the first instruction of
//! its container: none that it sends, by TCP or UDP, and none that another pod sends to it all the time. Pods without a policy do the same:
//! otherwise a test that sees nothing would look like a policy.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use palisade_netns::namespace::Namespace;
use serde_json::{Value, json};

use crate::{
    Cluster,
    cluster::SLOW,
    network,
    palisade::{self, Method},
    pods::{self, AGNHOST, PORT},
    probe,
    progress::say,
    suites,
};

const NAME: &str = "first";
const OPEN: &str = "first-open";
const SERVER: &str = "first-server";
/// Pods under the policy, one after the other in groups, half of them on each node.
const PODS: usize = 40;
const GROUP: usize = 10;
/// Pods without a policy.
const OPEN_PODS: usize = 4;
/// Where nothing listens: the kernel counts what arrives.
const CLOSED_PORT: u16 = 9;

/// What a container does, first of all a datagram; then one connection after the other, so many times. A denied attempt takes longer than TCP's
/// first retransmission, so that a busy machine doesn't look like a policy. The datagrams that it has received since its first
/// instruction are those that the kernel has counted, whether anything listens or not.
const SCRIPT: &str = r#"
exec 4<>"/dev/udp/$1/$2" && echo hostname >&4
datagrams() {
    local name a b
    REPLY=0
    while read -r name a b _; do
        case $name$a in Udp:[0-9]*) REPLY=$((REPLY + a + b)) ;; esac
    done </proc/net/snmp
    while read -r name a; do
        case $name in Udp6InDatagrams | Udp6NoPorts) REPLY=$((REPLY + a)) ;; esac
    done </proc/net/snmp6
}
datagrams
before=$REPLY
echo begin
for _ in $(seq "$3"); do
    if timeout 1.5 nc -n -z "$1" "$2"; then echo open; else echo denied; fi
done
datagrams
echo "received $((REPLY - before))"
if read -r -t 1 -N 1 -u 4; then echo answered; fi
echo end
"#;

/// Runs the suite with NRI.
pub(super) fn run(cluster: &mut Cluster) -> Result<()> {
    suites::install_palisade(cluster)?;
    judge(cluster)
}

/// Runs the suite with agents that don't use NRI, but install their plugin in the nodes' CNI configuration.
pub(super) fn run_with_plugin(cluster: &mut Cluster) -> Result<()> {
    if palisade::is_installed(cluster)? {
        palisade::remove(cluster, Method::Manifests)?;
    }
    palisade::install_with(
        cluster,
        &[
            "agent.nri=off",
            "agent.cniChain=on",
            "agent.cniConfDir=/run/cni/net.d",
            "agent.cniBinDir=/run/cni/bin",
            // The nodes' files are in memory, and a program that was built without optimization is large.
            "resources.limits.memory=1Gi",
        ],
    )?;
    let left = palisade::plugins(cluster)?;
    ensure!(left == cluster.nodes().len(), "{left} nodes have the plugin");
    judge(cluster)?;
    palisade::remove(cluster, Method::Helm)?;
    let left = palisade::plugins(cluster)?;
    ensure!(left == 0, "after the removal {left} nodes have the plugin");
    Ok(())
}

fn judge(cluster: &mut Cluster) -> Result<()> {
    let others = [("server", "n1"), ("free", "n2")].map(|(name, node)| pods::server(SERVER, name, node, &[]));
    pods::apply(cluster, &[pods::namespace(SERVER), pods::namespace(OPEN)])?;
    pods::apply(cluster, &others)?;
    pods::wait_ready(cluster, SERVER)?;
    let addresses = pods::addresses(cluster, SERVER, "server")?;
    // Otherwise an unreachable server would look like a policy.
    let free = cluster.pod_network(SERVER, "free")?;
    for address in addresses {
        let to = SocketAddr::new(address, PORT);
        free.run(|| probe::connect(to, None, SLOW))?
            .with_context(|| format!("a free pod can't reach {to}"))?;
    }
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "nothing", "namespace": NAME},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    });
    pods::apply(cluster, &[pods::namespace(NAME), policy])?;
    let mut isolated = Seen::default();
    let mut open = start(cluster, &free, OPEN, 0..OPEN_PODS, &addresses)?;
    for first in (0..PODS).step_by(GROUP) {
        isolated.add(&start(cluster, &free, NAME, first..first + GROUP, &addresses)?);
    }
    open.add(&start(cluster, &free, OPEN, OPEN_PODS..2 * OPEN_PODS, &addresses)?);
    say(&format!("first packets of {PODS} isolated pods: {isolated}; of {} others: {open}", 2 * OPEN_PODS));
    say(&format!("how long their start was delayed: {}", palisade::start_latency(cluster)?));
    ensure!(
        open.open > 0 && open.answered > 0 && open.received > 0,
        "pods without a policy were not reached, or reached nothing: {open}"
    );
    ensure!(
        isolated == Seen { denied: isolated.denied, ..Seen::default() },
        "packets of isolated pods passed: {isolated}"
    );
    cluster.delete_namespaces(&[NAME, OPEN, SERVER])
}

/// Starts pods while another sends them datagrams all the time, and returns what they have seen.
fn start(
    cluster: &mut Cluster,
    sender: &Namespace,
    namespace: &str,
    numbers: std::ops::Range<usize>,
    servers: &[IpAddr; 2],
) -> Result<Seen> {
    let names: Vec<(String, usize)> = numbers.map(|i| (format!("pod-{i}"), i)).collect();
    let starting: Vec<Value> = names
        .iter()
        .map(|(name, i)| starting(namespace, name, ["n1", "n2"][i % 2], &servers[i / 2 % 2].to_string()))
        .collect();
    let targets = next_addresses(cluster, names.len())?;
    let stop = AtomicBool::new(false);
    let finished = thread::scope(|scope| {
        let flood = scope.spawn(|| sender.run(|| flood(&targets, &stop)));
        let seen = pods::apply(cluster, &starting).and_then(|()| {
            let mut all = Seen::default();
            for (name, _) in &names {
                let log = finished(cluster, namespace, name)?;
                all.add(&Seen::parse(&log).with_context(|| format!("pod {name}:\n{log}"))?);
            }
            Ok(all)
        });
        stop.store(true, Ordering::Relaxed);
        let sent = flood.join().map_err(|_| anyhow::anyhow!("the sender panicked"))???;
        seen.map(|seen| (seen, sent))
    });
    let (seen, sent) = finished?;
    ensure!(sent > 0, "no datagram was sent");
    Ok(seen)
}

/// The addresses that the next pods of each node get: the CNI plugin gives them in order.
fn next_addresses(cluster: &Cluster, pods: usize) -> Result<Vec<SocketAddr>> {
    let all = cluster.get(&["pods", "-A"])?;
    let used = all["items"].as_array().into_iter().flatten();
    let used: Vec<IpAddr> = used.filter_map(|pod| pod["status"]["podIP"].as_str()?.parse().ok()).collect();
    let mut out = Vec::new();
    for number in [1, 2] {
        let on_node = used.iter().filter_map(|address| match address {
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 244, number] => Some(v4.octets()[3]),
            _ => None,
        });
        let last = usize::from(on_node.max().unwrap_or(1));
        for host in last + 1..(last + pods + 4).min(255) {
            let [v4, v6] = network::pods(number).map(|(net, _)| at(net, host as u8));
            out.extend([v4, v6].map(|address| SocketAddr::new(address, CLOSED_PORT)));
        }
    }
    Ok(out)
}

/// The address with this last part in a network.
fn at(network: IpAddr, host: u8) -> IpAddr {
    match network {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, host).into()
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, _] = v6.segments();
            Ipv6Addr::new(a, b, c, d, e, f, g, host.into()).into()
        }
    }
}

/// Sends a datagram to each address, over and over. Returns how many were sent.
fn flood(to: &[SocketAddr], stop: &AtomicBool) -> Result<usize> {
    let sockets = [UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for address in to {
            // Most of them don't exist yet.
            sent += usize::from(sockets[usize::from(address.is_ipv6())].send_to(b"x", address).is_ok());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(sent)
}

fn starting(namespace: &str, name: &str, node: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "first",
                "image": AGNHOST,
                "command": ["bash", "-c", SCRIPT, "first", address, PORT.to_string(), "3"],
            }],
        },
    })
}

/// The log of a pod that has ended by itself.
fn finished(cluster: &mut Cluster, namespace: &str, name: &str) -> Result<String> {
    cluster.eventually(&format!("pod {name} has ended"), |c| {
        let pod = c.get(&["pod", "-n", namespace, name])?;
        match pod["status"]["phase"].as_str().unwrap_or_default() {
            "Succeeded" => Ok(Ok(())),
            "Failed" => bail!("pod {name} has failed: {:#}", pod["status"]),
            phase => Ok(Err(format!(
                "{phase}; {}",
                c.kubectl(&["-n", namespace, "logs", "--tail=3", name]).unwrap_or_default()
            ))),
        }
    })?;
    cluster.kubectl(&["-n", namespace, "logs", name])
}

/// What containers have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Connections that were open.
    open: usize,
    /// Connections that were not.
    denied: usize,
    /// Containers whose first datagram was answered.
    answered: usize,
    /// Datagrams that arrived, from any sender.
    received: usize,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { open, denied, answered, received } = self;
        write!(
            f,
            "{open} connections open and {denied} denied, {answered} answers to the first datagram, {received} datagrams received"
        )
    }
}

impl Seen {
    /// Reads the output of [`SCRIPT`].
    fn parse(log: &str) -> Result<Self> {
        let (mut seen, mut counted, mut ended) = (Self::default(), false, false);
        for line in log.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("open", _) => seen.open += 1,
                ("denied", _) => seen.denied += 1,
                ("answered", _) => seen.answered += 1,
                ("received", count) => {
                    seen.received += count.parse::<usize>().context("the number of datagrams")?;
                    counted = true;
                }
                ("end", _) => ended = true,
                // What bash says about a connection that was refused or ended.
                _ => {}
            }
        }
        ensure!(counted && ended, "the container has not finished");
        ensure!(seen.open + seen.denied > 0, "no connection was tried");
        Ok(seen)
    }

    fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.denied += other.denied;
        self.answered += other.answered;
        self.received += other.received;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read() -> Result<()> {
        let log = "begin\nopen\ndenied\ndenied\nreceived 7\nanswered\nend\n";
        assert_eq!(Seen::parse(log)?, Seen { open: 1, denied: 2, answered: 1, received: 7 });
        for part in ["end\n", "received 7\n"] {
            assert!(Seen::parse(&log.replace(part, "")).is_err());
        }
        assert!(Seen::parse("begin\nreceived 0\nend\n").is_err());
        Ok(())
    }
}
