//! A difference as JSON and YAML, described in docs/schemas/diff.json.

use std::collections::HashMap;

use palisade_analysis::{
    ConnectionEnd,
    diff::{
        Cause, ConnectionChange, Directions, DnsChange, Edit, EndChange, EndTraffic, FutureChange,
        FuturePods, Presence,
    },
    exposure::{ExposureRow, PodSet},
};
use palisade_manifest::Note;
use palisade_policy::PolicyKey;
use serde::Serialize;

use super::{
    comparison::{Comparison, EditedObject},
    summary::Summary,
    wording,
};
use crate::{
    cluster::JsonMissing,
    connection_ends::{self, JsonEnd, JsonObject},
    exit::Outcome,
    future_pods::{JsonFuturePods, JsonPodTraffic},
    traffic::{JsonTraffic, VisibleTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.diff/v2";

/// A difference as JSON.
#[derive(Serialize)]
pub(crate) struct JsonDiff<'a> {
    schema: &'static str,
    result: &'static str,
    summary: Summary,
    causes: Vec<JsonCause<'a>>,
    changes: Vec<JsonChange<'a>>,
    ends: Vec<JsonEndChange<'a>>,
    exposure: Vec<JsonFuture<'a>>,
    dns: Vec<JsonDns<'a>>,
    policies_without_effect: Vec<JsonPolicy<'a>>,
    policies_renamed: Vec<JsonPolicy<'a>>,
    undecided: Vec<Note>,
    notes: Vec<Note>,
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonChange<'a> {
    change: &'static str,
    from: JsonEnd<'a>,
    to: JsonEnd<'a>,
    families: Vec<String>,
    traffic: JsonTraffic,
    causes: Vec<JsonCauseOf>,
}

/// A cause of a change: an index into `causes`, and the directions whose verdict it changes.
#[derive(Serialize)]
struct JsonCauseOf {
    cause: usize,
    directions: Vec<&'static str>,
}

#[derive(Serialize)]
struct JsonCause<'a> {
    change: &'static str,
    what: &'static str,
    object: Option<JsonObject<'a>>,
    before: Option<JsonObject<'a>>,
    after: Option<JsonObject<'a>>,
    label: Option<JsonLabel<'a>>,
    text: String,
}

#[derive(Serialize)]
struct JsonLabel<'a> {
    key: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonEndChange<'a> {
    change: &'static str,
    end: JsonEnd<'a>,
    sends: Vec<JsonEndTraffic>,
    receives: Vec<JsonEndTraffic>,
}

#[derive(Serialize)]
struct JsonEndTraffic {
    ends: Vec<String>,
    families: Vec<String>,
    traffic: JsonTraffic,
}

/// What changes for pods that don't exist yet.
#[derive(Serialize)]
struct JsonFuture<'a> {
    change: &'static str,
    direction: String,
    subjects: Vec<JsonSubject<'a>>,
    any_pod: JsonPodTraffic,
    rows: Vec<JsonFutureRow>,
    sets: Vec<JsonFutureRow>,
    ends: Vec<JsonEndTraffic>,
    exact: bool,
    causes: Vec<usize>,
}

/// A workload, or pods that a selector selects.
#[derive(Serialize)]
struct JsonSubject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<JsonEnd<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<JsonFuturePods>,
}

#[derive(Serialize)]
struct JsonFutureRow {
    pods: JsonFuturePods,
    exists: bool,
    all: JsonPodTraffic,
    some: JsonPodTraffic,
}

#[derive(Serialize)]
struct JsonDns<'a> {
    change: &'static str,
    end: JsonEnd<'a>,
}

#[derive(Serialize)]
struct JsonPolicy<'a> {
    change: &'static str,
    object: Option<JsonObject<'a>>,
    before: Option<JsonObject<'a>>,
    after: Option<JsonObject<'a>>,
    selected_pods: usize,
}

/// Renders the difference.
pub(crate) fn document(comparison: &Comparison) -> JsonDiff<'_> {
    let difference = &comparison.difference;
    let mut causes: Vec<&Edit> = Vec::new();
    let mut numbers: HashMap<&Edit, usize> = HashMap::new();
    let of_changes =
        difference.changes.iter().flat_map(|change| &change.causes).map(|Cause { edit, .. }| edit);
    for edit in of_changes.chain(difference.exposure.iter().flat_map(|change| &change.causes)) {
        numbers.entry(edit).or_insert_with(|| {
            causes.push(edit);
            causes.len() - 1
        });
    }
    let blocked = wording::blocked(comparison);
    let blocked = blocked.into_iter().map(|text| Note::new("route-denied", text));
    let notes = comparison.all_notes().into_iter().cloned();
    JsonDiff {
        schema: SCHEMA,
        result: match comparison.outcome() {
            Outcome::Yes => "identical",
            Outcome::No => "different",
            _ => "undecided",
        },
        summary: Summary::new(comparison),
        causes: causes.into_iter().map(|edit| cause(comparison, edit)).collect(),
        changes: difference.changes.iter().flat_map(|c| changes(comparison, c, &numbers)).collect(),
        ends: difference.ends.iter().map(|end| end_change(comparison, end)).collect(),
        exposure: difference.exposure.iter().map(|change| future(comparison, change, &numbers)).collect(),
        dns: difference.dns.iter().map(|dns| dns_change(comparison, dns)).collect(),
        policies_without_effect: difference
            .policies_without_effect()
            .map(|(key, _)| policy(comparison, key))
            .collect(),
        policies_renamed: comparison.renamed().map(|key| policy(comparison, key)).collect(),
        undecided: comparison.undecided.clone(),
        notes: notes.chain(blocked).collect(),
        incomplete: comparison.incomplete().collect(),
    }
}

/// Returns what a change opens and what it closes.
fn changes<'a>(
    comparison: &'a Comparison,
    change: &'a ConnectionChange,
    numbers: &HashMap<&'a Edit, usize>,
) -> impl Iterator<Item = JsonChange<'a>> {
    let loaded = &comparison.sides[1];
    let sides = [("opened", &change.opened), ("closed", &change.closed)];
    let sides = sides.into_iter().filter(|(_, traffic)| !VisibleTraffic::of(traffic).is_none());
    let causes = |causes: &'a [Cause]| {
        let of = |c: &Cause| {
            Some(JsonCauseOf { cause: *numbers.get(&c.edit)?, directions: directions(c.directions) })
        };
        causes.iter().filter_map(of).collect()
    };
    sides.map(move |(word, traffic)| JsonChange {
        change: word,
        from: connection_ends::json(&change.from, loaded),
        to: connection_ends::json(&change.to, loaded),
        families: family_names(change.families),
        traffic: traffic.into(),
        causes: causes(&change.causes),
    })
}

fn directions(directions: Directions) -> Vec<&'static str> {
    let all = [(directions.egress, "egress"), (directions.ingress, "ingress")];
    all.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect()
}

fn cause<'a>(comparison: &'a Comparison, edit: &'a Edit) -> JsonCause<'a> {
    let object = comparison.object(edit);
    let what = match edit {
        Edit::Policy(_) => "policy",
        Edit::Label { .. } => "label",
        Edit::Namespace(..) => "namespace",
        Edit::Ports(_) => "ports",
        Edit::Addresses(_) => "addresses",
        Edit::Service(..) => "service",
        Edit::Route(..) => "route",
    };
    let label = match edit {
        Edit::Label { key, before, after, .. } => {
            Some(JsonLabel { key, before: before.as_deref(), after: after.as_deref() })
        }
        _ => None,
    };
    let EditedObject { change, .. } = object;
    JsonCause {
        change: change.word(),
        what,
        object: object.json_object(),
        before: object.json(0),
        after: object.json(1),
        label,
        text: wording::edit(comparison, edit),
    }
}

fn end_change<'a>(comparison: &'a Comparison, end: &'a EndChange) -> JsonEndChange<'a> {
    let removed = end.change == Presence::Removed;
    let all = |all: &[EndTraffic]| all.iter().map(end_traffic).collect();
    JsonEndChange {
        change: if removed { "removed" } else { "added" },
        end: connection_ends::json(&end.end, comparison.side_of(removed)),
        sends: all(&end.sends),
        receives: all(&end.receives),
    }
}

fn end_traffic(peers: &EndTraffic) -> JsonEndTraffic {
    JsonEndTraffic {
        ends: peers.ends.iter().map(connection_ends::name).collect(),
        families: family_names(peers.families),
        traffic: (&peers.traffic).into(),
    }
}

fn future<'a>(
    comparison: &'a Comparison,
    change: &'a FutureChange,
    numbers: &HashMap<&'a Edit, usize>,
) -> JsonFuture<'a> {
    let subject = |subject: &'a FuturePods| match subject {
        FuturePods::Existing(end) => {
            JsonSubject { end: Some(connection_ends::json(end, &comparison.sides[1])), pods: None }
        }
        FuturePods::Selected(choice) => {
            JsonSubject { end: None, pods: PodSet::of(choice).map(|set| (&set).into()) }
        }
    };
    let row = |row: &ExposureRow| JsonFutureRow {
        pods: (&row.set).into(),
        exists: row.exists,
        all: (&row.reached.all).into(),
        some: (&row.reached.some).into(),
    };
    JsonFuture {
        change: if change.opened { "opened" } else { "closed" },
        direction: change.direction.to_string(),
        subjects: change.subjects.iter().map(subject).collect(),
        any_pod: (&change.any_pod).into(),
        rows: change.rows.iter().map(row).collect(),
        sets: change.sets.iter().map(row).collect(),
        ends: change.ends.iter().map(end_traffic).collect(),
        exact: change.exact,
        causes: change.causes.iter().filter_map(|edit| numbers.get(edit).copied()).collect(),
    }
}

fn dns_change<'a>(comparison: &'a Comparison, dns: &'a DnsChange) -> JsonDns<'a> {
    let end: &ConnectionEnd = &dns.end;
    let change = if dns.opened { "opened" } else { "closed" };
    JsonDns { change, end: connection_ends::json(end, &comparison.sides[1]) }
}

fn policy<'a>(comparison: &'a Comparison, key: &'a PolicyKey) -> JsonPolicy<'a> {
    let object = comparison.policy(key);
    let pods = comparison.difference.policies.get(key).map_or([0, 0], |edit| edit.pods);
    JsonPolicy {
        change: object.change.word(),
        object: object.json_object(),
        before: object.json(0),
        after: object.json(1),
        selected_pods: pods[0].max(pods[1]),
    }
}
