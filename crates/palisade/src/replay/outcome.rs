//! What becomes of the recorded connections: those whose verdict changes, grouped by what decides.

use std::collections::BTreeMap;

use palisade_analysis::replay::{JudgedEnd, JudgedFlow, NotJudged, RecordedFlow, judge};
use palisade_policy::{Cluster, Direction, Endpoint, PolicyKey, Protocol, Reason, Side};

use super::recording::{Recording, Tally};

/// The result of a replay.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Connections that would newly be dropped, by cause.
    pub(super) dropped: Vec<Group>,
    /// Connections that would newly be allowed, by cause.
    pub(super) allowed: Vec<Group>,
    /// Records whose verdict stays.
    pub(super) unchanged: Counted,
    /// Records with another verdict than today's policies give, if there is a candidate.
    pub(super) stale: Counted,
    /// Records that can't be judged, by reason.
    pub(super) undecided: BTreeMap<NotJudged, Undecided>,
    /// Records of pods that are gone with their workloads.
    pub(super) by_labels: Counted,
}

/// Numbers of different connections and of records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) connections: u64,
    pub(super) records: u64,
}

impl Counted {
    fn add(&mut self, tally: Tally) {
        self.connections += 1;
        self.records += tally.records;
    }
}

/// Records that can't be judged for the same reason.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    pub(super) counted: Counted,
    /// The line of the first one.
    pub(super) line: usize,
}

/// Connections with the same cause.
#[derive(Debug)]
pub(super) struct Group {
    /// What decides, in each direction whose verdict is the cause. It is that of the first connection: of others, the rules
    /// that come closest may differ.
    pub(super) sides: Vec<(Direction, Side)>,
    pub(super) connections: Vec<Connection>,
}

/// A connection whose verdict changes: all records with the same workloads and port.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [JudgedEnd; 2],
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) sides: Vec<(Direction, Side)>,
    pub(super) tally: Tally,
}

/// What a group has in common: direction, and the policies or the rule.
type CauseKey = Vec<(Direction, &'static str, Vec<(PolicyKey, Option<usize>)>)>;
/// What is one line of a group: the ends, the protocol and the port.
type LineKey = ([String; 2], Protocol, u16);

#[derive(Default)]
struct Groups(BTreeMap<CauseKey, BTreeMap<LineKey, Connection>>);

/// Replays a recording against `today`, or against `candidate` in comparison with `today`.
pub(super) fn replay(recording: &Recording, today: &Cluster, candidate: Option<&Cluster>) -> Replay {
    let flows: Vec<RecordedFlow> = recording.flows.keys().map(|(flow, _)| flow.clone()).collect();
    let now = judge(today, &flows);
    let then = candidate.map(|cluster| judge(cluster, &flows));
    let mut out = Replay::default();
    let [mut dropped, mut allowed] = [Groups::default(), Groups::default()];
    let mut now = now.into_iter();
    let mut then = then.map(Vec::into_iter);
    for ((flow, passed), tally) in &recording.flows {
        let (Some(now), then) = (now.next(), then.as_mut().map(Iterator::next)) else { break };
        let (before, after) = match (now, then.flatten()) {
            (Ok(now), Some(Ok(then))) => {
                if now.decision.verdict().is_allow() != *passed {
                    out.stale.add(*tally);
                }
                (Some(now), then)
            }
            (Ok(now), None) => (None, now),
            (Err(why), _) | (_, Some(Err(why))) => {
                let undecided = out.undecided.entry(why).or_default();
                undecided.line =
                    if undecided.line == 0 { tally.line } else { undecided.line.min(tally.line) };
                undecided.counted.add(*tally);
                continue;
            }
        };
        if after.ends.iter().any(|end| end.by_recorded_labels) {
            out.by_labels.add(*tally);
        }
        let was = before.as_ref().map_or(*passed, |before| before.decision.verdict().is_allow());
        match (was, after.decision.verdict().is_allow()) {
            (true, false) => dropped.add(after, before.as_ref(), flow, *tally),
            (false, true) => allowed.add(after, before.as_ref(), flow, *tally),
            _ => out.unchanged.add(*tally),
        }
    }
    (out.dropped, out.allowed) = (dropped.sorted(), allowed.sorted());
    out
}

impl Groups {
    fn add(&mut self, after: JudgedFlow, before: Option<&JudgedFlow>, flow: &RecordedFlow, tally: Tally) {
        let sides = deciding(&after, before);
        let key = sides.iter().map(|(direction, side)| cause(*direction, side)).collect();
        let JudgedFlow { ends, .. } = after;
        let line = (ends.each_ref().map(end_name), flow.protocol, flow.port);
        match self.0.entry(key).or_default().entry(line) {
            std::collections::btree_map::Entry::Vacant(place) => {
                let (protocol, port) = (flow.protocol, flow.port);
                place.insert(Connection { ends, protocol, port, sides, tally });
            }
            std::collections::btree_map::Entry::Occupied(mut place) => {
                let known = &mut place.get_mut().tally;
                known.line = known.line.min(tally.line);
                known.records += tally.records;
                known.count = known.count.saturating_add(tally.count);
            }
        }
    }

    /// Returns the groups: those with the most connections first.
    fn sorted(self) -> Vec<Group> {
        let group = |lines: BTreeMap<LineKey, Connection>| {
            let connections: Vec<Connection> = lines.into_values().collect();
            let sides = connections.first().map(|first| first.sides.clone()).unwrap_or_default();
            Group { sides, connections }
        };
        let mut groups: Vec<Group> = self.0.into_values().map(group).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.connections.len()));
        groups
    }
}

/// Returns the sides that make the verdict what it is: of a denied connection those that deny, of an allowed one those that
/// denied before, or both if that is not known.
fn deciding(after: &JudgedFlow, before: Option<&JudgedFlow>) -> Vec<(Direction, Side)> {
    let side = |of: &JudgedFlow, direction: Direction| match direction {
        Direction::Egress => of.decision.egress.clone(),
        Direction::Ingress => of.decision.ingress.clone(),
    };
    let denied = !after.decision.verdict().is_allow();
    let sides = [Direction::Egress, Direction::Ingress].into_iter().filter_map(|direction| {
        let now = side(after, direction);
        let matters = match (denied, before) {
            (true, _) => !now.verdict.is_allow(),
            (false, Some(before)) => !side(before, direction).verdict.is_allow(),
            // Where no policy can apply, none allows either.
            (false, None) => now.reason != Reason::NoSubject,
        };
        matters.then_some((direction, now))
    });
    sides.collect()
}

fn cause(direction: Direction, side: &Side) -> (Direction, &'static str, Vec<(PolicyKey, Option<usize>)>) {
    let (word, policies) = match &side.reason {
        Reason::Isolated { policies, .. } => {
            ("isolated", policies.iter().map(|(key, _)| (key.clone(), None)).collect())
        }
        Reason::Rule(rule) => ("rule", vec![(rule.policy.clone(), Some(rule.index))]),
        Reason::Itself => ("itself", Vec::new()),
        Reason::NoSubject => ("no-subject", Vec::new()),
        Reason::OwnNode => ("own-node", Vec::new()),
        Reason::NotIsolated => ("not-isolated", Vec::new()),
        Reason::Hairpin => ("hairpin", Vec::new()),
    };
    (direction, word, policies)
}

/// Returns the name of an end: `shop/deployment/web`, `shop/pod/db`, `node n1`, `192.0.2.1`.
pub(super) fn end_name(end: &JudgedEnd) -> String {
    match (&end.endpoint, &end.workload) {
        (Endpoint::Pod { key, .. }, Some(workload)) => {
            format!("{}/{}/{}", key.namespace, workload.kind.to_lowercase(), workload.name)
        }
        (Endpoint::Pod { key, .. }, None) => format!("{}/pod/{}", key.namespace, key.name),
        (Endpoint::Node { name, .. }, _) => format!("node {name}"),
        (Endpoint::External(address), _) => address.to_string(),
    }
}
