//! A difference as JSON and YAML, described in docs/schemas/diff.json.

use std::collections::HashMap;

use palisade_analysis::{
    ConnectionEnd,
    diff::{Cause, ConnectionChange, Directions, DnsChange, Edit, EndChange, EndTraffic, Presence},
};
use palisade_policy::PolicyKey;
use serde::Serialize;

use super::{
    comparison::{Comparison, DiffNote, EditedObject},
    summary::Summary,
    wording,
};
use crate::{
    cluster::JsonMissing,
    connection_ends::{self, JsonEnd, JsonObject},
    output::Encoding,
    traffic::{JsonTraffic, VisibleTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.diff/v2";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    result: &'static str,
    summary: Summary,
    causes: Vec<JsonCause<'a>>,
    changes: Vec<JsonChange<'a>>,
    ends: Vec<JsonEndChange<'a>>,
    dns: Vec<JsonDns<'a>>,
    policies_without_effect: Vec<JsonPolicy<'a>>,
    policies_renamed: Vec<JsonPolicy<'a>>,
    undecided: Vec<JsonNote<'a>>,
    notes: Vec<JsonNote<'a>>,
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

#[derive(Serialize)]
struct JsonNote<'a> {
    code: &'a str,
    text: String,
}

/// Renders the difference.
pub(crate) fn document(comparison: &Comparison, encoding: Encoding) -> anyhow::Result<String> {
    let difference = &comparison.difference;
    let mut causes: Vec<&Edit> = Vec::new();
    let mut numbers: HashMap<&Edit, usize> = HashMap::new();
    for Cause { edit, .. } in difference.changes.iter().flat_map(|change| &change.causes) {
        numbers.entry(edit).or_insert_with(|| {
            causes.push(edit);
            causes.len() - 1
        });
    }
    let blocked = wording::blocked(comparison);
    let blocked = blocked.into_iter().map(|text| JsonNote { code: "route-denied", text });
    let notes = comparison.notes.iter().map(|DiffNote { code, text }| JsonNote { code, text: text.clone() });
    let document = Document {
        schema: SCHEMA,
        result: if !comparison.undecided.is_empty() {
            "undecided"
        } else if difference.is_same() {
            "identical"
        } else {
            "different"
        },
        summary: Summary::new(comparison),
        causes: causes.into_iter().map(|edit| cause(comparison, edit)).collect(),
        changes: difference.changes.iter().flat_map(|c| changes(comparison, c, &numbers)).collect(),
        ends: difference.ends.iter().map(|end| end_change(comparison, end)).collect(),
        dns: difference.dns.iter().map(|dns| dns_change(comparison, dns)).collect(),
        policies_without_effect: difference
            .policies_without_effect()
            .map(|(key, _)| policy(comparison, key))
            .collect(),
        policies_renamed: comparison.renamed().map(|key| policy(comparison, key)).collect(),
        undecided: comparison
            .undecided
            .iter()
            .map(|DiffNote { code, text }| JsonNote { code, text: text.clone() })
            .collect(),
        notes: notes.chain(blocked).collect(),
        incomplete: comparison.missing.iter().map(Into::into).collect(),
    };
    encoding.encode(&document)
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
