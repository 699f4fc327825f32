//! What messages and elements are about, in words: for errors.

use std::net::IpAddr;

use palisade_policy::Name;

use super::{Around, Content, Element, Lead, Message, Set, TABLE};

impl Message {
    /// What the message is about, for errors: `rule 2 of chain forward`.
    pub(crate) fn about(&self) -> String {
        match self {
            Self::CreateTable => format!("table inet {TABLE}"),
            Self::WakeTable => format!("waking of table inet {TABLE}"),
            Self::DeleteTable => format!("removal of table inet {TABLE}"),
            Self::CreateSet(set) => format!("set {} ({})", set.name, set.content.about()),
            Self::DeleteSet(name) => format!("removal of set {name}"),
            Self::AddElements(set, e) => elements(e, "into", set),
            Self::RemoveElements(set, e) => elements(e, "out of", set),
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
                other => format!("{} of table bridge {TABLE}", other.about()),
            },
            Self::DeleteObject(_, name) => format!("removal of object {name}"),
            Self::DeleteFlowTable(name) => format!("removal of flow table {name}"),
        }
    }

    /// What the element with this index is about, for errors that point at one.
    pub(crate) fn about_element(&self, index: usize) -> Option<String> {
        match self {
            Self::AddElements(set, e) => {
                e.get(index).map(|e| format!("{} into set {}", e.about(set), set.name))
            }
            Self::RemoveElements(set, e) => {
                e.get(index).map(|e| format!("{} out of set {}", e.about(set), set.name))
            }
            Self::Bridged(message) => message.about_element(index),
            _ => None,
        }
    }

    /// How many elements it carries.
    pub(crate) fn elements(&self) -> usize {
        match self {
            Self::AddElements(_, e) | Self::RemoveElements(_, e) => e.len(),
            Self::Bridged(message) => message.elements(),
            _ => 0,
        }
    }
}

fn elements(elements: &[Element], way: &str, set: &Set) -> String {
    match elements {
        [one] => format!("{} {way} set {}", one.about(set), set.name),
        [first, ..] => {
            format!("{} and {} more elements {way} set {}", first.about(set), elements.len() - 1, set.name)
        }
        [] => format!("no elements {way} set {}", set.name),
    }
}

impl Element {
    /// The element of a verdict map that leads a local address to a chain.
    pub(crate) fn leading(lead: Lead, address: IpAddr, chain: Name) -> Self {
        match lead {
            Lead::Table(_) | Lead::Reply(_) => Self::Jump(address, chain),
            Lead::Hairpin => Self::JumpItself(address, chain),
        }
    }

    fn about(&self, set: &Set) -> String {
        match (self, &set.content) {
            (Self::Jump(address, chain), Content::Dispatch(Lead::Table(direction), _)) => {
                format!("table chain {chain} for {direction} of {address}")
            }
            (Self::JumpItself(address, chain), _) => {
                format!("chain {chain} for what {address} uses of itself")
            }
            (Self::Address(a) | Self::Itself(a) | Self::Jump(a, _), _) => format!("address {a}"),
            (Self::Range(r), _) => format!("range {r}"),
            (Self::Ports(a, b), _) => format!("ports {a}-{b}"),
            (Self::Port(port), _) => format!("port {port}"),
            (Self::Interface(index) | Self::SameInterface(index), _) => format!("interface {index}"),
            (Self::Protocol(number), _) => format!("protocol {number}"),
            (Self::Revoked(tuple, _), _) => format!("revoked connection {tuple}"),
            (Self::Number(n), _) => format!("number {n}"),
        }
    }
}

impl Content {
    pub(crate) fn about(&self) -> String {
        match self {
            Self::Groups(groups, family) if groups.len() == 1 => {
                format!("{family} members of group {}", groups[0])
            }
            Self::Groups(groups, family) => format!("{family} members of {} groups", groups.len()),
            Self::Ports(ranges) => format!("{} port ranges", ranges.len()),
            Self::Dispatch(Lead::Table(direction), family) => {
                format!("{family} pods isolated for {direction}")
            }
            Self::Dispatch(Lead::Hairpin, family) => {
                format!("{family} pods that may not use all of themselves")
            }
            Self::Dispatch(Lead::Reply(direction), family) => {
                format!("{family} pods isolated for {direction}, for replies")
            }
            Self::Itself(family) => format!("{family} pods that reach themselves"),
            Self::Revoked(family, _) => format!("{family} revoked connections"),
            Self::Generation => "transaction number".to_owned(),
            Self::Around(Around::Local(family)) => format!("{family} addresses of local pods"),
            Self::Around(Around::Interfaces) => "interfaces of local pods".to_owned(),
            Self::Around(Around::Bridges) => "bridges of local pods".to_owned(),
            Self::Around(Around::Ports) => "bridge ports of local pods".to_owned(),
            Self::Around(Around::OwnPorts) => "bridge ports of local pods, each with itself".to_owned(),
            Self::Around(Around::Themselves(family)) => {
                format!("{family} addresses of local pods, each with itself")
            }
            Self::Around(Around::TunnelPorts) => "ports of tunnels".to_owned(),
            Self::Around(Around::TunnelProtocols) => "protocols of tunnels".to_owned(),
            Self::Around(Around::Ends(family)) => format!("{family} ends of tunnels"),
        }
    }
}
