//! A suggestion for programs.

use std::collections::BTreeMap;

use anyhow::Result;
use palisade_analysis::suggest::{
    DeniedFlow, Excess, Purpose, Seen, SeenConnection, SuggestedPolicy, Suggestion,
};
use palisade_policy::Direction;
use serde::Serialize;
use serde_json::Value;

use super::{basis::Basis, document::purpose, needs::Needs, notes::limit, seen::SeenFlows};
use crate::{
    cluster::JsonMissing,
    explain::manifest,
    output::Encoding,
    reasons::JsonSide,
    replay::{recording::Recording, text::why_not},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.suggest/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    complete: bool,
    namespaces: Vec<&'a str>,
    policies: Vec<JsonPolicy>,
    allowed: JsonSeen,
    denied: Vec<JsonDenied>,
    limits: Vec<String>,
    pairs: JsonPairs,
    undecided: Vec<JsonUndecided>,
    left_out: JsonLeftOut<'a>,
    lost: u64,
    malformed: usize,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_known: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonPolicy {
    purpose: &'static str,
    text: String,
    object: Value,
    ingress: Vec<Vec<JsonConnection>>,
    egress: Vec<Vec<JsonConnection>>,
}

#[derive(Serialize)]
struct JsonConnection {
    source: String,
    destination: String,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(flatten)]
    seen: JsonSeen,
}

#[derive(Serialize)]
struct JsonSeen {
    connections: u64,
    records: u64,
    count: u64,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<String>,
}

#[derive(Serialize)]
struct JsonDenied {
    #[serde(flatten)]
    connection: JsonConnection,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<JsonSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<JsonSide>,
}

#[derive(Serialize)]
struct JsonPairs {
    all: u64,
    today: u64,
    seen: u64,
    suggested: u64,
    more_total: u64,
    more: Vec<JsonMore>,
}

#[derive(Serialize)]
struct JsonMore {
    source: String,
    destination: String,
    ports: String,
}

#[derive(Serialize)]
struct JsonUndecided {
    why: String,
    #[serde(flatten)]
    seen: JsonSeen,
}

#[derive(Serialize)]
struct JsonLeftOut<'a> {
    elsewhere: JsonSeen,
    dropped: JsonSeen,
    replies: JsonSeen,
    link_local: JsonSeen,
    not_connections: &'a BTreeMap<&'static str, u64>,
    system_namespaces: Vec<&'a str>,
}

/// What is left out of a suggestion.
pub(super) struct Rest<'a> {
    undecided: Vec<JsonUndecided>,
    dropped: Seen,
    replies: Seen,
    link_local: Seen,
    not_connections: BTreeMap<&'static str, u64>,
    lost: u64,
    malformed: usize,
    not_known: &'a [String],
}

impl<'a> Rest<'a> {
    /// What is left out of records.
    pub(super) fn of_records(seen: &SeenFlows, recording: &Recording) -> Self {
        let undecided =
            seen.undecided.iter().map(|(why, seen)| JsonUndecided { why: why_not(why), seen: seen.into() });
        Self {
            undecided: undecided.collect(),
            dropped: seen.dropped,
            replies: seen.replies,
            link_local: seen.link,
            not_connections: recording.skipped.clone(),
            lost: recording.lost,
            malformed: recording.malformed,
            not_known: &[],
        }
    }

    /// What manifests don't show.
    pub(super) fn of_needs(needs: &Needs, not_known: &'a [String]) -> Self {
        let none = Seen::default();
        let undecided =
            needs.undecided.iter().map(|why| JsonUndecided { why: why.clone(), seen: (&none).into() });
        Self {
            undecided: undecided.collect(),
            dropped: none,
            replies: none,
            link_local: none,
            not_connections: BTreeMap::new(),
            lost: 0,
            malformed: 0,
            not_known,
        }
    }
}

/// Encodes a suggestion.
pub(super) fn document(
    suggestion: &Suggestion,
    basis: Basis<'_>,
    rest: Rest<'_>,
    incomplete: Vec<JsonMissing<'_>>,
) -> Result<String> {
    let complete = suggestion.denied.is_empty() && rest.undecided.is_empty() && rest.malformed == 0;
    Encoding::Json.encode(&Document {
        schema: SCHEMA,
        complete,
        namespaces: suggestion.namespaces.iter().map(|name| &**name).collect(),
        policies: suggestion.policies.iter().map(|one| policy(one, basis)).collect(),
        allowed: (&suggestion.allowed).into(),
        denied: suggestion.denied.iter().map(|one| denied(one, basis)).collect(),
        limits: suggestion.limits.iter().map(limit).collect(),
        pairs: pairs(&suggestion.excess),
        undecided: rest.undecided,
        left_out: JsonLeftOut {
            elsewhere: (&suggestion.elsewhere).into(),
            dropped: (&rest.dropped).into(),
            replies: (&rest.replies).into(),
            link_local: (&rest.link_local).into(),
            not_connections: &rest.not_connections,
            system_namespaces: suggestion.system.iter().map(|name| &**name).collect(),
        },
        lost: rest.lost,
        malformed: rest.malformed,
        not_known: rest.not_known,
        incomplete,
    })
}

fn policy(suggested: &SuggestedPolicy, basis: Basis<'_>) -> JsonPolicy {
    let rules = |rules: &[Vec<SeenConnection>]| {
        rules.iter().map(|seen| seen.iter().map(|one| connection(one, basis)).collect()).collect()
    };
    JsonPolicy {
        purpose: match suggested.purpose {
            Purpose::DefaultDeny => "default-deny",
            Purpose::Dns { .. } => "dns",
            Purpose::DnsServers => "dns-servers",
            Purpose::Names { .. } => "names",
            Purpose::Seen(_) => "seen",
        },
        text: purpose(suggested, basis),
        object: manifest::policy(&suggested.policy),
        ingress: rules(&suggested.ingress),
        egress: rules(&suggested.egress),
    }
}

fn connection(one: &SeenConnection, basis: Basis<'_>) -> JsonConnection {
    let SeenConnection { from, to, protocol, port, seen } = one;
    JsonConnection {
        source: from.to_string(),
        destination: to.to_string(),
        protocol: protocol.to_string(),
        port: protocol.has_ports().then_some(*port),
        seen: JsonSeen { evidence: basis.evidence(seen).map(str::to_owned), ..seen.into() },
    }
}

fn denied(one: &DeniedFlow, basis: Basis<'_>) -> JsonDenied {
    let side =
        |of: Direction| one.sides.iter().find(|(direction, _)| *direction == of).map(|(_, side)| side.into());
    JsonDenied {
        connection: connection(&one.connection, basis),
        egress: side(Direction::Egress),
        ingress: side(Direction::Ingress),
    }
}

fn pairs(excess: &Excess) -> JsonPairs {
    let more = excess.more.iter().map(|edge| JsonMore {
        source: edge.from.to_string(),
        destination: edge.to.to_string(),
        ports: edge.traffic.to_string(),
    });
    JsonPairs {
        all: excess.pairs,
        today: excess.today,
        seen: excess.seen,
        suggested: excess.suggested,
        more_total: excess.more_total,
        more: more.collect(),
    }
}

impl From<&Seen> for JsonSeen {
    fn from(seen: &Seen) -> Self {
        let Seen { connections, records, count, line } = *seen;
        Self { connections, records, count, line, evidence: None }
    }
}
