//! An explanation as JSON.

use palisade_policy::{
    Action, Direction, Endpoint, Origin, Tier, Verdict,
    walk::{Decider, EntryStep, PolicyStep, RuleStep, Walk},
};
use serde::Serialize;

use super::{
    answer::{Answer, ExplainedPairs, Pair},
    suggestion::{SuggestedEdit, Suggestion},
    tree::decider,
};
use crate::{
    can::JsonEnd,
    cluster::JsonMissing,
    connection_ends::JsonObject,
    output::Encoding,
    reasons::verdict_word,
    traffic::{JsonRange, JsonTraffic},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.explain/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: &'a str,
    destination: &'a str,
    allowed: bool,
    answers: Vec<JsonGroup<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'a [JsonMissing<'a>],
}

#[derive(Serialize)]
struct JsonGroup<'a> {
    families: Vec<String>,
    asked: JsonTraffic,
    pairs: Vec<JsonPair>,
    parts: Vec<JsonPart>,
    egress: JsonWalk<'a>,
    ingress: JsonWalk<'a>,
    suggestions: Vec<JsonSuggestion<'a>>,
    suggestions_hold_for_all: bool,
    suggestions_before_do: bool,
}

#[derive(Serialize)]
struct JsonPair {
    source: JsonEnd,
    destination: JsonEnd,
    /// The public addresses that the external end represents.
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_for: Option<Vec<JsonRange>>,
}

#[derive(Serialize)]
struct JsonPart {
    traffic: JsonTraffic,
    verdict: &'static str,
    egress: JsonDecider,
    ingress: JsonDecider,
}

#[derive(Serialize)]
struct JsonDecider {
    verdict: &'static str,
    reason: &'static str,
    policies: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
    text: String,
}

#[derive(Serialize)]
struct JsonWalk<'a> {
    policies: Vec<JsonPolicy<'a>>,
    allowed: JsonTraffic,
}

#[derive(Serialize)]
struct JsonPolicy<'a> {
    #[serde(flatten)]
    object: JsonObject<'a>,
    tier: &'static str,
    priority: i32,
    rules: Vec<JsonRule<'a>>,
}

#[derive(Serialize)]
struct JsonRule<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    action: &'static str,
    peer_matches: bool,
    peers: Option<Vec<JsonEntry>>,
    ports: Option<Vec<JsonEntry>>,
    holds: JsonTraffic,
    takes: JsonTraffic,
}

#[derive(Serialize)]
struct JsonEntry {
    matches: bool,
    #[serde(rename = "wants")]
    required: String,
    line: Option<u32>,
}

#[derive(Serialize)]
struct JsonSuggestion<'a> {
    text: &'a str,
    policy: JsonObject<'a>,
    direction: String,
    wider: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a str>,
    /// The command that patches the policy in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yaml: Option<&'a str>,
}

/// Renders the explanation as JSON.
pub(crate) fn document(
    answer: &Answer,
    incomplete: &[JsonMissing<'_>],
    encoding: Encoding,
) -> anyhow::Result<String> {
    encoding.encode(&Document {
        schema: SCHEMA,
        source: &answer.source,
        destination: &answer.destination,
        allowed: answer.is_allowed(),
        answers: answer.groups.iter().map(group).collect(),
        incomplete,
    })
}

fn group(group: &ExplainedPairs) -> JsonGroup<'_> {
    let parts = group.explanation.parts.iter().map(|part| JsonPart {
        traffic: (&part.traffic).into(),
        verdict: verdict_word(part.verdict),
        egress: decided(&part.egress, Direction::Egress),
        ingress: decided(&part.ingress, Direction::Ingress),
    });
    JsonGroup {
        families: group.families().iter().map(ToString::to_string).collect(),
        asked: (&group.traffic).into(),
        pairs: group.pairs.iter().map(pair).collect(),
        parts: parts.collect(),
        egress: walk(&group.explanation.egress),
        ingress: walk(&group.explanation.ingress),
        suggestions: group.suggestions.iter().map(suggestion).collect(),
        suggestions_hold_for_all: group.suggestions_hold_for_all,
        suggestions_before_do: group.suggestions_before_do,
    }
}

fn pair(pair: &Pair) -> JsonPair {
    let end = |end: &Endpoint| JsonEnd::from(end);
    let stands_for = pair.region.as_ref().map(|r| r.ranges.iter().map(Into::into).collect());
    JsonPair { source: end(&pair.source), destination: end(&pair.destination), stands_for }
}

fn decided((verdict, why): &(Verdict, Decider), direction: Direction) -> JsonDecider {
    let (reason, rule) = match why {
        Decider::Itself => ("itself", None),
        Decider::NoSubject => ("no-subject", None),
        Decider::OwnNode => ("own-node", None),
        Decider::NotIsolated => ("not-isolated", None),
        Decider::Hairpin => ("hairpin", None),
        Decider::Rule(rule) => ("rule", Some(rule.index)),
        Decider::Isolated(_) => ("isolated", None),
    };
    JsonDecider {
        verdict: verdict_word(*verdict),
        reason,
        policies: why.policies().map(ToString::to_string).collect(),
        rule,
        text: decider(why, direction),
    }
}

fn walk(walk: &Walk) -> JsonWalk<'_> {
    JsonWalk { policies: walk.policies.iter().map(policy).collect(), allowed: (&walk.allowed()).into() }
}

fn policy(step: &PolicyStep) -> JsonPolicy<'_> {
    JsonPolicy {
        object: JsonObject::of_policy(&step.policy, step.origin.as_ref()),
        tier: match step.tier {
            Tier::Admin => "admin",
            Tier::Developer => "developer",
            Tier::Baseline => "baseline",
        },
        priority: step.priority,
        rules: step.rules.iter().map(rule).collect(),
    }
}

fn rule(step: &RuleStep) -> JsonRule<'_> {
    let at: Option<&Origin> = step.rule.origin.as_ref();
    JsonRule {
        index: step.rule.index,
        name: step.rule.name.as_deref(),
        file: at.map(|s| &*s.file),
        line: at.and_then(Origin::line),
        action: match step.action {
            Action::Accept => "accept",
            Action::Deny => "deny",
            Action::Pass => "pass",
        },
        peer_matches: step.peer_matches,
        peers: step.peers.as_deref().map(entries),
        ports: step.ports.as_deref().map(entries),
        holds: (&step.holds).into(),
        takes: (&step.takes).into(),
    }
}

fn entries(steps: &[EntryStep]) -> Vec<JsonEntry> {
    let line = |step: &'_ EntryStep| step.origin.as_ref().and_then(Origin::line);
    steps
        .iter()
        .map(|step| JsonEntry {
            matches: step.matches,
            required: palisade_names::describe_entry(&step.entry),
            line: line(step),
        })
        .collect()
}

fn suggestion(suggestion: &Suggestion) -> JsonSuggestion<'_> {
    let (mut patch, mut command, mut yaml) = (None, None, None);
    match &suggestion.how {
        SuggestedEdit::Patch(text) => patch = Some(&**text),
        SuggestedEdit::Command(text) => command = Some(text.trim_end()),
        SuggestedEdit::Text(text) => yaml = Some(&**text).filter(|t| !t.is_empty()),
    }
    JsonSuggestion {
        text: &suggestion.what,
        policy: JsonObject::of_policy(&suggestion.edit.policy, suggestion.edit.origin.as_ref()),
        direction: suggestion.edit.direction.to_string(),
        wider: suggestion.wider,
        patch,
        command,
        yaml,
    }
}
