//! Why a connection passed, as a record.

use jiff::Timestamp;
use palisade_flow::{self as flow, OpenedTo, Record};
use palisade_policy::{
    Cluster, Deciding, Decision, Direction, Endpoint, Flow, Pod, PolicyKey, Reason, RuleRef, Side, Tier,
    Verdict, reference,
};

use super::{Connection, services::Services};
use crate::{
    Reconciler,
    drops::Wording,
    record_parts::{MAX_LINES, MAX_POLICIES, direction, end, policy, rule_ref, shortened},
};

/// What the worker knows.
pub(super) struct Known<'a> {
    pub(super) reconciler: &'a Reconciler,
    pub(super) services: &'a Services,
    pub(super) generation: u64,
    pub(super) wording: &'a Wording,
    /// Whether what policies in audit mode would deny has a record of its own, so that it needs none here.
    pub(super) audited_are_recorded: bool,
}

/// Finds out why a connection passed, by the policies of the node's pods. The reference evaluates every policy.
///
/// Returns the record, without number, time and count. `None` if the connection needs no record: it has no pod of the node, an audited
/// packet has the record, or the policies of a receiver on another node deny it, which records that.
pub(super) fn explain(connection: &Connection, known: &Known<'_>) -> Option<Record> {
    let reconciler = known.reconciler;
    let cluster = reconciler.cluster();
    let flow = Flow {
        source: reconciler.endpoint(connection.source),
        destination: reconciler.endpoint(connection.destination),
        protocol: connection.protocol,
        port: connection.port,
        through_service: connection.opened_to.is_some(),
    };
    let subjects = subjects(&flow, reconciler);
    if subjects.is_empty() {
        return None;
    }
    let denied =
        |decision: &Decision| subjects.iter().any(|(at, _)| side(decision, *at).verdict == Verdict::Deny);
    let decision = reference::decide_by(cluster, &flow, Deciding::Enforced);
    let is_denied = denied(&decision);
    let is_received_here = subjects.iter().any(|(at, _)| *at == Direction::Ingress);
    if !is_denied && !is_received_here && decision.ingress.verdict == Verdict::Deny {
        // It has passed this node, and the receiver's drops it.
        return None;
    }
    if known.audited_are_recorded
        && !is_denied
        && cluster.audited().next().is_some()
        && denied(&reference::decide_by(cluster, &flow, Deciding::All))
    {
        return None;
    }
    let decides = deciding_direction(&decision, &subjects);
    let mut policies: Vec<&PolicyKey> = Vec::new();
    for (at, pod) in &subjects {
        policies.extend(isolating(cluster, pod, *at));
        policies.extend(rule_of(side(&decision, *at)).map(|rule| &rule.policy));
    }
    let mut named = std::collections::HashSet::new();
    policies.retain(|key| named.insert(*key));
    let reason = match is_denied {
        true => vec![
            "no policy allows it now: policies or pods have changed since, or it is related to an allowed connection"
                .to_owned(),
        ],
        false => {
            let lines = subjects.iter().map(|(at, _)| (known.wording)(side(&decision, *at), *at));
            lines.flatten().collect()
        }
    };
    let rule = rule_of(side(&decision, decides)).filter(|_| !is_denied);
    Some(Record {
        id: 0,
        time: Timestamp::UNIX_EPOCH,
        node: String::new(),
        verdict: flow::Verdict::Forwarded,
        direction: direction(decides),
        source: end(&flow.source, reconciler),
        destination: end(&flow.destination, reconciler),
        opened_to: connection.opened_to.map(|to| opened_to(to, connection, known.reconciler, known.services)),
        protocol: connection.protocol.to_string(),
        port: connection.protocol.has_ports().then_some(connection.port),
        policies: policies.into_iter().take(MAX_POLICIES).map(policy).collect(),
        rule: rule.map(|rule| rule_ref(rule, decides, true)),
        reason: reason.into_iter().take(MAX_LINES).map(shortened).collect(),
        generation: known.generation,
        count: 0,
        ended: None,
    })
}

/// The directions in which this node decides, with the pods whose policies decide.
fn subjects<'a>(flow: &Flow, reconciler: &'a Reconciler) -> Vec<(Direction, &'a Pod)> {
    let local = &reconciler.plan().local;
    let pod = |end: &Endpoint| reconciler.owner(end.address()).filter(|_| local.contains(&end.address()));
    let egress = pod(&flow.source).map(|pod| (Direction::Egress, pod));
    let ingress = pod(&flow.destination).map(|pod| (Direction::Ingress, pod));
    egress.into_iter().chain(ingress).collect()
}

fn side(decision: &Decision, direction: Direction) -> &Side {
    match direction {
        Direction::Egress => &decision.egress,
        Direction::Ingress => &decision.ingress,
    }
}

/// The direction of the record: of two, that in which a rule decided, and ingress if both did or none.
fn deciding_direction(decision: &Decision, subjects: &[(Direction, &Pod)]) -> Direction {
    let by_rule = subjects.iter().rev().find(|(at, _)| rule_of(side(decision, *at)).is_some());
    by_rule.or(subjects.last()).map_or(Direction::Ingress, |(at, _)| *at)
}

fn rule_of(side: &Side) -> Option<&RuleRef> {
    match &side.reason {
        Reason::Rule(rule) => Some(rule),
        _ => None,
    }
}

/// The enforced policies that isolate a pod in a direction.
fn isolating<'a>(cluster: &'a Cluster, pod: &Pod, at: Direction) -> impl Iterator<Item = &'a PolicyKey> {
    let namespace = cluster.namespaces.get(&pod.key.namespace).map(|n| &n.labels);
    let isolates = move |policy: &&std::sync::Arc<palisade_policy::Policy>| {
        policy.tier == Tier::Developer
            && policy.rules(at).is_some()
            && policy.subject.matches(&pod.key.namespace, namespace, &pod.labels)
    };
    cluster.deciding(Deciding::Enforced).filter(isolates).map(|policy| &policy.key)
}

/// Returns what a connection was opened to, with the Service that has it now.
pub(super) fn opened_to(
    (address, port): (std::net::IpAddr, u16),
    connection: &Connection,
    reconciler: &Reconciler,
    services: &Services,
) -> OpenedTo {
    let is_node = matches!(reconciler.endpoint(address), Endpoint::Node { .. });
    let service = services.at(address, (connection.protocol, port), is_node);
    OpenedTo {
        address,
        port: connection.protocol.has_ports().then_some(port),
        service: service.map(|key| flow::Object {
            kind: "Service".to_owned(),
            namespace: Some(key.namespace.to_string()),
            name: key.name.to_string(),
        }),
    }
}
