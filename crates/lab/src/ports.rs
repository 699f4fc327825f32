//! The open ports of each place. A place listens on exactly these ports, and exactly these are probed.

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

/// The maximum number of ports of each protocol that are opened everywhere because policies name them.
pub const MAX_NAMED_BY_POLICIES: usize = 8;

/// The ports of a whole lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Ports that are open in every place: those that policies name, those in the options, and for TCP and UDP one that no
    /// object names.
    pub everywhere: BTreeSet<OpenPort>,
    /// Ports that are open on these pods in addition: container ports, and target ports of services.
    pub of_pods: BTreeMap<palisade_policy::ObjectKey, BTreeSet<OpenPort>>,
    /// What was left out, as text for the user.
    pub note: Option<String>,
}

impl Ports {
    /// Computes the ports of a layout. `O(pods · services + policies)`.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        let cluster = &layout.cluster;
        let (mut everywhere, note) = named_by_policies(cluster);
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
        // Below the ephemeral range (from 32768 by default), from which the kernel chooses the clients' ports.
        if let Some(unnamed) = (27_000..32_768).find(|p| !known.contains(p)) {
            everywhere.extend([(Protocol::Tcp, unnamed), (Protocol::Udp, unnamed)]);
        }
        Self { everywhere, of_pods, note }
    }

    /// Returns the open ports of one place.
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

    /// Returns every listening socket of the lab: place, address, protocol and port.
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

/// Returns the ports that policies name: single ports first, then both ends of ranges and the port after them, then the numbers
/// that pods have for port names in policies. On another pod that number may have another name or none; on a node no port
/// name applies.
fn named_by_policies(cluster: &Cluster) -> (BTreeSet<OpenPort>, Option<String>) {
    let rules = cluster.policies.values().flat_map(|p| p.ingress.iter().chain(&p.egress).flatten());
    let (mut single, mut edges, mut named) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for entry in rules.flat_map(|r| r.ports.iter().flatten()) {
        match &entry.port {
            &PortMatch::Numbers { protocol, first, last } if first == last => {
                single.insert((protocol, first));
            }
            // A range of all ports has no edge to probe.
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
        out.extend(of_protocol().take(MAX_NAMED_BY_POLICIES));
        left_out += of_protocol().count().saturating_sub(MAX_NAMED_BY_POLICIES);
    }
    let note = (left_out > 0).then(|| {
        format!("{left_out} ports that policies name are not probed everywhere: at most {MAX_NAMED_BY_POLICIES} of each protocol")
    });
    (out, note)
}
