//! The domain names of rules.

use std::collections::BTreeSet;

use palisade_policy::{Cluster, Direction, DomainName, DomainPattern, Peer};

/// The domain names that rules have: names that none of them matches are not learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(BTreeSet<DomainPattern>);

impl Patterns {
    /// Returns the domain names of all rules of a cluster. `O(rules)`.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let rules = cluster.policies.values().flat_map(|p| p.rules(Direction::Egress).unwrap_or_default());
        let peers = rules.filter_map(|rule| rule.peers.as_ref()).flatten();
        let patterns = peers.filter_map(|entry| match &entry.peer {
            Peer::DomainName(pattern) => Some(pattern.clone()),
            Peer::Pods(_) | Peer::Block(_) | Peer::Nodes(_) => None,
        });
        patterns.collect()
    }

    /// Returns whether one of them matches a name. `O(labels of the name × log patterns)`.
    #[must_use]
    pub fn matches(&self, name: &DomainName) -> bool {
        !self.0.is_empty() && name.patterns().any(|pattern| self.0.contains(&pattern))
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<DomainPattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = DomainPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}
