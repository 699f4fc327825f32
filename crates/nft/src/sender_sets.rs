//! The sets for the check of senders on bridges: which addresses the pod behind a bridge port may use, and which are reserved for others.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use palisade_policy::{Family, IpRange};

use crate::{
    NodeLinks,
    next_plan::NextPlan,
    phases::{Phases, add, remove},
    ruleset::{Element, NodeSet, Set},
};

impl NodeLinks {
    /// Returns the elements of a set that follow from the links alone, without those that follow from the plan.
    pub(crate) fn sender_elements(&self, set: NodeSet) -> BTreeSet<Element> {
        let owners = || self.owners.iter();
        let with_hardware = || owners().filter_map(|(port, owner)| Some((*port, owner.hardware?)));
        let addresses = || owners().flat_map(|(port, owner)| owner.addresses.iter().map(|a| (*port, *a)));
        match set {
            NodeSet::CheckedPorts => {
                self.pod_ports.difference(&self.unchecked_ports).copied().map(Element::Interface).collect()
            }
            NodeSet::BoundPorts => owners().map(|(port, _)| Element::Interface(*port)).collect(),
            NodeSet::HardwarePorts => with_hardware().map(|(port, _)| Element::Interface(port)).collect(),
            NodeSet::PortHardware => {
                with_hardware().map(|(port, mac)| Element::InterfaceHardware(port, mac)).collect()
            }
            NodeSet::PortSenders(family) => owners()
                .filter_map(|(port, owner)| Some((*port, owner.hardware?, &owner.addresses)))
                .flat_map(|(port, mac, of)| of.iter().map(move |a| Element::InterfaceSender(port, *a, mac)))
                .filter(|element| matches!(element, Element::InterfaceSender(_, a, _) if Family::of(*a) == family))
                .collect(),
            NodeSet::Hardware => with_hardware()
                .map(|(_, mac)| mac)
                .chain(self.bridge_hardware.iter().copied())
                .map(Element::Hardware)
                .collect(),
            NodeSet::PortSources(family) => addresses()
                .filter(|(_, a)| Family::of(*a) == family)
                .map(|(port, a)| Element::InterfaceAddress(port, a))
                .collect(),
            NodeSet::PortTargets => {
                addresses().filter_map(|(port, a)| Some(Element::InterfaceTarget(port, v6(a)?))).collect()
            }
            NodeSet::PortAllowed(family) => self.allowed_elements(true, family).collect(),
            NodeSet::PortAllowedTargets => self.allowed_elements(true, Family::V6).collect(),
            NodeSet::Taken(_) | NodeSet::TakenTargets => {
                let all = self.taken_here().into_iter().chain(self.other_pods.iter().copied());
                all.filter_map(|address| taken(set, address)).collect()
            }
            _ => BTreeSet::new(),
        }
    }

    /// Returns the elements of a set, with those that follow from the plan.
    pub(crate) fn all_sender_elements(&self, set: NodeSet, next: &NextPlan<'_>) -> Vec<Element> {
        let mut elements = self.sender_elements(set);
        elements.extend(next.nodes().filter_map(|address| taken(set, address)));
        elements.into_iter().collect()
    }

    /// Adds the changes of a set that a change of the plan's nodes causes.
    pub(crate) fn follow_nodes(
        &self,
        set: &Arc<Set>,
        node_set: NodeSet,
        next: &NextPlan<'_>,
        phases: &mut Phases,
    ) {
        let (changes, before) = (&next.delta.nodes, &next.plan.nodes);
        if changes.is_empty() {
            return;
        }
        let own = self.taken_here();
        let of = |addresses: &BTreeSet<IpAddr>, was: bool| -> Vec<Element> {
            let changed = addresses.iter().filter(|a| before.contains(*a) == was && !own.contains(*a));
            let changed = changed.filter(|a| !self.other_pods.contains(*a));
            changed.filter_map(|a| taken(node_set, *a)).collect()
        };
        phases.join.extend(add(set, of(&changes.added, false)));
        phases.leave.extend(remove(set, of(&changes.removed, true)));
    }

    /// Adds the changes of a set between these links and others.
    pub(crate) fn change_senders(
        &self,
        to: &Self,
        (set, node_set): (&Arc<Set>, NodeSet),
        next: &NextPlan<'_>,
        phases: &mut Phases,
    ) {
        if self.has_senders_of(to) {
            return;
        }
        // There may be thousands of other pods, and a start of a pod doesn't change them.
        let has_same_others = Arc::ptr_eq(&self.other_pods, &to.other_pods);
        let elements = |links: &Self| match node_set {
            NodeSet::Taken(_) | NodeSet::TakenTargets if has_same_others => {
                links.taken_here().into_iter().filter_map(|address| taken(node_set, address)).collect()
            }
            _ => links.sender_elements(node_set),
        };
        let (before, after) = (elements(self), elements(to));
        let stays = |a: &IpAddr| next.plan.nodes.contains(a) || has_same_others && to.other_pods.contains(a);
        let of_others = |element: &&Element| match element {
            Element::Address(a) => stays(a),
            Element::Target(a) => stays(&IpAddr::V6(*a)),
            _ => false,
        };
        let differs = |a: &BTreeSet<Element>, b: &BTreeSet<Element>| -> Vec<Element> {
            a.difference(b).filter(|e| !of_others(e)).cloned().collect()
        };
        phases.change_elements(set, differs(&after, &before), differs(&before, &after));
    }

    /// Returns the further sources of pods behind bridge ports, or behind other interfaces, as disjoint ranges.
    pub(crate) fn allowed_elements(&self, of_ports: bool, family: Family) -> impl Iterator<Item = Element> {
        let chosen = self.allowed_sources.iter().filter(move |(i, _)| self.pod_ports.contains(i) == of_ports);
        chosen.flat_map(move |(index, networks)| {
            let of_family = networks.iter().filter(|network| Family::of(network.addr()) == family);
            let disjoint = IpNet::aggregate(&of_family.copied().collect());
            disjoint.into_iter().map(|network| {
                let range = IpRange { first: network.network(), last: network.broadcast() };
                Element::InterfaceRange(*index, range)
            })
        })
    }

    /// Returns whether all that the check of senders uses is the same.
    fn has_senders_of(&self, other: &Self) -> bool {
        self.pod_ports == other.pod_ports
            && self.allowed_sources == other.allowed_sources
            && self.unchecked_ports == other.unchecked_ports
            && self.owners == other.owners
            && self.host_addresses == other.host_addresses
            && self.other_pods == other.other_pods
            && self.bridge_hardware == other.bridge_hardware
    }

    /// Returns the addresses of bound ports and of the node itself.
    fn taken_here(&self) -> BTreeSet<IpAddr> {
        let of_pods = self.owners.values().flat_map(|owner| owner.addresses.iter().copied());
        of_pods.chain(self.host_addresses.iter().copied()).collect()
    }
}

fn taken(set: NodeSet, address: IpAddr) -> Option<Element> {
    match set {
        NodeSet::Taken(family) => (Family::of(address) == family).then_some(Element::Address(address)),
        NodeSet::TakenTargets => v6(address).map(Element::Target),
        _ => None,
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
