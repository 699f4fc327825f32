//! The addresses of pods of other nodes, for bridges that lead to other networks too (SEMANTICS G-19). Pure.
//!
//! On a bridge that leads to pods alone, a packet with such a source has no route back through the bridge. On one with an uplink it has: the pods of
//! several nodes share a network there. So the rules have to know these addresses.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use palisade_policy::Change;

use crate::{Reconciler, changed_addresses::changed_addresses};

/// The addresses, while the data plane asks for them.
#[derive(Debug, Default)]
pub(crate) struct OtherPods(Option<Arc<BTreeSet<IpAddr>>>);

impl OtherPods {
    /// The addresses; none while they aren't asked for.
    pub(crate) fn addresses(&self) -> Arc<BTreeSet<IpAddr>> {
        self.0.clone().unwrap_or_default()
    }

    /// Finds out the addresses of a whole cluster, or forgets them. `O(pods)` if they are asked for.
    pub(crate) fn set_all(&mut self, is_wanted: bool, reconciler: &Reconciler) {
        self.0 = is_wanted.then(|| {
            let pods = reconciler.cluster().pods.values();
            let addresses = pods.flat_map(|pod| pod.addresses.iter().copied());
            Arc::new(addresses.filter(|address| is_elsewhere(*address, reconciler)).collect())
        });
    }

    /// Whether the addresses are known.
    pub(crate) fn is_followed(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the addresses that changes may concern, before they are applied. `O(changes)`; none while they aren't asked for.
    pub(crate) fn concerned(&self, changes: &[Change], reconciler: &Reconciler) -> HashSet<IpAddr> {
        if self.0.is_none() { HashSet::new() } else { changed_addresses(changes, reconciler.cluster()) }
    }

    /// Follows changes that were applied. Returns whether the addresses differ. `O(pods of other nodes)` if they do, since the data plane keeps
    /// the former ones meanwhile.
    pub(crate) fn follow(&mut self, concerned: HashSet<IpAddr>, reconciler: &Reconciler) -> bool {
        let Some(addresses) = &mut self.0 else { return false };
        let differs = |address: &IpAddr| addresses.contains(address) != is_elsewhere(*address, reconciler);
        let differing: Vec<IpAddr> = concerned.into_iter().filter(differs).collect();
        if differing.is_empty() {
            return false;
        }
        let addresses = Arc::make_mut(addresses);
        for address in differing {
            if !addresses.remove(&address) {
                addresses.insert(address);
            }
        }
        true
    }
}

/// Whether a running pod of another node has an address of its own. One whose node is not known may be here.
fn is_elsewhere(address: IpAddr, reconciler: &Reconciler) -> bool {
    let is_other = |node: &palisade_policy::Name| node != reconciler.node();
    reconciler.owner(address).is_some_and(|pod| !pod.host_network && pod.node.as_ref().is_some_and(is_other))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use palisade_policy::{Cluster, Labels, ObjectKey, Phase, Pod};

    use super::*;
    use crate::Input;

    fn pod(name: &str, node: &str, address: &str) -> Pod {
        Pod {
            node: (!node.is_empty()).then(|| node.into()),
            phase: Phase::Running,
            ..Pod::new(ObjectKey::new("shop", name), Labels::default(), vec![address.parse().unwrap()])
        }
    }

    #[test]
    fn addresses_of_running_pods_of_other_nodes_are_followed_while_they_are_wanted() {
        let mut cluster = Cluster::default();
        for pod in [pod("here", "n1", "10.0.0.1"), pod("there", "n2", "10.0.0.2"), pod("new", "", "10.0.0.3")]
        {
            cluster.pods.insert(pod);
        }
        cluster.pods.insert(Pod { host_network: true, ..pod("host", "n2", "10.0.0.4") });
        let mut reconciler = Reconciler::new("n1".into());
        reconciler.handle(Input::Snapshot(cluster), Duration::ZERO);
        let mut others = OtherPods::default();
        let shown =
            |others: &OtherPods| others.addresses().iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut apply = |others: &mut OtherPods, change: Change| {
            let changes = vec![change];
            let concerned = others.concerned(&changes, &reconciler);
            reconciler.handle(Input::Changes(changes), Duration::ZERO);
            others.follow(concerned, &reconciler)
        };
        assert!(
            !apply(&mut others, Change::SetPod(pod("later", "n2", "10.0.0.5"))),
            "the addresses are not asked for"
        );
        others.set_all(true, &reconciler);
        assert_eq!(shown(&others), ["10.0.0.2", "10.0.0.5"]);
        let mut apply = |others: &mut OtherPods, change: Change| {
            let changes = vec![change];
            let concerned = others.concerned(&changes, &reconciler);
            reconciler.handle(Input::Changes(changes), Duration::ZERO);
            others.follow(concerned, &reconciler)
        };
        // Another address, another node, an end, and something else.
        assert!(apply(&mut others, Change::SetPod(pod("there", "n2", "10.0.0.6"))));
        assert_eq!(shown(&others), ["10.0.0.5", "10.0.0.6"]);
        assert!(apply(&mut others, Change::SetPod(pod("later", "n1", "10.0.0.5"))));
        assert!(!apply(&mut others, Change::SetPod(pod("here", "n1", "10.0.0.7"))));
        assert_eq!(shown(&others), ["10.0.0.6"]);
        assert!(apply(&mut others, Change::RemovePod(ObjectKey::new("shop", "there"))));
        assert!(shown(&others).is_empty() && others.is_followed());
        others.set_all(false, &reconciler);
        assert!(!others.is_followed());
    }
}
