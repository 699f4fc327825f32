//! An answer as JSON or YAML.
//!
//! Flows that no policy distinguishes are one entry, with the number of pairs for which it stands and a few samples, so that
//! the size follows what differs and not the number of replicas.

use palisade_analysis::{AddressQuestion, JudgedSide};
use palisade_manifest::Loaded;
use palisade_policy::{Cluster, Endpoint};
use serde::Serialize;

use super::{
    answer::{Answer, DecidedFlows, DestinationPort, Undecided},
    note::Note,
    question::QuestionFlow,
};
use crate::{
    addresses::{self, JsonQuestion, JsonUndecided},
    audited::{Audited, JsonAudited},
    cluster::JsonMissing,
    output::Encoding,
    reasons::JsonSide,
    traffic::range_text,
    verdict::Conclusion,
};

/// The schema. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.can/v2";

/// The most endpoints that are listed of a class.
const MAX_SAMPLES: usize = 3;

#[derive(Serialize)]
struct JsonAnswer<'a> {
    schema: &'static str,
    verdict: &'static str,
    /// Whether it is allowed by a domain name only, once that is resolved.
    #[serde(skip_serializing_if = "is_false")]
    once_resolved: bool,
    source: &'a str,
    destination: &'a str,
    differs_by: Vec<&'static str>,
    answers: Vec<JsonGroup<'a>>,
    /// The IP families that were considered.
    families: Vec<String>,
    /// What policies in audit mode would deny.
    #[serde(skip_serializing_if = "Option::is_none")]
    audited: Option<JsonAudited>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonUndecided<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'a [JsonMissing<'a>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Note>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    hints: &'a [Note],
}

#[derive(Serialize)]
struct JsonGroup<'a> {
    verdict: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    once_resolved: bool,
    on: Vec<JsonCall>,
    families: Vec<String>,
    egress: JsonJudgedSide<'a>,
    ingress: JsonJudgedSide<'a>,
    flows: Vec<JsonFlow<'a>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// One direction: decided, or the rules that ask for an address that is not known.
#[derive(Serialize)]
#[serde(untagged)]
enum JsonJudgedSide<'a> {
    Decided(Box<JsonSide>),
    Undecided { verdict: &'static str, reason: &'static str, rules: Vec<JsonQuestion<'a>> },
}

impl<'a> JsonJudgedSide<'a> {
    fn new(side: &'a JudgedSide, loaded: &'a Loaded) -> Self {
        let conclusion = Conclusion::of(side.verdict());
        if conclusion != Conclusion::Undecided {
            return Self::Decided(Box::new((&side.side).into()));
        }
        let rules = side.questions.iter().map(|question| JsonQuestion::new(question, loaded)).collect();
        Self::Undecided { verdict: conclusion.word(), reason: "pod-addresses", rules }
    }
}

#[derive(Serialize)]
struct JsonCall {
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_port: Option<u16>,
}

impl From<&DestinationPort> for JsonCall {
    fn from(call: &DestinationPort) -> Self {
        let port = call.protocol.has_ports().then_some(call.port);
        Self { protocol: call.protocol.to_string(), port, service_port: call.service_port }
    }
}

/// Connections that no policy distinguishes: from each of the sources to each of the destinations.
#[derive(Serialize)]
struct JsonFlow<'a> {
    family: String,
    /// The number of connections.
    pairs: usize,
    source: JsonClass<'a>,
    destination: JsonClass<'a>,
    /// The service through which they pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<JsonName<'a>>,
    /// The addresses outside the cluster for which the external end stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    stands_for: Option<Vec<String>>,
}

/// Endpoints that no policy distinguishes.
#[derive(Serialize)]
struct JsonClass<'a> {
    count: usize,
    samples: Vec<JsonSample<'a>>,
}

#[derive(Serialize)]
struct JsonSample<'a> {
    /// Absent outside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<JsonName<'a>>,
    /// Absent if it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

/// An object.
#[derive(Serialize)]
struct JsonName<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> JsonClass<'a> {
    fn new(ends: &'a [Endpoint], cluster: &Cluster) -> Self {
        let samples = ends.iter().take(MAX_SAMPLES).map(|end| sample(end, cluster));
        Self { count: ends.len(), samples: samples.collect() }
    }
}

fn sample<'a>(end: &'a Endpoint, cluster: &Cluster) -> JsonSample<'a> {
    let object = match end {
        Endpoint::Pod { key, .. } => {
            Some(JsonName { kind: "Pod", namespace: Some(&key.namespace), name: &key.name })
        }
        Endpoint::Node { name, .. } => Some(JsonName { kind: "Node", namespace: None, name }),
        Endpoint::External(_) => None,
    };
    let known = Some(end.address()).filter(|address| !cluster.addressing.is_placeholder(*address));
    JsonSample { object, address: known.map(|address| address.to_string()) }
}

fn flow<'a>(asked: &'a QuestionFlow, cluster: &Cluster) -> JsonFlow<'a> {
    let service = asked.service.as_ref();
    JsonFlow {
        family: asked.family().to_string(),
        pairs: asked.alike.pairs,
        source: JsonClass::new(&asked.alike.sources, cluster),
        destination: JsonClass::new(&asked.alike.destinations, cluster),
        service: service.map(|key| JsonName {
            kind: "Service",
            namespace: Some(&key.namespace),
            name: &key.name,
        }),
        stands_for: asked.region.as_ref().map(|r| r.ranges.iter().map(range_text).collect()),
    }
}

fn group<'a>(group: &'a DecidedFlows, loaded: &'a Loaded) -> JsonGroup<'a> {
    JsonGroup {
        verdict: group.verdict().word(),
        once_resolved: group.once_resolved,
        on: group.calls.iter().map(Into::into).collect(),
        families: group.families().iter().map(ToString::to_string).collect(),
        egress: JsonJudgedSide::new(&group.judgement.egress, loaded),
        ingress: JsonJudgedSide::new(&group.judgement.ingress, loaded),
        flows: group.asked.iter().map(|asked| flow(asked, &loaded.cluster)).collect(),
    }
}

/// Returns the rules that ask for addresses that are not known, each once.
fn questions(answer: &Answer) -> Vec<AddressQuestion> {
    let mut found: Vec<AddressQuestion> = Vec::new();
    for question in answer.groups.iter().flat_map(|group| group.judgement.questions()) {
        if !found.contains(question) {
            found.push(question.clone());
        }
    }
    found
}

/// Renders the answer for programs. `headline` is the verdict of the whole, which differs from the answer's own if something
/// could not be read.
///
/// # Errors
/// As [`Encoding::encode`].
pub(crate) fn document(
    answer: &Answer,
    headline: Conclusion,
    loaded: &Loaded,
    incomplete: &[JsonMissing<'_>],
    encoding: Encoding,
) -> anyhow::Result<String> {
    let questions = questions(answer);
    let mut undecided = addresses::json_undecided(&questions, !questions.is_empty(), loaded);
    let others = answer.undecided.iter();
    undecided.extend(others.map(|Undecided { code, text }| JsonUndecided::new(code, text.clone())));
    let assumed = addresses::notes(loaded).into_iter().map(|note| Note { code: note.code, text: note.text });
    encoding.encode(&JsonAnswer {
        schema: SCHEMA,
        verdict: headline.word(),
        once_resolved: answer.once_resolved && headline == answer.verdict,
        source: &answer.source,
        destination: &answer.destination,
        differs_by: answer.differs.iter().map(|d| d.word()).collect(),
        answers: answer.groups.iter().map(|g| group(g, loaded)).collect(),
        families: loaded.cluster.addressing.families.iter().map(ToString::to_string).collect(),
        audited: answer.audited.as_ref().map(Audited::json),
        undecided,
        incomplete,
        notes: answer.notes.iter().cloned().chain(assumed).collect(),
        hints: &answer.hints,
    })
}
