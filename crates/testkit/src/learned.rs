//! Learned names, and the domain names of rules.

use std::net::IpAddr;

use fastrand::Rng;

use super::vocabulary::{DOMAIN_PATTERNS, EXTERNALS, HOST_NAMES, one_in, pick};
use palisade_policy::{Cluster, DomainName, DomainPattern, LearnedName};

/// Addresses that were learned for a name: of the outside, and, since answers may contain them, of pods and nodes.
pub(super) fn learned(rng: &mut Rng, cluster: &Cluster) -> Option<LearnedName> {
    let name = DomainName::new(pick(rng, &HOST_NAMES))?;
    let addresses = (0..rng.usize(0..=3)).filter_map(|_| address(rng, cluster)).collect();
    Some(LearnedName { name, addresses })
}

fn address(rng: &mut Rng, cluster: &Cluster) -> Option<IpAddr> {
    let at = rng.usize(..8);
    let of_pods = cluster.pods.values().flat_map(|pod| &pod.addresses);
    let inside: Vec<IpAddr> =
        of_pods.chain(cluster.nodes.values().flat_map(|node| &node.addresses)).copied().collect();
    if at < 2 && !inside.is_empty() { Some(pick(rng, &inside)) } else { Some(pick(rng, &EXTERNALS)) }
}

/// The domain name of a rule.
pub(super) fn pattern(rng: &mut Rng) -> DomainPattern {
    let text = pick(rng, &DOMAIN_PATTERNS);
    DomainPattern::new(&if one_in(rng, 4) { format!("{}.", text.to_uppercase()) } else { text.to_owned() })
}
