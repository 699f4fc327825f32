//! A description as JSON.

use palisade_analysis::{
    AddressQuestion, Description,
    describe::{PeerTraffic, PolicyEffect, Side},
};
use palisade_manifest::Loaded;
use serde::Serialize;

use super::exposure::{self, JsonExposure};
use crate::{
    addresses::{self, JsonUndecided},
    cluster::JsonMissing,
    connection_ends::{self, JsonEnd, JsonObject},
    inputs::LoadedInputs,
    output::Encoding,
    reasons::{action_word, tier_word},
    traffic::{JsonTraffic, family_names},
};

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    kind: &'static str,
    parts: Vec<JsonPart<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonUndecided<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<JsonMissing<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<palisade_manifest::Note>,
}

#[derive(Serialize)]
struct JsonPart<'a> {
    end: JsonEnd<'a>,
    egress: JsonSide<'a>,
    ingress: JsonSide<'a>,
}

#[derive(Serialize)]
struct JsonSide<'a> {
    isolated: bool,
    policies: Vec<JsonPolicy<'a>>,
    peers: Vec<JsonPeer<'a>>,
    /// The traffic that depends on addresses that are not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undecided: Vec<JsonPeer<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<JsonForwarding<'a>>,
    exposure: JsonExposure,
}

#[derive(Serialize)]
struct JsonPolicy<'a> {
    #[serde(flatten)]
    object: JsonObject<'a>,
    tier: &'static str,
    effects: Vec<JsonEffect<'a>>,
}

#[derive(Serialize)]
struct JsonEffect<'a> {
    end: JsonEnd<'a>,
    action: &'static str,
    matches: JsonTraffic,
    alone: JsonTraffic,
}

#[derive(Serialize)]
struct JsonPeer<'a> {
    end: JsonEnd<'a>,
    families: Vec<String>,
    traffic: JsonTraffic,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    through: Vec<JsonObject<'a>>,
}

/// Connections that routes request and policies deny.
#[derive(Serialize)]
struct JsonForwarding<'a> {
    families: Vec<String>,
    traffic: JsonTraffic,
    through: Vec<JsonObject<'a>>,
}

/// Renders the description as JSON.
pub(crate) fn document(
    description: &Description,
    world: &LoadedInputs,
    encoding: Encoding,
) -> anyhow::Result<String> {
    let loaded = &world.loaded;
    let parts = description.parts.iter().map(|part| {
        // The analysis returns egress first.
        let [egress, ingress] = &part.sides;
        JsonPart {
            end: connection_ends::json(&part.end, loaded),
            egress: side(egress, loaded),
            ingress: side(ingress, loaded),
        }
    });
    let questions = questions(description);
    let document = Document {
        schema: super::SCHEMA,
        kind: "workload",
        parts: parts.collect(),
        undecided: addresses::json_undecided(&questions, !questions.is_empty(), loaded),
        incomplete: world.incomplete(),
        notes: addresses::notes(loaded),
    };
    encoding.encode(&document)
}

/// Returns the rules that ask for addresses that are not known, each once.
fn questions(description: &Description) -> Vec<AddressQuestion> {
    let mut found: Vec<AddressQuestion> = Vec::new();
    for question in description.parts.iter().flat_map(|part| &part.sides).flat_map(|side| &side.questions) {
        if !found.contains(question) {
            found.push(question.clone());
        }
    }
    found
}

fn side<'a>(side: &'a Side, loaded: &'a Loaded) -> JsonSide<'a> {
    let peer = |peer: &'a PeerTraffic| JsonPeer {
        end: connection_ends::json(&peer.end, loaded),
        families: family_names(peer.families),
        traffic: (&peer.traffic).into(),
        through: peer.through.iter().map(|r| JsonObject::of_route(&loaded.routes[*r])).collect(),
    };
    let blocked = side.blocked.iter().map(|blocked| JsonForwarding {
        families: family_names(blocked.families),
        traffic: (&blocked.traffic).into(),
        through: blocked.through.iter().map(|r| JsonObject::of_route(&loaded.routes[*r])).collect(),
    });
    JsonSide {
        isolated: side.isolated,
        policies: side.policies.iter().map(|p| policy(p, loaded)).collect(),
        peers: side.peers.iter().map(peer).collect(),
        undecided: side.undecided.iter().map(peer).collect(),
        blocked: blocked.collect(),
        exposure: exposure::json(&side.internet, &side.exposure),
    }
}

fn policy<'a>(policy: &'a PolicyEffect, loaded: &'a Loaded) -> JsonPolicy<'a> {
    let effects = policy.effects.iter().map(|effect| JsonEffect {
        end: connection_ends::json(&effect.end, loaded),
        action: action_word(effect.action),
        matches: (&effect.matches).into(),
        alone: (&effect.alone).into(),
    });
    JsonPolicy {
        object: JsonObject::of_policy(&policy.policy, policy.origin.as_ref()),
        tier: tier_word(policy.tier),
        effects: effects.collect(),
    }
}
