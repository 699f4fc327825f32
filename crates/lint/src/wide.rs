//! What is wide open: peers that are all addresses or all namespaces, and rules for all ports.

use palisade_policy::{
    Family, IpBlock, IpRange, NAMESPACE_NAME_LABEL, NamespaceMatch, Peer, PeerEntry, PodMatch, PortSet,
    Protocol, Rule, Test, Traffic,
    address::{to_number, without},
};

use crate::admits;

/// Which exceptions leave a block as wide as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceptions {
    /// Those of single networks, such as a metadata service; the private ranges of RFC 1918 are more.
    Narrow,
    /// Those that leave at least half of the block.
    UpToHalf,
}

impl Exceptions {
    fn leave_wide(self, block: &IpBlock) -> bool {
        let family = Family::of_net(&block.cidr);
        match self {
            Self::Narrow => {
                let narrow = if family == Family::V4 { 16 } else { 32 };
                block.except.iter().all(|net| net.prefix_len() >= narrow)
            }
            Self::UpToHalf => {
                let size = |range: &IpRange| to_number(range.last) - to_number(range.first);
                let left: u128 = block.ranges().iter().map(size).sum();
                left >= size(&IpRange::of_net(&block.cidr)) / 2
            }
        }
    }
}

/// Returns the first peer of each IP family of which the blocks of a rule contain every address, but for exceptions of this
/// kind: of a block of all addresses, or of several that are all addresses together. Other peers are not looked at.
pub(crate) fn whole_families(rule: &Rule, exceptions: Exceptions) -> Vec<(Family, &PeerEntry)> {
    // Blocks of at most a quarter of the addresses are no way to write all of them.
    const WIDEST: u8 = 2;
    let wide: Vec<(&PeerEntry, &IpBlock)> = rule
        .peers
        .iter()
        .flatten()
        .filter_map(|entry| match &entry.peer {
            Peer::Block(block) if block.cidr.prefix_len() <= WIDEST => Some((entry, block)),
            _ => None,
        })
        .filter(|(_, block)| exceptions.leave_wide(block))
        .collect();
    let first = |family: Family| {
        let of_family = || wide.iter().filter(move |(_, block)| Family::of_net(&block.cidr) == family);
        let ranges = of_family().map(|(_, block)| IpRange::of_net(&block.cidr));
        let (entry, _) = of_family().next()?;
        without(IpRange::whole(family), ranges).is_empty().then_some((family, *entry))
    };
    Family::BOTH.into_iter().filter_map(first).collect()
}

/// Returns whether a rule has every port of TCP: no ports, TCP without ports, or a range of all.
pub(crate) fn is_every_port(rule: &Rule) -> bool {
    let every = Traffic::of(Protocol::Tcp, PortSet::range(1, u16::MAX));
    every.difference(&admits::ports(rule, None)).is_none()
}

/// Returns whether a match selects all namespaces, also those that will be made.
pub(crate) fn is_every_namespace(choice: &PodMatch) -> bool {
    // Every namespace has the label with its name.
    let always = |key: &str, test: &Test| *test == Test::Exists && key == NAMESPACE_NAME_LABEL;
    matches!(&choice.namespaces, NamespaceMatch::Selected(s) if s.requirements().iter().all(|r| always(&r.key, &r.test)))
}

/// Returns whether a match selects all namespaces but those that have some label: a new namespace is selected.
pub(crate) fn is_open_to_new_namespaces(choice: &PodMatch) -> bool {
    let met_by_new = |test: &Test| matches!(test, Test::NotIn(_) | Test::DoesNotExist);
    is_every_namespace(choice)
        || matches!(&choice.namespaces, NamespaceMatch::Selected(s) if s.requirements().iter().all(|r| met_by_new(&r.test)))
}
