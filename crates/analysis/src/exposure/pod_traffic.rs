//! Traffic with pods whose container ports may be unknown.

use std::collections::BTreeSet;

use palisade_policy::{Name, Pod, PortMatch, Protocol, Rule, Traffic};

/// A named container port of a pod that doesn't exist yet.
pub type NamedPort = (Name, Protocol);

/// Traffic, with the ports that the destination determines if it is a pod that doesn't exist yet: a rule that names the
/// port `http` allows whatever number such a pod will give that name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodTraffic {
    /// The ports by number.
    pub numbers: Traffic,
    /// The ports by name, at numbers that no rule mentions.
    pub named: BTreeSet<NamedPort>,
}

impl PodTraffic {
    /// Returns the union.
    #[must_use]
    pub fn union(&self, o: &Self) -> Self {
        let named = self.named.union(&o.named).cloned().collect();
        Self { numbers: self.numbers.union(&o.numbers), named }
    }

    /// Returns the intersection.
    #[must_use]
    pub fn intersection(&self, o: &Self) -> Self {
        let named = self.named.intersection(&o.named).cloned().collect();
        Self { numbers: self.numbers.intersection(&o.numbers), named }
    }

    /// Returns what is in this traffic and not in `o`.
    #[must_use]
    pub fn difference(&self, o: &Self) -> Self {
        let named = self.named.difference(&o.named).cloned().collect();
        Self { numbers: self.numbers.difference(&o.numbers), named }
    }

    /// Returns whether it is empty.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.numbers.is_none() && self.named.is_empty()
    }

    /// Returns whether `o` contains it.
    #[must_use]
    pub fn is_subset(&self, o: &Self) -> bool {
        self.difference(o).is_none()
    }
}

/// How ports of rules become traffic.
pub(crate) struct Ports<'c> {
    /// The pod at the destination; `None` if it doesn't exist yet.
    destination: Option<&'c Pod>,
    /// All names that some rule mentions, if the destination doesn't exist.
    names: BTreeSet<NamedPort>,
}

impl<'c> Ports<'c> {
    pub(crate) fn new<'r>(destination: Option<&'c Pod>, rules: impl Iterator<Item = &'r Rule>) -> Self {
        let ports = rules.filter_map(|rule| rule.ports.as_ref()).flatten();
        let names = ports.flat_map(|entry| names(&entry.port));
        let names = if destination.is_none() { names.collect() } else { BTreeSet::new() };
        Self { destination, names }
    }

    /// Returns everything.
    pub(crate) fn all(&self) -> PodTraffic {
        PodTraffic { numbers: Traffic::all(), named: self.names.clone() }
    }

    /// Returns the traffic that the ports of a rule match.
    pub(crate) fn of(&self, rule: &Rule) -> PodTraffic {
        let Some(entries) = &rule.ports else { return self.all() };
        entries.iter().fold(PodTraffic::default(), |sum, entry| sum.union(&self.of_port(&entry.port)))
    }

    fn of_port(&self, port: &PortMatch) -> PodTraffic {
        let numbers = port.traffic(self.destination);
        let named = match port {
            PortMatch::Named { .. } if self.destination.is_none() => names(port).collect(),
            // A name may stand for any number, so only all numbers include it.
            PortMatch::Numbers { protocol, first: 0 | 1, last: u16::MAX } => {
                self.names.iter().filter(|(_, p)| p == protocol).cloned().collect()
            }
            _ => BTreeSet::new(),
        };
        PodTraffic { numbers, named }
    }
}

/// Returns the named ports that a port match mentions.
fn names(port: &PortMatch) -> impl Iterator<Item = NamedPort> {
    let (name, protocol) = match port {
        PortMatch::Named { name, protocol } => (Some(name.clone()), *protocol),
        PortMatch::Numbers { .. } => (None, None),
    };
    let protocols = Protocol::WITH_PORTS.into_iter().filter(move |p| protocol.is_none_or(|q| q == *p));
    protocols.filter_map(move |p| Some((name.clone()?, p)))
}
