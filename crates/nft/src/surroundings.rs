//! What the rules need to know of the node's links. Plain values: who reads them from the kernel is the caller's affair.

use std::{collections::BTreeSet, net::IpAddr};

use palisade_policy::{Family, NodePlan};

use crate::{
    next::Next,
    program::{Phases, add, remove},
    ruleset::{Around, Content, Element, Set},
};

/// The links of a node, as far as rules look at them. The default knows of none: then rules go by the addresses of local
/// pods alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The indexes of the interfaces from which nothing but packets of local pods comes.
    pub pod_interfaces: BTreeSet<u32>,
    /// Those of them that are bridges.
    pub pod_bridges: BTreeSet<u32>,
    /// The indexes of those ports of bridges that lead to local pods.
    pub pod_ports: BTreeSet<u32>,
    /// The UDP ports on which the node takes encapsulated packets.
    pub tunnel_ports: BTreeSet<u16>,
    /// The IP protocols in which the node takes encapsulated packets.
    pub tunnel_protocols: BTreeSet<u8>,
    /// The far ends of the node's tunnels, as far as its devices name them. Those of the plan's nodes need not be here.
    pub tunnel_peers: BTreeSet<IpAddr>,
}

impl Surroundings {
    /// Whether the node takes encapsulated packets from anybody.
    #[must_use]
    pub fn has_tunnels(&self) -> bool {
        !self.tunnel_ports.is_empty() || !self.tunnel_protocols.is_empty()
    }

    /// Whether a bridge leads to local pods.
    #[must_use]
    pub(crate) fn has_pod_ports(&self) -> bool {
        !self.pod_ports.is_empty()
    }

    /// Whether a packet of a local pod with this protocol and port would be taken for a tunnel's.
    pub(crate) fn takes(&self, protocol: u8, port: u16) -> bool {
        /// UDP.
        const UDP: u8 = 17;
        self.tunnel_protocols.contains(&protocol) || (protocol == UDP && self.tunnel_ports.contains(&port))
    }

    /// How many elements all these sets hold under a plan, in both tables.
    pub(crate) fn count(&self, plan: &NodePlan) -> usize {
        let links = self.pod_interfaces.len() + self.pod_bridges.len();
        let ends = plan.nodes.len() + self.tunnel_peers.difference(&plan.nodes).count();
        let tunnels = self.tunnel_ports.len() + self.tunnel_protocols.len();
        let of_bridge = if self.has_pod_ports() { 2 * self.pod_ports.len() + plan.local.len() } else { 0 };
        plan.local.len() + links + tunnels + if self.has_tunnels() { ends } else { 0 } + of_bridge
    }

    /// What must be in one of the sets that rules about a pod's surroundings look into.
    pub(crate) fn elements(&self, around: Around, next: &Next<'_>) -> Vec<Element> {
        match around {
            Around::Local(family) => of_family(next.local(), family),
            Around::Interfaces => self.pod_interfaces.iter().copied().map(Element::Interface).collect(),
            Around::Bridges => self.pod_bridges.iter().copied().map(Element::Interface).collect(),
            Around::Ports => self.pod_ports.iter().copied().map(Element::Interface).collect(),
            Around::OwnPorts => self.pod_ports.iter().copied().map(Element::SameInterface).collect(),
            Around::Themselves(family) => themselves(next.local(), family),
            Around::TunnelPorts => self.tunnel_ports.iter().copied().map(Element::Port).collect(),
            Around::TunnelProtocols => self.tunnel_protocols.iter().copied().map(Element::Protocol).collect(),
            Around::Ends(_) if !self.has_tunnels() => Vec::new(),
            Around::Ends(family) => {
                let ends: BTreeSet<IpAddr> = next.nodes().chain(self.tunnel_peers.iter().copied()).collect();
                of_family(ends.into_iter(), family)
            }
        }
    }

    /// What a change of the plan changes in one of these sets.
    pub(crate) fn follow(&self, set: &std::sync::Arc<Set>, next: &Next<'_>, phases: &mut Phases) {
        let Content::Around(around) = set.content else { return };
        let (family, changes, had) = match around {
            Around::Local(family) | Around::Themselves(family) => {
                (family, &next.delta.local, &next.plan.local)
            }
            Around::Ends(family) if self.has_tunnels() => (family, &next.delta.nodes, &next.plan.nodes),
            _ => return,
        };
        let stays = |a: &IpAddr| matches!(around, Around::Ends(_)) && self.tunnel_peers.contains(a);
        let added = changes.added.iter().filter(|a| !had.contains(*a) && !stays(a));
        let removed = changes.removed.iter().filter(|a| had.contains(*a) && !stays(a));
        let elements = |addresses: BTreeSet<IpAddr>| match around {
            Around::Themselves(_) => themselves(addresses.into_iter(), family),
            _ => of_family(addresses.into_iter(), family),
        };
        phases.join.extend(add(set, elements(added.copied().collect())));
        phases.leave.extend(remove(set, elements(removed.copied().collect())));
    }

    /// What leads from these surroundings to others in one of these sets.
    pub(crate) fn lead_to(&self, to: &Self, set: &std::sync::Arc<Set>, next: &Next<'_>, phases: &mut Phases) {
        let Content::Around(around) = set.content else { return };
        // The plan alone says who is local, and the ends may be thousands.
        let is_same = match around {
            Around::Local(_) | Around::Themselves(_) => true,
            Around::Interfaces => self.pod_interfaces == to.pod_interfaces,
            Around::Bridges => self.pod_bridges == to.pod_bridges,
            Around::Ports | Around::OwnPorts => self.pod_ports == to.pod_ports,
            Around::TunnelPorts => self.tunnel_ports == to.tunnel_ports,
            Around::TunnelProtocols => self.tunnel_protocols == to.tunnel_protocols,
            Around::Ends(_) => self.has_tunnels() == to.has_tunnels() && self.tunnel_peers == to.tunnel_peers,
        };
        if is_same {
            return;
        }
        let of = |s: &Self| s.elements(around, next).into_iter().collect::<BTreeSet<Element>>();
        let (before, after) = (of(self), of(to));
        phases.join.extend(add(set, after.difference(&before).cloned().collect()));
        phases.leave.extend(remove(set, before.difference(&after).cloned().collect()));
    }
}

fn of_family(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Vec<Element> {
    addresses.filter(|a| Family::of(*a) == family).map(Element::Address).collect()
}

fn themselves(addresses: impl Iterator<Item = IpAddr>, family: Family) -> Vec<Element> {
    addresses.filter(|a| Family::of(*a) == family).map(Element::Itself).collect()
}
