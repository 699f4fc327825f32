//! A difference as JSON.

use palisade_analysis::diff::{Cause, ConnectionChange, Presence};
use serde::Serialize;

use super::{
    comparison::Comparison,
    text::{idle_policies, word},
};
use crate::{
    cluster::JsonMissing,
    connection_ends::{self, JsonEnd, JsonObject},
    output::Encoding,
    traffic::{JsonTraffic, family_names},
};

/// The schema of the JSON. Its version is raised when a field changes its meaning or is removed.
const SCHEMA: &str = "palisade.diff/v1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    same: bool,
    changes: Vec<JsonChange<'a>>,
    policies_without_effect: Vec<JsonPolicy<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
}

#[derive(Serialize)]
struct JsonChange<'a> {
    from: JsonEnd<'a>,
    to: JsonEnd<'a>,
    families: Vec<String>,
    opened: JsonTraffic,
    closed: JsonTraffic,
    ends: &'static str,
    causes: Vec<JsonCause<'a>>,
}

#[derive(Serialize)]
struct JsonCause<'a> {
    direction: String,
    change: &'static str,
    before: Option<JsonObject<'a>>,
    after: Option<JsonObject<'a>>,
}

#[derive(Serialize)]
struct JsonPolicy<'a> {
    change: &'static str,
    #[serde(flatten)]
    object: JsonObject<'a>,
}

/// Renders the difference as JSON.
pub(crate) fn document(comparison: &Comparison, encoding: Encoding) -> anyhow::Result<String> {
    let policies = idle_policies(comparison).map(|(key, change)| {
        let of = |loaded: &'_ palisade_manifest::Loaded| loaded.cluster.policies.contains_key(key);
        let loaded = if of(&comparison.after) { &comparison.after } else { &comparison.before };
        let at = loaded.cluster.policies.get(key).and_then(|p| p.origin.as_ref());
        JsonPolicy { change: word(change), object: JsonObject::of_policy(key, at) }
    });
    let document = Document {
        schema: SCHEMA,
        same: comparison.difference.changes.is_empty(),
        changes: comparison.difference.changes.iter().map(|c| change(comparison, c)).collect(),
        policies_without_effect: policies.collect(),
        incomplete: comparison.missing.iter().map(Into::into).collect(),
    };
    encoding.encode(&document)
}

fn change<'a>(comparison: &'a Comparison, change: &'a ConnectionChange) -> JsonChange<'a> {
    let loaded = if change.presence == Presence::Before { &comparison.before } else { &comparison.after };
    JsonChange {
        from: connection_ends::json(&change.from, loaded),
        to: connection_ends::json(&change.to, loaded),
        families: family_names(change.families),
        opened: (&change.opened).into(),
        closed: (&change.closed).into(),
        ends: match change.presence {
            Presence::Both => "both",
            Presence::Before => "gone",
            Presence::After => "new",
        },
        causes: change.causes.iter().map(|c| cause(comparison, c)).collect(),
    }
}

fn cause<'a>(comparison: &'a Comparison, cause: &'a Cause) -> JsonCause<'a> {
    let Cause { direction, policy, change, before, after } = cause;
    let object = |loaded: &palisade_manifest::Loaded, at: &'a Option<palisade_policy::Origin>| {
        let there = loaded.cluster.policies.contains_key(policy);
        there.then(|| JsonObject::of_policy(policy, at.as_ref()))
    };
    JsonCause {
        direction: direction.to_string(),
        change: word(*change),
        before: object(&comparison.before, before),
        after: object(&comparison.after, after),
    }
}
