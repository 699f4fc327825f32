//! `sensitive-port-open`: finds ports of databases and of administration that every address may reach.

use crate::wide::{Exceptions, whole_families};
use crate::{context::Context, finding::Found, level::Level, rule::LintRule};
use palisade_policy::{Direction, Family, Peer, PeerEntry, Policy, PortMatch, Protocol, Rule};

/// The rule.
pub(crate) const RULE: LintRule = LintRule {
    code: "PAL046",
    name: "sensitive-port-open",
    level: Level::Warning,
    what: "Finds ports of databases and of administration that every address may reach.",
    why: "Ports such as 22, 2379, 3306, 5432, 6379, 9200, 10250 and 27017 give access to data or to machines. The rule allows every address to connect, also of the internet if it can reach the pods.",
    fix: None,
    bad: BAD,
    good: GOOD,
    check,
};

const BAD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - ipBlock: {cidr: 0.0.0.0/0}
    ports:
    - port: 5432
      protocol: TCP
"#;

const GOOD: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - name: main
    image: example
    ports: [{containerPort: 5432, name: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector:
    matchLabels:
      app: db
  policyTypes: [Ingress]
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 5432
      protocol: TCP
"#;

/// Ports with which machines and data are administered: SSH, Telnet, SMB, SQL Server, Oracle, ZooKeeper, Docker, etcd, MySQL,
/// RDP, PostgreSQL, AMQP, VNC, CouchDB, WinRM, Redis, Consul, Cassandra, Kafka, Elasticsearch, the kubelet, memcached, the
/// management of RabbitMQ, CockroachDB and MongoDB.
const SENSITIVE: [u16; 33] = [
    22, 23, 445, 1433, 1521, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 5432, 5672, 5900, 5984, 5985, 5986,
    6379, 8500, 9042, 9092, 9200, 9300, 10_250, 10_255, 11_211, 15_672, 26_257, 27_017, 27_018, 27_019,
    50_000,
];

/// How many ports a range may have of which each is meant.
const MEANT: u16 = 1000;

fn check(cx: &Context<'_>) -> Vec<Found> {
    let mut out = Vec::new();
    for (policy, direction, rule) in cx.allowing() {
        if direction != Direction::Ingress {
            continue;
        }
        let Some((source, entry)) = wide_source(rule) else { continue };
        match &rule.ports {
            Some(ports) => out.extend(ports.iter().filter_map(|entry| {
                let port = sensitive(cx, policy, &entry.port)?;
                let message = format!("{source} may connect to port {port}");
                Some(Found::of(&policy.key, entry.origin.as_ref(), message))
            })),
            None => {
                if let Some(port) = declared(cx, policy).find(|port| SENSITIVE.contains(port)) {
                    let message = format!("{source} may connect to every port, {port} among them");
                    let origin = entry.and_then(|entry| entry.origin.as_ref()).or(rule.origin.as_ref());
                    out.push(Found::of(&policy.key, origin, message));
                }
            }
        }
    }
    out
}

/// Returns what a rule allows if that is wide, and the peer: every address of a family, or every pod. Data stores that are
/// open to every pod are `all-namespaces-peer`.
fn wide_source(rule: &Rule) -> Option<(&'static str, Option<&PeerEntry>)> {
    const WIDE: [u8; 2] = [8, 16];
    let Some(peers) = &rule.peers else { return Some(("every address", None)) };
    if let Some((_, entry)) = whole_families(rule, Exceptions::UpToHalf).first() {
        return Some(("every address", Some(entry)));
    }
    peers.iter().find_map(|entry| match &entry.peer {
        Peer::Block(block) => {
            let wide = WIDE[usize::from(Family::of_net(&block.cidr) == Family::V6)];
            (block.cidr.prefix_len() <= wide).then_some(("a block of millions of addresses", Some(entry)))
        }
        _ => None,
    })
}

/// Returns the sensitive TCP port that a port of a rule opens.
fn sensitive(cx: &Context<'_>, policy: &Policy, port: &PortMatch) -> Option<u16> {
    match port {
        PortMatch::Numbers { protocol: Protocol::Tcp, first, last } => {
            let within = |port: &u16| (*first..=*last).contains(port);
            let mut all = SENSITIVE.into_iter().filter(within);
            // A wide range is rarely meant for each of its ports, so a port counts only if a pod has it.
            if last - first < MEANT {
                all.next()
            } else {
                declared(cx, policy).find(|port| SENSITIVE.contains(port) && within(port))
            }
        }
        PortMatch::Named { protocol: None | Some(Protocol::Tcp), name } => {
            let pods = cx.selected(policy).flat_map(|class| class.by_ports.iter());
            let mut numbers =
                pods.flat_map(|pod| pod.named_ports(name, Some(Protocol::Tcp))).map(|(_, port)| port);
            numbers.find(|port| SENSITIVE.contains(port))
        }
        _ => None,
    }
}

/// Iterates over the TCP ports that the pods of a policy declare.
fn declared<'c>(cx: &'c Context<'_>, policy: &'c Policy) -> impl Iterator<Item = u16> + 'c {
    let pods = cx.selected(policy).flat_map(|class| class.by_ports.iter());
    pods.flat_map(|pod| pod.ports.iter()).filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port)
}
