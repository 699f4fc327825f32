//! The answer as JSON and YAML, described in docs/connections.md.

use std::io::{self, Write};

use palisade_analysis::{BlockedTraffic, Edge};
use serde::{Serialize, Serializer};

use super::report::Report;
use crate::{
    cluster::JsonMissing,
    connection_ends::{JsonEnd, JsonObject, NamedEnd},
    traffic::{JsonTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.connections/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    shows: &'static str,
    group_by: &'static str,
    classes: usize,
    ends: Ends<'a>,
    connections: Edges<'a>,
    bystanders: Vec<Bystander<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<JsonBlocked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

/// Connections that routes request and policies deny.
#[derive(Serialize)]
struct JsonBlocked<'a> {
    to: &'a str,
    families: Vec<String>,
    #[serde(flatten)]
    traffic: JsonTraffic,
    through: Vec<JsonObject<'a>>,
}

/// The ends, serialized one by one.
struct Ends<'a>(&'a Report<'a>, Vec<usize>);

impl Serialize for Ends<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = |end: &usize| -> JsonEnd<'_> {
            let end: &NamedEnd<'_> = &self.0.ends[*end];
            end.json(self.0.loaded)
        };
        serializer.collect_seq(self.1.iter().map(json))
    }
}

/// The edges, serialized one by one, since there may be millions.
struct Edges<'a>(&'a Report<'a>);

impl Serialize for Edges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.edges().map(|edge| Connection::new(self.0, &edge)))
    }
}

#[derive(Serialize)]
struct Connection<'a> {
    from: &'a str,
    to: &'a str,
    families: Vec<String>,
    #[serde(flatten)]
    traffic: JsonTraffic,
    exact: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    through: Vec<JsonObject<'a>>,
}

impl<'a> Connection<'a> {
    fn new(report: &'a Report<'_>, edge: &Edge<'_>) -> Self {
        Self {
            from: report.id(edge.from),
            to: report.id(edge.to),
            families: family_names(edge.families),
            traffic: edge.traffic.into(),
            exact: edge.exact,
            through: edge.through.iter().map(|r| JsonObject::of_route(&report.loaded.routes[*r])).collect(),
        }
    }
}

#[derive(Serialize)]
struct Bystander<'a> {
    namespace: &'a str,
    pod: &'a str,
    workload_kind: &'a str,
    workload: &'a str,
    node: Option<&'a str>,
}

fn document<'a>(report: &'a Report<'a>, incomplete: Vec<JsonMissing<'a>>) -> Document<'a> {
    let bystander = |b: &'a palisade_analysis::UnaffectedPod| Bystander {
        namespace: &b.pod.namespace,
        pod: &b.pod.name,
        workload_kind: &b.workload_kind,
        workload: &b.workload_name,
        node: b.host_network_of.as_deref(),
    };
    let blocked = |b: &'a BlockedTraffic| JsonBlocked {
        to: report.id(b.to),
        families: family_names(b.families),
        traffic: (&b.traffic).into(),
        through: b.through.iter().map(|r| JsonObject::of_route(&report.loaded.routes[*r])).collect(),
    };
    Document {
        schema: SCHEMA,
        shows: if report.denied { "denied" } else { "allowed" },
        group_by: report.grouping,
        classes: report.answer.classes(),
        ends: Ends(report, report.visible_ends().any),
        connections: Edges(report),
        bystanders: report.answer.unaffected_pods().iter().map(bystander).collect(),
        blocked: report.blocked().map(blocked).collect(),
        incomplete,
    }
}

/// Writes JSON.
pub(crate) fn json(
    report: &Report<'_>,
    incomplete: Vec<JsonMissing<'_>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(report, incomplete))?;
    writeln!(out)
}

/// Writes the same as YAML.
pub(crate) fn yaml(
    report: &Report<'_>,
    incomplete: Vec<JsonMissing<'_>>,
    mut out: &mut dyn Write,
) -> io::Result<()> {
    serde_saphyr::to_io_writer(&mut out, &document(report, incomplete)).map_err(io::Error::other)
}
