//! The parts of a record that all verdicts have: ends, policies, rules and text, within limits.

use std::collections::BTreeMap;

use palisade_flow::{self as flow, End, Object};
use palisade_policy::{Direction, Endpoint, Labels, Name, PolicyKey, RuleRef};

use crate::Reconciler;

/// Limits of a record: bytes of the labels of each end, bytes of a line of the reason, and lines. Tenants choose labels and policies, so
/// these can be long.
const MAX_LABEL_BYTES: usize = 2048;
const MAX_LINE: usize = 1024;
pub(crate) const MAX_LINES: usize = 8;
/// The most policies that a record names.
pub(crate) const MAX_POLICIES: usize = 16;
/// The most names of an address in a record. Each has at most 253 bytes.
const MAX_NAMES: usize = 8;

/// Returns a direction of policies as records have it.
pub(crate) fn direction(direction: Direction) -> flow::Direction {
    match direction {
        Direction::Ingress => flow::Direction::Ingress,
        Direction::Egress => flow::Direction::Egress,
    }
}

/// Returns an end with what is known of its pod.
pub(crate) fn end(end: &Endpoint, reconciler: &Reconciler) -> End {
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
        names: reconciler.names_at(end.address()).iter().take(MAX_NAMES).map(ToString::to_string).collect(),
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

/// Returns a policy as an object.
pub(crate) fn policy(key: &PolicyKey) -> Object {
    let namespace = Some(key.namespace.to_string()).filter(|namespace| !namespace.is_empty());
    Object { kind: key.kind.to_string(), namespace, name: key.name.to_string() }
}

/// Returns a rule, and whether it decided.
pub(crate) fn rule_ref(rule: &RuleRef, direction: Direction, decided: bool) -> flow::Rule {
    flow::Rule {
        policy: policy(&rule.policy),
        field: format!("{direction}[{}]", rule.index),
        name: rule.name.as_ref().map(ToString::to_string).map(shortened),
        at: rule.origin.as_ref().map(ToString::to_string).map(shortened),
        decided,
    }
}

/// Shortens a line of text to the limit.
pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > MAX_LINE {
        text.truncate(text.floor_char_boundary(MAX_LINE));
        text.push('…');
    }
    text
}
