//! The addresses of pods that are not private: nothing else keeps the owner of a zone from answering with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_dns::Learnable;
use palisade_policy::{Change, Cluster, ObjectKey, Pod};

use super::core::Core;
use crate::Reconciler;

/// The pods of all nodes that have such addresses.
#[derive(Debug, Default)]
pub(super) struct PublicPods(BTreeMap<ObjectKey, Vec<IpAddr>>);

impl PublicPods {
    /// Reads a cluster. `O(pods)`.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let pods = cluster.pods.values().map(|pod| (pod.key.clone(), public(pod)));
        Self(pods.filter(|(_, addresses)| !addresses.is_empty()).collect())
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.0.values().flatten().copied().collect()
    }

    /// Follows a change of a pod. Returns what is to be committed: addresses of names that it has now.
    pub(super) fn follow(
        &mut self,
        key: &ObjectKey,
        reconciler: &Reconciler,
        core: &mut Core,
    ) -> Vec<Change> {
        let now = reconciler.cluster().pods.get(key).map(public).unwrap_or_default();
        let before = self.0.remove(key).unwrap_or_default();
        let mut changes = Vec::new();
        for address in before.iter().filter(|address| !now.contains(address)) {
            let is_taken =
                reconciler.owner(*address).is_some() || is_of_node_or_service(reconciler.cluster(), *address);
            changes.extend(core.set_pod_address(*address, is_taken));
        }
        for address in &now {
            changes.extend(core.set_pod_address(*address, true));
        }
        if !now.is_empty() {
            self.0.insert(key.clone(), now);
        }
        changes
    }
}

fn is_of_node_or_service(cluster: &Cluster, address: IpAddr) -> bool {
    cluster.nodes.values().any(|node| node.addresses.contains(&address))
        || cluster.services.values().any(|service| service.addresses.contains(&address))
}

fn public(pod: &Pod) -> Vec<IpAddr> {
    let (all, none) = (pod.addresses.iter().copied(), Learnable::default());
    all.filter(|address| none.check(*address).is_ok()).collect()
}
