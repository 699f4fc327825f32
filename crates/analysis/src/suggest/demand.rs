//! What policies have to allow: for each subject and direction, the ports at each peer.

use std::collections::{BTreeMap, BTreeSet};

use palisade_names::dns_servers;
use palisade_policy::{Direction, DomainName, Endpoint, Flow, Name, ObjectKey, Protocol};

use super::{
    Seen, SeenEnd, SeenFlow, SuggestQuestion,
    groups::{Groups, PodGroup},
};

/// Namespaces of the system. A policy that is made of a short recording would stop the cluster.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
/// The beginning of the names of OpenShift's own namespaces.
const OPENSHIFT: &str = "openshift-";

/// Returns whether a namespace is one of the system. It gets policies only if it is asked for.
#[must_use]
pub fn is_system_namespace(name: &str) -> bool {
    SYSTEM.contains(&name) || name.starts_with(OPENSHIFT)
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WantedPeer {
    Pods(PodGroup),
    /// An address of a node, or of nothing in the cluster.
    Address(std::net::IpAddr),
    /// A host outside the cluster.
    Host(DomainName),
}

/// A port at a peer.
#[derive(Clone, Debug, Default)]
pub(super) struct WantedPort {
    /// The pods that have the port; none outside the cluster.
    pub(super) destinations: BTreeSet<ObjectKey>,
    /// What was seen, by both ends.
    pub(super) seen: BTreeMap<(SeenEnd, SeenEnd), Seen>,
}

/// The ports at a peer.
pub(super) type WantedPorts = BTreeMap<(Protocol, u16), WantedPort>;
/// The ports at each peer.
pub(super) type WantedPeers = BTreeMap<WantedPeer, WantedPorts>;

/// The DNS servers.
#[derive(Clone, Debug, Default)]
pub(super) struct Dns {
    /// The servers; none are known if it is empty.
    pub(super) servers: BTreeSet<ObjectKey>,
    /// Their ports.
    pub(super) ports: BTreeSet<u16>,
}

/// All demands.
#[derive(Debug)]
pub(super) struct Demands {
    pub(super) namespaces: BTreeSet<Name>,
    pub(super) system: BTreeSet<Name>,
    pub(super) elsewhere: Seen,
    pub(super) wanted: BTreeMap<(PodGroup, Direction), WantedPeers>,
    pub(super) dns: Dns,
    /// Connections to DNS, by the namespace of the client.
    pub(super) dns_seen: BTreeMap<Name, BTreeMap<(Protocol, u16), WantedPort>>,
    /// Connections to DNS from pods.
    pub(super) dns_served: BTreeMap<(Protocol, u16), WantedPort>,
    /// Everything that was seen between ends, with its ports, DNS apart.
    pub(super) pairs: BTreeMap<(SeenEnd, SeenEnd), BTreeSet<(Protocol, u16)>>,
}

impl Demands {
    pub(super) fn collect(question: &SuggestQuestion<'_>, groups: &Groups<'_>) -> Self {
        let seen_in: BTreeSet<&Name> =
            question.flows.iter().flat_map(|seen| namespaces_of(&seen.flow)).collect();
        let (namespaces, system) = match question.namespace {
            // Without a record, a policy would deny everything.
            Some(name) => {
                (seen_in.contains(name).then(|| name.clone()).into_iter().collect(), BTreeSet::new())
            }
            None => seen_in.into_iter().cloned().partition(|name| !is_system_namespace(name)),
        };
        let servers = dns_servers(question.cluster);
        let dns = Dns {
            servers: servers.iter().map(|server| server.pod.key.clone()).collect(),
            ports: servers.iter().map(|server| server.port).collect(),
        };
        let mut demands = Self {
            namespaces,
            system,
            dns,
            elsewhere: Seen::default(),
            wanted: BTreeMap::new(),
            dns_seen: BTreeMap::new(),
            dns_served: BTreeMap::new(),
            pairs: BTreeMap::new(),
        };
        for seen in question.flows {
            demands.add(seen, groups);
        }
        demands
    }

    fn add(&mut self, seen: &SeenFlow, groups: &Groups<'_>) {
        let flow = &seen.flow;
        if !namespaces_of(flow).any(|name| self.namespaces.contains(name)) {
            self.elsewhere.add(&seen.seen);
            return;
        }
        let ends = (groups.end(&flow.source), groups.end(&flow.destination));
        if !self.is_dns(flow) {
            self.pairs.entry(ends.clone()).or_default().insert((flow.protocol, flow.port));
        }
        // No policy denies a pod to itself.
        if is_itself(flow) {
            return;
        }
        for direction in Direction::BOTH {
            let (subject, peer) = sides(flow, direction);
            let Endpoint::Pod { key, .. } = subject else { continue };
            if !self.namespaces.contains(&key.namespace) || needs_no_rule(seen, direction, groups) {
                continue;
            }
            let Some(group) = groups.of(key) else { continue };
            for peer in wanted_peers(groups, peer, seen, direction) {
                let port = match (self.is_dns(flow), direction, &peer) {
                    (true, Direction::Egress, _) => {
                        let ports = self.dns_seen.entry(key.namespace.clone()).or_default();
                        ports.entry((flow.protocol, flow.port)).or_default()
                    }
                    (true, Direction::Ingress, WantedPeer::Pods(_)) => {
                        self.dns_served.entry((flow.protocol, flow.port)).or_default()
                    }
                    _ => {
                        let peers = self.wanted.entry((group.clone(), direction)).or_default();
                        peers.entry(peer).or_default().entry((flow.protocol, flow.port)).or_default()
                    }
                };
                if let Endpoint::Pod { key, .. } = &flow.destination {
                    port.destinations.insert(key.clone());
                }
                port.seen.entry(ends.clone()).or_default().add(&seen.seen);
            }
        }
    }

    fn is_dns(&self, flow: &Flow) -> bool {
        let Endpoint::Pod { key, .. } = &flow.destination else { return false };
        let is_port =
            matches!(flow.protocol, Protocol::Udp | Protocol::Tcp) && self.dns.ports.contains(&flow.port);
        is_port && self.dns.servers.contains(key)
    }
}

fn namespaces_of(flow: &Flow) -> impl Iterator<Item = &Name> {
    [&flow.source, &flow.destination].into_iter().filter_map(|end| match end {
        Endpoint::Pod { key, .. } => Some(&key.namespace),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    })
}

/// Returns the end whose policies decide, and the other.
fn sides(flow: &Flow, direction: Direction) -> (&Endpoint, &Endpoint) {
    match direction {
        Direction::Egress => (&flow.source, &flow.destination),
        Direction::Ingress => (&flow.destination, &flow.source),
    }
}

fn is_itself(flow: &Flow) -> bool {
    matches!((&flow.source, &flow.destination), (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b)
}

/// Connections of a pod's own node, such as probes of the kubelet, are always allowed (SEMANTICS A39).
fn needs_no_rule(seen: &SeenFlow, direction: Direction, groups: &Groups<'_>) -> bool {
    if direction == Direction::Egress {
        return false;
    }
    let own = match (&seen.flow.source, &seen.flow.destination) {
        (Endpoint::Node { name, .. }, Endpoint::Pod { key, .. }) => {
            groups.cluster.pods.get(key).is_some_and(|pod| pod.node.as_ref() == Some(name))
        }
        _ => false,
    };
    own || seen.from_own_node
}

/// Returns the names of a destination outside the cluster, if it has some; else the end itself.
fn wanted_peers(
    groups: &Groups<'_>,
    end: &Endpoint,
    seen: &SeenFlow,
    direction: Direction,
) -> Vec<WantedPeer> {
    let by_name = direction == Direction::Egress && matches!(end, Endpoint::External(_));
    if by_name && !seen.names.is_empty() {
        return seen.names.iter().cloned().map(WantedPeer::Host).collect();
    }
    vec![wanted_peer(groups, end)]
}

fn wanted_peer(groups: &Groups<'_>, end: &Endpoint) -> WantedPeer {
    let group = match end {
        Endpoint::Pod { key, .. } => groups.of(key),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    };
    group.map_or(WantedPeer::Address(end.address()), WantedPeer::Pods)
}
