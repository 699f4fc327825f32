//! Keeps the records of flows true: what is known of an address is forgotten when its pod changes, and losses are counted in time.

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use palisade_policy::{Change, Cluster};

use super::Worker;

/// How often dropped packets are counted that the kernel did not log.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

impl Worker {
    /// Forgets why packets from and to changed pods were dropped. To be called before the changes are applied.
    pub(super) fn forget_flows_of(&mut self, changes: &[Change]) {
        let addresses = changed_addresses(changes, self.agent.reconciler().cluster());
        self.drops.forget_ends(&addresses);
    }

    /// Counts dropped packets that the kernel did not log, at intervals: without a scrape of the metrics, nothing else does.
    pub(super) fn count_losses(&mut self) {
        if self.log_group.is_some() && self.drops_counted.elapsed() >= COUNT_INTERVAL {
            self.drops_counted = Instant::now();
            self.count_unlogged_drops();
        }
    }
}

/// The addresses that changed pods have had, and those that they have from now on.
fn changed_addresses(changes: &[Change], cluster: &Cluster) -> HashSet<IpAddr> {
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
