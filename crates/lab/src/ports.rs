//! Which ports are open where. Every place listens on exactly these, and exactly these are probed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_policy::{Cluster, Pod, PortMatch, Protocol, TargetPort};

use crate::{
    layout::{Layout, Place},
    options::OpenPort,
    services::backends,
};

/// The most ports of each protocol that are opened everywhere because policies name them.
pub const MOST_MENTIONED: usize = 8;

/// The ports of a whole lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Open on every place: what policies name, what was asked for, and one that nobody names for TCP and for UDP.
    pub everywhere: BTreeSet<OpenPort>,
    /// Open on these pods besides: what they declare, and where services lead on them.
    pub of_pods: BTreeMap<palisade_policy::ObjectKey, BTreeSet<OpenPort>>,
    /// What was left out, in words.
    pub note: Option<String>,
}

impl Ports {
    /// The ports of this layout. `O(pods · services + policies)`.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let cluster = &layout.cluster;
        let (mut everywhere, note) = mentioned(cluster);
        everywhere.extend(&layout.options.ports);
        let mut of_pods: BTreeMap<_, BTreeSet<OpenPort>> = cluster
            .pods
            .values()
            .map(|p| {
                (p.key.clone(), p.ports.iter().filter(|c| c.port > 0).map(|c| (c.protocol, c.port)).collect())
            })
            .collect();
        for service in cluster.services.values() {
            for port in &service.ports {
                if let TargetPort::Number(number) = port.target {
                    for pod in backends(cluster, service) {
                        of_pods.entry(pod.key.clone()).or_default().insert((port.protocol, number));
                    }
                }
            }
        }
        let known: BTreeSet<u16> = everywhere.iter().chain(of_pods.values().flatten()).map(|p| p.1).collect();
        // Below the ephemeral range (32768 by default), from which the kernel takes the clients' ports.
        if let Some(unnamed) = (27_000..32_768).find(|p| !known.contains(p)) {
            everywhere.extend([(Protocol::Tcp, unnamed), (Protocol::Udp, unnamed)]);
        }
        Self { everywhere, of_pods, note }
    }

    /// The open ports of one place.
    #[must_use]
    pub fn at(&self, layout: &Layout, place: &Place) -> BTreeSet<OpenPort> {
        let mut ports = self.everywhere.clone();
        let mut add = |pod: &Pod| ports.extend(self.of_pods.get(&pod.key).into_iter().flatten());
        match place {
            Place::Pod(key) => layout.cluster.pods.get(key).into_iter().for_each(&mut add),
            Place::Node(name) => layout.host_pods(name).for_each(&mut add),
            Place::Outside => {}
        }
        ports
    }

    /// Every socket of the lab: place, address, protocol and port.
    pub fn sockets(&self, layout: &Layout) -> BTreeMap<Place, BTreeSet<(IpAddr, OpenPort)>> {
        layout
            .places()
            .map(|(place, addresses)| {
                let ports = self.at(layout, &place);
                let sockets = addresses.iter().flat_map(|a| ports.iter().map(|p| (*a, *p))).collect();
                (place, sockets)
            })
            .collect()
    }
}

/// The ports that policies of any kind name: single ones first, then the ends of ranges and what lies just beyond them,
/// then what some pod calls by a name that policies use. On another pod that number may have another name or none, on a node
/// a name never holds.
fn mentioned(cluster: &Cluster) -> (BTreeSet<OpenPort>, Option<String>) {
    let rules = cluster.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress).flatten());
    let (mut single, mut edges, mut named) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for entry in rules.flat_map(|r| r.ports.iter().flatten()) {
        match &entry.port {
            &PortMatch::Numbers { protocol, first, last } if first == last => {
                single.insert((protocol, first));
            }
            // "Every port" has no edge worth probing.
            PortMatch::Numbers { first: 0..=1, last: u16::MAX, .. } => {}
            &PortMatch::Numbers { protocol, first, last } => {
                edges.extend([(protocol, first), (protocol, last), (protocol, last.saturating_add(1))]);
            }
            PortMatch::Named { protocol, name } => {
                named.extend(cluster.pods.values().flat_map(|p| p.named_ports(name, *protocol)));
            }
        }
    }
    single.retain(|p| p.1 > 0);
    edges.retain(|p: &OpenPort| p.1 > 0 && !single.contains(p));
    named.retain(|p| p.1 > 0 && !single.contains(p) && !edges.contains(p));
    let (mut out, mut left_out) = (BTreeSet::new(), 0);
    for protocol in Protocol::WITH_PORTS {
        let of_protocol = || single.iter().chain(&edges).chain(&named).filter(|p| p.0 == protocol);
        out.extend(of_protocol().take(MOST_MENTIONED));
        left_out += of_protocol().count().saturating_sub(MOST_MENTIONED);
    }
    let note = (left_out > 0).then(|| {
        format!("{left_out} ports that policies name are not probed everywhere: at most {MOST_MENTIONED} of each protocol")
    });
    (out, note)
}
