//! How much tenants may ask of a node: bounds on what one table, and all tables of one namespace, may cost.
//!
//! Whoever may write a NetworkPolicy decides how large it is and how many he writes. Beyond the budget the pods concerned
//! fail closed in that direction: their table allows nothing, and [`crate::compile::Compiler::over_budget`] names them.
//! Everybody else's policies go on. Whether a table is over budget follows from the cluster alone, never from its
//! history, so every node that compiles the same cluster says the same.

use std::fmt;

use crate::{Direction, Peer, Policy, Selector, Traffic, labels::Test, rules::PodMatch};

/// What a row weighs, beside its ranges of ports: a set to find it, a chain, and their rules. The kernel looks for a set or
/// chain among all of a table one after another, so a transaction costs the square of their number: 0.15 s for 800, 1.4 s for
/// 3,200, 5.5 s for 6,400 (kernel 6.18). With this weight one table has some 2,000 rows at most, and the tables of one namespace
/// 4,000.
const ROW: usize = 64;

/// The bounds. [`Budget::default`] holds them for a node; each constant says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Peers in the rules of one table, exceptions of blocks and values in selectors each counted as one more.
    pub peers: usize,
    /// Peers among them that select by labels: each is held against the pods of the cluster.
    pub selectors: usize,
    /// Port matches in the rules of one table.
    pub ports: usize,
    /// What one table needs in the kernel beside its members: one for each range of addresses, and for each distinct row
    /// of ports 64 and one for each range of ports in it.
    pub elements: usize,
    /// Changes of port ranges on the way through the address space that cutting up one table's blocks takes, and sets of
    /// ports that are met there.
    pub steps: usize,
    /// What all tables of the pods of one namespace on the node need together, counted as `elements`.
    pub namespace: usize,
}

impl Default for Budget {
    /// Measured with `cargo bench -p palisade-policy --bench hostile` (one core, a cluster of 10,000 pods): a table just
    /// within each of these limits takes at most 0.2 s to compile, and one beyond them is refused as fast.
    fn default() -> Self {
        Self {
            // The longest lists in use name the address ranges of a cloud or a country: some ten thousand CIDRs. A hundred
            // thousand, which no object of the API server holds, still cost little where nothing cuts them up.
            peers: 131_072,
            // Each is held against up to all classes of pods, and remembers those that it holds. Policies that people
            // write have tens.
            selectors: 1_024,
            // A rule for each port of a protocol would be 65,536; policies that people write have tens.
            ports: 4_096,
            // As many as `peers`, so that a list of CIDRs for one set of ports is hardly ever refused for its ranges but
            // where exceptions cut them up. The kernel takes up to four times as many, as each range is an element on
            // each level of a search tree, and about 100 bytes for each.
            elements: 131_072,
            // 0.05 s, and 12 MiB for the sets. Eight thousand CIDRs with ten ports take 180,000 and few sets.
            steps: 1 << 18,
            // Two tables at their limit.
            namespace: 262_144,
        }
    }
}

impl Budget {
    /// No bounds.
    pub const UNLIMITED: Self = Self {
        peers: usize::MAX,
        selectors: usize::MAX,
        ports: usize::MAX,
        elements: usize::MAX,
        steps: usize::MAX,
        namespace: usize::MAX,
    };

    /// Which bound the rules of these policies break by their number alone. Looks at no more than the budget allows.
    pub(super) fn broken_by(&self, direction: Direction, policies: &[&Policy]) -> Option<Limit> {
        let mut left = *self;
        for rule in policies.iter().flat_map(|policy| policy.rules(direction).unwrap_or_default()) {
            left.ports =
                match left.ports.checked_sub(rule.ports.as_ref().map_or(1, |ports| ports.len().max(1))) {
                    Some(left) => left,
                    None => return Some(Limit::Ports),
                };
            for entry in rule.peers.iter().flatten() {
                if !matches!(entry.peer, Peer::Block(_)) {
                    left.selectors = match left.selectors.checked_sub(1) {
                        Some(left) => left,
                        None => return Some(Limit::Selectors),
                    };
                }
                left.peers = match left.peers.checked_sub(peer_size(&entry.peer)) {
                    Some(left) => left,
                    None => return Some(Limit::Peers),
                };
            }
        }
        None
    }
}

/// How large a policy is in one direction, as the budget counts.
pub(super) fn policy_size(policy: &Policy, direction: Direction) -> usize {
    let rules = policy.rules(direction).unwrap_or_default().iter();
    rules
        .map(|rule| {
            let peers = rule.peers.iter().flatten().map(|entry| peer_size(&entry.peer)).sum::<usize>();
            peers + rule.ports.as_ref().map_or(1, Vec::len)
        })
        .sum()
}

fn peer_size(peer: &Peer) -> usize {
    let selector = |s: &Selector| s.requirements().iter().map(|r| test_size(&r.test)).sum::<usize>();
    1 + match peer {
        Peer::Block(block) => block.except.len(),
        Peer::Nodes(nodes) => selector(nodes),
        Peer::Pods(PodMatch { namespaces, pods }) => {
            let of_namespaces = match namespaces {
                crate::NamespaceMatch::Named(_) => 0,
                crate::NamespaceMatch::Selected(namespaces) => selector(namespaces),
            };
            of_namespaces + selector(pods)
        }
    }
}

fn test_size(test: &Test) -> usize {
    match test {
        Test::In(values) | Test::NotIn(values) => values.len(),
        Test::Exists | Test::DoesNotExist => 1,
    }
}

/// What a row needs, as [`Budget::elements`] counts.
pub(super) fn row_size(row: &Traffic) -> usize {
    ROW + [&row.tcp, &row.udp, &row.sctp].map(|ports| ports.ranges().len()).iter().sum::<usize>()
}

/// A bound of the [`Budget`] that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    /// [`Budget::peers`].
    Peers,
    /// [`Budget::selectors`].
    Selectors,
    /// [`Budget::ports`].
    Ports,
    /// [`Budget::elements`].
    Elements,
    /// [`Budget::steps`].
    Steps,
    /// [`Budget::namespace`].
    Namespace,
}

impl fmt::Display for Limit {
    /// What there is too much of: `more peers and exceptions than one pod's policies may have together`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peers => "more peers and exceptions than one pod's policies may have together",
            Self::Selectors => "more selectors of peers than one pod's policies may have together",
            Self::Ports => "more ports than one pod's policies may have together",
            Self::Elements => {
                "blocks and ports that cut each other into more pieces than one pod's policies may need in the kernel"
            }
            Self::Steps => "blocks and ports that overlap more often than one pod's policies may",
            Self::Namespace => {
                "more address ranges and ports than the pods of one namespace may need together in a node's kernel"
            }
        })
    }
}
