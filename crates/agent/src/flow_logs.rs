//! What the records of flows are made with, and what changes of the cluster make them forget.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use palisade_policy::{Change, Cluster};

use crate::{connections::ConnectionLog, drops::DropLog};

/// What makes records of denied packets, and of connections if these are wanted.
pub(crate) struct FlowLogs<'a> {
    pub(crate) drops: &'a mut DropLog,
    pub(crate) connections: Option<&'a mut ConnectionLog>,
}

impl FlowLogs<'_> {
    /// Forgets what is known of flows from and to addresses whose pods change. To be called before the change is applied.
    pub(crate) fn forget_ends(self, addresses: &HashSet<IpAddr>) {
        self.drops.forget_ends(addresses);
        if let Some(connections) = self.connections {
            connections.forget_ends(addresses);
        }
    }

    /// Forgets why flows were dropped or passed, unless only pods or Services change. To be called before the changes are applied.
    pub(crate) fn forget_policies(self, changes: &[Change]) {
        let is_service = |c: &Change| matches!(c, Change::SetService(_) | Change::RemoveService(_));
        let is_pod = |c: &Change| matches!(c, Change::SetPod(_) | Change::RemovePod(_));
        let has_services = changes.iter().any(is_service);
        let has_policies = !changes.iter().all(|c| is_pod(c) || is_service(c));
        if has_policies {
            self.drops.forget_policies();
        }
        if let Some(connections) = self.connections {
            if has_policies {
                connections.forget_policies();
            }
            if has_services {
                connections.forget_services();
            }
        }
    }

    /// Forgets everything, after a snapshot. `local` are the addresses of the node's pods.
    pub(crate) fn forget_all(self, local: &BTreeSet<IpAddr>) {
        self.drops.forget_policies();
        if let Some(connections) = self.connections {
            connections.forget_policies();
            connections.forget_services();
            connections.seen().set_local(local);
        }
    }
}

/// The addresses that changed pods have had, and those that they have from now on.
pub(crate) fn changed_addresses(changes: &[Change], cluster: &Cluster) -> HashSet<IpAddr> {
    let mut addresses = HashSet::new();
    for change in changes {
        let key = match change {
            Change::SetPod(pod) => {
                addresses.extend(&pod.addresses);
                &pod.key
            }
            Change::RemovePod(key) => key,
            _ => continue,
        };
        addresses.extend(cluster.pods.get(key).into_iter().flat_map(|pod| &pod.addresses));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Labels, ObjectKey, Pod};

    use super::*;

    #[test]
    fn addresses_before_and_after_a_change_are_those_of_the_pod() {
        let pod = |name: &str, last: u8| {
            Pod::new(ObjectKey::new("shop", name), Labels::default(), vec![[10, 0, 0, last].into()])
        };
        let mut cluster = Cluster::default();
        for known in [pod("moved", 1), pod("gone", 2), pod("other", 3)] {
            cluster.apply(Change::SetPod(known));
        }
        let changes = [Change::SetPod(pod("moved", 4)), Change::RemovePod(ObjectKey::new("shop", "gone"))];
        let expected: HashSet<IpAddr> = [1, 2, 4].map(|last| [10, 0, 0, last].into()).into();
        assert_eq!(changed_addresses(&changes, &cluster), expected);
    }
}
