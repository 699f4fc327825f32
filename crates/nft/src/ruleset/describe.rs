//! Descriptions of messages and elements, for errors.

use std::net::IpAddr;

use palisade_policy::Name;

use super::{Content, Element, JumpTarget, Message, NodeSet, Set, Shared, TABLE};
use crate::text;

impl Message {
    /// Describes the object of the message: `rule 2 of chain forward`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::CreateTable => format!("table inet {TABLE}"),
            Self::WakeTable => format!("waking table inet {TABLE}"),
            Self::DeleteTable => format!("removal of table inet {TABLE}"),
            Self::CreateSet(set) => format!("set {} ({})", set.name, set.content.describe()),
            Self::DeleteSet(name) => format!("removal of set {name}"),
            Self::AddElements(set, e) => elements(e, "into", set),
            Self::RemoveElements(set, e) => elements(e, "out of", set),
            Self::FlushSet(name) => format!("removal of all elements of set {name}"),
            Self::CreateChain(chain) => match &chain.comment {
                Some(comment) => format!("chain {} ({comment})", chain.name),
                None => format!("chain {}", chain.name),
            },
            Self::AddRule(chain, index) => format!("rule {index} of chain {}", chain.name),
            Self::FlushChain(name) => format!("flush of chain {name}"),
            Self::DeleteChain(name) => format!("removal of chain {name}"),
            Self::Bridged(message) => match &**message {
                Self::CreateTable => format!("table bridge {TABLE}"),
                Self::DeleteTable => format!("removal of table bridge {TABLE}"),
                other => format!("{} of table bridge {TABLE}", other.describe()),
            },
            Self::DeleteObject(_, name) => format!("removal of object {name}"),
            Self::DeleteFlowTable(name) => format!("removal of flow table {name}"),
        }
    }

    /// Describes the element with this index, for errors that point at one.
    pub(crate) fn describe_element(&self, index: usize) -> Option<String> {
        match self {
            Self::AddElements(set, e) => {
                e.get(index).map(|e| format!("{} into set {}", e.describe(set), set.name))
            }
            Self::RemoveElements(set, e) => {
                e.get(index).map(|e| format!("{} out of set {}", e.describe(set), set.name))
            }
            Self::Bridged(message) => message.describe_element(index),
            _ => None,
        }
    }

    /// Returns how many elements it carries.
    pub(crate) fn elements(&self) -> usize {
        match self {
            Self::AddElements(_, e) | Self::RemoveElements(_, e) => e.len(),
            Self::Bridged(message) => message.elements(),
            _ => 0,
        }
    }
}

fn elements(elements: &[Element], preposition: &str, set: &Set) -> String {
    match elements {
        [one] => format!("{} {preposition} set {}", one.describe(set), set.name),
        [first, ..] => {
            let more = elements.len() - 1;
            format!("{} and {more} more elements {preposition} set {}", first.describe(set), set.name)
        }
        [] => format!("no elements {preposition} set {}", set.name),
    }
}

impl Element {
    /// Returns the element of a dispatch map that makes a local address jump to a chain.
    pub(crate) fn jump(target: JumpTarget, address: IpAddr, chain: Name) -> Self {
        match target {
            JumpTarget::Table(_) | JumpTarget::Reply(_) | JumpTarget::Audit(_) => Self::Jump(address, chain),
            JumpTarget::Hairpin | JumpTarget::AuditHairpin => Self::SelfPairJump(address, chain),
        }
    }

    fn describe(&self, set: &Set) -> String {
        match (self, &set.content) {
            (Self::Jump(address, chain), Content::Dispatch(JumpTarget::Table(direction), _)) => {
                format!("table chain {chain} for {direction} of {address}")
            }
            (Self::SelfPairJump(address, chain), _) => {
                format!("chain {chain} for what {address} uses of itself")
            }
            (Self::Address(a) | Self::SelfPair(a) | Self::Jump(a, _), _) => format!("address {a}"),
            (Self::Range(r), _) => format!("range {r}"),
            (Self::Ports(a, b), _) => format!("ports {a}-{b}"),
            (Self::Port(port), _) => format!("port {port}"),
            (Self::Interface(index) | Self::InterfacePair(index), _) => format!("interface {index}"),
            (Self::Protocol(number), _) => format!("protocol {number}"),
            (Self::Hardware(_) | Self::Target(_), _) => text::element(self),
            (
                Self::InterfaceAddress(..)
                | Self::InterfaceHardware(..)
                | Self::InterfaceSender(..)
                | Self::InterfaceTarget(..)
                | Self::InterfaceRange(..),
                _,
            ) => {
                format!("sender {}", text::element(self))
            }
            (Self::Revoked(tuple, _), _) => format!("revoked connection {tuple}"),
            (Self::LinkJump(interface, mac, chain), _) => {
                let sender = text::element(&Self::InterfaceHardware(*interface, *mac));
                format!("chain {chain} for packets of {sender} by link-local addresses")
            }
            (Self::Number(n), _) => format!("number {n}"),
        }
    }
}

impl Content {
    /// Describes what the set holds.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::PeerSets(ids, family) if ids.len() == 1 => {
                format!("{family} members of peer set {}", ids[0])
            }
            Self::PeerSets(ids, family) => format!("{family} members of {} peer sets", ids.len()),
            Self::Ports(ranges) => format!("{} port ranges", ranges.len()),
            Self::Dispatch(JumpTarget::Table(direction), family) => {
                format!("{family} pods isolated for {direction}")
            }
            Self::Dispatch(JumpTarget::Hairpin, family) => {
                format!("{family} pods with limited access to themselves")
            }
            Self::Dispatch(JumpTarget::Reply(direction), family) => {
                format!("{family} pods isolated for {direction}, for replies")
            }
            Self::Dispatch(JumpTarget::Audit(direction), family) => {
                format!("{family} pods selected for {direction} by policies in audit mode")
            }
            Self::Dispatch(JumpTarget::AuditHairpin, family) => {
                format!("{family} pods whose access to themselves policies in audit mode limit")
            }
            Self::SelfPairs(family) => format!("{family} isolated pods, each with itself"),
            Self::Revoked(family, _) => format!("{family} revoked connections"),
            Self::Shares(Shared::Log, family) => format!("{family} shares of the log"),
            Self::Shares(Shared::Refusals, family) => format!("{family} shares of the refusals"),
            Self::DnsShares(family) => format!("{family} shares of the queue of DNS messages"),
            Self::NewPods(family) => format!("{family} addresses of pods that have just started"),
            Self::NewConnections(family) => format!("{family} connections since the start of these pods"),
            Self::LinkDispatch => "pods isolated for egress, by interface and hardware address".to_owned(),
            Self::Generation => "transaction number".to_owned(),
            Self::Node(NodeSet::Local(family)) => format!("{family} addresses of local pods"),
            Self::Node(NodeSet::Refusing(family)) => {
                format!("{family} addresses of local pods that refuse what is denied")
            }
            Self::Node(NodeSet::Interfaces) => "interfaces of local pods".to_owned(),
            Self::Node(NodeSet::Bridges) => "bridges of local pods".to_owned(),
            Self::Node(NodeSet::BridgePorts) => "bridge ports of local pods".to_owned(),
            Self::Node(NodeSet::BridgePortPairs) => "bridge ports of local pods, each with itself".to_owned(),
            Self::Node(NodeSet::LocalPairs(family)) => {
                format!("{family} addresses of local pods, each with itself")
            }
            Self::Node(NodeSet::BoundInterfaces) => "interfaces whose pods are known".to_owned(),
            Self::Node(NodeSet::InterfaceSources(family)) => {
                format!("{family} addresses of pods, by interface")
            }
            Self::Node(NodeSet::RoutedSources(family)) => {
                format!("{family} addresses of local pods, by the interface that leads to them")
            }
            Self::Node(NodeSet::LinkSenders) => "pods by interface and hardware address".to_owned(),
            Self::Node(NodeSet::AllowedSources(family)) => {
                format!("further {family} sources of pods, by interface")
            }
            Self::Node(NodeSet::PortAllowed(family)) => {
                format!("further {family} sources of pods, by bridge port")
            }
            Self::Node(NodeSet::PortAllowedTargets) => {
                "further addresses that pods may advertise, by bridge port".to_owned()
            }
            Self::Node(NodeSet::CheckedPorts) => "bridge ports whose senders are checked".to_owned(),
            Self::Node(NodeSet::BoundPorts) => "bridge ports whose pods are known".to_owned(),
            Self::Node(NodeSet::HardwarePorts) => {
                "bridge ports whose pods' hardware addresses are known".to_owned()
            }
            Self::Node(NodeSet::PortHardware) => "hardware addresses of pods, by bridge port".to_owned(),
            Self::Node(NodeSet::PortSenders(family)) => {
                format!("{family} and hardware addresses of pods, by bridge port")
            }
            Self::Node(NodeSet::Hardware) => "hardware addresses of pods and bridges".to_owned(),
            Self::Node(NodeSet::PortSources(family)) => {
                format!("{family} addresses of pods, by bridge port")
            }
            Self::Node(NodeSet::PortTargets) => {
                "addresses that pods may advertise, by bridge port".to_owned()
            }
            Self::Node(NodeSet::Taken(family)) => format!("{family} addresses of pods and nodes"),
            Self::Node(NodeSet::TakenTargets) => "addresses that only their owners may advertise".to_owned(),
            Self::Node(NodeSet::TunnelPorts) => "ports of tunnels".to_owned(),
            Self::Node(NodeSet::TunnelProtocols) => "protocols of tunnels".to_owned(),
            Self::Node(NodeSet::TunnelEndpoints(family)) => format!("{family} endpoints of tunnels"),
        }
    }
}
