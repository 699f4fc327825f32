//! Counts of denied packets.

use std::collections::BTreeMap;

use crate::{
    Error, Kernel,
    reader::{Operation, Ruleset, Target},
    ruleset::{
        ENCAPSULATED_CHAIN, FORGED_CHAIN, FORWARDED_CHAIN, FROM_PORTS_CHAIN, LINK_CHAIN, MISDIRECTED_CHAIN,
        NODE_LINK_CHAIN, NODE_LINK_DENIED_CHAIN, NODE_TO_PORTS_CHAIN, RECEIVED_CHAIN, REFUSE_EGRESS_CHAIN,
        REFUSE_INGRESS_CHAIN, REVOKED_CHAIN, SOURCES_CHAIN, STRANGERS_CHAIN, TARGETS_CHAIN, TO_PORTS_CHAIN,
        TUNNELED_CHAIN,
    },
};

/// Packets dropped or audited by each chain of the agent's tables since the chain was created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

/// Packets dropped, or accepted because of audit mode, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By the egress of a pod, or because no pod may send such a packet: forged, a tunnel packet, or not plain IP.
    pub egress: u64,
    /// By the ingress of a pod, or as link-scoped traffic while pods are isolated.
    pub ingress: u64,
    /// Of revoked connections.
    pub revoked: u64,
    /// Accepted, though the egress of a pod would deny them if every policy were enforced.
    pub audited_egress: u64,
    /// Accepted, though the ingress of a pod would deny them if every policy were enforced.
    pub audited_ingress: u64,
}

impl Counters {
    /// Reads the counters. They are empty if the table doesn't exist. `O(rules)`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn read(kernel: &mut Kernel) -> Result<Self, Error> {
        let mut out = BTreeMap::new();
        for (chain, operations) in Ruleset::rules(kernel)?.into_iter().chain(Ruleset::bridge_rules(kernel)?) {
            let counts = match operations.last() {
                Some(Operation::Verdict(Target::Drop)) => true,
                // The packet is refused there, or dropped by the next rule.
                Some(Operation::Verdict(Target::Jump(to))) => {
                    [REFUSE_EGRESS_CHAIN, REFUSE_INGRESS_CHAIN].contains(&&**to)
                }
                Some(Operation::Verdict(Target::Accept)) => chain.starts_with(AUDIT_ROW),
                _ => false,
            };
            if !counts {
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

/// What the names of the rows of policies in audit mode begin with.
const AUDIT_ROW: &str = "audit_row_";

/// The chains that count as a direction without containing it in their names.
const OF_EGRESS: [&str; 12] = [
    "closed_egress",
    FORGED_CHAIN,
    FORWARDED_CHAIN,
    RECEIVED_CHAIN,
    ENCAPSULATED_CHAIN,
    TUNNELED_CHAIN,
    FROM_PORTS_CHAIN,
    MISDIRECTED_CHAIN,
    NODE_LINK_CHAIN,
    NODE_LINK_DENIED_CHAIN,
    SOURCES_CHAIN,
    TARGETS_CHAIN,
];
const OF_INGRESS: [&str; 5] =
    ["closed_ingress", LINK_CHAIN, STRANGERS_CHAIN, TO_PORTS_CHAIN, NODE_TO_PORTS_CHAIN];

/// The packets dropped by all chains since the first reading, including chains that were deleted since.
///
/// The packets that a chain drops between the last reading and its deletion are missed.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    last: BTreeMap<String, u64>,
    total: Counts,
}

impl Tally {
    /// Adds the packets since the last reading, and returns the totals, which never decrease.
    pub fn add(&mut self, now: Counters) -> Counts {
        for (chain, packets) in &now.0 {
            let before = self.last.get(chain).copied().unwrap_or(0);
            // The rules of a chain whose counter decreased were written again.
            let more = packets.checked_sub(before).unwrap_or(*packets);
            let total = if let Some(row) = chain.strip_prefix(AUDIT_ROW) {
                match row.starts_with("egress_") {
                    true => &mut self.total.audited_egress,
                    false => &mut self.total.audited_ingress,
                }
            } else if chain.contains("_egress_") || OF_EGRESS.contains(&&**chain) {
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
    fn totals_survive_deleted_chains_and_reset_counters() {
        let counters = |of: &[(&str, u64)]| Counters(of.iter().map(|(c, n)| ((*c).to_owned(), *n)).collect());
        let mut tally = Tally::default();
        tally.add(counters(&[("row_egress_1", 3), ("row_ingress_1", 5), ("revoked", 1)]));
        let sum = tally.add(counters(&[("row_egress_1", 4), ("closed_ingress", 2), ("revoked", 1)]));
        assert_eq!(sum, Counts { egress: 4, ingress: 7, revoked: 1, ..Counts::default() });
        let sum =
            tally.add(counters(&[("row_egress_1", 1), ("row_ingress_1", 1), ("revoked", 3), ("link", 7)]));
        assert_eq!(sum, Counts { egress: 5, ingress: 15, revoked: 3, ..Counts::default() });
        let sum = tally.add(counters(&[("from_pods", 3), ("to_ports", 4), ("strangers", 1)]));
        assert_eq!(sum, Counts { egress: 8, ingress: 20, revoked: 3, ..Counts::default() });
        let sum = tally.add(counters(&[("node_to_ports", 6)]));
        assert_eq!(sum, Counts { egress: 8, ingress: 26, revoked: 3, ..Counts::default() });
        let audited = [("audit_row_egress_1", 2), ("audit_row_ingress_1", 3)];
        let expected = Counts { egress: 8, ingress: 26, revoked: 3, audited_egress: 2, audited_ingress: 3 };
        assert_eq!(tally.add(counters(&audited)), expected);
    }
}
