//! Which addresses changes of pods concern.

use std::{collections::HashSet, net::IpAddr};

use palisade_policy::{Change, Cluster};

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
