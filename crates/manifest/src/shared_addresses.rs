//! Running pods that report the same address.

use std::{collections::BTreeMap, net::IpAddr};

use palisade_policy::{Cluster, Name, ObjectKey, Origin, Pod};

use crate::diagnostic::{Code, Diagnostic, Severity};

/// Warns about running pods that report the same address (SEMANTICS G-10).
pub(crate) fn warn_about_shared_addresses(
    cluster: &Cluster,
    origins: &BTreeMap<(Name, ObjectKey), Origin>,
    found: &mut Vec<Diagnostic>,
) {
    let mut owners: BTreeMap<IpAddr, Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.pods.values().filter(|p| p.is_running()) {
        for address in &pod.addresses {
            owners.entry(*address).or_default().push(pod);
        }
    }
    for (address, mut pods) in owners.into_iter().filter(|(_, pods)| pods.len() > 1) {
        pods.sort_by(|a, b| Pod::precedence(a, b));
        let (owner, others) = (pods[0], &pods[1..]);
        for other in others {
            let message = format!("{address} is also the address of {}, which owns it", owner.key);
            found.push(Diagnostic {
                origin: origins.get(&(Name::from("Pod"), other.key.clone())).cloned(),
                object: Some(format!("Pod {}", other.key)),
                path: Some("status.podIP".to_owned()),
                ..Diagnostic::new(Severity::Warning, Code::DuplicateAddress, message)
            });
        }
    }
}
