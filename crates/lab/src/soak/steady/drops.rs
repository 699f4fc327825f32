//! How many packets the rules of the nodes drop.

use std::collections::BTreeMap;

use palisade_nft::{
    Kernel,
    drops::{Counters, Counts, Tally},
};
use palisade_policy::Name;

use crate::{error::with_causes, lab::Lab, layout::Place};

/// The counters of the nodes' rules, from a time on.
pub(super) struct Drops {
    tallies: BTreeMap<Name, (Tally, Counts)>,
}

impl Drops {
    /// Begins to count.
    pub(super) fn begin(lab: &Lab) -> Result<Self, String> {
        let mut tallies = BTreeMap::new();
        for (node, counters) in counters(lab)? {
            let mut tally = Tally::default();
            let before = tally.add(counters);
            tallies.insert(node, (tally, before));
        }
        Ok(Self { tallies })
    }

    /// Describes what was dropped since then, by node. Empty if nothing was.
    pub(super) fn since(&mut self, lab: &Lab) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        for (node, counters) in counters(lab)? {
            let Some((tally, before)) = self.tallies.get_mut(&node) else { continue };
            out.extend(describe(&node, *before, tally.add(counters)));
        }
        Ok(out)
    }
}

fn counters(lab: &Lab) -> Result<BTreeMap<Name, Counters>, String> {
    let read = |node: &Name| {
        let read = || Kernel::open().and_then(|mut kernel| Counters::read(&mut kernel));
        let read = lab.run_in(&Place::Node(node.clone()), read).map_err(|e| with_causes(&e))?;
        read.map_err(|e| with_causes(&e))
    };
    lab.nodes().map(|(node, _)| Ok((node.clone(), read(node)?))).collect()
}

/// What passes because of audit mode is not dropped.
fn describe(node: &Name, before: Counts, now: Counts) -> Option<String> {
    let kinds = [
        ("egress", now.egress - before.egress),
        ("ingress", now.ingress - before.ingress),
        ("revoked connections", now.revoked - before.revoked),
    ];
    let dropped: Vec<String> =
        kinds.iter().filter(|(_, n)| *n > 0).map(|(kind, n)| format!("{n} by {kind}")).collect();
    (!dropped.is_empty())
        .then(|| format!("node {node} has dropped packets meanwhile: {}", dropped.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_dropped_since_the_beginning_is_described() {
        let node: Name = "n1".into();
        let before = Counts { egress: 5, ingress: 2, audited_egress: 1, ..Counts::default() };
        assert_eq!(describe(&node, before, Counts { audited_egress: 9, ..before }), None);
        let now = Counts { egress: 6, revoked: 3, ..before };
        let expected = "node n1 has dropped packets meanwhile: 1 by egress, 3 by revoked connections";
        assert_eq!(describe(&node, before, now).as_deref(), Some(expected));
    }
}
