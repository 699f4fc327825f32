//! Clusters as in production, of any size: for benchmarks.

use std::{net::IpAddr, sync::Arc};

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net};

use super::{
    Shape,
    vocabulary::{node_name, one_in},
};
use palisade_policy::{
    Action, Cluster, ContainerPort, IpBlock, Labels, NAMESPACE_NAME_LABEL, Name, Namespace, NamespaceMatch,
    Node, ObjectKey, Peer, PeerEntry, Phase, Pod, PodMatch, Policy, PolicyKey, PortEntry, PortMatch,
    Protocol, Rule, Selector, Tier, Workload,
};

/// Pods per workload.
const PODS_PER_WORKLOAD: usize = 50;
/// The number of teams that share the namespaces.
const TEAMS: usize = 12;

pub(super) fn cluster(rng: &mut Rng, shape: &Shape) -> Cluster {
    let mut cluster = without_pods(rng, shape);
    let nodes = cluster.nodes.len().max(1);
    for index in 0..*shape.pods.end() {
        // The pods of each workload are spread over the nodes, as a scheduler does it: a node has pods of many
        // workloads.
        let pod = pod(index / PODS_PER_WORKLOAD, index, index % nodes, cluster.namespaces.len());
        cluster.pods.insert(pod);
    }
    cluster
}

/// Returns a realistic cluster of this shape without pods: for replays that deliver the pods one by one with
/// [`workload_pod`]. Policies select workloads of fifty pods each.
#[must_use]
pub fn without_pods(rng: &mut Rng, shape: &Shape) -> Cluster {
    let mut cluster = Cluster::default();
    let nodes = rng.usize(shape.nodes.clone());
    let namespaces = rng.usize(shape.namespaces.clone());
    let workloads = shape.pods.end().div_ceil(PODS_PER_WORKLOAD).max(1);
    for index in 0..nodes {
        let address = IpAddr::from([172, 16, (index >> 8) as u8, index as u8]);
        let node = Node {
            name: node_name(index),
            labels: Labels::default(),
            addresses: vec![address],
            pod_cidrs: Vec::new(),
        };
        cluster.nodes.insert(node.name.clone(), node);
    }
    for index in 0..namespaces {
        let labels = [
            ("team", format!("t{}", index % TEAMS)),
            ("env", if index % 3 == 0 { "test" } else { "prod" }.into()),
        ];
        let namespace = Namespace::new(namespace_name(index), &labels.into_iter().collect());
        cluster.namespaces.insert(namespace.name.clone(), namespace);
    }
    for index in 0..rng.usize(shape.policies.clone()) {
        let policy =
            if index < namespaces { default_deny(index) } else { policy(rng, index, namespaces, workloads) };
        cluster.policies.insert(policy.key.clone(), policy.into());
    }
    cluster
}

/// Returns another pod for a realistic cluster: of the workload with this number, with the number `index` among all
/// pods, on the node with number `node`. A pod with the same number is replaced.
#[must_use]
pub fn workload_pod(cluster: &Cluster, workload: usize, index: usize, node: usize) -> Pod {
    pod(workload, index, node, cluster.namespaces.len())
}

fn namespace_name(index: usize) -> Name {
    format!("ns-{index}").into()
}

fn app_name(workload: usize) -> String {
    format!("app-{workload}")
}

/// The workloads are distributed over the namespaces.
fn namespace_of(workload: usize, namespaces: usize) -> usize {
    workload % namespaces.max(1)
}

fn pod(workload: usize, index: usize, node: usize, namespaces: usize) -> Pod {
    let app = app_name(workload);
    let labels = [
        ("app", app.clone()),
        ("tier", ["web", "api", "store"][workload % 3].to_owned()),
        ("pod-template-hash", format!("{:08x}", workload * 2_654_435_761 % 0xffff_ffff)),
    ];
    let named = |name: &str, protocol, port| ContainerPort {
        name: Some(name.into()),
        protocol,
        port,
        host_port: None,
    };
    let ports: Arc<[ContainerPort]> =
        [named("http", Protocol::Tcp, 8000 + (workload % 4) as u16), named("metrics", Protocol::Tcp, 9090)]
            .into();
    let number = index as u32 + 1;
    Pod {
        allow_source: Default::default(),
        key: ObjectKey::new(namespace_name(namespace_of(workload, namespaces)), format!("{app}-{index}")),
        labels: labels.into_iter().collect(),
        addresses: vec![IpAddr::from((u32::from_be_bytes([10, 0, 0, 0]) + number).to_be_bytes())],
        node: Some(node_name(node)),
        host_network: false,
        phase: Phase::Running,
        ports,
        created: i64::from(number),
        uid: palisade_policy::Uid::UNKNOWN,
        workload: Some(Workload { kind: "Deployment".into(), name: app.into() }),
    }
}

fn network_policy(namespace: Name, name: String, pods: Selector) -> Policy {
    Policy {
        key: PolicyKey::network_policy(namespace.clone(), name),
        tier: Tier::Developer,
        priority: 0,
        mode: None,
        subject: PodMatch { namespaces: NamespaceMatch::Named(namespace), pods },
        ingress: None,
        egress: None,
        origin: None,
    }
}

/// Default deny: ingress for every namespace, egress for every second one.
fn default_deny(index: usize) -> Policy {
    let egress = index.is_multiple_of(2).then(Vec::new);
    let policy = network_policy(namespace_name(index), "default-deny".to_owned(), Selector::everything());
    Policy { ingress: Some(Vec::new()), egress, ..policy }
}

fn tcp(port: u16) -> PortMatch {
    PortMatch::Numbers { protocol: Protocol::Tcp, first: port, last: port }
}

fn rule(peer: Peer, port: PortMatch) -> Rule {
    Rule {
        name: None,
        action: Action::Accept,
        peers: Some(vec![PeerEntry { peer, origin: None }]),
        ports: Some(vec![PortEntry { port, origin: None }]),
        origin: None,
    }
}

/// The policy of one workload: in seven of ten cases it allows another workload in its namespace, else another team, the
/// monitoring, egress to a CIDR, or egress to the cluster's DNS.
fn policy(rng: &mut Rng, index: usize, namespaces: usize, workloads: usize) -> Policy {
    let workload = rng.usize(..workloads);
    let at = namespace_of(workload, namespaces);
    let app = app_name(workload);
    let own = || NamespaceMatch::Named(namespace_name(at));
    // Neighbours in a namespace are `namespaces` apart.
    let neighbours = workloads.saturating_sub(at).div_ceil(namespaces.max(1)).max(1);
    let neighbour = app_name(at + rng.usize(..neighbours) * namespaces);
    let from_neighbour =
        Peer::Pods(PodMatch { namespaces: own(), pods: Selector::of_labels([("app", neighbour.as_str())]) });
    let http = PortMatch::Named { protocol: Some(Protocol::Tcp), name: "http".into() };
    let port = if one_in(rng, 3) { http } else { tcp(8000 + (workload % 4) as u16) };
    let base = network_policy(
        namespace_name(at),
        format!("{app}-{index}"),
        Selector::of_labels([("app", app.as_str())]),
    );
    match rng.usize(..20) {
        0..=13 => Policy { ingress: Some(vec![rule(from_neighbour, port)]), ..base },
        14..=15 => {
            let team = format!("t{}", rng.usize(..TEAMS));
            let peer = Peer::Pods(PodMatch {
                namespaces: NamespaceMatch::Selected(Selector::of_labels([("team", team.as_str())])),
                pods: Selector::of_labels([("tier", "web")]),
            });
            Policy { ingress: Some(vec![rule(peer, port)]), ..base }
        }
        16 => {
            let peer = Peer::Pods(PodMatch {
                namespaces: NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, "ns-0")])),
                pods: Selector::everything(),
            });
            Policy { ingress: Some(vec![rule(peer, tcp(9090))]), ..base }
        }
        17..=18 => {
            let third = rng.u8(..);
            let net = |length| IpNet::V4(Ipv4Net::new_assert([198, 18, third, 0].into(), length));
            let block = IpBlock { cidr: net(24), except: [net(28)].into() };
            Policy { egress: Some(vec![rule(Peer::Block(block), tcp(443))]), ..base }
        }
        _ => {
            let dns = PortMatch::Numbers { protocol: Protocol::Udp, first: 53, last: 53 };
            let peer = Peer::Pods(PodMatch {
                namespaces: NamespaceMatch::Selected(Selector::of_labels([(NAMESPACE_NAME_LABEL, "ns-1")])),
                pods: Selector::everything(),
            });
            Policy { egress: Some(vec![rule(peer, dns)]), ..base }
        }
    }
}
