//! An explanation as JSON.

use palisade_analysis::{
    AddressQuestion, ConnectionEnd, NodeAddresses, WorkloadPods,
    causes::Finding,
    edit::{Edit, PairChange},
    shape,
};
use palisade_manifest::Loaded;
use palisade_policy::{
    Cluster, Direction, Endpoint, Name, ObjectKey, Origin, PolicyKey, Verdict,
    walk::{Decider, EntryStep, PolicyStep, RuleStep, Walk},
};
use serde::Serialize;

use super::{
    answer::{Answer, ExplainedPairs, Pair},
    suggestion::Suggestion,
    tree::decider,
};
use crate::{
    addresses::{self, JsonUndecided},
    audited::{Audited, JsonAudited},
    can::JsonEnd,
    cluster::JsonMissing,
    connection_ends::{self, JsonObject},
    inputs::LoadedInputs,
    output::Encoding,
    reasons::{action_word, tier_word, verdict_word},
    traffic::{JsonRange, JsonTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.explain/v2";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    source: &'a str,
    destination: &'a str,
    verdict: &'static str,
    /// Whether the destination is a host that rules have by name: the verdict is for when it is resolved.
    #[serde(skip_serializing_if = "is_false")]
    once_resolved: bool,
    /// Likely mistakes, the clearest first.
    causes: Vec<JsonCause<'a>>,
    answers: Vec<JsonGroup<'a>>,
    /// Alternatives, the best first.
    suggestions: Vec<JsonSuggestion<'a>>,
    /// What policies in audit mode would deny.
    #[serde(skip_serializing_if = "Option::is_none")]
    audited: Option<JsonAudited>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonUndecided<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'a [JsonMissing<'a>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<palisade_manifest::Note>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
struct JsonCause<'a> {
    code: &'static str,
    text: &'a str,
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
}

#[derive(Serialize)]
struct JsonGroup<'a> {
    verdict: &'static str,
    /// The traffic that depends on addresses that are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    undecided: Option<JsonTraffic>,
    families: Vec<String>,
    asked: JsonTraffic,
    pairs: Vec<JsonPair>,
    pair_count: usize,
    parts: Vec<JsonPart<'a>>,
    egress: JsonWalk<'a>,
    ingress: JsonWalk<'a>,
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
struct JsonPart<'a> {
    traffic: JsonTraffic,
    verdict: &'static str,
    egress: JsonDecider<'a>,
    ingress: JsonDecider<'a>,
}

#[derive(Serialize)]
struct JsonDecider<'a> {
    verdict: &'static str,
    reason: &'static str,
    policies: Vec<JsonObject<'a>>,
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
    priority: Option<i32>,
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
    text: String,
    /// Whether it corrects a mistake, rather than adding something.
    mends: bool,
    edits: Vec<JsonEdit<'a>>,
    opens: Vec<JsonChange<'a>>,
    closes: Vec<JsonChange<'a>>,
    /// All patches, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    patches: Vec<JsonPatch<'a>>,
    /// Commands that edit objects in the cluster.
    commands: Vec<&'a str>,
    /// What must be inserted by hand.
    by_hand: Vec<&'a str>,
}

#[derive(Serialize)]
struct JsonEdit<'a> {
    text: &'a str,
    object: JsonObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<String>,
}

#[derive(Serialize)]
struct JsonChange<'a> {
    from: JsonChangedEnd<'a>,
    to: JsonChangedEnd<'a>,
    families: Vec<String>,
    traffic: JsonTraffic,
}

/// An end of a connection that an edit opens or closes.
#[derive(Serialize)]
struct JsonChangedEnd<'a> {
    /// The short name, as in the text.
    id: String,
    objects: Vec<JsonObject<'a>>,
    cidrs: Vec<String>,
}

#[derive(Serialize)]
struct JsonPatch<'a> {
    file: &'a str,
    patch: &'a str,
}

/// Renders the explanation as JSON.
pub(crate) fn document(answer: &Answer, world: &LoadedInputs, encoding: Encoding) -> anyhow::Result<String> {
    let loaded = &world.loaded;
    let mut questions: Vec<AddressQuestion> = Vec::new();
    for question in answer.groups.iter().flat_map(|group| &group.explanation.questions) {
        if !questions.contains(question) {
            questions.push(question.clone());
        }
    }
    let mut undecided = addresses::json_undecided(&questions, !questions.is_empty(), loaded);
    let other = answer.undecided.iter();
    undecided.extend(other.map(|undecided| JsonUndecided::new(undecided.code, undecided.text.clone())));
    let own = answer.notes.iter().map(|note| palisade_manifest::Note::new(note.code, note.text.clone()));
    encoding.encode(&Document {
        schema: SCHEMA,
        source: &answer.source,
        destination: &answer.destination,
        verdict: world.conclusion(answer.conclusion()).word(),
        once_resolved: answer.resolved.is_some(),
        causes: answer.causes.iter().map(cause).collect(),
        answers: answer.groups.iter().map(|g| group(g, loaded)).collect(),
        suggestions: answer.suggestions.iter().map(|s| suggestion(s, loaded)).collect(),
        audited: answer.audited.as_ref().map(Audited::json),
        undecided,
        incomplete: &world.incomplete(),
        notes: own.chain(addresses::notes(loaded)).collect(),
    })
}

fn cause(cause: &Finding) -> JsonCause<'_> {
    let at = cause.origin.as_ref();
    JsonCause {
        code: cause.code,
        text: &cause.text,
        file: at.map(|s| &*s.file),
        line: at.and_then(Origin::line),
        column: at.filter(|s| s.line().is_some()).map(|s| s.column),
    }
}

fn group<'a>(group: &'a ExplainedPairs, loaded: &'a Loaded) -> JsonGroup<'a> {
    let parts = group.explanation.parts.iter().map(|part| JsonPart {
        traffic: (&part.traffic).into(),
        verdict: verdict_word(part.verdict),
        egress: decided(&part.egress, Direction::Egress, loaded),
        ingress: decided(&part.ingress, Direction::Ingress, loaded),
    });
    let undecided = &group.explanation.undecided;
    JsonGroup {
        verdict: group.conclusion().word(),
        undecided: (!undecided.is_none()).then(|| undecided.into()),
        families: group.families().iter().map(ToString::to_string).collect(),
        asked: (&group.traffic).into(),
        pairs: group.pairs.iter().map(|p| pair(p, &loaded.cluster)).collect(),
        pair_count: group.count(),
        parts: parts.collect(),
        egress: walk(&group.explanation.egress),
        ingress: walk(&group.explanation.ingress),
    }
}

fn pair(pair: &Pair, cluster: &Cluster) -> JsonPair {
    let end = |end: &Endpoint| JsonEnd::new(end, cluster);
    let stands_for = pair.region.as_ref().map(|r| r.ranges.iter().map(Into::into).collect());
    JsonPair { source: end(&pair.source), destination: end(&pair.destination), stands_for }
}

fn decided<'a>(
    (verdict, why): &'a (Verdict, Decider),
    direction: Direction,
    loaded: &'a Loaded,
) -> JsonDecider<'a> {
    let (reason, rule) = match why {
        Decider::Itself => ("itself", None),
        Decider::NoSubject => ("no-subject", None),
        Decider::OwnNode => ("own-node", None),
        Decider::NotIsolated => ("not-isolated", None),
        Decider::Hairpin => ("hairpin", None),
        Decider::Rule(rule) => ("rule", Some(rule.index)),
        Decider::Isolated(_) => ("isolated", None),
    };
    let object = |key: &'a PolicyKey| {
        JsonObject::of_policy(key, loaded.cluster.policies.get(key).and_then(|p| p.origin.as_ref()))
    };
    JsonDecider {
        verdict: verdict_word(*verdict),
        reason,
        policies: why.policies().map(object).collect(),
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
        tier: tier_word(step.tier),
        // A BaselineAdminNetworkPolicy has none.
        priority: (step.priority != i32::MAX).then_some(step.priority),
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
        action: action_word(step.action),
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

fn changed_end<'a>(end: &'a ConnectionEnd, loaded: &'a Loaded) -> JsonChangedEnd<'a> {
    let origin = |kind: &str, namespace: &Name, name: &Name| {
        let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
        loaded.origins.get(&(Name::from(kind), key))
    };
    let object = |kind: &'a str, namespace: &'a Name, name: &'a Name| {
        JsonObject::new(kind, Some(namespace), name, origin(kind, namespace, name))
    };
    // A part of a workload is given by its pods, since the others are not meant.
    let workload = |w: &'a WorkloadPods| -> Vec<JsonObject<'a>> {
        if w.whole {
            vec![object(&w.kind, &w.namespace, &w.name)]
        } else {
            w.pods.iter().map(|pod| object("Pod", &w.namespace, pod)).collect()
        }
    };
    let cluster_scoped: Name = "".into();
    let node = |n: &'a NodeAddresses| {
        JsonObject::new("Node", None, &n.name, origin("Node", &cluster_scoped, &n.name))
    };
    let objects = match end {
        ConnectionEnd::Workload(w) => workload(w),
        ConnectionEnd::Class(all) | ConnectionEnd::IngressController(all) => {
            all.iter().flat_map(workload).collect()
        }
        ConnectionEnd::Pod { key, .. } => vec![object("Pod", &key.namespace, &key.name)],
        ConnectionEnd::Namespace(name) => {
            vec![JsonObject::new("Namespace", None, name, origin("Namespace", &cluster_scoped, name))]
        }
        ConnectionEnd::OwnNode(nodes) | ConnectionEnd::Nodes(nodes) => nodes.iter().map(node).collect(),
        ConnectionEnd::External(_) => Vec::new(),
    };
    let cidrs = match end {
        ConnectionEnd::External(e) => shape::cidrs(&e.ranges).iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    JsonChangedEnd { id: connection_ends::name(end), objects, cidrs }
}

fn suggestion<'a>(suggestion: &'a Suggestion, loaded: &'a Loaded) -> JsonSuggestion<'a> {
    let change = |change: &'a PairChange| JsonChange {
        from: changed_end(&change.from, loaded),
        to: changed_end(&change.to, loaded),
        families: family_names(change.families),
        traffic: (&change.traffic).into(),
    };
    let edit = |(edit, text): (&'a Edit, &'a String)| JsonEdit {
        text,
        object: match edit {
            Edit::Labels { namespace, workload, .. } => {
                let declared = loaded.workload_labels.get(&(namespace.clone(), workload.clone()));
                let origin = declared.and_then(|d| d.template_origin.as_ref());
                JsonObject::new(&workload.kind, Some(namespace), &workload.name, origin)
            }
            Edit::NewPolicy(policy) => JsonObject::of_policy(&policy.key, None),
            Edit::Rules { policy, origin, .. }
            | Edit::Subject { policy, origin, .. }
            | Edit::Direction { policy, origin, .. } => JsonObject::of_policy(policy, origin.as_ref()),
        },
        direction: edit.direction().map(|d| d.to_string()),
    };
    let patches = &suggestion.patches;
    JsonSuggestion {
        text: suggestion.text(),
        mends: suggestion.plan.mends,
        edits: suggestion.edits().iter().zip(&suggestion.texts).map(edit).collect(),
        opens: suggestion.plan.effect.opens.iter().map(change).collect(),
        closes: suggestion.plan.effect.closes.iter().map(change).collect(),
        patch: (!patches.is_empty()).then(|| patches.iter().map(|p| &*p.patch).collect()),
        patches: patches.iter().map(|p| JsonPatch { file: &p.file, patch: &p.patch }).collect(),
        commands: suggestion.commands.iter().map(|c| c.trim_end()).collect(),
        by_hand: suggestion.by_hand.iter().map(|y| &**y).collect(),
    }
}
