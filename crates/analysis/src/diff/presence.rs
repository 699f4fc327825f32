//! The connections of ends that were added or removed.

use std::collections::HashMap;

use palisade_policy::Traffic;

use super::change::{EndChange, EndTraffic, Presence};
use crate::{connections::Connections, end::ConnectionEnd, families::Families, matching::MatchedEnd};

/// Returns the workloads and nodes that are on one side only, with their connections. `O(ends)` for each.
///
/// A node that is treated like one that stays is left out, as a pod that a workload gains or loses: no rule of any
/// policy notices it. So are external addresses, which a pod or node may have taken or left.
pub(super) fn one_sided(answers: &[Connections; 2], ends: &[MatchedEnd]) -> Vec<EndChange> {
    let mut out = Vec::new();
    for end in ends {
        let (side, at, change) = match end.at {
            [Some(at), None] => (0, at, Presence::Removed),
            [None, Some(at)] => (1, at, Presence::Added),
            _ => continue,
        };
        let counts = match end.end {
            ConnectionEnd::Workload(_) => true,
            ConnectionEnd::Nodes(_) => {
                let is_alike =
                    |other: &MatchedEnd| other.at[side] == Some(at) && other.at[1 - side].is_some();
                !ends.iter().any(is_alike)
            }
            _ => false,
        };
        if counts {
            let [sends, receives] = [true, false].map(|sends| connections(&answers[side], at, sends));
            out.push(EndChange { end: end.end.clone(), change, sends, receives });
        }
    }
    out
}

/// Returns the connections of an end, by traffic.
fn connections(answer: &Connections, at: usize, sends: bool) -> Vec<EndTraffic> {
    let mut found: Vec<EndTraffic> = Vec::new();
    let mut places: HashMap<(Families, &Traffic), usize> = HashMap::new();
    for (other, end) in answer.ends().enumerate() {
        // A node always reaches its own pods.
        if matches!(end, ConnectionEnd::OwnNode(_)) {
            continue;
        }
        let (from, to) = if sends { (at, other) } else { (other, at) };
        for edge in answer.between(from, to).filter(|edge| !edge.traffic.is_none()) {
            let place = *places.entry((edge.families, edge.traffic)).or_insert_with(|| {
                let (families, traffic) = (edge.families, edge.traffic.clone());
                found.push(EndTraffic { ends: Vec::new(), families, traffic });
                found.len() - 1
            });
            found[place].ends.push(end.clone());
        }
    }
    found
}
