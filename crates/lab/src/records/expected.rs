//! What records must say: the engine's decision about each connection, worked out from the lab's layout and not from what an agent knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use palisade_flow::{self as flow, Object, Record};
use palisade_policy::{
    Cluster, Decision, Direction, Endpoint, Flow, Mode, Name, PolicyKey, Reason, RuleRef, Side, Verdict,
    reference,
};

use super::Wording;
use crate::{
    layout::{Layout, Place},
    probe::{Outcome, Probe},
};

/// The most policies, and the most lines of the reason, that a record has.
const MAX_POLICIES: usize = 16;
const MAX_LINES: usize = 8;
/// The most bytes of a line. A longer one ends with an ellipsis.
const MAX_LINE: usize = 1024;

/// Which packets a record is about, and who recorded them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Whether they passed because of audit mode. Otherwise they were dropped.
    pub audited: bool,
    /// Whose policies deny them, or would.
    pub direction: Direction,
    /// The node that decides.
    pub node: Name,
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The protocol, as records have it.
    pub protocol: String,
    /// The destination port. `None` for protocols without ports.
    pub port: Option<u16>,
}

impl FlowKey {
    /// Returns the key of a record. `None` for a connection that passed.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let audited = match record.verdict {
            flow::Verdict::Dropped => false,
            flow::Verdict::Audited => true,
            flow::Verdict::Forwarded => return None,
        };
        let direction = match record.direction {
            flow::Direction::Ingress => Direction::Ingress,
            flow::Direction::Egress => Direction::Egress,
        };
        Some(Self {
            audited,
            direction,
            node: record.node.as_str().into(),
            source: record.source.address,
            destination: record.destination.address,
            protocol: record.protocol.clone(),
            port: record.port,
        })
    }
}

impl std::fmt::Display for FlowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { audited, direction, node, source, destination, protocol, port } = self;
        let verdict = if *audited { "audited" } else { "dropped" };
        write!(f, "{source} to {destination}, {protocol}")?;
        port.map_or(Ok(()), |port| write!(f, " {port}"))?;
        write!(f, ", {verdict} by {direction} policies on node {node}")
    }
}

/// A record that differs from the engine's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The connection.
    pub key: FlowKey,
    /// The field that differs.
    pub field: &'static str,
    /// What the record has there.
    pub recorded: String,
    /// What the engine says.
    pub decided: String,
}

impl std::fmt::Display for Disagreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, field, recorded, decided } = self;
        write!(f, "{key}: the record has as {field} {recorded}, and the engine says {decided}")
    }
}

/// The engine's decisions about the connections of a lab.
pub struct Expectations<'a> {
    layout: &'a Layout,
    /// The cluster with every policy enforced.
    enforced: Cluster,
    owners: BTreeMap<IpAddr, Endpoint>,
    wording: &'a Wording,
}

impl std::fmt::Debug for Expectations<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expectations").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl<'a> Expectations<'a> {
    /// Prepares the decisions for a layout. `wording` puts reasons into words as the agents do.
    #[must_use]
    pub fn of(layout: &'a Layout, wording: &'a Wording) -> Self {
        let endpoint = |place: &Place, address: IpAddr| match place {
            Place::Pod(key) => Endpoint::Pod { key: key.clone(), address },
            Place::Node(name) => Endpoint::Node { name: name.clone(), address },
            Place::Outside => Endpoint::External(address),
        };
        let places = layout.places();
        let owners = places.flat_map(|(place, addresses)| {
            addresses.iter().map(move |address| (*address, endpoint(&place, *address))).collect::<Vec<_>>()
        });
        Self { layout, enforced: layout.cluster.all_enforced(), owners: owners.collect(), wording }
    }

    /// Returns which records a finished probe must have: one of each of these sets.
    #[must_use]
    pub fn of_probe(&self, probe: &Probe, outcome: &Outcome) -> Vec<BTreeSet<FlowKey>> {
        let (passed, by) = match outcome {
            Outcome::Connected { by, .. } => (true, by.as_ref()),
            outcome if matches!(outcome, Outcome::TimedOut) || outcome.is_refusal() => (false, None),
            _ => return Vec::new(),
        };
        let flows = probe.flows.iter().filter(|(flow, verdict)| match (passed, by) {
            (true, Some(by)) => verdict.is_allow() && Place::of(&flow.destination) == *by,
            (true, None) => verdict.is_allow(),
            (false, _) => !verdict.is_allow(),
        });
        let mut sets: BTreeMap<(bool, Direction), (usize, BTreeSet<FlowKey>)> = BTreeMap::new();
        let mut count = 0;
        for (flow, _) in flows {
            count += 1;
            for key in self.of_flow(flow) {
                let (of, keys) = sets.entry((key.audited, key.direction)).or_default();
                *of += 1;
                keys.insert(key);
            }
        }
        if !passed {
            // Dropped by one of them, in whichever direction.
            let dropped = sets.into_iter().filter(|((audited, _), _)| !audited);
            let keys: BTreeSet<FlowKey> = dropped.flat_map(|(_, (_, keys))| keys).collect();
            return Some(keys).filter(|keys| !keys.is_empty()).into_iter().collect();
        }
        // Which of several the connection was is not known: only what all of them have is certain.
        sets.into_values().filter(|(of, _)| *of == count).map(|(_, keys)| keys).collect()
    }

    /// Returns the records that the packets of a flow have: what drops them, or all that would.
    fn of_flow(&self, flow: &Flow) -> Vec<FlowKey> {
        let now = reference::decide(&self.layout.cluster, flow);
        let then = reference::decide(&self.enforced, flow);
        let mut out: Vec<FlowKey> = Vec::new();
        for direction in [Direction::Egress, Direction::Ingress] {
            let Some(node) = self.decides_on(flow, direction) else { continue };
            let (is, would) = (side(&now, direction).verdict, side(&then, direction).verdict);
            let audited = match (is, would) {
                (Verdict::Deny, _) => false,
                (Verdict::Allow, Verdict::Deny) => true,
                (Verdict::Allow, Verdict::Allow) => continue,
            };
            if !audited {
                // What enforced policies of a node deny is no audited connection there.
                out.retain(|key| key.node != node);
            }
            // A node records a connection once, by the first direction.
            if !(audited && out.iter().any(|key| key.audited && key.node == node)) {
                out.push(FlowKey {
                    audited,
                    direction,
                    node,
                    source: flow.source.address(),
                    destination: flow.destination.address(),
                    protocol: flow.protocol.to_string(),
                    port: flow.protocol.has_ports().then_some(flow.port),
                });
            }
            if !audited {
                break;
            }
        }
        out
    }

    /// Returns the node whose rules decide a direction: that of the pod whose policies apply.
    fn decides_on(&self, flow: &Flow, direction: Direction) -> Option<Name> {
        let end = match direction {
            Direction::Egress => &flow.source,
            Direction::Ingress => &flow.destination,
        };
        match end {
            Endpoint::Pod { key, .. } => self.layout.pods.get(key).map(|pod| pod.node.clone()),
            Endpoint::Node { .. } | Endpoint::External(_) => None,
        }
    }

    /// Compares a record with the decision about its connection, which must be among the flows of `probes`. Returns what differs.
    #[must_use]
    pub fn differences(&self, record: &Record, probes: &[Probe]) -> Vec<Disagreement> {
        let Some(key) = FlowKey::of(record) else { return Vec::new() };
        let differs = |field, recorded: String, decided: String| Disagreement {
            key: key.clone(),
            field,
            recorded,
            decided,
        };
        let is_of = |flow: &&Flow| {
            (flow.source.address(), flow.destination.address()) == (key.source, key.destination)
                && flow.protocol.to_string() == key.protocol
                && flow.protocol.has_ports().then_some(flow.port) == key.port
        };
        let flows = probes.iter().flat_map(|probe| probe.flows.iter().map(|(flow, _)| flow));
        let candidates: Vec<&Flow> = flows.filter(is_of).collect();
        if candidates.is_empty() {
            return vec![differs("connection", "this".to_owned(), "that no probe has opened it".to_owned())];
        }
        let mut found = Vec::new();
        for flow in candidates {
            found = self.differences_of(record, flow, &key, &differs);
            if found.is_empty() {
                break;
            }
        }
        found
    }

    fn differences_of(
        &self,
        record: &Record,
        flow: &Flow,
        key: &FlowKey,
        differs: &dyn Fn(&'static str, String, String) -> Disagreement,
    ) -> Vec<Disagreement> {
        let expected = self.of_flow(flow);
        if !expected.contains(key) {
            let texts: Vec<String> = expected.iter().map(ToString::to_string).collect();
            let decided = if texts.is_empty() { "allowed".to_owned() } else { texts.join(" and ") };
            return vec![differs("verdict", "this".to_owned(), decided)];
        }
        let cluster = if key.audited { &self.enforced } else { &self.layout.cluster };
        let decision = reference::decide(cluster, flow);
        let why = self.why(side(&decision, key.direction), key);
        let mut out = Vec::new();
        let mut compare = |field, recorded: String, decided: String| {
            if recorded != decided {
                out.push(differs(field, recorded, decided));
            }
        };
        compare("policies", format!("{:?}", record.policies), format!("{:?}", why.policies));
        compare("rule", format!("{:?}", record.rule), format!("{:?}", why.rule));
        compare("reason", format!("{:?}", record.reason), format!("{:?}", why.reason));
        for (field, end) in [("source", &record.source), ("destination", &record.destination)] {
            let (pod, node, labels) = self.named(end.address);
            compare(field, format!("{:?} {:?}", end.pod, end.node), format!("{pod:?} {node:?}"));
            compare("labels", format!("{:?}", end.labels), format!("{labels:?}"));
        }
        out
    }

    /// Returns the pod or else the node that has an address, and the pod's labels.
    fn named(&self, address: IpAddr) -> (Option<Object>, Option<String>, BTreeMap<String, String>) {
        match self.owners.get(&address) {
            Some(Endpoint::Pod { key, .. }) => {
                let (namespace, name) = (Some(key.namespace.to_string()), key.name.to_string());
                let labels = self.layout.cluster.pods.get(key).map(|pod| &pod.labels);
                let labels =
                    labels.into_iter().flat_map(|l| l.iter()).map(|(k, v)| (k.to_string(), v.to_string()));
                (Some(Object { kind: "Pod".to_owned(), namespace, name }), None, labels.collect())
            }
            Some(Endpoint::Node { name, .. }) => (None, Some(name.to_string()), BTreeMap::new()),
            Some(Endpoint::External(_)) | None => (None, None, BTreeMap::new()),
        }
    }

    /// Returns the reason of a side that denies, as a record has it.
    fn why(&self, side: &Side, key: &FlowKey) -> Why {
        let direction = key.direction;
        let (mut policies, rule): (Vec<&PolicyKey>, Option<(&RuleRef, bool)>) = match &side.reason {
            Reason::Rule(rule) => (vec![&rule.policy], Some((rule, true))),
            Reason::Isolated { policies, near } => {
                let nearest = near.first().map(|miss| (&miss.rule, false));
                (policies.iter().map(|(key, _)| key).collect(), nearest)
            }
            _ => (Vec::new(), None),
        };
        let is_in_audit = |key: &PolicyKey| {
            let cluster = &self.layout.cluster;
            cluster.policies.get(key).is_some_and(|policy| cluster.mode_of(policy) == Mode::Audit)
        };
        let mut reason = Vec::new();
        if key.audited {
            // Those in audit mode come first, each group in its own order.
            let (first, then): (Vec<_>, Vec<_>) = policies.iter().partition(|key| is_in_audit(key));
            policies = [first, then].concat();
            reason.extend(
                policies.first().filter(|key| is_in_audit(key)).map(|key| format!("{key} is in audit mode")),
            );
        }
        reason.extend((self.wording)(side, direction));
        Why {
            policies: policies.iter().take(MAX_POLICIES).map(|key| object(key)).collect(),
            rule: rule.map(|(rule, decided)| flow::Rule {
                policy: object(&rule.policy),
                field: format!("{direction}[{}]", rule.index),
                name: rule.name.as_ref().map(|name| cut(name)),
                at: rule.origin.as_ref().map(|origin| cut(&origin.to_string())),
                decided,
            }),
            reason: reason.iter().take(MAX_LINES).map(|line| cut(line)).collect(),
        }
    }
}

/// The reason of a side that denies, as a record has it.
struct Why {
    policies: Vec<Object>,
    rule: Option<flow::Rule>,
    reason: Vec<String>,
}

fn side(decision: &Decision, direction: Direction) -> &Side {
    match direction {
        Direction::Egress => &decision.egress,
        Direction::Ingress => &decision.ingress,
    }
}

fn object(key: &PolicyKey) -> Object {
    let namespace = (!key.namespace.is_empty()).then(|| key.namespace.to_string());
    Object { kind: key.kind.to_string(), namespace, name: key.name.to_string() }
}

fn cut(line: &str) -> String {
    match line.len() > MAX_LINE {
        true => format!("{}…", &line[..line.floor_char_boundary(MAX_LINE)]),
        false => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
