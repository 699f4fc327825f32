//! The sets and maps that exist whatever the plan contains.

use std::sync::Arc;

use palisade_policy::{Direction, Family};

use crate::ruleset::{
    Content, GENERATION_SET, HasPorts, JumpTarget, Key, NodeSet, Set, Shared, family_digit,
};

/// The sets of the table `inet palisade` that always exist.
#[derive(Debug)]
pub(crate) struct BaseSets {
    dispatch: [[Arc<Set>; 2]; 2],
    reply: [[Arc<Set>; 2]; 2],
    audit: [[Arc<Set>; 2]; 2],
    hairpin: [Arc<Set>; 2],
    audit_hairpin: [Arc<Set>; 2],
    self_pairs: [Arc<Set>; 2],
    /// From what identifies a pod's packets without an address of its to the chain of its egress.
    pub(crate) link_dispatch: Arc<Set>,
    revoked: [[Arc<Set>; 2]; 2],
    /// Of the log and of refusals, by destination, then by source.
    shares: [[[Arc<Set>; 2]; 2]; 2],
    node: [Arc<Set>; NodeSet::ALL.len()],
    /// The set with the transaction number.
    pub(crate) generation: Arc<Set>,
}

impl BaseSets {
    pub(crate) fn new() -> Self {
        let to_tables = |prefix: &str, target: JumpTarget| {
            Family::BOTH.map(|family| {
                let name = format!("{prefix}{}{}", target.direction(), family_digit(family));
                Arc::new(Set::verdict_map(name, Key::Address(family), Content::Dispatch(target, family)))
            })
        };
        let revoked = |has_ports: HasPorts| {
            Family::BOTH.map(|family| {
                let kind = if has_ports == HasPorts::Yes { "" } else { "_portless" };
                let name = format!("revoked{kind}{}", family_digit(family));
                Arc::new(Set::plain(name, has_ports.key(family), Content::Revoked(family, has_ports)))
            })
        };
        let hairpin = |prefix: &str, target: JumpTarget| {
            Family::BOTH.map(|family| {
                let name = format!("{prefix}hairpin{}", family_digit(family));
                let content = Content::Dispatch(target, family);
                Arc::new(Set::verdict_map(name, Key::Pair(family), content))
            })
        };
        let self_pairs = |family| {
            let name = format!("self{}", family_digit(family));
            Arc::new(Set::plain(name, Key::Pair(family), Content::SelfPairs(family)))
        };
        let shares = |(of, prefix): (Shared, &str)| {
            ["receivers", "senders"].map(|end| {
                Family::BOTH.map(|family| {
                    let name = format!("{prefix}_{end}{}", family_digit(family));
                    Arc::new(Set::plain(name, Key::Address(family), Content::Shares(of, family)))
                })
            })
        };
        Self {
            dispatch: Direction::BOTH.map(|direction| to_tables("", JumpTarget::Table(direction))),
            reply: Direction::BOTH.map(|direction| to_tables("reply_", JumpTarget::Reply(direction))),
            audit: Direction::BOTH.map(|direction| to_tables("audit_", JumpTarget::Audit(direction))),
            hairpin: hairpin("", JumpTarget::Hairpin),
            audit_hairpin: hairpin("audit_", JumpTarget::AuditHairpin),
            self_pairs: Family::BOTH.map(self_pairs),
            link_dispatch: Arc::new(Set::verdict_map(
                "link_egress",
                Key::InterfaceHardware,
                Content::LinkDispatch,
            )),
            revoked: HasPorts::ALL.map(revoked),
            shares: [(Shared::Log, "log"), (Shared::Refusals, "refused")].map(shares),
            node: NodeSet::ALL.map(|set| Arc::new(node_set(set))),
            generation: Arc::new(Set::plain(GENERATION_SET, Key::Number, Content::Generation)),
        }
    }

    /// Returns the map from local pods to their chains.
    pub(crate) fn dispatch(&self, target: JumpTarget, family: Family) -> &Arc<Set> {
        let maps = match target {
            JumpTarget::Table(direction) => &self.dispatch[usize::from(direction != Direction::BOTH[0])],
            JumpTarget::Reply(direction) => &self.reply[usize::from(direction != Direction::BOTH[0])],
            JumpTarget::Audit(direction) => &self.audit[usize::from(direction != Direction::BOTH[0])],
            JumpTarget::Hairpin => &self.hairpin,
            JumpTarget::AuditHairpin => &self.audit_hairpin,
        };
        &maps[usize::from(family == Family::V6)]
    }

    /// Returns the set of isolated pods, also those that policies in audit mode would isolate, as pairs with themselves.
    pub(crate) fn self_pairs(&self, family: Family) -> &Arc<Set> {
        &self.self_pairs[usize::from(family == Family::V6)]
    }

    /// Returns the set of revoked connections.
    pub(crate) fn revoked(&self, family: Family, has_ports: HasPorts) -> &Arc<Set> {
        &self.revoked[usize::from(has_ports == HasPorts::No)][usize::from(family == Family::V6)]
    }

    /// Returns the set of shares, by source or by destination.
    pub(crate) fn shares(&self, of: Shared, source: bool, family: Family) -> &Arc<Set> {
        &self.shares[usize::from(of == Shared::Refusals)][usize::from(source)]
            [usize::from(family == Family::V6)]
    }

    /// Returns a set of the node's pods and links.
    pub(crate) fn node(&self, set: NodeSet) -> &Arc<Set> {
        let at = NodeSet::ALL.iter().position(|one| *one == set).unwrap_or_default();
        &self.node[at]
    }

    /// Returns all sets of the node's pods and links.
    pub(crate) fn node_sets(&self) -> impl Iterator<Item = &Arc<Set>> {
        self.node.iter()
    }

    /// Returns all sets.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Set>> {
        let dispatch = self.dispatch.iter().chain(&self.reply).chain(&self.audit).flatten();
        let hairpins = self.hairpin.iter().chain(&self.audit_hairpin);
        let others = hairpins.chain(&self.self_pairs).chain(self.revoked.iter().flatten());
        dispatch
            .chain(others)
            .chain(self.shares.iter().flatten().flatten())
            .chain(&self.node)
            .chain([&self.link_dispatch, &self.generation])
    }
}

/// Returns the kernel set for a [`NodeSet`].
pub(crate) fn node_set(set: NodeSet) -> Set {
    let (name, key) = match set {
        NodeSet::Local(family) => (format!("local{}", family_digit(family)), Key::Address(family)),
        NodeSet::Refusing(family) => (format!("refusing{}", family_digit(family)), Key::Address(family)),
        NodeSet::Interfaces => ("pod_interfaces".to_owned(), Key::Interface),
        NodeSet::Bridges => ("pod_bridges".to_owned(), Key::Interface),
        NodeSet::BridgePorts => ("pod_ports".to_owned(), Key::Interface),
        NodeSet::BridgePortPairs => ("own_ports".to_owned(), Key::InterfacePair),
        NodeSet::LocalPairs(family) => (format!("themselves{}", family_digit(family)), Key::Pair(family)),
        NodeSet::BoundInterfaces => ("known_interfaces".to_owned(), Key::Interface),
        NodeSet::InterfaceSources(family) => {
            (format!("interface_sources{}", family_digit(family)), Key::InterfaceAddress(family))
        }
        NodeSet::RoutedSources(family) => {
            (format!("routed_sources{}", family_digit(family)), Key::InterfaceAddress(family))
        }
        NodeSet::AllowedSources(family) => {
            (format!("allowed_sources{}", family_digit(family)), Key::InterfaceAddress(family))
        }
        NodeSet::PortAllowed(family) => {
            (format!("allowed{}", family_digit(family)), Key::InterfaceAddress(family))
        }
        NodeSet::PortAllowedTargets => ("allowed_targets".to_owned(), Key::InterfaceTarget),
        NodeSet::LinkSenders => ("link_senders".to_owned(), Key::InterfaceHardware),
        NodeSet::CheckedPorts => ("checked_ports".to_owned(), Key::Interface),
        NodeSet::BoundPorts => ("bound_ports".to_owned(), Key::Interface),
        NodeSet::HardwarePorts => ("mac_ports".to_owned(), Key::Interface),
        NodeSet::PortHardware => ("port_macs".to_owned(), Key::InterfaceHardware),
        NodeSet::PortSenders(family) => {
            (format!("senders{}", family_digit(family)), Key::InterfaceSender(family))
        }
        NodeSet::Hardware => ("macs".to_owned(), Key::Hardware),
        NodeSet::PortSources(family) => {
            (format!("sources{}", family_digit(family)), Key::InterfaceAddress(family))
        }
        NodeSet::PortTargets => ("port_targets".to_owned(), Key::InterfaceTarget),
        NodeSet::Taken(family) => (format!("taken{}", family_digit(family)), Key::Address(family)),
        NodeSet::TakenTargets => ("taken_targets".to_owned(), Key::Target),
        NodeSet::TunnelPorts => ("tunnel_ports".to_owned(), Key::Port),
        NodeSet::TunnelProtocols => ("tunnel_protocols".to_owned(), Key::Protocol),
        NodeSet::TunnelEndpoints(family) => {
            (format!("tunnel_ends{}", family_digit(family)), Key::Address(family))
        }
    };
    Set { intervals: set.has_ranges(), ..Set::plain(name, key, Content::Node(set)) }
}
