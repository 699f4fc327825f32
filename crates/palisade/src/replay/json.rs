//! The result of a replay for programs.

use std::collections::BTreeMap;

use palisade_analysis::replay::JudgedEnd;
use palisade_policy::{Direction, Endpoint, Side};
use serde::Serialize;

use super::{
    outcome::{Connection, Counted, Group, Replay, end_name},
    recording::Recording,
    text::why_not,
};
use crate::{
    cluster::JsonMissing,
    output::Encoding,
    reasons::{self, JsonSide},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.replay/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    records: u64,
    connections: usize,
    breaks: bool,
    dropped: Vec<JsonGroup>,
    allowed: Vec<JsonGroup>,
    unchanged: JsonCounted,
    stale: JsonCounted,
    undecided: Vec<JsonUndecided>,
    by_recorded_labels: JsonCounted,
    not_replayed: &'a BTreeMap<&'static str, u64>,
    lost: u64,
    malformed: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonCounted {
    connections: u64,
    records: u64,
}

#[derive(Serialize)]
struct JsonUndecided {
    why: String,
    connections: u64,
    records: u64,
    line: usize,
}

#[derive(Serialize)]
struct JsonGroup {
    cause: Vec<String>,
    connections: Vec<JsonConnection>,
}

#[derive(Serialize)]
struct JsonConnection {
    source: JsonEnd,
    destination: JsonEnd,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    records: u64,
    count: u64,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<JsonSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<JsonSide>,
}

#[derive(Serialize)]
struct JsonEnd {
    name: String,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    by_recorded_labels: bool,
}

/// Encodes the result.
pub(super) fn document(
    replay: &Replay,
    recording: &Recording,
    incomplete: Vec<JsonMissing<'_>>,
    encoding: Encoding,
) -> anyhow::Result<String> {
    let undecided = replay.undecided.iter().map(|(why, of)| JsonUndecided {
        why: why_not(why),
        connections: of.counted.connections,
        records: of.counted.records,
        line: of.line,
    });
    encoding.encode(&Document {
        schema: SCHEMA,
        records: recording.flows.values().map(|tally| tally.records).sum(),
        connections: recording.flows.len(),
        breaks: !replay.dropped.is_empty(),
        dropped: replay.dropped.iter().map(group).collect(),
        allowed: replay.allowed.iter().map(group).collect(),
        unchanged: counted(replay.unchanged),
        stale: counted(replay.stale),
        undecided: undecided.collect(),
        by_recorded_labels: counted(replay.by_labels),
        not_replayed: &recording.skipped,
        lost: recording.lost,
        malformed: recording.malformed,
        incomplete,
    })
}

fn counted(of: Counted) -> JsonCounted {
    JsonCounted { connections: of.connections, records: of.records }
}

fn group(group: &Group) -> JsonGroup {
    let cause = |(direction, side): &(Direction, Side)| {
        let first = reasons::lines(side, *direction).into_iter().next()?;
        Some(format!("{direction}: {first}"))
    };
    JsonGroup {
        cause: group.sides.iter().filter_map(cause).collect(),
        connections: group.connections.iter().map(connection).collect(),
    }
}

fn connection(connection: &Connection) -> JsonConnection {
    let Connection { ends: [from, to], protocol, port, sides, tally } = connection;
    let side =
        |of: Direction| sides.iter().find(|(direction, _)| *direction == of).map(|(_, side)| side.into());
    JsonConnection {
        source: end(from),
        destination: end(to),
        protocol: protocol.to_string(),
        port: protocol.has_ports().then_some(*port),
        records: tally.records,
        count: tally.count,
        line: tally.line,
        egress: side(Direction::Egress),
        ingress: side(Direction::Ingress),
    }
}

fn end(end: &JudgedEnd) -> JsonEnd {
    let pod = match &end.endpoint {
        Endpoint::Pod { key, .. } => Some(key.to_string()),
        Endpoint::Node { .. } | Endpoint::External(_) => None,
    };
    JsonEnd {
        name: end_name(end),
        address: end.endpoint.address().to_string(),
        pod,
        by_recorded_labels: end.by_recorded_labels,
    }
}
