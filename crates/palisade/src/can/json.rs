//! An answer as JSON or YAML.
//!
//! Flows that no policy distinguishes are one entry, with the number of pairs for which it stands and a few samples, so that
//! the size follows what differs and not the number of replicas.

use palisade_policy::Endpoint;
use serde::Serialize;

use super::{
    answer::{Answer, DecidedFlows, DestinationPort, Undecided},
    notes::Note,
    question::QuestionFlow,
};
use crate::{
    cluster::JsonMissing,
    output::Encoding,
    reasons::{JsonSide, verdict_word},
    traffic::range_text,
};

/// The schema. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.can/v2";

/// The most endpoints that are listed of a class.
const MAX_SAMPLES: usize = 3;

#[derive(Serialize)]
struct JsonAnswer<'a> {
    schema: &'static str,
    verdict: &'static str,
    source: &'a str,
    destination: &'a str,
    differs_by: Vec<&'static str>,
    answers: Vec<JsonGroup<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    undecided: &'a [Undecided],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    incomplete: &'a [JsonMissing<'a>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [Note],
}

#[derive(Serialize)]
struct JsonGroup<'a> {
    verdict: &'static str,
    on: Vec<JsonCall>,
    families: Vec<String>,
    egress: JsonSide,
    ingress: JsonSide,
    flows: Vec<JsonFlow<'a>>,
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
    address: String,
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
    fn new(ends: &'a [Endpoint]) -> Self {
        Self { count: ends.len(), samples: ends.iter().take(MAX_SAMPLES).map(sample).collect() }
    }
}

fn sample(end: &Endpoint) -> JsonSample<'_> {
    let object = match end {
        Endpoint::Pod { key, .. } => {
            Some(JsonName { kind: "Pod", namespace: Some(&key.namespace), name: &key.name })
        }
        Endpoint::Node { name, .. } => Some(JsonName { kind: "Node", namespace: None, name }),
        Endpoint::External(_) => None,
    };
    JsonSample { object, address: end.address().to_string() }
}

fn flow(asked: &QuestionFlow) -> JsonFlow<'_> {
    let service = asked.service.as_ref();
    JsonFlow {
        family: asked.family().to_string(),
        pairs: asked.alike.pairs,
        source: JsonClass::new(&asked.alike.sources),
        destination: JsonClass::new(&asked.alike.destinations),
        service: service.map(|key| JsonName {
            kind: "Service",
            namespace: Some(&key.namespace),
            name: &key.name,
        }),
        stands_for: asked.region.as_ref().map(|r| r.ranges.iter().map(range_text).collect()),
    }
}

fn group(group: &DecidedFlows) -> JsonGroup<'_> {
    JsonGroup {
        verdict: verdict_word(group.decision.verdict()),
        on: group.calls.iter().map(Into::into).collect(),
        families: group.families().iter().map(ToString::to_string).collect(),
        egress: (&group.decision.egress).into(),
        ingress: (&group.decision.ingress).into(),
        flows: group.asked.iter().map(flow).collect(),
    }
}

/// Renders the answer for programs.
///
/// # Errors
/// As [`Encoding::encode`].
pub(crate) fn document(
    answer: &Answer,
    incomplete: &[JsonMissing<'_>],
    encoding: Encoding,
) -> anyhow::Result<String> {
    encoding.encode(&JsonAnswer {
        schema: SCHEMA,
        verdict: answer.verdict.word(),
        source: &answer.source,
        destination: &answer.destination,
        differs_by: answer.differs.iter().map(|d| d.word()).collect(),
        answers: answer.groups.iter().map(group).collect(),
        undecided: &answer.undecided,
        incomplete,
        notes: &answer.notes,
    })
}
