//! How many packets were denied.

use std::collections::BTreeMap;

use crate::{
    Error, Kernel,
    reader::{Operation, Ruleset, Target},
    ruleset::{
        ENCAPSULATED_CHAIN, FORWARDED_CHAIN, FROM_PORTS_CHAIN, LINK_CHAIN, RECEIVED_CHAIN, REVOKED_CHAIN,
        STRANGERS_CHAIN, TO_PORTS_CHAIN,
    },
};

/// Packets dropped by each chain of our table since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

/// Packets dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By the egress of a pod, or as none that a pod may send: forged, a tunnel's, no plain IP.
    pub egress: u64,
    /// By the ingress of a pod, or on a link where pods are isolated.
    pub ingress: u64,
    /// Of connections that were allowed when they began and are not any longer.
    pub revoked: u64,
}

impl Counters {
    /// Reads them; without our table there are none. `O(rules)`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn read(kernel: &mut Kernel) -> Result<Self, Error> {
        let mut out = BTreeMap::new();
        for (chain, operations) in
            Ruleset::rules(kernel)?.into_iter().chain(Ruleset::rules_of_bridge(kernel)?)
        {
            if operations.last() != Some(&Operation::Verdict(Target::Drop)) {
                continue;
            }
            let counted = operations.iter().find_map(|o| match o {
                Operation::Counter { packets, .. } => Some(*packets),
                _ => None,
            });
            *out.entry(chain).or_default() += counted.unwrap_or(0);
        }
        Ok(Self(out))
    }
}

/// The chains that count as a direction and are not named by it.
const OF_EGRESS: [&str; 5] =
    ["closed_egress", FORWARDED_CHAIN, RECEIVED_CHAIN, ENCAPSULATED_CHAIN, FROM_PORTS_CHAIN];
const OF_INGRESS: [&str; 4] = ["closed_ingress", LINK_CHAIN, STRANGERS_CHAIN, TO_PORTS_CHAIN];

/// What the chains have dropped while somebody looked, also those that are gone. A chain's last packets, between the
/// last look and its end, are missed.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    last: BTreeMap<String, u64>,
    total: Counts,
}

impl Tally {
    /// Adds what happened since the last time, and gives the sum of all times. Never falls.
    pub fn add(&mut self, now: Counters) -> Counts {
        for (chain, packets) in &now.0 {
            let before = self.last.get(chain).copied().unwrap_or(0);
            // A smaller number is that of a chain whose rules were written anew.
            let more = packets.checked_sub(before).unwrap_or(*packets);
            let total = if chain.contains("_egress_") || OF_EGRESS.contains(&&**chain) {
                &mut self.total.egress
            } else if chain.contains("_ingress_") || OF_INGRESS.contains(&&**chain) {
                &mut self.total.ingress
            } else if chain == REVOKED_CHAIN {
                &mut self.total.revoked
            } else {
                continue;
            };
            *total = total.saturating_add(more);
        }
        self.last = now.0;
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_survives_chains_that_go_and_counters_that_start_again() {
        let counters = |of: &[(&str, u64)]| Counters(of.iter().map(|(c, n)| ((*c).to_owned(), *n)).collect());
        let mut tally = Tally::default();
        tally.add(counters(&[("row_egress_1", 3), ("row_ingress_1", 5), ("revoked", 1)]));
        let sum = tally.add(counters(&[("row_egress_1", 4), ("closed_ingress", 2), ("revoked", 1)]));
        assert_eq!(sum, Counts { egress: 4, ingress: 7, revoked: 1 });
        let sum =
            tally.add(counters(&[("row_egress_1", 1), ("row_ingress_1", 1), ("revoked", 3), ("link", 7)]));
        assert_eq!(sum, Counts { egress: 5, ingress: 15, revoked: 3 });
        let sum = tally.add(counters(&[("from_pods", 3), ("to_ports", 4), ("strangers", 1)]));
        assert_eq!(sum, Counts { egress: 8, ingress: 20, revoked: 3 });
    }
}
