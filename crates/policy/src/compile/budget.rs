//! Limits for tenants: what one table, and all tables of one namespace, may cost the node.
//!
//! Users who may create a NetworkPolicy decide how large it is and how many they create. Beyond the budget the selected
//! pods fail closed in that direction: their table allows nothing, and [`crate::Compiler::over_budget`] lists them.
//! Policies of other tenants still apply. Whether a table is over budget depends on the cluster alone, never on its
//! history, so all nodes agree.

use std::fmt;

use crate::{Direction, Peer, Policy, Selector, Traffic, labels::Test, rules::PodMatch};

/// The cost of a row in addition to its port ranges: a set to find it, a chain, and their rules. The kernel searches
/// the sets and chains of a table linearly, so a transaction costs the square of their number: 0.15 s for 800, 1.4 s
/// for 3,200, 5.5 s for 6,400 (kernel 6.18). With this cost one table has at most about 2,000 rows, and the tables of
/// one namespace 4,000.
const ROW: usize = 64;

/// The limits. [`Budget::default`] has those for a node, with the reason for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Peers in the rules of one table. Exceptions of blocks and values in selectors count as one more each.
    pub peers: usize,
    /// Peers among them that select by labels: each is matched against the pods of the cluster.
    pub selectors: usize,
    /// Port matches in the rules of one table.
    pub ports: usize,
    /// What one table needs in the kernel, members not counted: one for each address range, and for each distinct row
    /// of ports 64 and one for each of its port ranges.
    pub elements: usize,
    /// Changes of port ranges during the sweep over the address space, and distinct sets of ports that occur in it.
    pub steps: usize,
    /// What all tables of the pods of one namespace on the node need together, in the unit of `elements`.
    pub namespace: usize,
}

impl Default for Budget {
    /// Measured with `cargo bench -p palisade-policy --bench hostile` (one core, a cluster of 10,000 pods): a table
    /// just within each limit takes at most 0.2 s to compile, and one over it is refused as fast.
    fn default() -> Self {
        Self {
            // The longest lists in use are the address ranges of a cloud or a country: some ten thousand CIDRs. A
            // hundred thousand, which no object of the API server can hold, are still cheap if no exceptions divide
            // them.
            peers: 131_072,
            // Each is matched against up to all classes of pods and stores those that it matches. Real policies have
            // tens.
            selectors: 1_024,
            // A rule for each port of a protocol would be 65,536. Real policies have tens.
            ports: 4_096,
            // As many as `peers`, so that a list of CIDRs for one set of ports is refused for its ranges only if
            // exceptions divide them. The kernel stores up to four times as many elements, since each range is an
            // element on each level of a search tree, and about 100 bytes for each.
            elements: 131_072,
            // 0.05 s, and 12 MiB for the sets. Eight thousand CIDRs with ten ports take 180,000 steps and few sets.
            steps: 1 << 18,
            // Two tables at their limit.
            namespace: 262_144,
        }
    }
}

impl Budget {
    /// No limits.
    pub const UNLIMITED: Self = Self {
        peers: usize::MAX,
        selectors: usize::MAX,
        ports: usize::MAX,
        elements: usize::MAX,
        steps: usize::MAX,
        namespace: usize::MAX,
    };

    /// Returns the limit that the rules of these policies exceed by their number alone. Reads no more than the budget
    /// allows.
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

/// Returns the size of a policy in one direction, in the unit of the budget.
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
        Peer::DomainName(_) => 0,
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

/// Returns the cost of a row, in the unit of [`Budget::elements`].
pub(super) fn row_size(row: &Traffic) -> usize {
    ROW + [&row.tcp, &row.udp, &row.sctp].map(|ports| ports.ranges().len()).iter().sum::<usize>()
}

/// A limit of the [`Budget`] that is exceeded.
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
    /// Formats what exceeds the limit: `more peers and exceptions than one pod's policies may have together`.
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
