//! Verdicts and their reasons as text and as JSON values.

use palisade_policy::{
    Action, Direction, Family, NearMiss, Origin, PolicyKey, Protocol, Reason, RuleRef, Side, Tier, Verdict,
};
use serde::Serialize;

/// The most near misses that are shown. The engine sorts them, so the first ones are the most likely mistakes.
const SHOWN_MISSES: usize = 2;

/// The most isolating policies that are named.
const SHOWN_POLICIES: usize = 5;

/// Whether one rule decided, so that the first line of [`lines`] continues the verdict: `by NetworkPolicy …`.
pub(crate) fn is_by_rule(side: &Side) -> bool {
    matches!(side.reason, Reason::Rule(_))
}

/// Formats the reason of a side's verdict as lines.
pub(crate) fn lines(side: &Side, direction: Direction) -> Vec<String> {
    let mut out = reason_lines(side, direction);
    let passed = side
        .passed
        .iter()
        .map(|rule| format!("passed by {}{}", rule_text(rule, direction), precedence_text(rule)));
    // Rules that passed come right below the decision.
    out.splice(1..1, passed);
    out
}

fn reason_lines(side: &Side, direction: Direction) -> Vec<String> {
    let (subject, own) = match direction {
        Direction::Egress => ("the source", "destination"),
        Direction::Ingress => ("the destination", "source"),
    };
    match &side.reason {
        Reason::Itself => vec!["a pod always reaches itself".to_owned()],
        Reason::NoSubject => {
            vec![format!("{subject} is not a pod on the cluster network: no policy applies to it")]
        }
        Reason::OwnNode => vec![format!("the {own} is the pod's own node, which is always allowed")],
        Reason::NotIsolated => vec![format!("no policy isolates {subject} for {direction}")],
        Reason::Hairpin => vec!["a pod can reach itself through a service".to_owned()],
        Reason::Rule(rule) => vec![format!("by {}{}", rule_text(rule, direction), precedence_text(rule))],
        Reason::Isolated { policies, near } => {
            let mut names: Vec<String> = policies
                .iter()
                .take(SHOWN_POLICIES)
                .map(|(key, at)| format!("{key}{}", origin_text(at.as_ref())))
                .collect();
            if policies.len() > SHOWN_POLICIES {
                names.push(format!("{} more", policies.len() - SHOWN_POLICIES));
            }
            let rules = if near.is_empty() { "which allows nothing" } else { "and no rule matches" };
            let mut out = vec![format!("isolated by {}, {rules}", names.join(", "))];
            out.extend(near.iter().take(SHOWN_MISSES).map(|miss| miss_text(miss, direction)));
            out
        }
    }
}

fn rule_text(rule: &RuleRef, direction: Direction) -> String {
    let place = origin_text(rule.origin.as_ref());
    format!("{}, {direction}[{}]{}{place}", rule.policy, rule.index, called(rule))
}

/// Formats the name of a rule, if it has one: ` "allow-dns"`. Names can be any text, so they are quoted.
pub(crate) fn called(rule: &RuleRef) -> String {
    rule.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default()
}

/// Formats the precedence of a rule of a cluster-wide tier: `, admin tier, priority 10`.
fn precedence_text(rule: &RuleRef) -> String {
    let priority = rule.priority.map(|p| format!(", priority {p}")).unwrap_or_default();
    match rule.tier {
        Tier::Developer => String::new(),
        Tier::Admin => format!(", admin tier{priority}"),
        Tier::Baseline => format!(", baseline tier{priority}"),
    }
}

fn miss_text(miss: &NearMiss, direction: Direction) -> String {
    let what = match (miss.peer_matches, miss.port_matches) {
        (true, _) => "the peer matches, the port does not",
        (false, true) => "the port matches, the peer does not",
        (false, false) => "neither peer nor port matches",
    };
    let line = miss.origin.as_ref().map(|s| format!(" ({})", s.within())).unwrap_or_default();
    let rule = rule_text(&miss.rule, direction);
    format!("closest: {rule}: {what}; requires {}{line}", palisade_names::describe_missing(&miss.missing))
}

fn origin_text(source: Option<&Origin>) -> String {
    source.map(|s| format!(" ({s})")).unwrap_or_default()
}

/// Formats a port: `TCP 80`, `ICMP`.
pub(crate) fn port_text(protocol: Protocol, port: u16) -> String {
    if protocol.has_ports() { format!("{protocol} {port}") } else { protocol.to_string() }
}

/// Formats IP families: `IPv4`, `IPv4 and IPv6`.
pub(crate) fn families_text(families: impl IntoIterator<Item = Family>) -> String {
    families.into_iter().map(|f| f.to_string()).collect::<Vec<_>>().join(" and ")
}

/// One direction of a decision, as JSON.
#[derive(Serialize)]
pub(crate) struct JsonSide {
    verdict: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<JsonRule>,
    /// The rules of cluster-wide tiers that passed the decision to the next tier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed: Vec<JsonRule>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<JsonPolicy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    near: Vec<JsonMiss>,
}

#[derive(Serialize)]
struct JsonPolicy {
    policy: JsonPolicyName,
    #[serde(flatten)]
    at: JsonPlace,
}

/// A policy as an object.
#[derive(Serialize)]
struct JsonPolicyName {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
}

impl From<&PolicyKey> for JsonPolicyName {
    fn from(key: &PolicyKey) -> Self {
        let namespace = Some(key.namespace.to_string()).filter(|namespace| !namespace.is_empty());
        Self { kind: key.kind.to_string(), namespace, name: key.name.to_string() }
    }
}

#[derive(Serialize)]
struct JsonRule {
    policy: JsonPolicyName,
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    tier: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    action: &'static str,
    #[serde(flatten)]
    at: JsonPlace,
}

#[derive(Serialize)]
struct JsonMiss {
    rule: JsonRule,
    peer_matches: bool,
    port_matches: bool,
    #[serde(rename = "wanted")]
    required: String,
    line: Option<u32>,
}

#[derive(Serialize)]
struct JsonPlace {
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
}

impl From<Option<&Origin>> for JsonPlace {
    fn from(source: Option<&Origin>) -> Self {
        Self {
            file: source.map(|s| s.file.to_string()),
            line: source.and_then(Origin::line),
            column: source.map(|s| s.column).filter(|column| *column > 0),
        }
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
            at: rule.origin.as_ref().into(),
        }
    }
}

/// Returns `allowed` or `denied`, the words of the JSON schemas.
pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    if verdict.is_allow() { "allowed" } else { "denied" }
}

/// Returns the word for a tier in JSON.
pub(crate) fn tier_word(tier: Tier) -> &'static str {
    match tier {
        Tier::Admin => "admin",
        Tier::Developer => "developer",
        Tier::Baseline => "baseline",
    }
}

/// Returns the word for an action in JSON.
pub(crate) fn action_word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Deny => "deny",
        Action::Pass => "pass",
    }
}

impl From<&Side> for JsonSide {
    fn from(side: &Side) -> Self {
        let mut out = Self {
            verdict: verdict_word(side.verdict),
            reason: "",
            rule: None,
            passed: side.passed.iter().map(Into::into).collect(),
            policies: Vec::new(),
            near: Vec::new(),
        };
        out.reason = match &side.reason {
            Reason::Itself => "itself",
            Reason::NoSubject => "no-subject",
            Reason::OwnNode => "own-node",
            Reason::NotIsolated => "not-isolated",
            Reason::Hairpin => "hairpin",
            Reason::Rule(rule) => {
                out.rule = Some(rule.into());
                "rule"
            }
            Reason::Isolated { policies, near } => {
                let policy = |(key, at): &(PolicyKey, Option<Origin>)| JsonPolicy {
                    policy: key.into(),
                    at: at.as_ref().into(),
                };
                out.policies = policies.iter().map(policy).collect();
                out.near = near.iter().map(miss).collect();
                "isolated"
            }
        };
        out
    }
}

fn miss(miss: &NearMiss) -> JsonMiss {
    JsonMiss {
        rule: (&miss.rule).into(),
        peer_matches: miss.peer_matches,
        port_matches: miss.port_matches,
        required: palisade_names::describe_missing(&miss.missing),
        line: miss.origin.as_ref().and_then(Origin::line),
    }
}

#[cfg(test)]
mod tests {
    use palisade_policy::{Missing, NamespaceMatch, Peer, PodMatch, PortMatch, Selector};

    use super::*;

    fn at(line: u32) -> Option<Origin> {
        Some(Origin { file: "p.yaml".into(), line, column: 3 })
    }

    fn isolated() -> Side {
        let policy = PolicyKey::network_policy("shop", "web");
        let rule = network_policy_rule(&policy);
        let miss = |peer_matches, port_matches, missing| NearMiss {
            rule: rule.clone(),
            peer_matches,
            port_matches,
            missing,
            origin: at(11),
        };
        let http = PortMatch::Numbers { protocol: Protocol::Tcp, first: 80, last: 80 };
        let closest = Peer::Pods(PodMatch {
            namespaces: NamespaceMatch::Named("shop".into()),
            pods: Selector::of_labels([("a", "b")]),
        });
        let near = vec![
            miss(true, false, Missing::Ports(vec![http])),
            miss(false, true, Missing::Peer { closest: Some(closest), others: 0 }),
            miss(false, false, Missing::Peer { closest: None, others: 0 }),
        ];
        let reason = Reason::Isolated { policies: vec![(policy, at(2))], near };
        Side { verdict: Verdict::Deny, reason, passed: Vec::new() }
    }

    fn network_policy_rule(policy: &PolicyKey) -> RuleRef {
        RuleRef {
            name: None,
            policy: policy.clone(),
            index: 1,
            tier: Tier::Developer,
            priority: None,
            action: Action::Accept,
            origin: at(9),
        }
    }

    fn cluster_wide_rule(kind: &str, tier: Tier, priority: Option<i32>, action: Action) -> RuleRef {
        let policy = PolicyKey { kind: kind.into(), namespace: "".into(), name: "p".into() };
        RuleRef { name: None, policy, index: 0, tier, priority, action, origin: at(5) }
    }

    #[test]
    fn a_rule_of_a_cluster_wide_tier_is_named_with_tier_and_priority() {
        let rule = cluster_wide_rule("ClusterNetworkPolicy", Tier::Admin, Some(10), Action::Deny);
        let denied = Side { verdict: Verdict::Deny, reason: Reason::Rule(rule), passed: Vec::new() };
        assert_eq!(
            lines(&denied, Direction::Ingress),
            ["by ClusterNetworkPolicy p, ingress[0] (p.yaml:5), admin tier, priority 10"]
        );
        let json = serde_json::to_value(JsonSide::from(&denied)).unwrap();
        assert_eq!(json["rule"]["tier"], "admin");
        assert_eq!(json["rule"]["priority"], 10);
        assert_eq!(json["rule"]["action"], "deny");
        assert!(json.get("passed").is_none());
    }

    #[test]
    fn what_was_passed_on_stands_below_what_decided() {
        let pass = cluster_wide_rule("AdminNetworkPolicy", Tier::Admin, Some(3), Action::Pass);
        let side = Side { passed: vec![pass.clone()], ..isolated() };
        let text = lines(&side, Direction::Ingress);
        assert!(text[0].starts_with("isolated by NetworkPolicy shop/web"), "{text:?}");
        assert_eq!(text[1], "passed by AdminNetworkPolicy p, ingress[0] (p.yaml:5), admin tier, priority 3");
        assert!(text[2].starts_with("closest: "), "{text:?}");
        let last = cluster_wide_rule("BaselineAdminNetworkPolicy", Tier::Baseline, None, Action::Accept);
        let side = Side { verdict: Verdict::Allow, reason: Reason::Rule(last), passed: vec![pass] };
        assert_eq!(
            lines(&side, Direction::Egress)[0],
            "by BaselineAdminNetworkPolicy p, egress[0] (p.yaml:5), baseline tier"
        );
        assert_eq!(serde_json::to_value(JsonSide::from(&side)).unwrap()["passed"][0]["action"], "pass");
    }

    #[test]
    fn a_denial_names_policy_rule_line_and_what_is_missing() {
        assert_eq!(
            lines(&isolated(), Direction::Ingress),
            [
                "isolated by NetworkPolicy shop/web (p.yaml:2), and no rule matches",
                "closest: NetworkPolicy shop/web, ingress[1] (p.yaml:9): the peer matches, the port does not; requires \
                 TCP 80 (line 11)",
                "closest: NetworkPolicy shop/web, ingress[1] (p.yaml:9): the port matches, the peer does not; requires \
                 pods a=b in namespace shop (line 11)",
            ]
        );
    }

    #[test]
    fn json_carries_the_same() {
        let json = serde_json::to_value(JsonSide::from(&isolated())).unwrap();
        assert_eq!(json["verdict"], "denied");
        assert_eq!(json["reason"], "isolated");
        assert_eq!(json["policies"][0]["line"], 2);
        assert_eq!(json["near"][0]["rule"]["index"], 1);
        assert_eq!(json["near"].as_array().unwrap().len(), 3);
        assert!(json.get("rule").is_none());
    }
}
