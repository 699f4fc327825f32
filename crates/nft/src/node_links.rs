//! What the rules use of the node's links. Plain values: the caller reads them from the kernel.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use palisade_policy::{Family, NodePlan, Protocol};

use crate::{
    next_plan::NextPlan,
    phases::{Phases, add, remove},
    ruleset::{Content, Element, NodeSet, Set},
};

/// The links of a node, as far as rules match them.
///
/// By default there are none, and rules match the addresses of local pods only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLinks {
    /// The indexes of the interfaces on which only packets of local pods arrive.
    pub pod_interfaces: BTreeSet<u32>,
    /// The bridges among these interfaces.
    pub pod_bridges: BTreeSet<u32>,
    /// The indexes of the bridge ports that lead to local pods.
    pub pod_ports: BTreeSet<u32>,
    /// The UDP ports on which the node receives encapsulated packets.
    pub tunnel_ports: BTreeSet<u16>,
    /// The IP protocols by which the node receives encapsulated packets.
    pub tunnel_protocols: BTreeSet<u8>,
    /// The remote addresses of the node's tunnel devices. The addresses of the plan's nodes may be left out.
    pub tunnel_peers: BTreeSet<IpAddr>,
}

impl NodeLinks {
    /// Returns whether the node receives encapsulated packets.
    #[must_use]
    pub fn has_tunnels(&self) -> bool {
        !self.tunnel_ports.is_empty() || !self.tunnel_protocols.is_empty()
    }

    /// Returns whether a bridge leads to local pods.
    #[must_use]
    pub(crate) fn has_pod_ports(&self) -> bool {
        !self.pod_ports.is_empty()
    }

    /// Returns whether the node would take a packet with this protocol and destination port for a tunnel packet.
    pub(crate) fn is_tunnel(&self, protocol: u8, port: u16) -> bool {
        self.tunnel_protocols.contains(&protocol)
            || (protocol == Protocol::Udp.number() && self.tunnel_ports.contains(&port))
    }

    /// Returns the number of elements of all node sets under a plan, in both tables.
    pub(crate) fn count(&self, plan: &NodePlan) -> usize {
        let links = self.pod_interfaces.len() + self.pod_bridges.len();
        let endpoints = plan.nodes.len() + self.tunnel_peers.difference(&plan.nodes).count();
        let tunnels = self.tunnel_ports.len() + self.tunnel_protocols.len();
        let of_bridge = if self.has_pod_ports() { 2 * self.pod_ports.len() + plan.local.len() } else { 0 };
        plan.local.len() + links + tunnels + if self.has_tunnels() { endpoints } else { 0 } + of_bridge
    }

    /// Returns the elements of a node set.
    pub(crate) fn elements(&self, set: NodeSet, next: &NextPlan<'_>) -> Vec<Element> {
        match set {
            NodeSet::Local(family) => addresses(next.local(), family),
            NodeSet::Interfaces => self.pod_interfaces.iter().copied().map(Element::Interface).collect(),
            NodeSet::Bridges => self.pod_bridges.iter().copied().map(Element::Interface).collect(),
            NodeSet::BridgePorts => self.pod_ports.iter().copied().map(Element::Interface).collect(),
            NodeSet::BridgePortPairs => self.pod_ports.iter().copied().map(Element::InterfacePair).collect(),
            NodeSet::LocalPairs(family) => self_pairs(next.local(), family),
            NodeSet::TunnelPorts => self.tunnel_ports.iter().copied().map(Element::Port).collect(),
            NodeSet::TunnelProtocols => {
                self.tunnel_protocols.iter().copied().map(Element::Protocol).collect()
            }
            NodeSet::TunnelEndpoints(_) if !self.has_tunnels() => Vec::new(),
            NodeSet::TunnelEndpoints(family) => {
                let endpoints: BTreeSet<IpAddr> =
                    next.nodes().chain(self.tunnel_peers.iter().copied()).collect();
                addresses(endpoints.into_iter(), family)
            }
        }
    }

    /// Adds the changes of a node set that a delta of the plan causes.
    pub(crate) fn apply_delta(&self, set: &Arc<Set>, next: &NextPlan<'_>, phases: &mut Phases) {
        let Content::Node(node_set) = set.content else { return };
        let (family, changes, before) = match node_set {
            NodeSet::Local(family) | NodeSet::LocalPairs(family) => {
                (family, &next.delta.local, &next.plan.local)
            }
            NodeSet::TunnelEndpoints(family) if self.has_tunnels() => {
                (family, &next.delta.nodes, &next.plan.nodes)
            }
            _ => return,
        };
        let stays =
            |a: &IpAddr| matches!(node_set, NodeSet::TunnelEndpoints(_)) && self.tunnel_peers.contains(a);
        let added = changes.added.iter().filter(|a| !before.contains(*a) && !stays(a));
        let removed = changes.removed.iter().filter(|a| before.contains(*a) && !stays(a));
        let elements = |changed: BTreeSet<IpAddr>| match node_set {
            NodeSet::LocalPairs(_) => self_pairs(changed.into_iter(), family),
            _ => addresses(changed.into_iter(), family),
        };
        phases.join.extend(add(set, elements(added.copied().collect())));
        phases.leave.extend(remove(set, elements(removed.copied().collect())));
    }

    /// Adds the changes of a node set between these links and others.
    pub(crate) fn change_to(&self, to: &Self, set: &Arc<Set>, next: &NextPlan<'_>, phases: &mut Phases) {
        let Content::Node(node_set) = set.content else { return };
        // Local addresses come from the plan alone. Comparing the sources first avoids building thousands of endpoints.
        let is_same = match node_set {
            NodeSet::Local(_) | NodeSet::LocalPairs(_) => true,
            NodeSet::Interfaces => self.pod_interfaces == to.pod_interfaces,
            NodeSet::Bridges => self.pod_bridges == to.pod_bridges,
            NodeSet::BridgePorts | NodeSet::BridgePortPairs => self.pod_ports == to.pod_ports,
            NodeSet::TunnelPorts => self.tunnel_ports == to.tunnel_ports,
            NodeSet::TunnelProtocols => self.tunnel_protocols == to.tunnel_protocols,
            NodeSet::TunnelEndpoints(_) => {
                self.has_tunnels() == to.has_tunnels() && self.tunnel_peers == to.tunnel_peers
            }
        };
        if is_same {
            return;
        }
        let of = |links: &Self| links.elements(node_set, next).into_iter().collect::<BTreeSet<Element>>();
        let (before, after) = (of(self), of(to));
        phases.join.extend(add(set, after.difference(&before).cloned().collect()));
        phases.leave.extend(remove(set, before.difference(&after).cloned().collect()));
    }
}

fn addresses(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Vec<Element> {
    addresses.filter(|a| Family::of(*a) == family).map(Element::Address).collect()
}

fn self_pairs(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Vec<Element> {
    addresses.filter(|a| Family::of(*a) == family).map(Element::SelfPair).collect()
}
