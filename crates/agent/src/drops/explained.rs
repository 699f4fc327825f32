//! Why a packet was denied, or would be if no policy were in audit mode, as labels of a metric and as a record.

use std::collections::BTreeMap;

use jiff::Timestamp;
use palisade_flow::{self as flow, End, Object, Record};
use palisade_policy::{
    Deciding, Direction, Endpoint, Flow, Labels, Mode, Name, PolicyKey, Reason, RuleRef, Verdict, reference,
};

use super::{DeniedPacket, Wording};
use crate::{Reconciler, metrics::DropLabels};

/// Limits of a record: bytes of the labels of each end, bytes of a line of the reason, and lines. Tenants choose labels and policies, so
/// these can be long.
const MAX_LABEL_BYTES: usize = 2048;
const MAX_LINE: usize = 1024;
const MAX_LINES: usize = 8;
/// The most policies that a record names.
const MAX_POLICIES: usize = 16;

/// What denied a packet, or would deny it.
#[derive(Debug)]
pub(super) struct Explained {
    /// The labels of the policy at fault: that of the rule that denies, or the first policy that isolates the pod.
    pub(super) labels: DropLabels,
    /// The record, without number, time and count.
    pub(super) record: Record,
}

/// Finds out what denied a packet. The reference evaluates every policy.
pub(super) fn explain(
    packet: &DeniedPacket,
    reconciler: &Reconciler,
    generation: u64,
    wording: &Wording,
) -> Explained {
    let ends = (reconciler.endpoint(packet.source), reconciler.endpoint(packet.destination));
    // Only a packet that went through a service comes back to the pod that sent it.
    let through_service =
        matches!(&ends, (Endpoint::Pod { key: a, .. }, Endpoint::Pod { key: b, .. }) if a == b);
    let (source, destination) = ends;
    let flow = Flow { source, destination, protocol: packet.protocol, port: packet.port, through_service };
    let deciding = if packet.audited { Deciding::All } else { Deciding::Enforced };
    let cluster = reconciler.cluster();
    let decision = reference::decide_by(cluster, &flow, deciding);
    let side = match packet.direction {
        Direction::Ingress => decision.ingress,
        Direction::Egress => decision.egress,
    };
    let denies = side.verdict == Verdict::Deny;
    let (mut policies, rule) = if denies { at_fault(&side.reason) } else { (Vec::new(), None) };
    let is_audited =
        |key: &PolicyKey| cluster.policies.get(key).is_some_and(|p| cluster.mode_of(p) == Mode::Audit);
    if packet.audited {
        // Others that isolate the pod are enforced already: the first one counts the packet.
        policies.sort_by_key(|key| !is_audited(key));
    }
    let first = policies.first().copied();
    let labels = first
        .map_or_else(|| DropLabels::unknown(packet.direction), |key| DropLabels::of(packet.direction, key));
    let reason = if packet.is_link_traffic() && first.is_none() {
        vec!["multicast, broadcast and link-local traffic does not leave or reach isolated pods".to_owned()]
    } else if denies {
        wording(&side, packet.direction)
    } else {
        vec!["no policy denies it any longer: policies or pods have changed since".to_owned()]
    };
    let in_audit = policies.iter().find(|key| packet.audited && is_audited(key));
    let reason = in_audit.map(|key| format!("{key} is in audit mode")).into_iter().chain(reason);
    let record = Record {
        id: 0,
        time: Timestamp::UNIX_EPOCH,
        node: String::new(),
        verdict: if packet.audited { flow::Verdict::Audited } else { flow::Verdict::Dropped },
        direction: match packet.direction {
            Direction::Ingress => flow::Direction::Ingress,
            Direction::Egress => flow::Direction::Egress,
        },
        source: end(&flow.source, reconciler),
        destination: end(&flow.destination, reconciler),
        protocol: packet.protocol.to_string(),
        port: packet.protocol.has_ports().then_some(packet.port),
        policies: policies.iter().take(MAX_POLICIES).map(|key| policy(key)).collect(),
        rule: rule.map(|(rule, decided)| field(rule, packet.direction, decided)),
        reason: reason.take(MAX_LINES).map(shortened).collect(),
        generation,
        count: 0,
    };
    Explained { labels, record }
}

/// The policies that deny, and the rule that decided or came closest.
fn at_fault(reason: &Reason) -> (Vec<&PolicyKey>, Option<(&RuleRef, bool)>) {
    match reason {
        Reason::Rule(rule) => (vec![&rule.policy], Some((rule, true))),
        Reason::Isolated { policies, near } => {
            (policies.iter().map(|(key, _)| key).collect(), near.first().map(|miss| (&miss.rule, false)))
        }
        _ => (Vec::new(), None),
    }
}

fn end(end: &Endpoint, reconciler: &Reconciler) -> End {
    let known = reconciler.owner(end.address());
    let object = |namespace: &Name, name: &Name| Object {
        kind: "Pod".to_owned(),
        namespace: Some(namespace.to_string()),
        name: name.to_string(),
    };
    End {
        address: end.address(),
        pod: known.map(|pod| object(&pod.key.namespace, &pod.key.name)),
        workload: known.and_then(|pod| pod.workload.as_ref()).map(|workload| flow::Workload {
            kind: workload.kind.to_string(),
            name: workload.name.to_string(),
        }),
        labels: known.map(|pod| labels(&pod.labels)).unwrap_or_default(),
        node: match end {
            Endpoint::Node { name, .. } => Some(name.to_string()),
            _ => None,
        },
    }
}

/// The labels, as far as there is room.
fn labels(labels: &Labels) -> BTreeMap<String, String> {
    let mut room = MAX_LABEL_BYTES;
    let mut fits = |(key, value): &(&Name, &Name)| {
        let size = key.len() + value.len();
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    labels.iter().take_while(|pair| fits(pair)).map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

fn policy(key: &PolicyKey) -> Object {
    let namespace = Some(key.namespace.to_string()).filter(|namespace| !namespace.is_empty());
    Object { kind: key.kind.to_string(), namespace, name: key.name.to_string() }
}

fn field(rule: &RuleRef, direction: Direction, decided: bool) -> flow::Rule {
    flow::Rule {
        policy: policy(&rule.policy),
        field: format!("{direction}[{}]", rule.index),
        name: rule.name.as_ref().map(ToString::to_string).map(shortened),
        at: rule.origin.as_ref().map(ToString::to_string).map(shortened),
        decided,
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_LINE {
        text.truncate(text.floor_char_boundary(MAX_LINE));
        text.push('…');
    }
    text
}

/// What a side's reason is without words, for tests.
#[cfg(test)]
pub(super) fn no_words(_: &palisade_policy::Side, _: Direction) -> Vec<String> {
    vec!["a reason".to_owned()]
}
