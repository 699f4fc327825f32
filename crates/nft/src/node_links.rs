//! What the rules use of the node's links. Plain values: the caller reads them from the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use palisade_policy::{Delta, Family, NodePlan, Protocol};

use crate::{
    Mac, PortOwner, SourceCheck,
    next_plan::NextPlan,
    phases::{Phases, add, remove},
    ruleset::{Content, Element, NodeSet, Set},
};

/// What identifies a pod's packets without an address of its: the interface on which the node itself receives them, and the hardware address.
pub(crate) type LinkSender = (u32, Mac);

/// The most interfaces with which each packet is compared: see [`NodeLinks::uplinks`].
pub(crate) const MAX_UPLINKS: usize = 3;

/// A sender with the addresses of its pod.
pub(crate) type Sender<'a> = (&'a LinkSender, &'a BTreeSet<IpAddr>);

/// The links of a node, as far as rules match them.
///
/// By default there are none, and rules match the addresses of local pods only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLinks {
    /// The indexes of the interfaces on which only packets of local pods arrive.
    pub pod_interfaces: BTreeSet<u32>,
    /// The addresses of local pods, with the interface among these through which the route leads there. A packet that arrives with such a source
    /// on that interface has a route back, and the kernel need not look it up. Left out, it is looked up.
    pub pod_routes: BTreeMap<IpAddr, u32>,
    /// Interfaces on which packets of other hosts arrive, and none of local pods. The kernel compares each packet with the first
    /// three of them, which costs less than the lookup of an interface. Left out, it is looked up.
    pub uplinks: BTreeSet<u32>,
    /// The bridges among these interfaces.
    pub pod_bridges: BTreeSet<u32>,
    /// The indexes of the bridge ports that lead to local pods.
    pub pod_ports: BTreeSet<u32>,
    /// The addresses of the pods that interfaces lead to, of those interfaces that aren't bridges and whose pods are known. Used by
    /// [`SourceCheck::Strict`].
    pub interface_owners: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// The pods that these ports lead to, of those ports whose pods are known.
    pub owners: BTreeMap<u32, PortOwner>,
    /// The local pods by what identifies their packets where the source address doesn't: the interface on which the node itself receives them,
    /// and the hardware address.
    pub senders: BTreeMap<(u32, Mac), BTreeSet<IpAddr>>,
    /// Networks whose addresses a pod may use as a source beside its own, by the interface or bridge port that leads to it. Addresses of local
    /// pods in them stay theirs.
    pub allowed_sources: BTreeMap<u32, BTreeSet<IpNet>>,
    /// The ports whose senders are not checked.
    pub unchecked_ports: BTreeSet<u32>,
    /// The hardware addresses of the bridges that lead to local pods.
    pub bridge_hardware: BTreeSet<Mac>,
    /// The addresses of the node's interfaces, while a bridge leads to local pods.
    pub host_addresses: BTreeSet<IpAddr>,
    /// The addresses of pods of other nodes, while a bridge leads to local pods and to other networks. Local addresses among them are local.
    pub other_pods: Arc<BTreeSet<IpAddr>>,
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

    /// Returns the interfaces with which each packet is compared. Never one of local pods.
    pub(crate) fn compared_uplinks(&self) -> BTreeSet<u32> {
        self.uplinks.difference(&self.pod_interfaces).copied().take(MAX_UPLINKS).collect()
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
    pub(crate) fn count(&self, plan: &NodePlan, source_check: SourceCheck) -> usize {
        let of_owners: usize = self.interface_owners.values().map(|addresses| 1 + addresses.len()).sum();
        let links = self.pod_interfaces.len()
            + self.pod_bridges.len()
            + of_owners
            + self.link_senders().count()
            + self.pod_routes.len();
        let endpoints = plan.nodes.len() + self.tunnel_peers.difference(&plan.nodes).count();
        let tunnels = self.tunnel_ports.len() + self.tunnel_protocols.len();
        let mut of_bridge =
            if self.has_pod_ports() { 2 * self.pod_ports.len() + plan.local.len() } else { 0 };
        if self.has_pod_ports() && source_check.is_on() {
            let next = NextPlan { plan, delta: &Delta::default() };
            let of_senders = NodeSet::OF_SENDERS.map(|set| self.all_sender_elements(set, &next).len());
            of_bridge += of_senders.iter().sum::<usize>();
        }
        let of_interfaces = Family::BOTH.map(|family| self.allowed_elements(false, family).count());
        plan.local.len()
            + of_interfaces.iter().sum::<usize>()
            + plan.refusing.len()
            + links
            + tunnels
            + if self.has_tunnels() { endpoints } else { 0 }
            + of_bridge
    }

    /// Returns the elements of a node set.
    pub(crate) fn elements(&self, set: NodeSet, next: &NextPlan<'_>) -> Vec<Element> {
        match set {
            NodeSet::Local(family) => addresses(next.local(), family),
            NodeSet::Refusing(family) => addresses(next.refusing(), family),
            NodeSet::Interfaces => self.pod_interfaces.iter().copied().map(Element::Interface).collect(),
            NodeSet::Bridges => self.pod_bridges.iter().copied().map(Element::Interface).collect(),
            NodeSet::BridgePorts => self.pod_ports.iter().copied().map(Element::Interface).collect(),
            NodeSet::BridgePortPairs => self.pod_ports.iter().copied().map(Element::InterfacePair).collect(),
            NodeSet::LocalPairs(family) => self_pairs(next.local(), family),
            NodeSet::BoundInterfaces => {
                self.interface_owners.keys().copied().map(Element::Interface).collect()
            }
            NodeSet::InterfaceSources(family) => {
                let all = self.interface_owners.iter().flat_map(|(i, of)| of.iter().map(|a| (*i, *a)));
                let of_family = all.filter(|(_, address)| Family::of(*address) == family);
                of_family.map(|(index, address)| Element::InterfaceAddress(index, address)).collect()
            }
            NodeSet::RoutedSources(family) => {
                let of_family = self.pod_routes.iter().filter(|(address, _)| Family::of(**address) == family);
                of_family.map(|(address, index)| Element::InterfaceAddress(*index, *address)).collect()
            }
            NodeSet::AllowedSources(family) => self.allowed_elements(false, family).collect(),
            NodeSet::LinkSenders => self.senders.iter().filter_map(link_sender).collect(),
            NodeSet::CheckedPorts
            | NodeSet::BoundPorts
            | NodeSet::HardwarePorts
            | NodeSet::PortHardware
            | NodeSet::PortSenders(_)
            | NodeSet::Hardware
            | NodeSet::PortSources(_)
            | NodeSet::PortAllowed(_)
            | NodeSet::PortAllowedTargets
            | NodeSet::PortTargets => self.sender_elements(set).into_iter().collect(),
            NodeSet::Taken(_) | NodeSet::TakenTargets => self.all_sender_elements(set, next),
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

    /// Returns the senders with the address of each pod that decides for it.
    pub(crate) fn link_senders(&self) -> impl Iterator<Item = (LinkSender, IpAddr)> {
        self.senders.iter().filter_map(|(sender, addresses)| Some((*sender, deciding(addresses)?)))
    }

    /// Returns the senders that are not the same in other links: those here, and those there.
    pub(crate) fn differing_senders<'a>(&'a self, to: &'a Self) -> [Vec<Sender<'a>>; 2] {
        let missing = |of: &'a Self, other: &Self| {
            of.senders
                .iter()
                .filter(|(sender, addresses)| other.senders.get(sender) != Some(addresses))
                .collect()
        };
        [missing(self, to), missing(to, self)]
    }

    /// Adds the changes of a node set that a delta of the plan causes.
    pub(crate) fn apply_delta(&self, set: &Arc<Set>, next: &NextPlan<'_>, phases: &mut Phases) {
        let Content::Node(node_set) = set.content else { return };
        let (family, changes, before) = match node_set {
            NodeSet::Local(family) | NodeSet::LocalPairs(family) => {
                (family, &next.delta.local, &next.plan.local)
            }
            NodeSet::Refusing(family) => (family, &next.delta.refusing, &next.plan.refusing),
            NodeSet::TunnelEndpoints(family) if self.has_tunnels() => {
                (family, &next.delta.nodes, &next.plan.nodes)
            }
            NodeSet::Taken(_) | NodeSet::TakenTargets => {
                return self.follow_nodes(set, node_set, next, phases);
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
        if NodeSet::OF_SENDERS.contains(&node_set) {
            return self.change_senders(to, (set, node_set), next, phases);
        }
        if node_set == NodeSet::LinkSenders {
            let [before, after] =
                self.differing_senders(to).map(|of| of.into_iter().filter_map(link_sender).collect());
            return change(set, &before, &after, phases);
        }
        // Local addresses come from the plan alone. Comparing the sources first avoids building thousands of endpoints.
        let is_same = match node_set {
            NodeSet::Local(_) | NodeSet::LocalPairs(_) | NodeSet::Refusing(_) => true,
            NodeSet::Interfaces => self.pod_interfaces == to.pod_interfaces,
            NodeSet::Bridges => self.pod_bridges == to.pod_bridges,
            NodeSet::BoundInterfaces | NodeSet::InterfaceSources(_) => {
                self.interface_owners == to.interface_owners
            }
            NodeSet::RoutedSources(_) => self.pod_routes == to.pod_routes,
            NodeSet::AllowedSources(_) => {
                self.allowed_sources == to.allowed_sources && self.pod_ports == to.pod_ports
            }
            NodeSet::BridgePorts | NodeSet::BridgePortPairs => self.pod_ports == to.pod_ports,
            NodeSet::TunnelPorts => self.tunnel_ports == to.tunnel_ports,
            NodeSet::TunnelProtocols => self.tunnel_protocols == to.tunnel_protocols,
            NodeSet::TunnelEndpoints(_) => {
                self.has_tunnels() == to.has_tunnels() && self.tunnel_peers == to.tunnel_peers
            }
            _ => true,
        };
        if is_same {
            return;
        }
        let of = |links: &Self| links.elements(node_set, next).into_iter().collect::<BTreeSet<Element>>();
        change(set, &of(self), &of(to), phases);
    }
}

fn change(set: &Arc<Set>, before: &BTreeSet<Element>, after: &BTreeSet<Element>, phases: &mut Phases) {
    let only = |of: &BTreeSet<Element>, other: &BTreeSet<Element>| of.difference(other).cloned().collect();
    phases.change_elements(set, only(after, before), only(before, after));
}

/// Returns the address of a pod whose policy table decides about what the pod sends by IPv6 without an address of its own: its first IPv6
/// address. If it has none, an IPv4 address says whether the pod is isolated.
pub(crate) fn deciding(addresses: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    addresses.iter().find(|address| address.is_ipv6()).or_else(|| addresses.first()).copied()
}

/// Returns the element of the set of known senders, for a pod with an address.
fn link_sender(((interface, mac), addresses): Sender<'_>) -> Option<Element> {
    deciding(addresses).map(|_| Element::InterfaceHardware(*interface, *mac))
}

fn addresses(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Vec<Element> {
    addresses.filter(|a| Family::of(*a) == family).map(Element::Address).collect()
}

fn self_pairs(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Vec<Element> {
    addresses.filter(|a| Family::of(*a) == family).map(Element::SelfPair).collect()
}
