//! `--explain`: what decides a connection in each direction, as lines and as JSON values.

use palisade_analysis::EdgeReasons;
use palisade_policy::{Direction, Origin, PolicyKey, RuleRef, walk::Decider};
use serde::Serialize;

use crate::{
    connection_ends::abbreviated,
    escape,
    reasons::{action_word, called, tier_word},
};

/// The most deciders that a line names.
const MOST: usize = 4;

/// Returns a line for each direction in which policies may decide.
pub(crate) fn lines(reasons: &EdgeReasons) -> Vec<String> {
    let line = |direction: Direction, deciders: &[Decider]| {
        let mut words: Vec<String> = deciders.iter().take(MOST).map(|d| words(d, direction)).collect();
        if deciders.len() > MOST {
            words.push(format!("{} more", deciders.len() - MOST));
        }
        let any = deciders.iter().any(|decider| *decider != Decider::NoSubject);
        any.then(|| escape::plain(&format!("{direction}: {}", words.join("; "))).into_owned())
    };
    let both = [line(Direction::Egress, &reasons.egress), line(Direction::Ingress, &reasons.ingress)];
    both.into_iter().flatten().collect()
}

/// Says what decides, in a direction.
pub(crate) fn words(decider: &Decider, direction: Direction) -> String {
    match decider {
        Decider::Itself | Decider::Hairpin => "a pod always reaches itself".to_owned(),
        Decider::NoSubject => "not a pod".to_owned(),
        Decider::OwnNode => "a pod's own node is always allowed".to_owned(),
        Decider::NotIsolated => "not isolated".to_owned(),
        Decider::Rule(rule) => {
            let at = rule.origin.as_ref().map(|at| format!(" ({at})")).unwrap_or_default();
            format!("{}, {direction}[{}]{}{at}", rule.policy, rule.index, called(rule))
        }
        Decider::Isolated(policies) => {
            let policies: Vec<&PolicyKey> = policies.iter().collect();
            format!("isolated by {}, and no rule matches", abbreviated(&policies, ToString::to_string))
        }
    }
}

/// What decides in each direction, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonReasons {
    egress: Vec<JsonReason>,
    ingress: Vec<JsonReason>,
}

#[derive(Serialize)]
struct JsonReason {
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<JsonRule>,
    /// The policies that isolate the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<JsonPolicy>,
}

#[derive(Serialize)]
struct JsonRule {
    policy: JsonPolicy,
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    action: &'static str,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Serialize)]
struct JsonPolicy {
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl From<&PolicyKey> for JsonPolicy {
    fn from(key: &PolicyKey) -> Self {
        let namespace = Some(key.namespace.to_string()).filter(|n| !n.is_empty());
        Self { kind: key.kind.to_string(), namespace, name: key.name.to_string() }
    }
}

impl From<&RuleRef> for JsonRule {
    fn from(rule: &RuleRef) -> Self {
        Self {
            policy: (&rule.policy).into(),
            index: rule.index,
            name: rule.name.as_deref().map(ToOwned::to_owned),
            tier: tier_word(rule.tier),
            priority: rule.priority,
            action: action_word(rule.action),
            file: rule.origin.as_ref().map(|at| at.file.to_string()),
            line: rule.origin.as_ref().and_then(Origin::line),
        }
    }
}

impl From<&Decider> for JsonReason {
    fn from(decider: &Decider) -> Self {
        let (reason, rule) = match decider {
            Decider::Itself => ("itself", None),
            Decider::NoSubject => ("no-subject", None),
            Decider::OwnNode => ("own-node", None),
            Decider::NotIsolated => ("not-isolated", None),
            Decider::Hairpin => ("hairpin", None),
            Decider::Rule(rule) => ("rule", Some(rule.into())),
            Decider::Isolated(_) => ("isolated", None),
        };
        let policies = match decider {
            Decider::Isolated(policies) => policies.iter().map(Into::into).collect(),
            _ => Vec::new(),
        };
        Self { reason, rule, policies }
    }
}

impl From<&EdgeReasons> for JsonReasons {
    fn from(reasons: &EdgeReasons) -> Self {
        let all = |deciders: &[Decider]| deciders.iter().map(Into::into).collect();
        Self { egress: all(&reasons.egress), ingress: all(&reasons.ingress) }
    }
}
