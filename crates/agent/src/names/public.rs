//! The addresses of pods and Services that are not private: nothing else keeps the owner of a zone from answering with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_dns::Learnable;
use palisade_policy::{Change, Cluster, ObjectKey};

use super::core::Core;
use crate::Reconciler;

/// The pods of all nodes that have such addresses, and the Services.
#[derive(Debug, Default)]
pub(super) struct PublicAddresses {
    pods: BTreeMap<ObjectKey, Vec<IpAddr>>,
    services: BTreeMap<ObjectKey, Vec<IpAddr>>,
}

impl PublicAddresses {
    /// Reads a cluster. `O(pods + services)`.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let pods = cluster.pods.values().map(|pod| (pod.key.clone(), public(&pod.addresses)));
        let services = cluster.services.values();
        let services = services.map(|service| (service.key.clone(), public(&service.addresses)));
        Self {
            pods: pods.filter(|(_, addresses)| !addresses.is_empty()).collect(),
            services: services.filter(|(_, addresses)| !addresses.is_empty()).collect(),
        }
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.pods.values().chain(self.services.values()).flatten().copied().collect()
    }

    /// Follows a change of a pod. Returns what is to be committed: addresses of names that it has now.
    pub(super) fn follow_pod(
        &mut self,
        key: &ObjectKey,
        reconciler: &Reconciler,
        core: &mut Core,
    ) -> Vec<Change> {
        let now = reconciler.cluster().pods.get(key).map(|pod| public(&pod.addresses));
        follow(&mut self.pods, (key, now), reconciler, core)
    }

    /// The same for a Service.
    pub(super) fn follow_service(
        &mut self,
        key: &ObjectKey,
        reconciler: &Reconciler,
        core: &mut Core,
    ) -> Vec<Change> {
        let now = reconciler.cluster().services.get(key).map(|service| public(&service.addresses));
        follow(&mut self.services, (key, now), reconciler, core)
    }
}

fn follow(
    all: &mut BTreeMap<ObjectKey, Vec<IpAddr>>,
    (key, now): (&ObjectKey, Option<Vec<IpAddr>>),
    reconciler: &Reconciler,
    core: &mut Core,
) -> Vec<Change> {
    let now = now.unwrap_or_default();
    let before = all.remove(key).unwrap_or_default();
    let mut changes = Vec::new();
    for address in before.iter().filter(|address| !now.contains(address)) {
        let is_taken =
            reconciler.owner(*address).is_some() || is_of_node_or_service(reconciler.cluster(), *address);
        changes.extend(core.set_pod_address(*address, is_taken));
    }
    for address in now.iter().filter(|address| !before.contains(address)) {
        changes.extend(core.set_pod_address(*address, true));
    }
    if !now.is_empty() {
        all.insert(key.clone(), now);
    }
    changes
}

fn is_of_node_or_service(cluster: &Cluster, address: IpAddr) -> bool {
    cluster.nodes.values().any(|node| node.addresses.contains(&address))
        || cluster.services.values().any(|service| service.addresses.contains(&address))
}

fn public(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let none = Learnable::default();
    addresses.iter().copied().filter(|address| none.check(*address).is_ok()).collect()
}
