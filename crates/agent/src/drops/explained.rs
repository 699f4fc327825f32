//! Why a packet was denied, or would be if no policy were in audit mode, as labels of a metric and as a record.

use jiff::Timestamp;
use palisade_flow::{self as flow, Record};
use palisade_policy::{
    Deciding, Direction, Endpoint, Flow, Mode, PolicyKey, Reason, RuleRef, Verdict, reference,
};

use super::{DeniedPacket, Wording};
use crate::{
    Reconciler,
    metrics::DropLabels,
    record_parts::{MAX_LINES, MAX_POLICIES, direction, end, policy, rule_ref, shortened},
};

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
    // One row of the kernel decides both directions of what a pod sends to itself through a service.
    let denied_at = match through_service {
        true if decision.egress.verdict == Verdict::Deny => Direction::Egress,
        true if decision.ingress.verdict == Verdict::Deny => Direction::Ingress,
        _ => packet.direction,
    };
    let side = match denied_at {
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
    let labels = first.map_or_else(|| DropLabels::unknown(denied_at), |key| DropLabels::of(denied_at, key));
    let reason = if packet.is_link_traffic() && first.is_none() {
        vec!["multicast, broadcast and link-local traffic does not leave or reach isolated pods".to_owned()]
    } else if denies {
        wording(&side, denied_at)
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
        direction: direction(denied_at),
        source: end(&flow.source, reconciler),
        destination: end(&flow.destination, reconciler),
        opened_to: None,
        protocol: packet.protocol.to_string(),
        port: packet.protocol.has_ports().then_some(packet.port),
        policies: policies.iter().take(MAX_POLICIES).map(|key| policy(key)).collect(),
        rule: rule.map(|(rule, decided)| rule_ref(rule, denied_at, decided)),
        reason: reason.take(MAX_LINES).map(shortened).collect(),
        generation,
        count: 0,
        ended: None,
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

/// What a side's reason is without words, for tests.
#[cfg(test)]
pub(crate) fn no_words(_: &palisade_policy::Side, _: Direction) -> Vec<String> {
    vec!["a reason".to_owned()]
}
