//! What the agent keeps on disk for the next start of its node.
//!
//! ```text
//!   while the agent runs:   cluster, node ──► NodeState ──► file       (worker: Keeper, a thread for the disk)
//!   after a restart:        file ──► ClosedPods ──► close_node         (`palisade agent --restore`, or the agent at its start)
//! ```
//!
//! When a node restarts its rules are gone, and its pods come back with other addresses before the agent has the cluster's state. Rules for
//! the old addresses would protect no pod, and could apply one pod's policies to another. So the file has no policy and no address of a pod: it has the ranges from which the node's pods get addresses. After a restart new connections of all of them are
//! denied, until the agent has programmed the present policies.
//!
//! A file that exists but can't be used fails closed: the ranges are unknown then, so the node forwards no new connection.

mod file;
mod keeper;

use std::net::IpAddr;

use ipnet::IpNet;
use palisade_nft::ClosedPods;
use palisade_policy::{Cluster, IpRange, Name, NodePlan};
use serde::{Deserialize, Serialize};

pub use file::{StateError, StateFile};
pub(crate) use keeper::Keeper;

/// What is known about a node that outlives its restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeState {
    /// The node's name.
    node: String,
    /// The ranges of its pods' addresses, as its Node object has them.
    pod_ranges: Vec<IpNet>,
    /// Whether pods of the node had addresses outside of these ranges: the network takes them from elsewhere.
    addresses_elsewhere: bool,
}

impl NodeState {
    /// Returns the state of a node. `before` is the one that was known so far. `O(local addresses)`.
    #[must_use]
    pub fn of(cluster: &Cluster, node: &Name, plan: &NodePlan, before: Option<&Self>) -> Self {
        let pod_ranges = cluster.nodes.get(node).map_or_else(Vec::new, |node| node.pod_cidrs.clone());
        let is_outside = |address: &IpAddr| !pod_ranges.iter().any(|range| range.contains(address));
        // A node without pods at the moment tells nothing about where its network takes addresses from.
        let was_elsewhere =
            before.is_some_and(|before| before.pod_ranges == pod_ranges && before.addresses_elsewhere);
        let addresses_elsewhere = was_elsewhere || plan.local.iter().any(is_outside);
        Self { node: node.to_string(), pod_ranges, addresses_elsewhere }
    }

    /// Returns the addresses that must be closed after a restart.
    #[must_use]
    pub fn closed_pods(&self) -> ClosedPods {
        if self.pod_ranges.is_empty() || self.addresses_elsewhere {
            ClosedPods::Forwarded
        } else {
            ClosedPods::In(self.pod_ranges.iter().map(IpRange::of_net).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Labels, Node};

    use super::*;

    fn cluster(cidrs: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        let node = Node {
            name: "n1".into(),
            labels: Labels::default(),
            addresses: Vec::new(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        };
        cluster.nodes.insert(node.name.clone(), node);
        cluster
    }

    fn plan(pods: &[&str]) -> NodePlan {
        NodePlan { local: pods.iter().map(|pod| pod.parse().unwrap()).collect(), ..NodePlan::default() }
    }

    #[test]
    fn the_ranges_are_closed_if_the_network_uses_them() {
        let (cluster, node) = (cluster(&["10.244.1.0/24", "fd00:1::/64"]), "n1".into());
        let state = NodeState::of(&cluster, &node, &plan(&["10.244.1.7", "fd00:1::7"]), None);
        let range =
            |first: &str, last: &str| IpRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
        let ranges =
            vec![range("10.244.1.0", "10.244.1.255"), range("fd00:1::", "fd00:1::ffff:ffff:ffff:ffff")];
        assert_eq!(state.closed_pods(), ClosedPods::In(ranges));
    }

    #[test]
    fn without_ranges_that_the_network_uses_everything_forwarded_is_closed() {
        let node = "n1".into();
        let of = |cidrs: &[&str], pods: &[&str], before: Option<&NodeState>| {
            NodeState::of(&cluster(cidrs), &node, &plan(pods), before)
        };
        assert_eq!(of(&[], &[], None).closed_pods(), ClosedPods::Forwarded);
        let outside = of(&["10.244.1.0/24"], &["10.244.1.7", "10.9.0.1"], None);
        assert_eq!(outside.closed_pods(), ClosedPods::Forwarded);
        // Remembered while the node has no such pod, until it gets other ranges.
        let later = of(&["10.244.1.0/24"], &[], Some(&outside));
        assert_eq!(later.closed_pods(), ClosedPods::Forwarded);
        let others = of(&["10.9.0.0/24"], &["10.9.0.1"], Some(&later));
        assert!(matches!(others.closed_pods(), ClosedPods::In(_)));
        let unknown = NodeState::of(&Cluster::default(), &node, &plan(&[]), None);
        assert_eq!(unknown.closed_pods(), ClosedPods::Forwarded);
    }
}
