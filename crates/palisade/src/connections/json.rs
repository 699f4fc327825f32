//! The answer as JSON and YAML, described in docs/connections.md.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use palisade_analysis::{BlockedTraffic, Families, FoldedConnections, FoldedEdge};
use palisade_policy::{Direction, Traffic};
use serde::{Serialize, Serializer};

use super::{
    Undecided, lines,
    reasons::JsonReasons,
    report::Report,
    sets::{self, SetNames},
};
use crate::{
    addresses::{self, JsonQuestion},
    cluster::JsonMissing,
    connection_ends::{JsonEnd, JsonObject},
    traffic::{JsonTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.connections/v2";

/// A set is written as what it leaves out if that is this many times shorter.
const SHORTER: usize = 4;

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    shows: &'static str,
    group_by: &'static str,
    classes: usize,
    ends: Vec<End<'a>>,
    sets: Vec<Set<'a>>,
    connections: Edges<'a>,
    bystanders: Vec<Bystander<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<JsonBlocked<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonUndecidedEdge<'a>>,
    /// The IP families that were considered.
    families: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<palisade_manifest::Note>,
}

/// Connections that depend on addresses that are not known, and the rules that ask for them.
#[derive(Serialize)]
struct JsonUndecidedEdge<'a> {
    from: &'a str,
    to: &'a str,
    families: Vec<String>,
    #[serde(flatten)]
    traffic: JsonTraffic,
    rules: Vec<JsonQuestion<'a>>,
}

/// An end, and what it takes to expand sets.
#[derive(Serialize)]
struct End<'a> {
    #[serde(flatten)]
    end: JsonEnd<'a>,
    families: Vec<String>,
    /// The number of pods.
    size: usize,
    /// The directions that no policy restricts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_isolated: Vec<String>,
}

/// Several ends with the same connections.
#[derive(Serialize)]
struct Set<'a> {
    id: &'a str,
    #[serde(flatten)]
    members: Members<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Members<'a> {
    Ends(Vec<&'a str>),
    AllBut(Vec<&'a str>),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<JsonReasons>,
}

impl<'a> Connection<'a> {
    fn new(
        report: &'a Report<'_>,
        (from, to): (&'a str, &'a str),
        (families, traffic): (Families, &Traffic),
        exact: bool,
        through: &'a [usize],
        label: u32,
    ) -> Self {
        Self {
            from,
            to,
            families: family_names(families),
            traffic: traffic.into(),
            exact,
            through: through.iter().map(|r| JsonObject::of_route(&report.loaded.routes[*r])).collect(),
            reasons: report.reasoner.map(|reasoner| (&*reasoner.reasons(label)).into()),
        }
    }
}

/// The connections, serialized one by one, since there may be millions without folding.
struct Edges<'a> {
    report: &'a Report<'a>,
    /// The folded connections, and the names of their sets.
    folded: Option<(&'a FoldedConnections<'a>, &'a [String])>,
}

impl Serialize for Edges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let report = self.report;
        let Some((folded, ids)) = self.folded else {
            return serializer.collect_seq(report.edges().map(|edge| {
                let ends = (report.id(edge.from), report.id(edge.to));
                let label =
                    report.reasoner.and_then(|r| r.label(edge.from, edge.to, edge.families, edge.traffic));
                let traffic = (edge.families, edge.traffic);
                Connection::new(report, ends, traffic, edge.exact, edge.through, label.unwrap_or_default())
            }));
        };
        serializer.collect_seq(folded.edges.iter().map(|edge: &FoldedEdge<'_>| {
            let ends = (&*ids[edge.from], &*ids[edge.to]);
            let traffic = (edge.families, edge.traffic);
            Connection::new(report, ends, traffic, edge.exact, edge.through, edge.label)
        }))
    }
}

#[derive(Serialize)]
struct Bystander<'a> {
    object: JsonObject<'a>,
    workload: JsonObject<'a>,
    node: Option<JsonObject<'a>>,
}

/// Names the sets. A set of one end has the name of the end.
fn ids(report: &Report<'_>, folded: &FoldedConnections<'_>) -> Vec<String> {
    let names = SetNames::new(&report.ends, report.grouping);
    let mut seen: HashMap<String, usize> = HashMap::new();
    let id = |set: &Vec<usize>| {
        if let [end] = set[..] {
            return report.id(end).to_owned();
        }
        let id = sets::short(&names.terms(set));
        let times = seen.entry(id.clone()).or_default();
        *times += 1;
        if *times > 1 { format!("{id} #{times}") } else { id }
    };
    folded.sets.iter().map(id).collect()
}

fn end<'a>(report: &'a Report<'_>, number: usize) -> End<'a> {
    let free = |direction: &Direction| report.answer.is_unrestricted(number, *direction);
    let pods = report.ends[number].endpoint.is_pods();
    End {
        end: report.ends[number].json(report.loaded),
        families: family_names(report.answer.families(number)),
        size: report.answer.pods(number),
        not_isolated: match pods {
            true => Direction::BOTH.iter().filter(|d| free(d)).map(ToString::to_string).collect(),
            false => Vec::new(),
        },
    }
}

fn set<'a>(report: &'a Report<'_>, id: &'a str, members: &[usize], ends: &[usize]) -> Set<'a> {
    let names = |ends: &mut dyn Iterator<Item = usize>| ends.map(|end| report.id(end)).collect();
    let left_out = ends.len() - members.len();
    let members = match left_out * SHORTER < members.len() {
        true => Members::AllBut(names(
            &mut ends.iter().copied().filter(|end| members.binary_search(end).is_err()),
        )),
        false => Members::Ends(names(&mut members.iter().copied())),
    };
    Set { id, members }
}

/// Serializes the answer with `write`: folded, or with a connection for each pair of ends.
fn with_document(
    report: &Report<'_>,
    fold: bool,
    undecided: &[Undecided],
    incomplete: Vec<JsonMissing<'_>>,
    write: impl FnOnce(&Document<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let blocked = |b: &'_ BlockedTraffic| JsonBlocked {
        to: report.id(b.to),
        families: family_names(b.families),
        traffic: (&b.traffic).into(),
        through: b.through.iter().map(|r| JsonObject::of_route(&report.loaded.routes[*r])).collect(),
    };
    let undecided = undecided.iter().map(|(edge, questions)| JsonUndecidedEdge {
        from: report.id(edge.from),
        to: report.id(edge.to),
        families: family_names(edge.families),
        traffic: (&edge.traffic).into(),
        rules: questions.iter().map(|question| JsonQuestion::new(question, report.loaded)).collect(),
    });
    let folded = fold.then(|| report.folded());
    let ids = folded.as_ref().map_or_else(Vec::new, |folded| ids(report, folded));
    let ends = match &folded {
        Some(folded) => report.visible_ends_of(folded),
        None => report.visible_ends().any,
    };
    let sets = folded.iter().flat_map(|folded| folded.sets.iter().zip(&ids));
    let sets = sets.filter(|(set, _)| set.len() > 1).map(|(members, id)| set(report, id, members, &ends));
    let bystanders = report.answer.unaffected_pods().iter().map(|b| {
        let namespace = Some(&*b.pod.namespace);
        Bystander {
            object: report.object("Pod", namespace, &b.pod.name),
            workload: report.object(&b.workload_kind, namespace, &b.workload_name),
            node: b.host_network_of.as_ref().map(|name| report.object("Node", None, name)),
        }
    });
    write(&Document {
        schema: SCHEMA,
        shows: if report.denied { "denied" } else { "allowed" },
        group_by: report.grouping,
        classes: report.answer.classes(),
        sets: sets.collect(),
        ends: ends.iter().map(|number| end(report, *number)).collect(),
        connections: Edges { report, folded: folded.as_ref().map(|folded| (folded, &ids[..])) },
        bystanders: bystanders.collect(),
        blocked: report.blocked().map(blocked).collect(),
        undecided: undecided.collect(),
        families: report.loaded.cluster.addressing.families.iter().map(ToString::to_string).collect(),
        incomplete,
        notes: addresses::notes(report.loaded),
    })
}

/// Writes JSON.
pub(crate) fn json(
    report: &Report<'_>,
    fold: bool,
    undecided: &[Undecided],
    incomplete: Vec<JsonMissing<'_>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    with_document(report, fold, undecided, incomplete, |document| lines::write(document, out))
}

/// Writes the same as YAML.
pub(crate) fn yaml(
    report: &Report<'_>,
    fold: bool,
    undecided: &[Undecided],
    incomplete: Vec<JsonMissing<'_>>,
    mut out: &mut dyn Write,
) -> io::Result<()> {
    with_document(report, fold, undecided, incomplete, |document| {
        serde_saphyr::to_io_writer(&mut out, document).map_err(io::Error::other)
    })
}
